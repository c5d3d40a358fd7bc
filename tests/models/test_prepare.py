"""From a user's words to a lowered model."""

import pytest
import torch

from ternbin.decoding.greedy import reference_run
from ternbin.errors import InputError
from ternbin.models import prepare
from ternbin.models.bart.qbart import stacks
from ternbin.models.bart.random_model import random_quant_bart, random_stock_bart
from ternbin.models.families import family_of
from ternbin.models.packed import save_packed


@pytest.mark.parametrize("bits", ["1-1", "2-8"])
def test_a_packed_model_runs_in_other_bits(tmp_path, bits):
    save_packed(random_quant_bart("2-2"), tmp_path / "packed")
    model = prepare.load_model(tmp_path / "packed", bits)
    assert model.quant_config.bits == bits and model.quant_config.fracs
    tokens, _ = reference_run(prepare.lowered_model(tmp_path / "packed", bits), [0, 5, 9, 2], 3)
    assert 1 <= len(tokens) <= 3


def test_requantizing_to_the_same_weight_bits_keeps_the_codes():
    packed = random_quant_bart("2-2").pack()
    again = family_of(packed).requantize(packed, "2-8")
    layers = (stacks(m)[0].layers[0].fc1 for m in (packed, again))
    first, second = (torch.sign(layer.quantized_weight()) for layer in layers)
    assert torch.equal(first, second)


def test_a_stock_folder_is_quantized_and_calibrated(tmp_path):
    random_stock_bart().save_pretrained(tmp_path)
    assert prepare.load_model(tmp_path, "2-2").quant_config.fracs
    with pytest.raises(InputError, match="bits must be given"):
        prepare.load_model(tmp_path)


def test_the_bundled_model_and_texts():
    tokenizer = prepare.load_tokenizer(prepare.bundled_dir())
    assert tokenizer is not None
    for text in prepare.demo_texts():
        ids = prepare.encode_text(tokenizer, text["source"], 256)
        assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == text["source"].strip()


def test_bad_texts_and_ids_are_named():
    tokenizer = prepare.load_tokenizer(prepare.bundled_dir())
    cases = {
        "the text must not be empty": lambda: prepare.encode_text(tokenizer, "  \n", 128),
        "the text must be at most 8 tokens long for this model, not 32 (--truncate cuts it)": lambda: (
            prepare.encode_text(tokenizer, "a b " * 15, 8)
        ),
        "the model has no tokenizer.json: give token ids with --ids instead of a text": lambda: prepare.encode_text(
            None, "a", 8
        ),
        "--ids must hold at least one token id": lambda: prepare.check_ids([], 10, 8),
        "--ids must be from 0 to 9, not 10": lambda: prepare.check_ids([3, 10], 10, 8),
        "--ids must hold at most 2 ids for this model, not 3": lambda: prepare.check_ids([1, 2, 3], 10, 2),
    }
    for message, call in cases.items():
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == message


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer.json: not a usable tokenizer"):
        prepare.load_tokenizer(tmp_path)
