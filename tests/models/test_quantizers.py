"""Quantizers against the formulas, written out naively."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS
from ternbin.models.quantizers import (
    KINDS,
    ActQuantizer,
    ResidualSite,
    min_error_alpha,
    nearest_codes,
    paper_alpha,
    weight_codes,
)

rows = st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=12)


def grad_of(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad


def quantizer(kind, alpha, **options):
    result = ActQuantizer(kind, **options)
    result.step.data.fill_(alpha)
    return result


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows)
def test_ternary_weight_is_rounded_clipped_quotient(row):
    codes, scale = weight_codes(torch.tensor([row]).double(), 2)
    alpha = 4 / 3 * sum(map(abs, row)) / len(row)
    assert scale.item() == pytest.approx(alpha)
    for value, code in zip(row, codes[0].tolist(), strict=True):
        quotient = max(-1.0, min(1.0, value / scale.item())) if alpha else 0.0
        assert code == round(quotient) or abs(abs(quotient) - 0.5) < 1e-12


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows)
def test_binary_weight_is_sign_times_mean_magnitude(row):
    codes, scale = weight_codes(torch.tensor([row]), 1)
    assert codes[0].tolist() == [1 if value >= 0 else -1 for value in row]
    assert scale.item() == pytest.approx(sum(map(abs, row)) / len(row), abs=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows)
def test_8_bit_weight_is_the_nearest_odd_multiple(row):
    codes, scale = weight_codes(torch.tensor([row]).double(), 8)
    assert scale.item() == pytest.approx(max(map(abs, row)) / 255)
    for value, code in zip(row, codes[0].tolist(), strict=True):
        assert code % 2 == 1 and abs(code) <= 255
        assert abs(value - code * scale.item()) <= scale.item() * (1 + 1e-9)


@pytest.mark.parametrize("bits, code", [(2, 0), (1, 1), (8, 1)])
def test_row_of_zeros_has_scale_zero(bits, code):
    codes, scale = weight_codes(torch.zeros(2, 5), bits)
    assert (codes == code).all() and (scale == 0).all()


def test_centered_weight_ignores_a_common_offset():
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).double()
    for a, b in zip(weight_codes(weight, 2, center=True), weight_codes(weight + 5, 2, center=True), strict=True):
        assert torch.allclose(a, b)


def test_ties_go_to_even():
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    assert quantizer("ternary", 1.0)(x).tolist() == [-1, 0, 0, 1, 1]
    assert quantizer("ternary_nn", 1.0)(x).tolist() == [0, 0, 0, 2, 2]
    assert quantizer("binary", 1.0)(torch.tensor([-1e-9, 0.0])).tolist() == [-1, 1]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "binary"])
@pytest.mark.parametrize("zero", [0.0, ACTIVATIONS["gelu"].minimum])
def test_forward_and_gradients_follow_the_learned_step_formulas(kind, zero):
    lo, hi, qp = KINDS[kind]
    x = (torch.randn(200, generator=torch.Generator().manual_seed(1)) * hi).double().requires_grad_()
    act = quantizer(kind, 0.7, zero=zero).double()
    grad = torch.randn(200, generator=torch.Generator().manual_seed(2)).double()
    y = act(x)
    y.backward(grad)
    alpha = act.step.item()
    expected_alpha = 0.0
    for xi, yi, gi, gx in zip(x.tolist(), y.tolist(), grad.tolist(), grad_of(x).tolist(), strict=True):
        v = (xi - zero) / alpha
        code = min(hi, max(lo, round(v)))
        assert yi == pytest.approx(alpha * code + zero)
        assert gx == (gi if lo < v < hi else 0)
        expected_alpha += gi * (code - v if lo <= v <= hi else code)
    assert grad_of(act.step).item() == pytest.approx(expected_alpha / math.sqrt(200 * qp))


def test_binary_gradients():
    x = torch.tensor([-2.0, -0.3, 0.0, 0.4, 3.0], requires_grad=True)
    act = quantizer("binary", 1.0)
    act(x).backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert grad_of(x).tolist() == [0, 2, 3, 4, 0]
    assert grad_of(act.step).item() == pytest.approx((-1 - 2 + 3 + 4 + 5) / math.sqrt(5))


def test_first_batch_sets_alpha_by_the_papers_formula():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    act = ActQuantizer("ternary")
    act(x)
    assert act.step.item() == pytest.approx(2 * x.abs().mean().item())
    first = act.step.item()
    act(10 * x)
    assert act.step.item() == first
    assert paper_alpha(x.abs(), 0.0, "ternary_nn") == pytest.approx(4 * x.abs().mean().item() / math.sqrt(3))


@pytest.mark.parametrize("kind", ["ternary_nn", "binary_nn", "uint8"])
def test_step_of_probabilities_has_less_error_than_the_papers(kind):
    probs = torch.softmax(3 * torch.randn(64, 40, generator=torch.Generator().manual_seed(0)), -1)

    def error(alpha):
        return (nearest_codes(probs, alpha, 0.0, kind) * alpha - probs).square().sum().item()

    assert error(min_error_alpha(probs, 0.0, kind)) < error(paper_alpha(probs, 0.0, kind))


def test_saved_alpha_is_not_overwritten():
    act = ActQuantizer("ternary")
    act.load_state_dict({"alpha": torch.tensor(0.25)})
    act(torch.full((4,), 100.0))
    assert act.step.item() == 0.25


def test_paper_form_takes_the_range_from_the_tensor():
    x = torch.tensor([-1.0, 0.5, 2.54])
    assert torch.allclose(ActQuantizer("int8", form="paper")(x), torch.tensor([-1.0, 0.5, 2.54]))
    y = ActQuantizer("uint8", form="paper")(x)
    assert y.min() == -1 and y.max().item() == pytest.approx(2.54)
    act = quantizer("ternary_nn", 1.0, form="paper")
    assert act(x).tolist() == [-1, 1, 1]


def test_residual_site_rounds_to_even_and_saturates():
    site = ResidualSite("x", bits=8, frac=2)
    x = torch.tensor([0.125, 0.375, 100.0, -100.0], requires_grad=True)
    y = site.saturate(site.round(x))
    assert y.tolist() == [0, 0.5, 127 / 4, -32]
    y.sum().backward()
    assert grad_of(x).tolist() == [1, 1, 0, 0]


def test_unknown_kind_is_refused():
    with pytest.raises(InputError, match="quantizer kind must be one of .*, not 'int4'"):
        ActQuantizer("int4")
