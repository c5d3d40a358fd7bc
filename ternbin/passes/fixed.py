"""Choosing fixed-point constants: the largest shift whose multipliers and offsets fit their fields (docs/numerics.md, "Ranges")."""

from fractions import Fraction

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph.golden import linear_acc
from ternbin.graph.golden import rne as rounded
from ternbin.graph.ir import Weights
from ternbin.graph.ops.linear import Affine

MUL_LIMIT, BIAS_LIMIT, MAX_SHIFT = 1 << 23, 1 << 38, 30


class OutOfRange(InputError):
    """``source``, an entry of the side table or ``<node>.<attribute>``, must be ``what``, not ``got``.

    `ternbin.passes.transform` names in its place the tensor of the checkpoint that it came from.
    """

    def __init__(self, where: str, source: str, what: str, got: float):
        super().__init__(f"{where}: {source} must be {what}, not {got:g}")
        self.where, self.source, self.what, self.got = where, source, what, got


def rne(x: float | Fraction) -> int:
    """Nearest integer, ties to even, of an exact number."""
    return round(Fraction(x))


def largest(values: Tensor) -> float:
    """The largest magnitude, 0 of nothing."""
    return float(values.abs().max()) if values.numel() else 0.0


def fixed_point(scale: Tensor, bias: Tensor, where: str, affine: Affine) -> tuple[Tensor, Tensor, int]:
    """``(M, B, S)`` with ``M = rne(scale*2^S)``, ``B = rne(bias*2^S)``, S the largest in [0, 30] that fits.

    M stays below 2^23 and ``|B|`` below 2^38. Raises OutOfRange, of the scale or bias of ``affine``, if no shift fits.
    """
    for shift in range(MAX_SHIFT, -1, -1):
        mul, offset = rounded(scale * 2.0**shift), rounded(bias * 2.0**shift)
        if largest(mul) < MUL_LIMIT and largest(offset) < BIAS_LIMIT:
            return mul, offset, shift
    if largest(rounded(scale)) >= MUL_LIMIT:
        raise OutOfRange(where, affine.scale, "below 2^23 steps of the result", largest(scale))
    raise OutOfRange(where, affine.bias, "below 2^38 steps of the result", largest(bias))


def fixed_scale(scale: Fraction) -> tuple[int, int]:
    """``(M, S)`` with ``M = rne(scale*2^S)`` below 2^23, S the largest in [0, 30] that fits; M is 2^23 - 1 where none does."""
    for shift in range(MAX_SHIFT, -1, -1):
        mul = rne(scale * 2**shift)
        if mul < MUL_LIMIT:
            return mul, shift
    return MUL_LIMIT - 1, 0


def reach(weights: Weights, weight: str, magnitude: int) -> Tensor:
    """Largest magnitude of each row's sum (int64 [rows]) of codes ``weight`` with others of at most ``magnitude``."""
    magnitudes = weights[weight].abs()
    return linear_acc(torch.ones(magnitudes.shape[1]), magnitudes) * magnitude


def saturated(bias: Tensor, swing: Tensor | float, limit: int) -> Tensor:
    """``bias`` kept where it matters: beyond twice ``swing + limit`` the result saturates whatever is added to it.

    ``swing``: largest magnitude of what is added, in the unit of the bias; ``limit``: of a result that is not clipped.
    """
    most = 2 * (torch.as_tensor(swing, dtype=torch.float64) + limit)
    return bias.clamp(-most, most)
