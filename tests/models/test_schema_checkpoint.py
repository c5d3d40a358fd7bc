"""Files of a checkpoint folder: what cannot be is refused with file and field, before anything is built or loaded."""

import json
import os
import shutil
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternbin import flow
from ternbin.contract.hw import NAMED
from ternbin.errors import InputError
from ternbin.models import prepare
from ternbin.models.bart import fields
from ternbin.models.files import read_config
from ternbin.schema import DEPTH

BUNDLED = prepare.bundled_dir()
CONFIG = read_config(BUNDLED)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(BUNDLED, tmp_path / "model")


def refusal(call, *args):
    begin = time.perf_counter()
    with pytest.raises(InputError) as caught:
        call(*args)
    assert time.perf_counter() - begin < 20
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 0}, "d_model must be from 1 to 16384, not 0"),
        ({"d_model": -1}, "d_model must be from 1 to 16384, not -1"),
        ({"d_model": 10**12}, "d_model must be from 1 to 16384, not 1000000000000"),
        ({"d_model": "wide"}, "d_model must be a whole number from 1 to 16384, not 'wide'"),
        ({"d_model": True}, "d_model must be a whole number from 1 to 16384, not true"),
        ({"d_model": 192.0}, "d_model must be a whole number from 1 to 16384, not 192.0"),
        ({"encoder_layers": 10**12}, "encoder_layers must be from 1 to 128, not 1000000000000"),
        ({"decoder_layers": 0}, "decoder_layers must be from 1 to 128, not 0"),
        ({"encoder_attention_heads": 0}, "encoder_attention_heads must be from 1 to 256, not 0"),
        ({"encoder_ffn_dim": None}, "encoder_ffn_dim must be a whole number from 1 to 65536, not null"),
        ({"vocab_size": 1}, "vocab_size must be from 2 to 1048576, not 1"),
        ({"pad_token_id": 10**9}, "pad_token_id must be from 0 to 1048575, not 1000000000"),
        ({"pad_token_id": 4096}, "pad_token_id must be below vocab_size (4096), not 4096"),
        ({"eos_token_id": [2, 5000]}, "eos_token_id must be below vocab_size (4096), not 5000"),
        ({"eos_token_id": ["</s>"]}, "eos_token_id[0] must be a whole number from 0 to 1048575, not '</s>'"),
        ({"dtype": "float99"}, "dtype must be 'float32', 'float16', 'bfloat16' or 'float64', not 'float99'"),
        ({"scale_embedding": "false"}, "scale_embedding must be true or false, not 'false'"),
        ({"dropout": 2}, "dropout must be from 0 to 1, not 2"),
        ({"max_position_embeddings": 65536, "d_model": 16384}, "max_position_embeddings times d_model must be at most 67108864"),
        ({"quant": []}, "quant must be an object, not an empty list"),
        ({"quant": CONFIG["quant"] | {"form": "best"}}, "quant: form must be 'deploy' or 'paper', not 'best'"),
        ({"quant": CONFIG["quant"] | {"form": "paper"}}, "quant.form must be 'deploy' in a packed checkpoint, not 'paper'"),
        ({"quant": CONFIG["quant"] | {"fracs": []}}, "quant: fracs must be an object, not an empty list"),
        ({"quant": {"fracs": {"embed": "11"}}}, "quant: fracs.embed must be a whole number from -20 to 30, not '11'"),
        ({"quant": {"fracs": {"embed": 31}}}, "quant: fracs.embed must be from -20 to 30, not 31"),
        ({"quant": CONFIG["quant"] | {"fracs": {"encoder.embed": 11}}}, "fracs must name exactly the residual sites"),
        ({"quant": CONFIG["quant"] | {"res_bits": 7}}, "quant: res_bits must be from 8 to 20, not 7"),
        ({"quant": CONFIG["quant"] | {"colour": 1}}, "quant: unknown field 'colour'"),
        ({"d_model": 191}, "embed_dim must be divisible by num_heads"),
        ({"id2label": 3}, ""),
    ],
)  # fmt: skip
def test_values_of_config_json(folder, values, message):
    (folder / "config.json").write_text(json.dumps(CONFIG | values))
    assert refusal(prepare.load_model, folder).startswith(f"{folder / 'config.json'}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, f"lists and objects must be nested at most {DEPTH} deep, not deeper"),
        ('{"d_model": 1' + "0" * 5000 + "}", "a number must be at most 100 characters long, not 5,001"),
        ('{"d_model": NaN}', "a number must be finite, not NaN"),
        ("[1]", "file must hold a JSON object, not a list of 1"),
        ("{", "must be JSON, not broken"),
        ('{"model_type": ["bart"]}', "model_type must be 'bart' or"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_texts_that_are_no_settings(folder, name, text, message):
    (folder / name).write_text(text)
    if "model_type" in text and name != "config.json":
        pytest.skip("no such field there")
    assert refusal(prepare.load_model, folder).startswith(f"{folder / name}: {message}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length_penalty": "1"}, "length_penalty must be a number or null, not '1'"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be from 0 to 1048576, not -1"),
        ({"early_stopping": "sometimes"}, "early_stopping must be true or false or 'never', not 'sometimes'"),
        ({"eos_token_id": -1}, "eos_token_id must be from 0 to 1048575"),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be a whole number from 0 to 1048576, not 1.5"),
    ],
)
def test_values_of_generation_config_json(folder, values, message):
    (folder / "generation_config.json").write_text(json.dumps(values))
    said = refusal(prepare.load_model, folder)
    assert said.startswith(f"{folder / 'generation_config.json'}: {message.split(' or null')[0]}")


