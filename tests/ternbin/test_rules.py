"""Generation settings: tokens as those of Hugging Face's processors on all logits, from the best tokens of each list; or a refusal."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from mapped import lowered, source_ids
from test_beam import machine_search
from transformers import GenerationConfig
from transformers.generation.logits_process import LogitsProcessorList

from ternbin.contract.hw import NAMED
from ternbin.decoding.beam import beam_search, reference_tokens
from ternbin.decoding.greedy import Batched, reference_run
from ternbin.decoding.rules import OTHERS, Candidate, Rules, rules, settings
from ternbin.decoding.search import Policy, Search, beams_of, columns
from ternbin.errors import InputError
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.random_model import random_stock_bart
from ternbin.models.lowering import describe_generation

torch.set_num_threads(1)
SETTINGS = {
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "min_length": {"min_length": 6},
    "min_new_tokens": {"min_new_tokens": 4, "min_length": 9},
    "repetition_penalty": {"repetition_penalty": 1.8},
    "a reward for repetition": {"repetition_penalty": 0.7},
    "suppress_tokens": {"suppress_tokens": [5, 9, 20, 33]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [2, 7, 8]},
    "bad_words_ids": {"bad_words_ids": [[4], [2], [11, 12], [13, 14, 15]]},
    "all": {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "suppress_tokens": [6], "min_length": 3},
}
NEW = 8


def processed_greedily(model, ids, given):
    """The library's processors on every integer logit of the interpreter, and the largest of what they leave."""
    meta, vocab = model.meta, model.meta["vocab_size"]
    stock: Any = random_stock_bart(vocab=vocab)
    config = GenerationConfig(eos_token_id=meta["eos_id"], max_length=NEW + 1, **given)
    if "min_new_tokens" in given:
        config.min_length = given["min_new_tokens"] + 1  # as generate() does
    config._eos_token_tensor = torch.tensor([meta["eos_id"]])
    processors = stock._get_logits_processor(
        config, 1, encoder_input_ids=torch.tensor([ids]), logits_processor=LogitsProcessorList()
    )
    encoder, decoder = Interpreter(model.encoder, model.weights), Interpreter(model.decoder, model.weights)
    cross, caches, text = outputs(model.encoder, encoder({"ids": torch.tensor(ids)})), {}, [meta["decoder_start_id"]]
    scale = next(n for n in model.decoder.nodes() if n.op.opname == "lm_head").op.logit_scale_log2
    while len(text) <= NEW and (len(text) == 1 or text[-1] != meta["eos_id"]):
        values = decoder({"ids": torch.tensor(text[-1:]), **cross}, len(text) - 1, caches, top=vocab)
        listed = outputs(model.decoder, values)["next"][-1, :vocab]
        logits = torch.zeros(1, vocab, dtype=torch.float64)
        logits[0, listed[:, 0]] = listed[:, 1].double() * 2.0**-scale
        text.append(int(processors(torch.tensor([text]), logits)[0].argmax()))
    return text[1:]


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_tokens_are_those_of_the_processors_on_all_logits(name):
    given, honoured = SETTINGS[name], 0
    for seed in range(3):
        model = lowered("2-2", vocab=61, seed=seed)
        ids = source_ids(model, 6, seed)
        want = processed_greedily(model, ids, given)
        try:
            found = reference_run(model, ids, NEW, given=given)[0]
        except InputError as error:
            assert "must be one of the 20 that the accelerator lists, not beyond them" in str(error)
            continue
        honoured += 1
        assert found == want
    assert honoured


def test_the_settings_change_texts():
    model = lowered("2-2", vocab=61, seed=0)
    ids = source_ids(model, 6)
    plain = reference_run(model, ids, NEW)[0]
    assert any(processed_greedily(model, ids, given) != plain for given in SETTINGS.values())


def test_rules_of_the_model_are_those_of_every_way_to_generate():
    model = lowered("2-2", vocab=61)
    model = replace(model, meta=model.meta | {"search": {"no_repeat_ngram_size": 1}})
    ids = source_ids(model, 6)
    text = reference_run(model, ids, NEW)[0]
    assert len({2, *text}) == len(text) + 1
    assert Batched(model).generate([ids, ids[:3]], NEW)[0] == text
    assert reference_tokens(model, ids, NEW, None) == text
    assert reference_run(model, ids, NEW, given={"no_repeat_ngram_size": 0})[0] != text


