"""Beam search: the loop against Hugging Face's, the integers against float64, beams that share a cache against copied caches."""

import math
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from mapped import START, lowered, source_ids

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.program import decode_probe, expected_part, load, save
from ternbin.decoding.beam import beam_search, head_scale, reference_beams, together, visible
from ternbin.decoding.greedy import greedy, reference_run
from ternbin.decoding.lists import candidates
from ternbin.decoding.rules import Candidate
from ternbin.decoding.search import Policy, Search
from ternbin.emulation.machine import Machine, run_call, run_program
from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.random_model import random_stock_bart
from ternbin.sim.check import reference as check_reference

TINY = NAMED["tiny"]

torch.set_num_threads(1)


def stock_step(model, source, top):
    """A step over the histories of the beams, with Hugging Face's own logits."""
    histories: list[list[int]] = []
    encoded = model.get_encoder()(torch.tensor([source]))

    def step(tokens, parents, position):
        nonlocal histories
        earlier = [histories[p] for p in parents] if histories else [[] for _ in tokens]
        histories = [[*old, token] for old, token in zip(earlier, tokens, strict=True)]
        assert all(len(h) == position + 1 for h in histories)
        hidden = encoded.last_hidden_state.expand(len(tokens), -1, -1)
        logits = model(encoder_outputs=(hidden,), decoder_input_ids=torch.tensor(histories)).logits[:, -1]
        (values, ids), normaliser = logits.topk(top), logits.logsumexp(-1).tolist()
        return [
            [Candidate(token, value - total, value) for token, value in zip(i, v, strict=True)]
            for i, v, total in zip(ids.tolist(), values.tolist(), normaliser, strict=True)
        ]

    return step


SEARCHES = [
    {},
    {"length_penalty": 2.0, "early_stopping": True},
    {"no_repeat_ngram_size": 3, "min_length": 5},
    {"length_penalty": -1.0, "early_stopping": "never"},
    {"length_penalty": 0.5, "no_repeat_ngram_size": 2, "early_stopping": "never"},
    {"repetition_penalty": 1.7, "min_length": 4},
    {"repetition_penalty": 0.6, "no_repeat_ngram_size": 3},
    {"suppress_tokens": [4, 9, 17], "begin_suppress_tokens": [2, 5, 11, 23]},
    {"bad_words_ids": [[7], [2], [8, 9], [12, 13, 14], [20, 21]], "length_penalty": 0.0},
    {"eos_token_id": [2, 5, 11], "length_penalty": 2.0},
]