VALUES = st.sampled_from(
    [None, True, "", "x", [], {}, -1, 0, 1, 3, 1.5, 1 << 40, 10**90, 1e300, [[]], {"a": None}, "gelu", -0.5, [10**9]]
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(fields.Seq2SeqFields.__annotations__)) | st.text(max_size=9), VALUES, max_size=3
    )
)
def test_any_values_are_refused_or_within_bounds(values):
    try:
        fields.check(CONFIG | values, "config.json")
    except InputError as error:
        assert str(error).startswith("config.json: ") and "\n" not in str(error)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "packed.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_named_pipe_is_not_opened(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    if name != "tokenizer_config.json":  # settings of the tokenizer are optional
        load = prepare.load_tokenizer if name == "tokenizer.json" else prepare.load_model
        assert refusal(load, folder) == f"{folder / name}: must be a file, not a named pipe"


def test_limits_need_no_tensors(folder):
    (folder / "packed.safetensors").unlink()
    assert prepare.limits(folder) == {"vocab_size": 4096, "max_positions": 128}


# ---- what is optional -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{", "{}", "[1, 2]", '{"rouge1": 41.2}', '{"texts": "<b>"}', '{"texts": 1e999}', "\x00"]
)
def test_faulty_scores_cost_a_warning(folder, text, caplog):
    (folder / "eval.json").write_text(text)
    assert flow.evaluation(folder) is None
    (line,) = caplog.messages
    assert line.startswith(f"{folder / 'eval.json'}: ") and line.endswith("; the result has no scores")


def test_good_scores_are_kept():
    """All but what only the results page shows."""
    wanted = json.loads((BUNDLED / "eval.json").read_text(encoding="utf-8"))
    for own in wanted["models"].values():
        for name in ("intervals", "extremes", "command"):
            own.pop(name, None)
    assert flow.evaluation(BUNDLED) == wanted


def test_faulty_settings_of_a_tokenizer_cost_a_warning(folder, caplog):
    (folder / "tokenizer_config.json").write_text("{")
    found, whole = (prepare.load_tokenizer(each) for each in (folder, BUNDLED))
    assert found is not None and whole is not None
    assert found("a module").input_ids == whole("a module").input_ids
    assert caplog.messages[0].startswith(f"{folder}: settings of the tokenizer are left out: ")


def test_a_broken_tokenizer_matters_only_for_texts(folder, caplog):
    (folder / "tokenizer.json").write_text("{")
    tiny = NAMED["tiny"]
    assert "not a usable tokenizer" in refusal(flow.prepare, flow.Job(hw=tiny, model_dir=folder, texts=["a"]))
    flow.prepare(flow.Job(hw=tiny, model_dir=folder, ids=[[0, 2]]))
    assert caplog.messages[-1].endswith("; the result shows ids alone")


def test_the_tokenizer_of_another_model_is_refused(folder):
    config = CONFIG | {"vocab_size": 40}
    (folder / "config.json").write_text(json.dumps(config))
    said = refusal(flow.prepare, flow.Job(hw=NAMED["tiny"], model_dir=folder, texts=["a module"]))
    assert said.startswith("tokenizer.json: ids must be below vocab_size of config.json (40), not ")


# ---- cheap checks come first ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"max_new_tokens": -4}, "--max-new-tokens must be at least 1, not -4"),
        ({"dram": "ddr9"}, "--dram must be one of lpddr4, hbm2, ddr3, not 'ddr9'"),
        ({"beams": 9}, "beams must be from 1 to 8, not 9"),
        ({"beams": 2, "search": {"no_repeat_ngram_size": -1}}, "no_repeat_ngram_size must not be negative, not -1"),
        ({"ids": [[5000]]}, "--ids must be from 0 to 4095, not 5000"),
        ({"ids": [[0] * 129]}, "--ids must hold at most 128 ids for this model, not 129"),
        ({"texts": ["word " * 500]}, "the text must be at most 128 tokens long for this model, not"),
    ],
)
def test_what_is_cheap_to_find_out_is_found_out_before_the_model_is_loaded(job, message, monkeypatch):
    monkeypatch.setattr(prepare, "load_lowerable", lambda *_: pytest.fail("the model was loaded"))
    assert refusal(flow.summarise, flow.Job(hw=NAMED["tiny"], **job)).startswith(message)
