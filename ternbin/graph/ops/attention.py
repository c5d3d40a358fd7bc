"""Attention: scores, softmax to probability codes, and the context."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ternbin.graph import golden
from ternbin.graph.ir import Codes, Ints, Node, Op, Real, Type, WeightName, features
from ternbin.graph.ops.call import Call
from ternbin.graph.ops.check import Check, dot_limit
from ternbin.graph.ops.codes import ByThresholds, Requantized
from ternbin.graph.ops.registry import op
from ternbin.graph.qtypes import KINDS

HEADS = (1, 1 << 10)


@op("scores", sources=2, stage="both")
class Scores(Op):
    """Exact products by head of queries [T, d] and keys [N, d]: ``[heads, T, N]``."""

    name: str
    heads: int

    def infer(self, check: Check) -> Type:
        q, k, heads = check.source(0, Codes), check.source(1, Codes), check.between("heads", *HEADS)
        fits = q.shape[-1] == k.shape[-1] and features(q) % heads == 0
        check.need(fits, "q and k must have equal width, a multiple of heads", (q.shape, k.shape))
        return Ints((heads, q.shape[0], k.shape[0]), dot_limit(q.kind, k.kind, features(q) // heads))

    def compute(self, call: Call, node: Node["Scores"], q: Tensor, k: Tensor) -> Tensor:
        return golden.scores(q, k, self.heads, node.expect(Ints).limit)


@op("real_softmax", sources=1, stage="real")
class RealSoftmax(Op):
    """Softmax of ``scale*s`` over valid keys; ``scale`` = alpha_q*alpha_k."""

    scale: float
    causal: bool

    def infer(self, check: Check) -> Type:
        check.need(0 < self.scale < math.inf, "scale must be positive and finite", self.scale)
        return Real(check.source(0, Ints).shape)

    def compute(self, call: Call, node: Node["RealSoftmax"], s: Tensor) -> Tensor:
        outside = torch.arange(s.shape[-1], device=s.device) >= call.valid(self.causal, s).unsqueeze(-1)
        return (s * self.scale).masked_fill(outside, -math.inf).softmax(-1)


@op("softmax_codes", sources=1, stage="final")
class SoftmaxCodes(Op):
    """Rules 7 and 8: scores to probability codes by the table ``lut`` int64 [256]."""

    name: str
    causal: bool
    lut: WeightName
    power: bool
    mul: int
    shift: int
    kind: str
    c1: int
    c2: int
    recip: int

    def infer(self, check: Check) -> Type:
        check.weight("lut", torch.int64, 256)
        check.between("mul", 0, (1 << 16) - 1)
        check.between("shift", 0, 40)
        check.between("c1", 1, (1 << 20) - 1)
        check.between("c2", 1, (1 << 20) - 1)
        check.between("recip", 1, (1 << 48) - 1)
        return Codes(check.source(0, Ints).shape, check.kind("kind", "ternary_nn", "binary_nn", "uint8"))

    def compute(self, call: Call, node: Node["SoftmaxCodes"], s: Tensor) -> Tensor:
        return golden.softmax_codes(
            s,
            call.valid(self.causal, s),
            lut=call.weights[self.lut],
            power=self.power,
            mul=self.mul,
            shift=self.shift,
            kind=self.kind,
            c1=self.c1,
            c2=self.c2,
            recip=self.recip,
        )


@dataclass(frozen=True, kw_only=True)
class Attended(Op):
    """What ops that multiply probabilities [heads, T, N] with values [N, d] have in common."""

    heads: int

    def sums(self, c: Check) -> Ints:
        """The type of the exact sums, heads merged."""
        p, v, heads = c.source(0, Codes), c.source(1, Codes), c.between("heads", *HEADS)
        fits = len(p.shape) == 3 and p.shape[0] == heads and p.shape[2] == v.shape[0] and features(v) % heads == 0
        c.need(fits, "p [heads, T, N] and v [N, d] must fit", (p.shape, v.shape))
        return Ints((p.shape[1], v.shape[1]), dot_limit(p.kind, v.kind, v.shape[0]))

    def acc(self, node: Node[Op], p: Tensor, v: Tensor) -> Tensor:
        """The exact sums ``[.., T, d]``."""
        of_p, of_v = (KINDS[source.expect(Codes).kind].magnitude for source in node.src)
        return golden.context_acc(p, v, self.heads, p.shape[-1] * of_p * of_v)


@op("context", sources=2, stage="real")
class Context(Attended):
    """Exact sum over code values, heads merged."""

    def infer(self, check: Check) -> Type:
        return self.sums(check)

    def compute(self, call: Call, node: Node["Context"], p: Tensor, v: Tensor) -> Tensor:
        return self.acc(node, p, v)


@op("context_codes", sources=2, stage="final")
class ContextCodes(Attended, ByThresholds):
    """The context as codes of 1 or 2 bits; thresholds [1, n] for all rows."""

    name: str

    def infer(self, check: Check) -> Type:
        acc = self.sums(check)
        self.check_thresholds(check, 1, acc.limit)
        return Codes(acc.shape, check.kind("kind", "ternary", "binary"))

    def compute(self, call: Call, node: Node["ContextCodes"], p: Tensor, v: Tensor) -> Tensor:
        return self.codes(call, self.acc(node, p, v))


@op("context_codes8", sources=2, stage="final")
class ContextCodes8(Attended, Requantized):
    """The context as 8-bit codes."""

    name: str
    kind: str

    def infer(self, check: Check) -> Type:
        acc = self.sums(check)
        self.check_scales(check, 1)
        return Codes(acc.shape, check.kind("kind", "int8"))

    def compute(self, call: Call, node: Node["ContextCodes8"], p: Tensor, v: Tensor) -> Tensor:
        return self.codes8(call, self.acc(node, p, v), self.kind)
