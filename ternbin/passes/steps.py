"""Exact images of a quantizer's steps: the integers at which ``quantize(fn(acc*scale + bias))`` changes.

A code ``c+1`` begins at ``zero + alpha*(c + 1/2)``; there ties to even make it begin *at* the boundary where c+1 is even
and *above* it where c+1 is odd. Scales, biases and alphas count as the exact rationals their float64 values are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

import torch
from torch import Tensor

from ternbin.graph.activations import gelu
from ternbin.graph.golden import ALWAYS, NEVER
from ternbin.graph.qtypes import KINDS

GELU_ARGMIN = -0.7517915246935645  # where x*Phi(x) is smallest
GELU_MIN = -0.16997120747990369
TIE = Decimal("1e-40")
MARGIN = 1e-12  # float64 GELU of a float64 affine is nearer than this to the real value, relative to 1 + |terms|


@dataclass(frozen=True)
class Step:
    """Codes rise by one where the value reaches ``at`` (``inclusive``) or exceeds it."""

    at: Fraction
    inclusive: bool


def steps(alpha: float, zero: float, kind: str) -> list[Step]:
    """Where the codes of a quantizer rise, from the lowest code up. A binary sign rises twice at 0."""
    if kind == "binary":
        return [Step(Fraction(0), True)] * 2
    lo, hi = KINDS[kind].lo, KINDS[kind].hi
    return [Step(Fraction(zero) + Fraction(alpha) * Fraction(2 * c + 1, 2), (c + 1) % 2 == 0) for c in range(lo, hi)]


def first_integer(step: Step, scale: Fraction, bias: Fraction) -> int:
    """The smallest integer v with ``scale*v + bias`` past the step; clamped images ALWAYS, NEVER where scale is 0."""
    if scale == 0:
        return ALWAYS if bias > step.at or (step.inclusive and bias == step.at) else NEVER
    exact = (step.at - bias) / scale
    return math.ceil(exact) if step.inclusive else math.floor(exact) + 1


def clamp(threshold: int, limit: int) -> int:
    """ALWAYS or NEVER for thresholds that no ``|acc| <= limit`` can tell from them."""
    return ALWAYS if threshold <= -limit else NEVER if threshold > limit else threshold


@dataclass(frozen=True)
class Folded:
    """Attributes of a threshold op: ``base + sum_j dirs[j]*[acc >= thresholds[r, j]]``."""

    thresholds: Tensor  # int64 [rows, NT]
    base: int
    dirs: tuple[int, ...]


def fold(scale: Tensor, bias: Tensor, limit: int, fn: str | None, alpha: float, zero: float, kind: str) -> Folded:
    """Thresholds of ``quantize(fn(acc*scale[r] + bias[r]))`` for integers ``|acc| <= limit``; fn None, relu or gelu."""
    all_steps = steps(alpha, zero, kind)
    if fn == "gelu":
        return _fold_gelu(scale, bias, limit, all_steps, KINDS[kind].lo)
    if fn == "relu":  # reaching a step at or below 0 takes nothing
        always = [s.at < 0 or (s.at == 0 and s.inclusive) for s in all_steps]
    else:
        always = [False] * len(all_steps)
    rows = []
    for s, b in zip(map(Fraction, scale.tolist()), map(Fraction, bias.tolist()), strict=True):
        rows.append(
            [
                ALWAYS if yes else clamp(first_integer(step, s, b), limit)
                for step, yes in zip(all_steps, always, strict=True)
            ]
        )
    return Folded(torch.tensor(rows), KINDS[kind].lo, (1,) * len(all_steps))


# ---- GELU: falls to its minimum, then rises -------------------------------------------------------------------------


def _fold_gelu(scale: Tensor, bias: Tensor, limit: int, all_steps: list[Step], lo: int) -> Folded:
    columns, dirs, base = [], [], lo
    for step in all_steps:
        if step.at < Fraction(GELU_MIN):
            base += 1
            continue
        if step.at < 0:  # reached far to the left, where GELU approaches 0 from below, lost, and reached again
            base += 1
            columns.append(_gelu_column(scale, bias, limit, step, rising=False))
            dirs.append(-1)
        columns.append(_gelu_column(scale, bias, limit, step, rising=True))
        dirs.append(1)
    return Folded(torch.stack(columns, 1), base, tuple(dirs))


def _gelu_column(scale: Tensor, bias: Tensor, limit: int, step: Step, rising: bool) -> Tensor:
    """Smallest acc of each row past the step on the rising branch, or short of it on the falling one."""
    found, doubtful = _bisect(scale, bias, limit, step, rising)
    result = found.tolist()
    for row in doubtful.nonzero().flatten().tolist():
        s, b = Fraction(scale[row].item()), Fraction(bias[row].item())
        result[row] = _smallest(lambda acc, s=s, b=b: _past(s * acc + b, step, rising), limit)
    return torch.tensor([clamp(t, limit) for t in result])


def _bisect(scale: Tensor, bias: Tensor, limit: int, step: Step, rising: bool) -> tuple[Tensor, Tensor]:
    """Bisection of all rows in float64: the thresholds, and which of them float64 cannot decide."""
    at = float(step.at)

    def excess(acc: Tensor) -> Tensor:  # positive where past the step
        x = acc * scale + bias
        y = gelu(x) - at
        return torch.where(x >= GELU_ARGMIN, y if rising else 1.0, -1.0 if rising else -y)

    low, high = torch.full_like(scale, -limit - 1), torch.full_like(scale, limit + 1)  # low: not past; high: past
    while bool((high - low > 1).any()):
        middle = ((low + high) / 2).floor()
        past = excess(middle) > 0
        low, high = torch.where(past, low, middle), torch.where(past, middle, high)
    margin = MARGIN * (1 + bias.abs() + (scale * limit).abs())
    doubtful = (excess(low).abs() <= margin) | (excess(high).abs() <= margin)
    return high.to(torch.int64), doubtful


def _smallest(past: Callable[[int], bool], limit: int) -> int:
    """Smallest acc in [-limit, limit] with ``past(acc)``, monotone; limit+1 if there is none."""
    low, high = -limit - 1, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if past(middle) else (middle, high)
    return high


def _past(x: Fraction, step: Step, rising: bool) -> bool:
    on_right = x >= Fraction(GELU_ARGMIN)
    if rising != on_right:
        return on_right
    return reached(exact_gelu(x), step) == rising


def reached(value: Decimal, step: Step) -> bool:
    """Whether a value known to 50 digits is past the step; equal to 40 digits counts as equal."""
    with localcontext(prec=100):
        difference = value - _decimal(step.at)
    return difference > TIE or (step.inclusive and abs(difference) <= TIE)


def _decimal(x: Fraction) -> Decimal:
    with localcontext(prec=100):
        return Decimal(x.numerator) / Decimal(x.denominator)


def exact_gelu(x: Fraction) -> Decimal:
    """``x*Phi(x)`` to 50 digits for |x| <= 12 (beyond it: x or 0, which is as exact), by the Taylor series of erf.

    ``Phi(x) = 1/2 + 1/sqrt(2 pi) * sum_n (-1)^n x^(2n+1) / (2^n n! (2n+1))``.
    """
    with localcontext(prec=100):
        value = _decimal(x)
        if abs(value) > 12:
            return value if value > 0 else Decimal(0)
        term, total, n = value, value, 0
        while abs(term) > Decimal("1e-60"):
            n += 1
            term = -term * value * value / (2 * n)
            total += term / (2 * n + 1)
        return value * (Decimal("0.5") + total / (2 * _PI).sqrt())


_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")
