"""Lowering: the graphs compute what the modules compute, before and after folding."""

import copy
from dataclasses import replace

import pytest
import torch

from ternbin.errors import InputError
from ternbin.graph.ir import is_op
from ternbin.graph.ops.codes import LinearCodes
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.graph.ops.registry import verify
from ternbin.models.bart.checkpoint import load_packed
from ternbin.models.bart.lower import lower
from ternbin.models.bart.qbart import quantize_model
from ternbin.models.bart.random_model import random_quant_bart, random_stock_bart
from ternbin.models.bart.structure import head_of, stacks
from ternbin.models.calibrate import calibrate
from ternbin.models.config import BITS, QuantConfig
from ternbin.models.fidelity import likelihood
from ternbin.models.packed import save_packed
from ternbin.models.prepare import compare
from ternbin.models.quantizers import ActQuantizer
from ternbin.passes import fold

torch.set_num_threads(1)
GENERATOR = torch.Generator().manual_seed(3)
TENSORS = [
    (torch.randint(3, 97, (24,), generator=GENERATOR), torch.randint(3, 97, (16,), generator=GENERATOR))
    for _ in range(4)
]
PAIRS = [(source.tolist(), target.tolist()) for source, target in TENSORS]


def run(lowered, source, target):
    """Kept tensors of both graphs by node name."""
    encoder, decoder = (Interpreter(graph, lowered.weights) for graph in (lowered.encoder, lowered.decoder))
    kept = encoder({"ids": source})
    kept_decoder = decoder({"ids": target} | outputs(lowered.encoder, kept))
    return encoder.named(kept) | decoder.named(kept_decoder)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bits", BITS)
def test_real_graph_equals_the_model_in_float64(bits, activation):
    model = random_quant_bart(bits, activation=activation, layers=(2, 1), heads=4, scale_embedding=activation == "relu")
    lowered = lower(model)
    verify(lowered.encoder, lowered.weights)
    verify(lowered.decoder, lowered.weights)
    double = copy.deepcopy(model).pack().double()
    for source, target in TENSORS[:2]:
        kept = run(lowered, source, target)
        out = double(input_ids=source[None], decoder_input_ids=target[None], output_hidden_states=True)
        hidden = {
            "enc.0.ln2": ("encoder.layers.0.final_layer_norm", out.encoder_hidden_states[1]),
            "enc.1.ln2": ("encoder.layers.1.final_layer_norm", out.encoder_hidden_states[2]),
            "dec.0.ln3": ("decoder.layers.0.final_layer_norm", out.decoder_hidden_states[1]),
        }
        for name, (site, expected) in hidden.items():
            same = (kept[name] * 2.0 ** -model.quant_config.fracs[site] == expected[0]).double().mean().item()
            # 8-bit probabilities such as 1/2 lie on ties, where the two float64 roundings may differ
            assert same == 1 if not bits.endswith("8") else same > 0.95, name
        assert torch.equal(kept["next"][:, 0].long(), out.logits[0].argmax(-1))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bits", BITS)
def test_folded_graph_agrees_op_by_op(bits, activation):
    model = random_quant_bart(bits, activation=activation, layers=(1, 2))
    report = compare(model, fold(lower(model)), PAIRS)
    assert len(report) == len({row.name for row in report})
    codes = [row for row in report if "codes" in row.op or row.op == "quant"]
    exact = [row for row in codes if not (row.op == "softmax_codes" and bits.endswith("8"))]
    assert len(codes) > 20
    assert sum(row.equal for row in exact) >= 0.999 * sum(row.total for row in exact)
    for row in report:
        # the table of 2^-(i/256) resolves a probability code of up to 255 to within 0.27 %
        eight_bit_probability = row.op == "softmax_codes" and bits.endswith("8")
        assert row.farthest < (0.3 if eight_bit_probability else 0.01), row
        assert row.rate > (0.95 if eight_bit_probability else 0.98) and row.largest <= 1, row


def test_a_wrong_threshold_is_found():
    model = random_quant_bart("2-2")
    folded = fold(lower(model))
    node = next(n for n in folded.encoder.nodes() if is_op(n, LinearCodes) and n.name == "enc.0.fc1")
    weights = dict(folded.weights)
    weights[node.op.thresholds] = weights[node.op.thresholds] + 2
    report = compare(model, replace(folded, weights=weights), PAIRS)
    assert [row.name for row in report if row.rate < 0.98] == ["enc.0.fc1"]


