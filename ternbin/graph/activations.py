"""Activation functions: one entry of ``FUNCTIONS`` is all that a function needs, from training to thresholds in hardware.

docs/add-an-activation.md shows how to add one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor

PRECISION = 100  # decimal digits that exact values are computed with


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A function of one real number that falls to its minimum, then rises for ever; far to the left it goes to 0.

    ``name`` is the one that Hugging Face knows it by, ``aliases`` are others. ``exact`` is the function on float64 tensors,
    ``trained`` the one of the fake-quant model, on any dtype. ``minimum`` is attained at ``monotone_from``.

    A *smooth* function gives ``digits``: its value to 50 digits, which decides what float64 cannot. Its 8-bit codes come from a
    table. A function without ``digits`` is ``max(x, minimum)``: exact as it is, and its 8-bit codes come from clipping.
    """

    name: str
    exact: Callable[[Tensor], Tensor]
    trained: Callable[[Tensor], Tensor]
    minimum: float
    monotone_from: float
    digits: Callable[[Fraction], Decimal] | None = None
    aliases: tuple[str, ...] = ()

    @property
    def smooth(self) -> bool:
        return self.digits is not None


def decimal(x: Fraction) -> Decimal:
    """``x`` to 100 digits."""
    with localcontext(prec=PRECISION):
        return Decimal(x.numerator) / Decimal(x.denominator)


def _gelu(x: Tensor) -> Tensor:
    """``x * Phi(x)`` without cancellation for negative x."""
    return 0.5 * x * torch.erfc(-x * math.sqrt(0.5))


def _gelu_digits(x: Fraction) -> Decimal:
    """``x*Phi(x)`` to 50 digits for |x| <= 12 (beyond it: x or 0, which is as exact), by the Taylor series of erf.

    ``Phi(x) = 1/2 + 1/sqrt(2 pi) * sum_n (-1)^n x^(2n+1) / (2^n n! (2n+1))``.
    """
    with localcontext(prec=PRECISION):
        value = decimal(x)
        if abs(value) > 12:
            return value if value > 0 else Decimal(0)
        term, total, n = value, value, 0
        while abs(term) > Decimal("1e-60"):
            n += 1
            term = -term * value * value / (2 * n)
            total += term / (2 * n + 1)
        return value * (Decimal("0.5") + total / (2 * _PI).sqrt())


_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")


def _silu(x: Tensor) -> Tensor:
    """``x / (1 + exp(-x))``."""
    return x * torch.sigmoid(x)


def _silu_digits(x: Fraction) -> Decimal:
    with localcontext(prec=PRECISION):
        return _sigmoid_times(decimal(x), decimal(x))


def _gelu_new(x: Tensor) -> Tensor:
    """``x/2 * (1 + tanh(u))`` with ``u = sqrt(2/pi) * (x + 0.044715*x^3)``, as ``x * sigmoid(2u)``: nothing cancels."""
    return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _gelu_new_digits(x: Fraction) -> Decimal:
    with localcontext(prec=PRECISION):
        value = decimal(x)
        return _sigmoid_times(value, 2 * (2 / _PI).sqrt() * (value + Decimal("0.044715") * value**3))


def _sigmoid_times(x: Decimal, u: Decimal) -> Decimal:
    """``x / (1 + exp(-u))``; below -100,000 ``exp`` would overflow, and the result is 0 to 40,000 digits."""
    return x / (1 + (-max(u, Decimal(-100_000))).exp())


FUNCTIONS = (
    Activation(name="relu", exact=torch.relu, trained=torch.relu, minimum=0.0, monotone_from=0.0),
    Activation(
        name="gelu",
        exact=_gelu,
        trained=torch.nn.functional.gelu,
        digits=_gelu_digits,
        minimum=-0.16997120747990369,
        monotone_from=-0.7517915246935645,
    ),
    Activation(
        name="silu",
        aliases=("swish",),
        exact=_silu,
        trained=torch.nn.functional.silu,
        digits=_silu_digits,
        minimum=-0.2784645427610738,
        monotone_from=-1.2784645427610737,
    ),
    Activation(
        name="gelu_new",
        exact=_gelu_new,
        trained=partial(torch.nn.functional.gelu, approximate="tanh"),
        digits=_gelu_new_digits,
        minimum=-0.17004075057125406,
        monotone_from=-0.7524614220710163,
    ),
)

ACTIVATIONS: dict[str, Activation] = {name: each for each in FUNCTIONS for name in (each.name, *each.aliases)}
