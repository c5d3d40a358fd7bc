"""From a user's words to a lowered model."""

from random import Random

import pytest
import torch

from ternbin.decoding.greedy import reference_run
from ternbin.errors import InputError
from ternbin.models import prepare
from ternbin.models.bart.random_model import random_quant_bart, random_stock_bart
from ternbin.models.bart.structure import stacks
from ternbin.models.families import family_named, family_of
from ternbin.models.packed import save_packed


@pytest.mark.parametrize("bits", ["1-1", "2-8"])
def test_a_packed_model_runs_in_other_bits(tmp_path, bits):
    save_packed(random_quant_bart("2-2"), tmp_path / "packed")
    model = prepare.load_model(tmp_path / "packed", bits)
    assert model.quant_config.bits == bits and model.quant_config.fracs
    tokens, _ = reference_run(prepare.lowered_model(tmp_path / "packed", bits), [0, 5, 9, 2], 3)
    assert 1 <= len(tokens) <= 3


@pytest.mark.parametrize(("bits", "other"), [("2-2", "2-8"), ("2-8", "2-2"), ("1-1", "1-8")])
def test_requantizing_to_the_same_weight_bits_keeps_codes_and_scales(bits, other):
    packed = random_quant_bart(bits).pack()
    again = dict(family_of(packed).requantize(packed, other).weights())
    for name, module in packed.weights():
        codes, scale = again[name].weight_parts()
        assert torch.equal(codes.to(module.codes.dtype), module.codes), name
        torch.testing.assert_close(scale, module.row_scale, msg=name)


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


def stock_folder(folder, change=lambda model: None, **options):
    model = random_stock_bart(**options)
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)
    return folder


def fresh(model):
    """As the library initialises a model: attention is diffuse, a probability far below 255 * 2^-12."""
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.02)


@pytest.mark.parametrize("bits", ["2-8", "1-8"])
def test_what_is_quantized_can_be_lowered(bits, tmp_path):
    done = prepare.quantize(stock_folder(tmp_path / "stock", fresh), tmp_path / "packed", bits)
    assert "model.encoder.layers.0.self_attn.p_quant.alpha" in done.limited
    assert any("stands at the end of its range, 0.000244141" in note for note in done.notes)
    assert prepare.lowered_model(tmp_path / "packed").weights


def test_a_head_of_other_bits(tmp_path):
    random_stock_bart(tie_word_embeddings=False).save_pretrained(tmp_path / "stock")
    prepare.quantize(tmp_path / "stock", tmp_path / "out", "1-1", 8)
    head = prepare.lowered_model(tmp_path / "out").weights["lm_head.weight"]
    assert head.abs().max() == 255 and (head % 2 != 0).all()
    assert prepare.load_model(tmp_path / "out", "2-8").quant_config.head_bits == 8  # kept, unless others are asked for
    bert = family_named("bert")
    bert.random("2-2", bert.draw(Random(0), "relu"), seed=0).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="bits of the LM head must be left out for a model without one, not 8"):
        prepare.quantize(tmp_path / "bert", tmp_path / "none", "2-2", 8)
    assert not (tmp_path / "none").exists()


def test_nothing_is_written_of_what_cannot_be_lowered(tmp_path):
    def change(model):
        model.model.decoder.layernorm_embedding.weight[:] = 1e30

    folder = stock_folder(tmp_path / "stock", change)
    wanted = r"must stay below 2\^34, not reach .*: see model.decoder.layernorm_embedding.weight, which reaches 1e\+30$"
    with pytest.raises(InputError, match=wanted):
        prepare.quantize(folder, tmp_path / "packed", "2-2")
    assert not (tmp_path / "packed").exists()


def test_a_banned_token_leaves_the_head_its_precision(tmp_path):
    def ban(model):
        model.final_logits_bias[0, 1] = -1e9

    head = prepare.quantize(stock_folder(tmp_path / "stock", ban), tmp_path / "packed", "2-8").head
    assert head is not None and head.equal == head.total


def test_an_op_that_loses_precision_is_named(tmp_path):
    model = random_quant_bart("2-8").pack()
    stacks(model)[0].layers[0].fc1.row_scale[0] *= 1e6  # its own steps stay those of the other rows
    save_packed(model, tmp_path / "one")
    notes = prepare.quantize(tmp_path / "one", tmp_path / "other", "2-8").notes
    wanted = (
        "look for outliers in row scales of model.encoder.layers.0.fc1 times model.encoder.layers.0.fc1.x_quant.alpha"
    )
    assert any(note.startswith("enc.0.fc1 agrees with floating point in ") and wanted in note for note in notes), notes