@pytest.mark.parametrize("bits", BITS)
def test_likelihood_of_integer_and_fake_quant_model_is_close(bits):
    model = random_quant_bart(bits, vocab=97)
    scores = likelihood(model, fold(lower(model)), PAIRS)
    assert scores.tokens == 64
    assert scores.integer == pytest.approx(scores.fake_quant, abs=0.02)
    assert scores.same_argmax > 0.9


def test_packed_and_latent_model_lower_to_the_same(tmp_path):
    model = random_quant_bart("1-8", activation="gelu")
    a, b = lower(model), lower(load_packed(save_packed(model, tmp_path)))
    assert a.encoder == b.encoder and a.decoder == b.decoder  # nodes are interned
    assert a.meta == b.meta
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_cached_calls_equal_one_call():
    lowered = fold(lower(random_quant_bart("2-2")))
    source, target = TENSORS[0]
    encoder, decoder = (Interpreter(graph, lowered.weights) for graph in (lowered.encoder, lowered.decoder))
    cross = outputs(lowered.encoder, encoder({"ids": source}))
    whole = outputs(lowered.decoder, decoder({"ids": target} | cross))["next"]
    caches: dict[str, torch.Tensor] = {}
    parts = [
        outputs(lowered.decoder, decoder({"ids": target[i : i + 4]} | cross, past=i, caches=caches))["next"]
        for i in range(0, len(target), 4)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_equal_input_scales_share_one_code_tensor():
    model = random_quant_bart("2-2")
    attn = stacks(model)[0].layers[0].self_attn
    assert attn.q_proj.x_quant.step == attn.k_proj.x_quant.step  # from the same first batch
    names = {node.name for node in lower(model).encoder.nodes()}
    assert "enc.0.self.q_in" in names and "enc.0.self.k_in" not in names
    with torch.no_grad():
        attn.k_proj.x_quant.step.mul_(2)
    names = {node.name for node in lower(model).encoder.nodes()}
    assert "enc.0.self.k_in" in names and "enc.0.self.v_in" not in names


def test_meta_says_what_the_host_needs():
    model = random_quant_bart("2-8", layers=(1, 2), vocab=51)
    model.generation_config.forced_bos_token_id = 0
    meta = lower(model).meta
    assert (meta["vocab_size"], meta["eos_id"], meta["pad_id"], meta["decoder_start_id"]) == (51, 2, 1, 2)
    assert (meta["forced_bos_id"], meta["forced_eos_id"], meta["max_positions"]) == (0, None, 64)
    model.generation_config.eos_token_id = [2]
    assert lower(model).meta["eos_id"] == 2
    model.generation_config.eos_token_id = [2, 5]
    assert lower(model).meta["eos_id"] == [2, 5]
    model.generation_config.forced_eos_token_id = [2, 5]
    with pytest.raises(InputError, match=r"forced_eos_token_id must be one token id, not \[2, 5\]"):
        lower(model)
    assert (meta["encoder_layers"], meta["decoder_layers"], meta["weight_bits"], meta["act_bits"]) == (1, 2, 2, 8)


def test_refusals():
    stock = random_stock_bart()
    with pytest.raises(InputError, match="form must be 'deploy' to lower a model, not 'paper'"):
        lower(quantize_model(stock, QuantConfig(form="paper")))
    with pytest.raises(InputError, match="residual grids must be calibrated"):
        lower(quantize_model(stock))
    model = random_quant_bart("2-2")
    with torch.no_grad():
        head_of(model).x_quant.step.zero_()
    with pytest.raises(InputError, match="lm_head.x_quant.alpha must be positive, not 0.0: calibrate the model first"):
        lower(model)


def test_a_step_that_was_trained_below_zero_counts_as_the_least():
    """As it does in the forward pass; what was trained so can be lowered."""
    model = random_quant_bart("1-1")
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    with torch.no_grad():
        name, quantizer = next(
            (n, m) for n, m in model.named_modules() if isinstance(m, ActQuantizer) and "p_quant" in n
        )
        quantizer.step.fill_(-0.8)
        before = model(input_ids=ids, labels=ids).logits
    with pytest.raises(InputError, match=f"{name}.alpha must be positive"):
        lower(model)
    calibrate(model, [{"input_ids": ids, "labels": ids}])
    assert quantizer.step.item() == pytest.approx(quantizer.least)
    with torch.no_grad():
        model.set_fracs({})
        after = model(input_ids=ids, labels=ids).logits
    assert torch.allclose(before, after, atol=0.05)
    calibrate(model, [{"input_ids": ids, "labels": ids}])
    lower(model)
