"""Quantizers of the fake-quant model: weights per row, activations by one learned step, residual grids.

Codes are integers `q`, values `alpha * q + zero` (docs/numerics.md, "Code types").  Two forms exist:
`deploy` has only static scales and constant zeros, so that it can be lowered to integers; `paper` computes
the 8-bit range and the minimum of non-negative ternary codes at run time, for comparison.
Formulas: Liu et al., "Binary and Ternary Natural Language Generation", ACL 2023.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from ternbin.errors import InputError

MIN_ALPHA, MAX_STEP = 1e-6, 2.0**20  # of a step


class CodeKind(NamedTuple):
    """Code range of an activation; `qp` is the Qp of the learned-step formulas."""

    lo: int
    hi: int
    qp: int


KINDS = {
    "ternary": CodeKind(-1, 1, 1),
    "binary": CodeKind(-1, 1, 1),
    "ternary_nn": CodeKind(0, 2, 3),
    "binary_nn": CodeKind(0, 1, 1),
    "int8": CodeKind(-127, 127, 127),
    "uint8": CodeKind(0, 255, 255),
    "pre8": CodeKind(-128, 127, 127),
}


# -- straight-through functions ----------------------------------------------------------------


class _Replace(torch.autograd.Function):
    """Forward gives `value`, backward passes the gradient to `x` unchanged (same shapes)."""

    @staticmethod
    def forward(ctx, x, value):
        return value.view_as(value)

    @staticmethod
    def backward(ctx, *grads):
        (grad,) = grads
        return grad, None


class _Round(torch.autograd.Function):
    """Round to multiples of 2^-frac, ties to even; straight-through."""

    @staticmethod
    def forward(ctx, x, frac):
        return (x * 2.0**frac).round_().mul_(2.0**-frac)

    @staticmethod
    def backward(ctx, *grads):
        (grad,) = grads
        return grad, None


class _LearnedStep(torch.autograd.Function):
    """`alpha * clip(rne((x - zero) / alpha), lo, hi) + zero` with the LSQ gradient of `alpha`."""

    @staticmethod
    def forward(ctx, x, alpha, least, zero, lo, hi, grad_scale):
        x, step = x.contiguous(), alpha.clamp_min(least)
        scaled = (x - zero).div_(step) if zero else x / step
        codes = scaled.round().clamp_(lo, hi)
        ctx.save_for_backward(scaled, codes)
        ctx.limits, ctx.grad_scale, ctx.alpha_dtype = (lo, hi), grad_scale, alpha.dtype
        value = codes * step
        return value.add_(zero) if zero else value

    @staticmethod
    def backward(ctx, *grads):
        (grad,) = grads
        scaled, codes = ctx.saved_tensors
        grad = grad.contiguous()
        # one kernel: `grad` strictly inside the limits, 0 elsewhere
        grad_x = torch.ops.aten.hardtanh_backward(grad, scaled, *ctx.limits)
        grad_alpha = torch.dot(grad.view(-1), codes.view(-1)) - torch.dot(grad_x.view(-1), scaled.view(-1))
        return grad_x, grad_alpha.to(ctx.alpha_dtype) * ctx.grad_scale, None, None, None, None, None


class _LearnedSign(torch.autograd.Function):
    """`alpha * sign(x)` with sign(0) = +1; straight-through for |x| < alpha."""

    @staticmethod
    def forward(ctx, x, alpha, grad_scale):
        x, step = x.contiguous(), alpha.clamp_min(MIN_ALPHA).to(x.dtype)
        value = torch.where(x >= 0, step, -step)
        ctx.save_for_backward(x, value, step)
        ctx.grad_scale, ctx.alpha_dtype = grad_scale, alpha.dtype
        return value

    @staticmethod
    def backward(ctx, *grads):
        (grad,) = grads
        x, value, step = ctx.saved_tensors
        grad, limit = grad.contiguous(), step.item()
        grad_alpha = torch.dot(grad.view(-1), value.view(-1)) / step
        grad_x = torch.ops.aten.hardtanh_backward(grad, x, -limit, limit)
        return grad_x, grad_alpha.to(ctx.alpha_dtype) * ctx.grad_scale, None


def straight_through(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`value`, with the gradient of `x`."""
    return _Replace.apply(x, value)


# -- weights -----------------------------------------------------------------------------------