@pytest.mark.parametrize("forced", [None, 0], ids=["free", "forced"])
@pytest.mark.parametrize("options", SEARCHES, ids=str)
@torch.no_grad()
def test_tokens_equal_those_of_hugging_face(options, forced):
    lengths, count = set(), 0
    for seed in range(3):
        model = random_stock_bart(
            vocab=31, seed=seed, forced_bos_token_id=forced, forced_eos_token_id=None if forced is None else 2
        )
        model.final_logits_bias[0, 2] += 0.8  # or hardly any text ends
        model.generation_config.update(forced_bos_token_id=forced, forced_eos_token_id=None if forced is None else 2)
        source = torch.randint(3, 31, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
        for beams in (2, 3, 4):
            prompt = (2,) if forced is None else (2, forced)
            policy = Policy(prompt, 2, None if forced is None else 2, 9)
            policy = replace(policy, eos=tuple(options.get("eos_token_id", [2])))
            own = {name: value for name, value in options.items() if name != "eos_token_id"}
            found = beam_search(policy, Search(beams=beams, **own), stock_step(model, source, 31))
            out = model.generate(  # pyright: ignore[reportAttributeAccessIssue]  # transformers mixes it in
                torch.tensor([source]),
                num_beams=beams,
                max_new_tokens=9,
                min_new_tokens=None,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
                **({"min_length": 0} | options),
            )
            want = out.sequences[0, 1:].tolist()
            end = 1 + next((i for i, token in enumerate(want) if token in policy.ends), len(want) - 1)
            assert found.tokens == want[:end], (seed, beams)
            assert found.score == pytest.approx(out.sequences_scores[0].item(), rel=1e-4)
            limited = beam_search(policy, Search(beams=beams, **own), stock_step(model, source, 2 * beams + 4))
            assert limited.short or limited.tokens == found.tokens
            count += not limited.short or options.get("repetition_penalty", 1) < 1  # lifts tokens beyond the list
            lengths.add(len(found.tokens))
    assert (len(lengths) > 1 or "repetition_penalty" in options) and count > 2


def test_the_best_tokens_and_the_normaliser_are_those_of_float64():
    g = torch.Generator().manual_seed(1)
    worst = 0.0
    for log2_scale, spread in ((30, 3.0), (20, 8.0), (16, 0.1), (25, 40.0)):
        logits = (
            (torch.randn(6, 5000, generator=g, dtype=torch.float64) * spread * 2.0**log2_scale).round().to(torch.int64)
        )
        logits[1] = logits[1].sort().values  # the largest exponent grows most often
        logits[2, 7:11] = logits[2].max() + 5  # ties
        exact = (logits * 2.0**-log2_scale).log_softmax(-1)
        got = candidates(golden.lm_top(logits, 8, log2_scale), log2_scale)
        for row, best in enumerate(got):
            assert [each.token for each in best] == sorted(
                range(5000), key=lambda v, row=row: (-int(logits[row, v]), v)
            )[:8]
            worst = max(worst, *(abs(logp - exact[row, token].item()) for token, logp, _ in best))
    assert worst < 1.5e-4  # of one dominating logit, half a step of 2^-12 octaves


def test_the_normaliser_in_plain_integers():
    """Rule 11 as the documentation says it: one logit after the other."""
    g = torch.Generator().manual_seed(2)
    for shift in (0, 3, 15):
        logits = torch.randint(-(1 << 46), 1 << 46, (300,), generator=g) >> torch.randint(0, 46, (300,), generator=g)
        m, s = -(1 << 20), 0
        for x in logits.tolist():
            t = min(max(x >> shift, -(1 << 35)), (1 << 35) - 1) * 1512775 >> 24
            n, f = t >> 12, t & 4095
            e = round(2**15 * 2 ** ((f >> 6) / 64)) * round(2**15 * 2 ** (((f & 63) + 0.5) / 4096)) >> 15 << 16
            m, s = max(m, n), (s >> min(n - m, 63) if n > m else s) + (e >> min(max(m - n, 0), 63))
        assert golden.exp_total(logits, shift).tolist() == [m, s]
        assert golden.log_total(m, s) == pytest.approx(math.log(2) * (m + math.log2(s)) - 31 * math.log(2))


@pytest.mark.parametrize("bits", ["2-2", "1-8"])
def test_shared_caches_with_masks_equal_copied_caches(bits):
    """What the accelerator does - keys that never move - against what defines it: a batch whose caches are copied."""
    model, search = lowered(bits, layers=(1, 2)), Search(beams=3, no_repeat_ngram_size=2)
    ids = source_ids(model, 7)
    found = reference_beams(model, ids, 7, search)
    assert any(parents != (0, 1, 2) for _, parents in found.trace) and len(found.trace) == 7
    encoder, decoder = Interpreter(model.encoder, model.weights), Interpreter(model.decoder, model.weights)
    cross, caches = outputs(model.encoder, encoder({"ids": torch.tensor(ids)})), {}

    def step(tokens, parents, position):
        trace = found.trace[: position + 1]
        assert trace[-1] == (tuple(tokens), tuple(parents))
        values = decoder({"ids": torch.tensor(tokens), **cross}, position, caches, mask=visible(trace), top=search.top)
        return candidates(outputs(model.decoder, values)["next"], head_scale(model))

    again = beam_search(Policy.of(model.meta, 7), search, step)
    assert again == found


def test_beams_find_a_text_that_is_at_least_as_likely():
    model, ids = lowered("2-2"), source_ids(lowered("2-2"), 7)
    scores = [reference_beams(model, ids, 6, Search(beams=beams, length_penalty=0.0)).score for beams in (2, 8)]
    assert scores[0] <= scores[1] < 0


def machine_search(model, program, ids, search, rng=None):
    """Searches on the functional machine: the texts, and the probes that differ from the reference, fed the same."""
    machine = Machine(program.hw, program.with_ids(ids, START))
    raw: dict[int, list] = {}

    def call(number: int) -> None:
        run_call(machine, program, number, lambda probe, data: raw.setdefault(number, []).append((probe, data)), rng)

    def step(tokens, parents, position):
        trace.append((tuple(tokens), tuple(parents)))
        program.put_beams(machine.dram, position, tokens, visible(trace))
        call(program.encoders + position)
        return candidates(program.read_top(machine.dram, position), head_scale(model))

    trace: list = []
    for number in range(program.encoders):
        call(number)
    policy, columns = Policy.of(model.meta, program.max_new_tokens), program.beams // program.encoders
    found = together(policy, search, program.encoders, step, columns)
    expected = list(check_reference(model, ids, trace, program.lengths))
    wrong = [
        f"call {number}: {probe.tensor} {probe.part}"
        for number, probes in raw.items()
        for probe, data in probes
        if not np.array_equal(
            decode_probe(program.hw, probe, data), expected_part(probe, expected[number][probe.tensor])
        )
    ]
    return found, wrong


@pytest.mark.parametrize(
    "bits, beams, hw",
    [
        ("2-2", 2, TINY),
        ("1-1", 2, NAMED["tiny-binary"]),
        ("2-8", 3, replace(TINY, kbuf_words=1024)),
        ("1-8", 4, replace(TINY, kv_external=True)),
        ("2-2", 3, replace(TINY, resident="decoder", kbuf_words=1024, wbuf_words=80)),
        ("2-2", 4, replace(NAMED["small"], cols=8)),
        ("2-2", 8, replace(TINY, cols=4, kbuf_words=1024)),
    ],
    ids=lambda x: x.name if isinstance(x, HwConfig) else str(x),
)
def test_the_machine_searches_like_the_reference(bits, beams, hw):
    model, search = lowered(bits, layers=(1, 2)), Search(beams=beams, no_repeat_ngram_size=2)
    ids = source_ids(model, 7)
    program = map_model(model, hw.searching(beams), 7, 6, beams)
    found, wrong = machine_search(model, program, ids, search)
    assert not wrong
    assert found == [reference_beams(model, ids, 6, search)]
    assert any(parents != tuple(range(beams)) for _, parents in found[0].trace)
    assert machine_search(model, program, ids, search, random.Random(beams)) == (found, [])


@pytest.mark.parametrize(
    "bits, lengths, beams, hw",
    [
        ("2-2", (7, 3, 12), 1, TINY),
        ("2-2", (7, 4), 2, replace(TINY, kbuf_words=1024)),
        ("1-1", (2, 9), 1, NAMED["tiny-binary"]),
        ("2-8", (3, 7), 3, replace(TINY, kv_external=True, kbuf_words=1024)),
        ("2-2", (7, 4), 2, replace(TINY, resident="decoder", kbuf_words=1024, pbuf_words=600)),
    ],
    ids=lambda x: x.name if isinstance(x, HwConfig) else str(x),
)
def test_several_texts_at_a_time(bits, lengths, beams, hw):
    """Each is what it is alone, and ends when it does alone."""
    model = lowered(bits, layers=(1, 2))
    search = Search(beams=beams, length_penalty=2.0, early_stopping=True) if beams > 1 else None
    sources = [source_ids(model, length, seed) for seed, length in enumerate(lengths)]

    def alone(source):
        if search:
            return reference_beams(model, source, 6, search).tokens
        return reference_run(model, source, 6)[0]

    eos = alone(sources[0])[2]  # the first text ends early
    model = replace(model, meta=model.meta | {"eos_id": eos})
    program = map_model(model, hw.searching(beams * len(lengths)), lengths, 6, beams)
    ids = sum(sources, [])
    found, wrong = machine_search(model, program, ids, search)
    assert not wrong
    assert [text.tokens for text in found] == [alone(source) for source in sources]
    assert min(len(text.tokens) for text in found) < 6
    assert machine_search(model, program, ids, search, random.Random(1)) == (found, [])


def test_texts_that_are_known_before_any_call():
    def step(*_):
        raise AssertionError

    for policy in (Policy((2, 0), 5, None, 1), Policy((2,), 5, 5, 1)):
        for search in (None, Search(beams=2)):
            assert [text.tokens for text in together(policy, search, 2, step)] == [greedy(policy, step)] * 2


def test_greedy_programs_run_on_hardware_with_beams():
    model, ids = lowered("2-2"), source_ids(lowered("2-2"), 7)
    plain, searching = (map_model(model, hw, 7, 3) for hw in (replace(TINY, idbuf_words=160), TINY.searching(4)))
    assert plain.image == searching.image
    assert run_program(searching, ids, START) == run_program(plain, ids, START)


def test_a_program_file_keeps_the_beams(tmp_path):
    program = map_model(lowered("2-2"), TINY.searching(2), 7, 3, 2)
    save(program, tmp_path / "p.tbn")
    assert load(tmp_path / "p.tbn") == program


def test_beams_that_the_hardware_does_not_have():
    with pytest.raises(
        InputError, match=r"^beams of all texts must be 1 or those of the hardware configuration \(2\), not 3$"
    ):
        map_model(lowered("2-2"), TINY.searching(2), 7, 3, 3)
    with pytest.raises(
        InputError, match="^hardware configuration: idbuf_words must be at least 160 for 4 beams, not 64$"
    ):
        replace(TINY, beams=4)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"beams": 1}, "beams must be from 2 to 8, not 1"),
        ({"beams": 2, "no_repeat_ngram_size": -1}, "no_repeat_ngram_size must not be negative, not -1"),
        ({"beams": 2, "early_stopping": "soon"}, "early_stopping must be true, false or 'never', not 'soon'"),
    ],
)
def test_bad_searches(options, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}$"):
        Search(**options)


def test_more_candidates_than_tokens():
    with pytest.raises(InputError, match="^6 beams need a vocabulary of at least 16 tokens, not 10$"):
        reference_beams(lowered("2-2", vocab=10), [3, 4], 3, Search(beams=6))
