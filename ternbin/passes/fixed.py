"""Choosing fixed-point constants: the largest shift whose multipliers and offsets fit their fields."""

from fractions import Fraction

import torch
from torch import Tensor

from ternbin.errors import InputError

MUL_LIMIT, BIAS_LIMIT, MAX_SHIFT = 1 << 23, 1 << 38, 30


def rne(x: float | Fraction) -> int:
    """Nearest integer, ties to even, of an exact number."""
    return round(Fraction(x))


def rounded(values: Tensor) -> Tensor:
    """Nearest integers (int64), ties to even, of float64 values."""
    return values.to(torch.float64).round().to(torch.int64)


def fixed_point(scale: Tensor, bias: Tensor, where: str) -> tuple[Tensor, Tensor, int]:
    """``(M, B, S)`` with ``M = rne(scale*2^S)``, ``B = rne(bias*2^S)``, S the largest in [0, 30] that fits.

    M stays below 2^23 and ``|B|`` below 2^38. Raises InputError naming ``where`` if no shift fits.
    """
    for shift in range(MAX_SHIFT, -1, -1):
        mul, offset = scale * 2.0**shift, bias * 2.0**shift
        if mul.max() < MUL_LIMIT and offset.abs().max() < BIAS_LIMIT:  # so large values never reach int64
            mul, offset = rounded(mul), rounded(offset)
            if mul.max() < MUL_LIMIT and offset.abs().max() < BIAS_LIMIT:
                return mul, offset, shift
    raise InputError(
        f"{where}: scale must be below 2^23 and bias below 2^38 in output steps, not "
        f"{float(scale.max()):g} and {float(bias.abs().max()):g}"
    )


def fixed_scale(scale: Fraction, where: str) -> tuple[int, int]:
    """``(M, S)`` with ``M = rne(scale*2^S)`` below 2^23, S the largest in [0, 30] that fits."""
    for shift in range(MAX_SHIFT, -1, -1):
        mul = rne(scale * 2**shift)
        if mul < MUL_LIMIT:
            return mul, shift
    raise InputError(f"{where}: scale must be below 2^23 output steps, not {float(scale):g}")
