"""Products with weights, and what follows them before folding."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ternbin.graph import golden
from ternbin.graph.activations import ACTIVATIONS
from ternbin.graph.ir import Codes, Ints, Node, Op, Real, Type, WeightName
from ternbin.graph.ops.call import Call
from ternbin.graph.ops.check import Check, dot_limit
from ternbin.graph.ops.registry import op
from ternbin.graph.qtypes import KINDS


def magnitude(codes: Node[Op]) -> int:
    """Largest magnitude of the codes that a node gives."""
    return KINDS[codes.expect(Codes).kind].magnitude


@dataclass(frozen=True, kw_only=True)
class Product(Op):
    """What ops that multiply source 0 with codes ``weight`` [out, in] have in common."""

    weight: WeightName
    weight_kind: str

    def sums(self, c: Check) -> Ints:
        """The type of the exact sums."""
        x = c.source(0, Codes)
        weight = c.codes("weight", x.shape[-1])
        return Ints((*x.shape[:-1], weight.shape[0]), dot_limit(x.kind, self.weight_kind, x.shape[-1]))

    def acc(self, call: Call, node: Node[Op], x: Tensor) -> Tensor:
        """The exact sums ``[.., out]``."""
        bound = x.shape[-1] * magnitude(node.src[0]) * KINDS[self.weight_kind].magnitude
        return golden.linear_acc(x, call.weights[self.weight], bound)


@op("matmul", sources=1, stage="real")
class Matmul(Product):
    """Exact sum over code values, ``[.., out]``."""

    def infer(self, check: Check) -> Type:
        return self.sums(check)

    def compute(self, call: Call, node: Node["Matmul"], x: Tensor) -> Tensor:
        return self.acc(call, node, x)


@op("affine", sources=1, stage="real")
class Affine(Op):
    """``acc*scale + bias``; ``scale``, ``bias`` float64 [out] or [1]."""

    scale: WeightName
    bias: WeightName

    def infer(self, check: Check) -> Type:
        acc = check.source(0, Ints)
        scale = check.row_weight("scale", torch.float64, acc.shape[-1])
        check.row_weight("bias", torch.float64, acc.shape[-1])
        check.need(bool((scale >= 0).all()), "scale must not be negative", float(scale.min()))
        return Real(acc.shape)

    def compute(self, call: Call, node: Node["Affine"], acc: Tensor) -> Tensor:
        return acc * call.weights[self.scale] + call.weights[self.bias]


@op("act", sources=1, stage="real")
class Act(Op):
    """An activation function of activations.py."""

    fn: str

    def infer(self, check: Check) -> Type:
        check.need(self.fn in ACTIVATIONS, f"fn must be one of {', '.join(ACTIVATIONS)}", self.fn)
        return check.source(0, Real)

    def compute(self, call: Call, node: Node["Act"], x: Tensor) -> Tensor:
        return ACTIVATIONS[self.fn].exact(x)


@op("snap", sources=1, stage="real")
class Snap(Op):
    """``delta*clip(rne(x/delta), -128, 127)``: the 8-bit grid before a smooth activation function."""

    delta: float

    def infer(self, check: Check) -> Type:
        check.need(0 < self.delta < math.inf, "delta must be positive and finite", self.delta)
        return check.source(0, Real)

    def compute(self, call: Call, node: Node["Snap"], x: Tensor) -> Tensor:
        return self.delta * (x / self.delta).round().clamp(-128, 127)
