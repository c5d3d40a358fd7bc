"""Tokenizers in the layouts that checkpoints have, and texts that are too long."""

import json
import logging

import pytest
from tokenizers import ByteLevelBPETokenizer

from ternbin.errors import InputError
from ternbin.models import prepare
from ternbin.models.bart.random_model import random_stock_bart

TEXT = "a small library to parse files"


@pytest.fixture
def stock(tmp_path):
    """A BART with vocab.json and merges.txt, as older checkpoints have them."""
    folder = tmp_path / "stock"
    random_stock_bart(vocab_size=300).save_pretrained(folder)
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator([TEXT, "a tool to draw maps"] * 20, vocab_size=300, special_tokens=special)
    tokenizer.save_model(str(folder))
    return folder


def test_vocabulary_and_merges(stock):
    tokenizer = prepare.load_tokenizer(stock)
    ids = prepare.encode_text(tokenizer, TEXT, 128)
    assert ids[0] == 0 and ids[-1] == 2 and tokenizer is not None
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXT


def test_the_packed_checkpoint_has_the_same_tokenizer(stock, tmp_path, caplog):
    prepare.quantize(stock, tmp_path / "packed", "2-2")
    assert "random ids" not in caplog.text
    again = prepare.load_tokenizer(tmp_path / "packed")
    assert prepare.encode_text(again, TEXT, 128) == prepare.encode_text(prepare.load_tokenizer(stock), TEXT, 128)


def test_calibration_on_random_ids_is_said(stock, caplog):
    (stock / "vocab.json").unlink()
    with caplog.at_level(logging.WARNING, "ternbin"):
        prepare.load_model(stock, "2-2")
    assert f"{stock}: calibrated on random ids, for it has no tokenizer (tokenizer.json, vocab.json)" in caplog.messages


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_a_broken_tokenizer_is_one_line(stock, name):
    (stock / name).write_text("{")
    with pytest.raises(InputError, match="not a usable tokenizer: .") as error:
        prepare.load_tokenizer(stock)
    assert "\n" not in str(error.value)


def test_code_of_a_checkpoint_is_never_run(stock):
    (stock / "own.py").write_text("raise SystemExit('run')")
    names = {"AutoTokenizer": [None, "own.Tokenizer"]}
    (stock / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Tokenizer", "auto_map": names}))
    try:
        prepare.load_tokenizer(stock)
    except InputError as error:
        assert "not a usable tokenizer" in str(error)


def test_a_long_text_is_cut_on_request_and_said(stock, caplog):
    tokenizer = prepare.load_tokenizer(stock)
    whole = prepare.encode_text(tokenizer, TEXT, 128)
    with pytest.raises(InputError, match=rf"at most 6 tokens long for this model, not {len(whole)} \(--truncate cuts"):
        prepare.encode_text(tokenizer, TEXT, 6)
    with caplog.at_level(logging.WARNING, "ternbin"):
        cut = prepare.encode_text(tokenizer, TEXT, 6, truncate=True)
    assert cut == [*whole[:5], whole[-1]]
    assert caplog.messages == [f"the text is cut to the first 6 of its {len(whole)} tokens"]
    assert prepare.encode_text(tokenizer, TEXT, len(whole), truncate=True) == whole and len(caplog.messages) == 1