@pytest.mark.parametrize("lengths", [(7,), (7, 3)], ids=["one text, two columns", "two texts"])
def test_the_machine_decodes_by_the_rules(lengths):
    model = lowered("2-2", vocab=61)
    model = replace(model, meta=model.meta | {"search": {"no_repeat_ngram_size": 1, "suppress_tokens": [4, 5]}})
    sources = [source_ids(model, length, seed) for seed, length in enumerate(lengths)]
    width = columns(1, len(lengths), rules(model.meta))
    hw = NAMED["tiny"].searching(width, len(lengths))
    found, wrong = machine_search(model, map_model(model, hw, lengths, 5, width), sum(sources, []), None)
    assert not wrong
    assert [text.tokens for text in found] == [reference_run(model, source, 5)[0] for source in sources]


def test_a_choice_beyond_the_list_is_refused_by_name():
    listed = [Candidate(token, 0.0, 9.0 - token) for token in range(4)]
    policy = Policy((30,), 2, None, 5, Rules(suppress_tokens=(0, 1, 2, 3), min_length=2))
    message = (
        "position 1: the best token that min_length, suppress_tokens allow must be one of the 4 that the accelerator lists, not "
        "beyond them; more beams list more, --generation min_length=null switches it off"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        policy.best(listed, [])
    penalised = Policy((0,), 2, None, 5, Rules(repetition_penalty=9.0))
    assert penalised.best(listed, []).token == 1  # 9 / 9 is below 8
    with pytest.raises(InputError, match="repetition_penalty allow must be one of the 1"):
        penalised.best(listed[:1], [])
    with pytest.raises(InputError, match="a candidate of some beam must be one that suppress_tokens allow"):
        beam_search(policy, Search(beams=2, suppress_tokens=(0, 1, 2, 3)), lambda *_: [listed] * 2)


@pytest.mark.parametrize("name", OTHERS)
def test_what_the_host_does_not_do_is_refused_by_name(name):
    neutral = OTHERS[name]
    value = {bool: True, int: 3, float: 1.5}.get(type(neutral), [1])
    off = {None: "null", False: "false"}.get(neutral, neutral)
    message = f"{name} must be {off}, not {value!r}: the host does not do it; --generation {name}={off} switches it off"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Policy.of(lowered("2-2").meta | {"search": {name: value}}, 3)
    assert settings({"search": {name: value}}, {name: neutral}) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"no_repeat_ngram_size": "2"}, "no_repeat_ngram_size must be an integer, not '2'"),
        ({"min_length": -1}, "min_length must not be negative, not -1"),
        ({"min_new_tokens": True}, "min_new_tokens must be an integer from 0 on, not True"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a positive number, not 0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be a positive number, not nan"),
        ({"suppress_tokens": 5}, "suppress_tokens must be a list of token ids, not 5"),
        ({"bad_words_ids": [[]]}, "bad_words_ids, each must hold a token id, not none"),
        ({"bad_words_ids": [5]}, "bad_words_ids, each must be a list of token ids, not 5"),
    ],
)
def test_settings_that_mean_nothing(given, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Policy.of(lowered("2-2").meta, 3, given)
    with pytest.raises(InputError, match="^generation setting must be one of .*, not 'temprature'$"):
        Policy.of(lowered("2-2").meta, 3, {"temprature": 2})


def test_beams_and_start_token_as_the_library_has_them():
    assert beams_of({}, None) == 1 and beams_of({"search": {"num_beams": 4}}, None) == 4
    assert beams_of({"search": {"num_beams": 4}}, 1) == 1
    with pytest.raises(InputError, match="^beams must be from 1 to 8, not 12$"):
        beams_of({"search": {"num_beams": 12}}, None)
    model = random_stock_bart()
    model.generation_config.decoder_start_token_id = None
    assert describe_generation(model.config, model.generation_config)["decoder_start_id"] == 0  # bos
    model.generation_config.bos_token_id = None
    meta = lowered("2-2").meta | describe_generation(model.config, model.generation_config)
    with pytest.raises(
        InputError, match="^decoder_start_token_id or bos_token_id must be set in the generation config"
    ):
        Policy.of(meta, 3)


def test_several_end_tokens():
    model = lowered("2-2", vocab=61)
    ids = source_ids(model, 6)
    plain = reference_run(replace(model, meta=model.meta | {"eos_id": None}), ids, NEW)[0]
    ends = replace(model, meta=model.meta | {"eos_id": [60, plain[2]]})
    assert reference_run(ends, ids, NEW)[0] == plain[: plain.index(plain[2]) + 1]
