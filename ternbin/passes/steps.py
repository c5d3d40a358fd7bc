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

from ternbin.graph.activations import PRECISION, Activation, decimal
from ternbin.graph.golden import ALWAYS, NEVER
from ternbin.graph.qtypes import KINDS

TIE = Decimal("1e-40")
FAR = 2.0**51  # float64 tells integers from what lies between them below this
MARGIN = 1e-12  # a float64 function of a float64 affine is nearer than this to the real value, relative to 1 + |terms|


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


def fold(
    scale: Tensor, bias: Tensor, limit: int, fn: Activation | None, alpha: float, zero: float, kind: str
) -> Folded:
    """Thresholds of ``quantize(fn(acc*scale[r] + bias[r]))`` for integers ``|acc| <= limit``; fn None is the identity."""
    all_steps = steps(alpha, zero, kind)
    if fn is not None and fn.smooth:
        return _fold_smooth(fn, scale, bias, limit, all_steps, KINDS[kind].lo)
    always = [False] * len(all_steps)
    if fn is not None:  # reaching a step at or below the minimum takes nothing
        least = Fraction(fn.minimum)
        always = [s.at < least or (s.at == least and s.inclusive) for s in all_steps]
    columns = [
        torch.full(scale.shape, ALWAYS) if yes else _first_integers(step, scale, bias, limit)
        for step, yes in zip(all_steps, always, strict=True)
    ]
    return Folded(torch.stack(columns, 1), KINDS[kind].lo, (1,) * len(all_steps))


def _first_integers(step: Step, scale: Tensor, bias: Tensor, limit: int) -> Tensor:
    """:func:`first_integer` of each row, clamped: int64 [rows].

    Float64 says between which integers the step lies; rows where it is too near to one, or scale is 0, are counted exactly.
    """
    near = (float(step.at) - bias) / scale
    below = near.floor()
    doubt = MARGIN * (1 + near.abs() + ((abs(float(step.at)) + bias.abs()) / scale).abs())
    sure = (near.abs() < FAR) & (near - below > doubt) & (below + 1 - near > doubt)  # false where nan
    result = torch.where(sure, below + 1, 0).to(torch.int64).tolist()
    for row in (~sure).nonzero().flatten().tolist():
        result[row] = first_integer(step, Fraction(scale[row].item()), Fraction(bias[row].item()))
    return torch.tensor([clamp(threshold, limit) for threshold in result])


# ---- smooth functions: they fall to their minimum, then rise --------------------------------------------------------


def _fold_smooth(fn: Activation, scale: Tensor, bias: Tensor, limit: int, all_steps: list[Step], lo: int) -> Folded:
    columns: list[Tensor] = []
    dirs: list[int] = []
    base = lo
    for step in all_steps:
        if step.at < Fraction(fn.minimum):
            base += 1
            continue
        if step.at < 0:  # reached far to the left, where the function approaches 0 from below, lost, and reached again
            base += 1
            columns.append(_column(fn, scale, bias, limit, step, rising=False))
            dirs.append(-1)
        columns.append(_column(fn, scale, bias, limit, step, rising=True))
        dirs.append(1)
    return Folded(torch.stack(columns, 1), base, tuple(dirs))


def _column(fn: Activation, scale: Tensor, bias: Tensor, limit: int, step: Step, rising: bool) -> Tensor:
    """Smallest acc of each row past the step on the rising branch, or short of it on the falling one."""
    found, doubtful = _bisect(fn, scale, bias, limit, step, rising)
    result = found.tolist()
    for row in doubtful.nonzero().flatten().tolist():
        s, b = Fraction(scale[row].item()), Fraction(bias[row].item())
        result[row] = _smallest(lambda acc, s=s, b=b: past(fn, s * acc + b, step, rising), limit)
    return torch.tensor([clamp(t, limit) for t in result])


def _bisect(fn: Activation, scale: Tensor, bias: Tensor, limit: int, step: Step, rising: bool) -> tuple[Tensor, Tensor]:
    """Bisection of all rows in float64: the thresholds, and which of them float64 cannot decide."""
    at = float(step.at)

    def excess(acc: Tensor) -> Tensor:  # positive where past the step
        x = acc * scale + bias
        y = fn.exact(x) - at
        return torch.where(x >= fn.monotone_from, y if rising else 1.0, -1.0 if rising else -y)

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


def past(fn: Activation, x: Fraction, step: Step, rising: bool) -> bool:
    """Whether x is past the step on the rising branch, or short of it on the falling one."""
    on_right = x >= Fraction(fn.monotone_from)
    if rising != on_right:
        return on_right
    return reached(fn, x, step) == rising


def reached(fn: Activation, x: Fraction, step: Step) -> bool:
    """Whether the smooth function at x is past the step; equal to 40 digits counts as equal."""
    if fn.digits is None:
        raise ValueError(f"{fn.name} must be smooth to have digits")
    with localcontext(prec=PRECISION):
        difference = fn.digits(x) - decimal(step.at)
    return difference > TIE or (step.inclusive and abs(difference) <= TIE)
