"""The residual stream: LayerNorm, and what is added to it. The value of a residual integer x is ``x * 2^-frac``."""

import math

import torch
from torch import Tensor

from ternbin.graph import golden
from ternbin.graph.fixedpoint import BIAS_BITS, GRID_FRAC, MUL_BITS
from ternbin.graph.ir import Grid, Node, Op, Real, Residual, Type, WeightName, features
from ternbin.graph.ops.call import Call
from ternbin.graph.ops.check import Check
from ternbin.graph.ops.codes import Requantized
from ternbin.graph.ops.linear import Product
from ternbin.graph.ops.registry import op


@op("real_layernorm", sources=1, stage="real")
class RealLayernorm(Op):
    """LayerNorm with ``gamma`` and ``beta`` float64 [d], rounded (rne) to the grid of ``bits`` and ``frac``, clipped."""

    name: str
    gamma: WeightName
    beta: WeightName
    eps: float
    frac: int
    bits: int

    def infer(self, check: Check) -> Type:
        x = check.source(0, Residual)
        check.weight("gamma", torch.float64, x.shape[-1])
        check.weight("beta", torch.float64, x.shape[-1])
        check.need(0 <= self.eps < math.inf, "eps must be finite and not negative", self.eps)
        return Residual(x.shape, *check.grid())

    def compute(self, call: Call, node: Node["RealLayernorm"], x: Tensor) -> Tensor:
        gamma, beta = call.weights[self.gamma], call.weights[self.beta]
        value = x.to(torch.float64) * 2.0 ** -node.src[0].expect(Residual).frac
        y = torch.nn.functional.layer_norm(value, gamma.shape, gamma, beta, self.eps)
        return golden.sat(golden.rne(y * 2.0**self.frac), self.bits, call.count(node))


def most_eps(width: int, bits: int) -> int:
    """The largest E with which the variance of ``width`` residuals of ``bits`` stays below 2^62; less than 1 where none does."""
    return (1 << 62) - 1 - (width << bits - 1) ** 2


@op("layernorm", sources=1, stage="final")
class Layernorm(Op):
    """Rule 3: ``gamma`` = G and ``beta`` = Bt int64 [d], ``eps`` = E, ``shift`` = S; the variance stays below 2^62."""

    name: str
    gamma: WeightName
    beta: WeightName
    eps: int
    shift: int
    frac: int
    bits: int

    def infer(self, check: Check) -> Type:
        x = check.source(0, Residual)
        check.fits("gamma", MUL_BITS, x.shape[-1])
        check.fits("beta", BIAS_BITS, x.shape[-1])
        check.between("eps", 1, most_eps(features(x), x.bits))
        check.between("shift", 0, 62)
        return Residual(x.shape, *check.grid())

    def compute(self, call: Call, node: Node["Layernorm"], x: Tensor) -> Tensor:
        gamma, beta = call.weights[self.gamma], call.weights[self.beta]
        return golden.layernorm(x, gamma, beta, self.eps, self.shift, self.bits, call.count(node))


@op("to_grid", sources=1, stage="real")
class ToGrid(Op):
    """``rne(x*2^frac)``, not clipped."""

    frac: int

    def infer(self, check: Check) -> Type:
        return Grid(check.source(0, Real).shape, check.between("frac", *GRID_FRAC))

    def compute(self, call: Call, node: Node["ToGrid"], x: Tensor) -> Tensor:
        return golden.rne(x * 2.0**self.frac)


@op("add_sat", sources=2, stage="real")
class AddSat(Op):
    """``h + y``, clipped to the range of h."""

    name: str

    def infer(self, check: Check) -> Type:
        h, y = check.source(0, Residual), check.source(1, Grid)
        check.need(h.shape == y.shape and h.frac == y.frac, "both sources must have one shape and grid", (h, y))
        return h

    def compute(self, call: Call, node: Node["AddSat"], h: Tensor, y: Tensor) -> Tensor:
        return golden.sat(h + y, node.expect(Residual).bits, call.count(node))


@op("linear_residual", sources=2, stage="final")
class LinearResidual(Product, Requantized):
    """Rule 2: a projection of source 0, added to the residual source 1."""

    name: str

    def infer(self, check: Check) -> Type:
        acc, h = self.sums(check), check.source(1, Residual)
        self.check_scales(check, acc.shape[-1])
        check.need(acc.shape == h.shape, "h must have the shape of the product", (acc.shape, h.shape))
        return h

    def compute(self, call: Call, node: Node["LinearResidual"], x: Tensor, h: Tensor) -> Tensor:
        mul, bias, bits = call.weights[self.mul], call.weights[self.bias], node.expect(Residual).bits
        return golden.linear_residual(self.acc(call, node, x), mul, bias, self.shift, h, bits, call.count(node))
