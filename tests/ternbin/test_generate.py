"""Generation and likelihood on the interpreter."""

import re
from dataclasses import replace

import pytest
import torch
from tiny import Tiny

from ternbin.decoding.greedy import Batched, greedy, reference_run
from ternbin.decoding.search import Policy
from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.passes import fold

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=[("ternary", 5), ("int8", 2)], ids=lambda p: p[0])  # seeds of varied outputs
def folded(request):
    act, seed = request.param
    return fold(Tiny(act=act, layers=2, seed=seed, d=32).lowered())


def texts(count: int, longest: int = 14) -> list[list[int]]:
    g = torch.Generator().manual_seed(0)
    return [torch.randint(3, 40, (1 + 5 * i % longest,), generator=g).tolist() for i in range(count)]


def test_batches_equal_single_runs(folded):
    sources = texts(7)
    free = Batched(replace(folded, meta=folded.meta | {"eos_id": -1})).generate(sources, 8)
    eos = max(
        {t for row in free for t in row[1:7]}, key=lambda t: len({row.index(t) if t in row else 8 for row in free})
    )
    model = replace(folded, meta=folded.meta | {"eos_id": eos})  # the token that ends texts at the most different times
    singles = [reference_run(model, ids, 8)[0] for ids in sources]
    assert Batched(model, batch_size=4).generate(sources, 8) == singles
    assert Batched(model, batch_size=32).generate(sources, 8) == singles
    assert len({len(tokens) for tokens in singles}) > 1
    assert all(len(tokens) <= 8 and tokens[0] == 0 for tokens in singles)


def test_one_call_of_many_tokens_equals_many_calls_of_one(folded):
    ids = torch.tensor([2, 0, 7, 30, 11])
    encoder, decoder = (Interpreter(g, folded.weights) for g in (folded.encoder, folded.decoder))
    cross = outputs(folded.encoder, encoder({"ids": torch.tensor(texts(3)[2])}))
    prefill_caches, step_caches = {}, {}
    prefill = decoder.named(decoder({"ids": ids, **cross}, 0, prefill_caches))
    for t in range(len(ids)):
        step = decoder.named(decoder({"ids": ids[t : t + 1], **cross}, t, step_caches))
        for name in ("dec.embed", "dec.0.self.q", "dec.0.self.out", "dec.1.cross.ctx", "dec.1.ln3", "lm_head"):
            assert step[name].tolist() == prefill[name][t : t + 1].tolist()
    assert prefill_caches.keys() == step_caches.keys() and len(step_caches) == 4
    assert all(torch.equal(prefill_caches[k], step_caches[k]) for k in step_caches)


def test_records_hold_every_named_tensor_of_every_call(folded):
    endless = replace(folded, meta=folded.meta | {"eos_id": -1})
    tokens, records = reference_run(endless, [4, 5, 6], 6)
    assert [(r.graph, r.past, r.given["ids"].tolist()) for r in records[:3]] == [
        ("encoder", 0, [4, 5, 6]),
        ("decoder", 0, [2, 0]),
        ("decoder", 2, [tokens[1]]),
    ]
    for record in records:
        graph = folded.encoder if record.graph == "encoder" else folded.decoder
        assert set(record.tensors) == {node.op.label for node in graph.nodes()}
    assert records[1].tensors["dec.0.self.scores"].shape == (2, 2, 2)
    assert int(records[1].tensors["next"][-1, 0]) == tokens[1]


def test_nll_is_that_of_the_integer_logits(folded):
    sources, targets = texts(5), [[0, 7, 8, 2], [0, 2], [0, 9, 9, 9, 2], [0, 30, 2], [0, 2]]
    got = Batched(folded, batch_size=3).nll(sources, targets)
    (head,) = (n for n in folded.decoder.nodes() if n.op.opname == "lm_head")
    w = folded.weights
    for source, target, nll in zip(sources, targets, got, strict=True):
        encoder, decoder = (Interpreter(g, w) for g in (folded.encoder, folded.decoder))
        cross, caches, want = outputs(folded.encoder, encoder({"ids": torch.tensor(source)})), {}, 0.0
        for t, (fed, label) in enumerate(zip([2, *target], target, strict=False)):
            hidden = decoder({"ids": torch.tensor([fed]), **cross}, t, caches)[head.src[0]]
            logits = (hidden @ w[head.op.weight].long().T) * w[head.op.mul] + w[head.op.bias]
            want -= (logits[0] * 2.0**-head.op.logit_scale_log2).double().log_softmax(-1)[label].item()
        assert nll == pytest.approx(want, rel=1e-12)


def test_saturation_is_counted_by_node():
    model = Tiny(frac=14).lowered()  # values of a few units do not fit 16 bits on this grid
    folded = fold(model)
    encoder = Interpreter(folded.encoder, folded.weights)
    values = encoder({"ids": torch.tensor([3, 4, 5])})
    edges = {name: int(((t == 32767) | (t == -32768)).sum()) for name, t in encoder.named(values).items()}
    assert encoder.saturation["enc.0.ln1"].clipped == edges["enc.0.ln1"] > 0
    assert encoder.saturation["enc.0.ln1"].total == 3 * 16


def policy(**fields) -> Policy:
    return replace(Policy(prompt=(2, 0), eos=1, last=1, max_new_tokens=5), **fields)


def test_greedy_loop_feeds_prompt_then_one_token_at_a_time():
    calls = []

    def step(tokens, past):
        calls.append((list(tokens), past))
        return 10 + len(calls)

    assert greedy(policy(), step) == [0, 11, 12, 13, 1]
    assert calls == [([2, 0], 0), ([11], 2), ([12], 3)]
    assert greedy(policy(last=None), lambda *_: 7) == [0, 7, 7, 7, 7]
    assert greedy(policy(prompt=(2,)), lambda *_: 1) == [1]
    assert greedy(policy(prompt=(2,), max_new_tokens=1, last=None), lambda *_: 9) == [9]


@pytest.mark.parametrize(
    "ids, text",
    [
        ([], "source length must be in [1, 20], not 0"),
        ([3] * 21, "source length must be in [1, 20], not 21"),
        ([3, 40], "source token must be in [0, 39], not 40"),
    ],
)
def test_bad_sources(folded, ids, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}$"):
        reference_run(folded, ids, 4)


def test_too_many_tokens(folded):
    with pytest.raises(InputError, match=r"^max_new_tokens must be in \[1, 20\], not 21$"):
        reference_run(folded, [3], 21)


def test_a_cache_that_does_not_fit_the_past(folded):
    decoder = Interpreter(folded.decoder, folded.weights)
    with pytest.raises(InputError, match="^cache dec.0.self.k_cache must hold 3 rows, not 0$"):
        decoder({"ids": torch.tensor([2]), "cross_k.0": torch.zeros(1, 16)}, past=3)


def test_golden_is_what_the_interpreter_computes(folded):
    values = Interpreter(folded.encoder, folded.weights)({"ids": torch.tensor([3, 9, 12])})
    ln = next(n for n in folded.encoder.nodes() if n.op.opname == "layernorm")
    w = folded.weights
    want = golden.layernorm(values[ln.src[0]], w[ln.op.gamma], w[ln.op.beta], ln.op.eps, ln.op.shift, ln.op.bits)
    assert torch.equal(values[ln], want)
