"""Folding storage into constants: what the array accumulates for a graph's product, and parameters that undo it.

The array multiplies *stored* integers. With ``stored = mul*code - sub`` for the activations and weights as they are,
``acc_hw = mul*acc - sub*rowsum(w[r])``; unused lanes add a constant that ``acc_init`` takes back.
"""

from dataclasses import dataclass

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.errors import InputError
from ternbin.graph.fixedpoint import BIAS_BITS, MUL_BITS
from ternbin.graph.golden import ALWAYS, NEVER
from ternbin.graph.qtypes import KINDS, Kind
from ternbin.mapping.allocator import CapacityError

MAX_THRESHOLDS = 4


@dataclass(frozen=True)
class Operand:
    """What the array makes of codes of one kind: ``value = mul*code - sub``, bit planes put together.

    ``idle`` is the value of a lane of all-zero bits, ``most`` the largest magnitude a lane can have.
    """

    mul: int
    sub: int
    planes: int
    signed: bool
    idle: int
    most: int


def operand(hw: HwConfig, kind: str, where: str) -> Operand:
    """Raises InputError where the array cannot hold the kind."""
    code = KINDS[kind]
    signed = kind == "int8"
    if code.eight_bit:
        if hw.is_ternary:
            return Operand(1, 0, 8, signed, 0, 128 if signed else 255)
        # a bit plane of zeros counts as minus ones: value = 2*code - (sum of the plane weights)
        weights = -1 if signed else 255
        return Operand(2, weights, 8, signed, -weights, 255)
    if hw.kind == "binary" and code.bits == 2:
        raise InputError(f"{where}: code kind must be binary, binary_nn, int8 or uint8 on a binary array, not {kind}")
    return Operand(code.mul, code.sub, 1, False, -1 if hw.kind == "binary" else 0, 1)


@dataclass(frozen=True)
class Folded:
    """``acc_hw = mul*acc + add[r]`` (rows of padding: add 0), and a bound of ``|acc_hw|`` on the way."""

    mul: int
    add: np.ndarray
    bound: int
    acc_init: int


def fold_product(hw: HwConfig, x: Operand, weight: np.ndarray, kind: Kind, lanes: int, where: str) -> Folded:
    """Product of activations ``x`` with ``weight`` [rows, in] of ``kind`` spread over ``lanes`` lanes.

    Raises InputError where the accumulator may overflow: for whatever weights of 1 or 2 bits, for just these of 8 bits.
    """
    unused = lanes - weight.shape[1]
    acc_init = -unused * x.idle * kind.idle
    reach = int(np.abs(weight).sum(axis=1).max()) if kind.eight_bit else weight.shape[1]
    bound = reach * x.most + 2 * abs(acc_init)
    check_acc(hw, bound, where)
    add = -x.sub * weight.sum(axis=1, dtype=np.int64) if x.sub else np.zeros(len(weight), dtype=np.int64)
    return Folded(x.mul, add, bound, acc_init)


def check_acc(hw: HwConfig, bound: int, where: str) -> None:
    limit = (1 << hw.acc_bits - 1) - 1
    if bound > limit:
        message = f"{where}: accumulator magnitude must be at most {limit} (acc_bits {hw.acc_bits}), not {bound}"
        raise CapacityError(message, "acc_bits", bound.bit_length() + 1)


# ---- thresholds -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thresholds:
    """Hardware thresholds ``[rows, n]``; ``stored = base + sum_j dirs[j]*[acc_hw >= values[r, j]]``."""

    values: np.ndarray
    base: int
    dirs: tuple[int, ...]

    @property
    def dirs_field(self) -> int:
        return sum(1 << j for j, direction in enumerate(self.dirs) if direction > 0)


def fold_thresholds(
    hw: HwConfig, thresholds: np.ndarray, base: int, dirs: tuple[int, ...], kind: str, folded: Folded, where: str
) -> Thresholds:
    """Graph thresholds ``[rows, n]`` on acc to hardware thresholds on acc_hw, for stored codes of ``kind``."""
    if folded.bound >= NEVER:
        raise InputError(f"{where}: accumulator magnitude must be below {NEVER} for thresholds, not {folded.bound}")
    code = KINDS[kind]
    exact = folded.mul * thresholds + folded.add[:, None]
    exact = np.clip(exact, ALWAYS, NEVER)  # not by the bound: calls with fewer keys share these parameters
    exact = np.where(thresholds >= NEVER, NEVER, np.where(thresholds <= ALWAYS, ALWAYS, exact))
    exact, dirs = np.repeat(exact, code.mul, axis=1), tuple(np.repeat(dirs, code.mul).tolist())
    if len(dirs) > MAX_THRESHOLDS:
        raise InputError(
            f"{where}: thresholds of stored {kind} codes must be at most {MAX_THRESHOLDS}, not {len(dirs)}"
        )
    if hw.kind == "binary" and code.bits == 2:
        raise InputError(f"{where}: code kind must be binary or binary_nn on a binary array, not {kind}")
    return Thresholds(exact, code.mul * base - code.sub, dirs)


def pad_thresholds(hw: HwConfig, t: Thresholds, where: str) -> tuple[Thresholds, np.ndarray]:
    """Thresholds, with one more where needed, and the row of them that always gives the code of all-zero bits."""
    idle = -1 if hw.kind == "binary" else 0
    for extra in ((), (1,), (-1,)):
        dirs = t.dirs + extra
        chosen = _subset(dirs, idle - t.base)
        if chosen is not None and len(dirs) <= MAX_THRESHOLDS:
            never = np.full((len(t.values), len(extra)), NEVER, dtype=np.int64)
            values = np.concatenate([t.values, never], axis=1)
            return Thresholds(values, t.base, dirs), np.where(chosen, ALWAYS, NEVER)
    raise InputError(f"{where}: {len(t.dirs)} thresholds from base {t.base} must reach code {idle}")


def _subset(dirs: tuple[int, ...], total: int) -> np.ndarray | None:
    """Which of ``dirs`` to take so that they sum to ``total``."""
    for mask in range(1 << len(dirs)):
        chosen = np.array([mask >> j & 1 for j in range(len(dirs))], dtype=bool)
        if int(np.array(dirs)[chosen].sum()) == total:
            return chosen
    return None


# ---- scales ---------------------------------------------------------------------------------------------------------


def fold_scales(
    mul: np.ndarray, bias: np.ndarray, shift: int, folded: Folded, where: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """``(M, B, S)`` with ``rshift(acc_hw*M + B, S) = rshift(acc*mul + bias, shift)``, exactly.

    Twice the accumulator is one shift more: ``2(acc*M + B) = acc_hw*M + (2B - add*M)``.
    """
    offset = folded.mul * bias - folded.add * mul
    for name, values, bits in (("multiplier", mul, MUL_BITS), ("bias", offset, BIAS_BITS)):
        limit = 1 << bits - 1
        if values.size and not -limit <= values.min() <= values.max() < limit:
            raise InputError(f"{where}: folded {name} must fit {bits} bits, not {int(np.abs(values).max())}")
    return mul, offset, shift + folded.mul - 1
