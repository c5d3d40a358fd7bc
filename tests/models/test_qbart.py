"""The quantized BART: Hugging Face behaviour, grids, calibration."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, BartConfig, BartForConditionalGeneration

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS
from ternbin.models.bart.qbart import QuantBartForConditionalGeneration, quantize_model
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.models.bart.structure import stacks
from ternbin.models.calibrate import calibrate, frac_for
from ternbin.models.config import BITS, QuantConfig
from ternbin.models.modules import QuantWeight
from ternbin.models.quantizers import ActQuantizer

torch.set_num_threads(1)


def stock(**options):
    torch.manual_seed(0)
    values: dict[str, Any] = dict(
        vocab_size=61,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        max_position_embeddings=20,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(BartConfig(**(values | options))).eval()


def generate(model, ids, **options):
    return model.generate(ids, **options)


def batch(vocab=61, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocab, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return dict(input_ids=ids, attention_mask=mask, labels=torch.randint(3, vocab, (3, 6), generator=generator))


@pytest.mark.parametrize("form", ["deploy", "paper"])
@pytest.mark.parametrize("bits", BITS)
def test_every_parameter_gets_a_gradient(bits, form):
    model = quantize_model(stock(activation_function="gelu"), QuantConfig(bits=bits, form=form)).train()
    out = model(**batch(), output_hidden_states=True)
    out.loss.backward()
    assert len(out.encoder_hidden_states) == 3 and len(out.decoder_hidden_states) == 2
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("bits", BITS)
def test_saved_model_is_the_same_model(bits, tmp_path):
    model = random_quant_bart(bits, vocab=61)
    model.save_pretrained(tmp_path)
    inputs = batch()
    for again in (QuantBartForConditionalGeneration, AutoModelForSeq2SeqLM):
        loaded = again.from_pretrained(tmp_path).eval()
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)
        assert loaded.config.quant == model.config.quant
    ids = inputs["input_ids"]
    beams = dict(num_beams=3, max_length=10, no_repeat_ngram_size=3)
    assert torch.equal(generate(model, ids, **beams), generate(loaded, ids, **beams))


def test_quantizing_leaves_the_stock_model_alone():
    model = stock()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantize_model(model)(**batch())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_cached_decoding_equals_one_pass():
    model = random_quant_bart("2-2", vocab=61)
    ids = batch()["input_ids"]
    tokens = generate(model, ids, max_length=8, num_beams=1, do_sample=False)
    whole = model(input_ids=ids, decoder_input_ids=tokens[:, :-1]).logits.argmax(-1)
    open_rows = (tokens != model.config.pad_token_id).all(1)
    assert open_rows.any()
    assert torch.equal(whole[open_rows], tokens[open_rows, 1:])


def test_padding_does_not_change_a_row():
    model = random_quant_bart("2-2", vocab=61).double()
    inputs = batch()
    padded = model(**inputs).logits[1]
    alone = model(input_ids=inputs["input_ids"][1:2, :5], labels=inputs["labels"][1:2]).logits[0]
    assert torch.allclose(padded, alone, atol=1e-9)


@pytest.mark.parametrize("scale_embedding", [True, False])
def test_residual_stream_is_on_its_grids(scale_embedding):
    model = random_quant_bart("2-2", layers=2, scale_embedding=scale_embedding, res_bits=12, vocab=61)
    seen = []
    for name, site in model.sites.items():
        if name.endswith("layer_norm") or name.endswith("layernorm_embedding"):
            module = model.model.get_submodule(name)
            module.register_forward_hook(lambda m, i, o, site=site: seen.append((m.source, i[0], site, o)))
    model(**batch())
    assert len(seen) == len(model.sites) - 2
    for source, x, site, y in seen:
        for grid, tensor in ((source, x), (site, y)):
            integers = tensor * 2.0**grid.frac
            assert torch.equal(integers, integers.round()) and integers.abs().max() < 2**11


def test_weights_are_codes_times_row_scales():
    model = random_quant_bart("2-2")
    for name in ("encoder.layers.0.fc1", "decoder.layers.0.encoder_attn.k_proj", "shared"):
        module = model.model.get_submodule(name)
        assert isinstance(module, QuantWeight)
        value = module.quantized_weight().detach() / module.weight_parts()[1].clamp_min(1e-12)
        assert set(value.round(decimals=4).unique().tolist()) == {-1.0, 0.0, 1.0}


def test_random_models_have_spread_codes():
    model, unused = random_quant_bart("2-2"), set()
    for name, module in model.named_modules():
        if isinstance(module, ActQuantizer):
            unused.add(name)

            def see(module, inputs, output: torch.Tensor, name=name) -> None:
                if len(output.unique()) > 2:
                    unused.discard(name)

            module.register_forward_hook(see)
    generator = torch.Generator().manual_seed(5)
    model(input_ids=torch.randint(3, 97, (2, 20), generator=generator))
    assert unused == set()


def test_eval_weights_follow_an_update():
    model = random_quant_bart("2-2", vocab=61)
    with torch.no_grad():
        before = model(**batch()).logits
        fc1 = stacks(model)[0].layers[0].fc1
        fc1.weight.neg_()
        fc1.bias.neg_()
        assert not torch.equal(before, model(**batch()).logits)


def test_calibration_leaves_one_bit_of_margin():
    assert frac_for(3.0, 16) == 12  # 3 * 2^12 = 12288 <= 2^14 < 3 * 2^13
    assert frac_for(4.0, 16) == 12 and frac_for(4.1, 16) == 11
    assert frac_for(1000.0, 8) == -4 and frac_for(0.0, 16) == 14
    assert frac_for(2.0**34, 16) == -20
    with pytest.raises(InputError, match=r"^residual stream must stay below 2\^34, not reach 1.8e\+10$"):
        frac_for(1.8e10, 16)
    model = quantize_model(stock(), QuantConfig(res_bits=10))
    fracs = calibrate(model, [batch()])
    assert fracs == model.config.quant["fracs"] and set(fracs) == set(model.sites)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: QuantConfig(bits="3-3"), "bits must be '1-1', '2-2', '1-8' or '2-8', not '3-3'"),
        (lambda: QuantConfig(form="best"), "form must be 'deploy' or 'paper', not 'best'"),
        (lambda: QuantConfig(res_bits=32), "res_bits must be from 8 to 20, not 32"),
        (lambda: QuantConfig(head_act_bits=4), "head_act_bits must be 1, 2 or 8, not 4"),
        (lambda: QuantConfig(head_act_bits=True), "head_act_bits must be 1, 2 or 8, not true"),
        (lambda: QuantConfig.from_dict({"head_act_bits": 8.0}), "quant: head_act_bits must be 1, 2 or 8, not 8.0"),
        (lambda: QuantConfig.from_dict({"colour": 1}), "quant: unknown field 'colour'"),
        (
            lambda: quantize_model(stock(activation_function="tanh")),
            f"activation_function must be one of {', '.join(ACTIVATIONS)}, not 'tanh'",
        ),
        (
            lambda: calibrate(quantize_model(stock(), QuantConfig(form="paper")), [batch()]),
            "form must be 'deploy' to calibrate, not 'paper'",
        ),
        (lambda: calibrate(quantize_model(stock()), []), "batches must hold at least one batch, not none"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message