def weight_codes(weight: torch.Tensor, bits: int, center: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (same shape and dtype) and row scales [..., 1] of the last dimension's rows.

    Ternary: alpha = 4/3 mean|w|, q = rne(clip(w / alpha, -1, 1)).  Binary: alpha = mean|w|, q = sign(w), sign(0) = +1.
    8 bits: alpha = max|w| / 255, q the odd number in [-255, 255] nearest to w / alpha, the larger of two.
    A row of zeros has alpha 0 (codes 0 in ternary, +1 else).  `center` subtracts the row mean first.
    """
    if center:
        weight = weight - weight.mean(-1, keepdim=True)
    magnitude = weight.abs()
    if bits == 8:
        scale = magnitude.amax(-1, keepdim=True) / 255
        return ((weight / scale.clamp_min(torch.finfo(weight.dtype).tiny) / 2).floor() * 2 + 1).clamp(-255, 255), scale
    scale = magnitude.mean(-1, keepdim=True)
    if bits == 1:
        return torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype), scale
    scale = scale * (4 / 3)
    return weight.sign() * (magnitude > scale / 2), scale


def latent_weight(codes: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Weights of which :func:`weight_codes` makes these codes [rows, width] and scales [rows, 1], but for rounding.

    Ternary: 4/3 of their mean magnitude is the scale, so those that are not 0 are larger than it the fewer they are.
    """
    weight = codes * scale
    if bits != 2:
        return weight
    share = codes.abs().to(scale.dtype).mean(-1, keepdim=True)
    return weight * (3 / 4) / share.clamp_min(1 / codes.shape[-1])


# -- activations -------------------------------------------------------------------------------


def nearest_codes(x: torch.Tensor, alpha: float | torch.Tensor, zero: float, kind: str) -> torch.Tensor:
    """Codes of `x` as the fake-quant model rounds them (floating-point tensor of integers)."""
    if kind == "binary":
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return ((x - zero) / alpha).round().clamp(KINDS[kind].lo, KINDS[kind].hi)


def min_error_alpha(x: torch.Tensor, zero: float, kind: str, candidates: int = 48) -> float:
    """The step with the least squared error on `x`, from a geometric grid below max|x - zero|; 0 if x is constant."""
    sample = x.detach().flatten().float()
    sample = sample[:: max(1, sample.numel() // 65536)]
    if kind == "binary":
        return sample.abs().mean().item()
    top = (sample - zero).abs().max().item()
    if top == 0:
        return 0.0
    hi = KINDS[kind].hi
    steps = [top / hi * 2 ** (-i * 9 / candidates) for i in range(candidates)]
    errors = [(nearest_codes(sample, a, zero, kind) * a + zero - sample).square().sum().item() for a in steps]
    return steps[errors.index(min(errors))]


def paper_alpha(x: torch.Tensor, zero: float, kind: str) -> float:
    """First-batch step of the paper: 2 (signed) or 4 (non-negative) times mean|x - zero| / sqrt(Qp)."""
    factor = 4 if kind.endswith("_nn") else 2
    return factor * (x.detach() - zero).abs().mean().item() / math.sqrt(KINDS[kind].qp)


class ActQuantizer(nn.Module):
    """Quantizer of one activation tensor with one step `alpha`, learned; 0 means "set it from the next batch".

    Non-negative kinds have the constant `zero`.  A step below `least` counts as that.  `by_error` starts alpha at the
    least squared error instead of at the paper's formula (8-bit kinds always do).  In the `paper` form, 8-bit kinds
    take their range from the tensor at hand and `ternary_nn` its minimum.
    """

    def __init__(
        self, kind: str, *, zero: float = 0.0, by_error: bool = False, form: str = "deploy", least: float = MIN_ALPHA
    ):
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"quantizer kind must be one of {', '.join(KINDS)}, not {kind!r}")
        self.kind, self.zero, self.form, self.least = kind, zero, form, least
        self.by_error = by_error or kind in ("int8", "uint8", "pre8")
        self.run_time_range = form == "paper" and kind in ("int8", "uint8", "pre8")
        self.ready = False
        self.alpha = None if self.run_time_range else nn.Parameter(torch.zeros(()))

    def extra_repr(self) -> str:
        return f"{self.kind}, zero={self.zero}"

    @property
    def step(self) -> nn.Parameter:
        """The learned step; a quantizer with a run-time range has none."""
        if self.alpha is None:
            raise RuntimeError("a quantizer with a run-time range must not be asked for its step")
        return self.alpha

    @torch.no_grad()
    def start(self, x: torch.Tensor, zero: float) -> None:
        """Set alpha from `x`, within the range of steps, unless a saved value is there already."""
        if self.step.item() == 0:
            estimate = min_error_alpha if self.by_error else paper_alpha
            self.step.fill_(min(max(estimate(x, zero, self.kind), self.least), MAX_STEP))
        self.ready = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.run_time_range:
            return self._min_max(x)
        zero = self.zero
        if self.form == "paper" and self.kind == "ternary_nn":
            zero = x.detach().min().item()
        if not self.ready:
            self.start(x, zero)
        lo, hi, qp = KINDS[self.kind]
        grad_scale = 1 / math.sqrt(x.numel() * qp)
        if self.kind == "binary":
            return _LearnedSign.apply(x, self.alpha, grad_scale)
        return _LearnedStep.apply(x, self.alpha, self.least, zero, lo, hi, grad_scale)

    def _min_max(self, x: torch.Tensor) -> torch.Tensor:
        values = x.detach()
        if self.kind == "uint8":
            zero = values.min()
            alpha = (values.max() - zero).clamp_min(MIN_ALPHA) / 255
            return straight_through(x, ((values - zero) / alpha).round_() * alpha + zero)
        alpha = values.abs().max().clamp_min(MIN_ALPHA) / 127
        return straight_through(x, (values / alpha).round_() * alpha)


def step_of(quantizer: ActQuantizer) -> float:
    """The step that the forward pass uses."""
    return max(quantizer.step.item(), quantizer.least)


# -- the residual stream -----------------------------------------------------------------------


class ResidualSite:
    """One residual site: `bits`-wide integers on the grid 2^-frac; frac None means not calibrated, no rounding.

    LayerNorms and the projections that write to the same stream share one object, so calibration sets it once.
    """

    def __init__(self, name: str, bits: int, frac: int | None = None):
        self.name, self.bits, self.frac = name, bits, frac

    def round(self, x: torch.Tensor) -> torch.Tensor:
        """`x` on the grid, not clipped; straight-through."""
        return x if self.frac is None else _Round.apply(x, self.frac)

    def saturate(self, x: torch.Tensor, *, in_place: bool = False) -> torch.Tensor:
        """`x` clipped to the range of the integers; `in_place`, for all who hold it."""
        if self.frac is None:
            return x
        top = 2.0 ** (self.bits - 1)
        clip = x.clamp_ if in_place else x.clamp
        return clip(-top * 2.0**-self.frac, (top - 1) * 2.0**-self.frac)
