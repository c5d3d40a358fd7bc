"""Codes: quantizers before folding, thresholds and 8-bit requantization after it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ternbin.graph import golden
from ternbin.graph.fixedpoint import BIAS_BITS, MUL_BITS
from ternbin.graph.ir import Codes, Node, Op, Real, Residual, Type, WeightName
from ternbin.graph.ops.call import Call
from ternbin.graph.ops.check import Check
from ternbin.graph.ops.linear import Product
from ternbin.graph.ops.registry import op
from ternbin.graph.qtypes import KINDS

THRESHOLD_BITS = 16
THRESHOLD_LIMIT = (1 << 15) - 1  # what accumulators that are compared with thresholds stay below


@op("quantize", sources=1, stage="real")
class Quantize(Op):
    """``clip(rne((value - zero)/alpha))`` of the real value of source 0; binary: its sign, +1 at 0."""

    name: str
    alpha: float
    zero: float
    kind: str

    def infer(self, check: Check) -> Type:
        x = check.source(0, Residual, Real)
        check.need(0 < self.alpha < math.inf, "alpha must be positive and finite", self.alpha)
        return Codes(x.shape, check.kind("kind"))

    def compute(self, call: Call, node: Node["Quantize"], x: Tensor) -> Tensor:
        value, source = x.to(torch.float64), node.src[0].type
        if isinstance(source, Residual):
            value = value * 2.0**-source.frac
        if self.kind == "binary":
            return torch.where(value >= 0, 1, -1)
        kind = KINDS[self.kind]
        return ((value - self.zero) / self.alpha).round().clamp(kind.lo, kind.hi).to(torch.int64)


@op("quant", sources=1, stage="final")
class Quant(Op):
    """Residual to codes: one or two ``thresholds``, or for int8 a multiplier and a shift."""

    name: str
    kind: str
    thresholds: tuple[int, ...]
    mul: int
    shift: int

    def infer(self, check: Check) -> Type:
        x = check.source(0, Residual)
        want = {"ternary": 2, "binary": 1, "int8": 0}[check.kind("kind", "ternary", "binary", "int8")]
        check.need(len(self.thresholds) == want, f"thresholds must be {want}", self.thresholds)
        fits = all(-(1 << 23) <= t < 1 << 23 for t in self.thresholds)
        check.need(fits, "thresholds must fit 24 bits", self.thresholds)
        check.between("mul", 0, (1 << 23) - 1)
        check.between("shift", 0, 30)
        return Codes(x.shape, self.kind)

    def compute(self, call: Call, node: Node["Quant"], x: Tensor) -> Tensor:
        if self.kind == "int8":
            return golden.quant_int8(x, self.mul, self.shift)
        return golden.quant_thresholds(x, self.kind, self.thresholds)


@dataclass(frozen=True, kw_only=True)
class ByThresholds(Op):
    """Sums to codes of ``kind``: ``base + sum_j dirs[j]*[acc >= thresholds[r, j]]``, thresholds int64 [out or 1, len(dirs)]."""

    thresholds: WeightName
    base: int
    dirs: tuple[int, ...]
    kind: str

    def check_thresholds(self, c: Check, rows: int | str, limit: int) -> None:
        c.need(limit < THRESHOLD_LIMIT, f"accumulator must stay below {THRESHOLD_LIMIT}", limit)
        c.fits("thresholds", THRESHOLD_BITS, rows, len(self.dirs))
        c.need(1 <= len(self.dirs) <= 4, "dirs must have 1 to 4 entries", self.dirs)

    def codes(self, call: Call, acc: Tensor) -> Tensor:
        return golden.threshold_codes(acc, call.weights[self.thresholds], self.base, self.dirs)


@dataclass(frozen=True, kw_only=True)
class Requantized(Op):
    """Sums times ``mul`` plus ``bias``, int64 [out or 1], shifted."""

    mul: WeightName
    bias: WeightName
    shift: int

    def check_scales(self, c: Check, rows: int | str) -> None:
        c.fits("mul", MUL_BITS, rows)
        c.fits("bias", BIAS_BITS, rows)
        c.between("shift", 0, 30)

    def codes8(self, call: Call, acc: Tensor, kind: str, lut: Tensor | None = None) -> Tensor:
        lo, hi = KINDS[kind].lo, KINDS[kind].hi
        return golden.requant8(acc, call.weights[self.mul], call.weights[self.bias], self.shift, lo, hi, lut)


@op("linear_codes", sources=1, stage="final")
class LinearCodes(Product, ByThresholds):
    """A projection to codes of 1 or 2 bits."""

    name: str

    def infer(self, check: Check) -> Type:
        acc = self.sums(check)
        self.check_thresholds(check, acc.shape[-1], acc.limit)
        return Codes(acc.shape, check.kind("kind", "ternary", "binary", "ternary_nn", "binary_nn"))

    def compute(self, call: Call, node: Node["LinearCodes"], x: Tensor) -> Tensor:
        return self.codes(call, self.acc(call, node, x))


@op("linear_codes8", sources=1, stage="final")
class LinearCodes8(Product, Requantized):
    """A projection to 8-bit codes, by way of a table int64 [256] where there is a ``lut``."""

    name: str
    kind: str
    lut: WeightName | None

    def infer(self, check: Check) -> Type:
        acc = self.sums(check)
        self.check_scales(check, acc.shape[-1])
        if self.lut is not None:
            check.weight("lut", torch.int64, 256)
        return Codes(acc.shape, check.kind("kind", "int8", "uint8"))

    def compute(self, call: Call, node: Node["LinearCodes8"], x: Tensor) -> Tensor:
        lut = None if self.lut is None else call.weights[self.lut]
        return self.codes8(call, self.acc(call, node, x), self.kind, lut)
