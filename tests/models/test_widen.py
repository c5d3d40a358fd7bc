"""A wider student of binary activations begins as the ternary one that it starts from."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from ternbin.errors import InputError
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.models.bart.widen import COPIES, widen
from ternbin.models.families import families, family_named
from ternbin.models.task.relations import mean_of_copies

D = 24


def pair(**options) -> tuple[Any, Any]:
    """A random 2-2 with latent weights and learned steps, and the 1-1 that it is widened to; neither has grids."""
    old = random_quant_bart("2-2", d_model=D, heads=2, ffn=40, layers=1, vocab=60, seed=3, **options)
    old.set_fracs({})
    return old, widen(old, replace(old.quant_config, bits="1-1"), 0).eval()


def without_zeros(model: Any) -> None:
    """Make every weight so large that none is 0 in ternary codes."""
    for _, module in model.weights():
        weight = module.latent
        weight.data.copy_(torch.where(weight >= 0, 1.0, -1.0) * 0.05)


@torch.no_grad()
def test_two_binary_activations_make_the_ternary_one():
    old, _ = pair()
    without_zeros(old)
    new = widen(old, replace(old.quant_config, bits="1-1"), 0).eval()
    layer, wide = old.model.encoder.layers[0], new.model.encoder.layers[0]
    x = torch.randn(50, D)
    shift = layer.fc1.x_quant.step / 2
    given = torch.cat([x + shift, x - shift], dim=-1)
    before, after = layer.fc1(x), wide.fc1(given)
    assert torch.allclose(after[:, :40], before, atol=1e-5)
    expected = layer.fc2(layer.activation_fn(before))
    written = wide.fc2(wide.activation_fn(after))
    assert torch.allclose(mean_of_copies(written, D), expected, atol=1e-5)
    first, second = written.split(D, dim=-1)
    assert torch.allclose(first - second, torch.full_like(first, -2 * shift.item()), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
def test_a_ternary_weight_is_the_mean_of_two_binary_ones(packed):
    old, new = pair()
    if packed:  # without the latent weights that it was trained as
        new = widen(old.pack(), new.quant_config, 0)
    for name, module in old.weights():
        other: Any = new.get_submodule(name)
        value, wide = module.quantized_weight(), other.quantized_weight()
        table = COPIES**-0.5 if name in old.tied or name in old.tied.values() else 1.0
        for part in wide.chunk(len(wide) // len(value)):
            assert torch.allclose(mean_of_copies(part, value.shape[1]), value * table, atol=1e-6), name
    fc1, own = new.model.encoder.layers[0].fc1, old.model.encoder.layers[0].fc1
    zeros = own.weight_parts()[0] == 0
    first = fc1.weight_parts()[0][: len(zeros), :D].masked_fill(~zeros, 0).sum(1)
    assert zeros.any() and first.abs().max() <= 1  # as many +1 as -1, but for one of an odd number


@torch.no_grad()
def test_the_head_says_what_it_said():
    old, new = pair()
    x = torch.randn(7, D)
    norms = [model.model.decoder.layers[-1].final_layer_norm for model in (old, new)]
    before, after = (
        old.lm_head.quantized_weight() @ norms[0](x).T,
        new.lm_head.quantized_weight() @ norms[1](torch.cat([x, x], -1)).T,
    )
    assert torch.allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_every_norm_and_its_readers_are_known(family):
    own = family_named(family)
    old = own.random("2-2", own.draw(random.Random(1), "relu"), seed=0)
    new = own.widen(old, "1-1", 0)
    assert new.quant_config.bits == "1-1" and new.config.d_model == COPIES * old.config.d_model
    ids = torch.randint(3, old.config.vocab_size, (2, 6))
    own.calibrate(new, [dict(input_ids=ids, decoder_input_ids=ids)])
    assert new.quant_config.fracs


def test_what_cannot_be_widened_is_refused():
    old, new = pair()
    with pytest.raises(InputError, match="a student of bits 2-2 must be widened to 1-1, not one of 2-2 to 1-8"):
        widen(old, replace(old.quant_config, bits="1-8"), 0)
    with pytest.raises(InputError, match="not one of 1-1 to 1-1"):
        widen(new, new.quant_config, 0)
    old.model.encoder.layers[0].fc1.x_quant.step.data.zero_()
    with pytest.raises(
        InputError, match=r"must have learned its steps, not have none at model\.encoder\.layers\.0\.fc1\.x_quant"
    ):
        widen(old, replace(old.quant_config, bits="1-1"), 0)
    for family in families():
        if family.stock_types[0] in ("bert", "whisper", "marian"):
            model = family.random("2-2", family.draw(random.Random(0), "gelu"), seed=0)
            with pytest.raises(InputError, match="to be widened|model to widen must be of another family"):
                family.widen(model, "1-1", 0)
