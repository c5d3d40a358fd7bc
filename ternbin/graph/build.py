"""Building graphs of real ops; models/bart/lower.py uses it."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph.ir import Node, Op, Residual, Type, WeightName, Weights, code_type
from ternbin.graph.ops.attention import Context, RealSoftmax
from ternbin.graph.ops.codes import Quantize
from ternbin.graph.ops.ends import Input
from ternbin.graph.ops.linear import Affine, Matmul
from ternbin.graph.ops.registry import operation, typed
from ternbin.graph.ops.stream import AddSat, ToGrid

O = TypeVar("O", bound=Op)  # noqa: E741
AnyNode = Node[Op]


@dataclass(frozen=True)
class Builder:
    """Builds real ops; ``weights`` is the side table it fills."""

    weights: Weights

    def weight(self, name: str, tensor: Tensor) -> WeightName:
        """Enter a tensor of real numbers, which must be finite, as float64. Returns ``name``."""
        real = tensor.detach().cpu().double()
        if not bool(real.isfinite().all()):
            raise InputError(f"{name} must be finite, not inf or nan")
        return self._enter(name, real)

    def codes(self, name: str, codes: Tensor, kind: str) -> WeightName:
        """Enter codes (integers in any type) of ``kind``. Returns ``name``."""
        return self._enter(name, codes.detach().cpu().to(code_type(kind)))

    def _enter(self, name: str, tensor: Tensor) -> WeightName:
        if name in self.weights and not torch.equal(self.weights[name], tensor):
            raise InputError(f"weight name must be new, not {name!r}")
        self.weights[name] = tensor
        return WeightName(name)

    def op(self, opname: str, /, *src: AnyNode, **attrs: object) -> AnyNode:
        """The op of this name: attributes are checked at run time."""
        return typed(self.weights, operation(opname, attrs), *src)

    def add(self, op: O, *src: AnyNode) -> Node[O]:
        return typed(self.weights, op, *src)

    def input(self, name: str, of: Type) -> Node[Input]:
        return self.add(Input(name=name, of=of))

    def quantize(self, x: AnyNode, name: str, alpha: float, kind: str, zero: float = 0.0) -> Node[Quantize]:
        return self.add(Quantize(name=name, alpha=float(alpha), zero=float(zero), kind=kind), x)

    def linear(
        self,
        x: AnyNode,
        name: str,
        codes: Tensor,
        kind: str,
        alpha_w: Tensor,
        alpha_x: float,
        bias: Tensor | None,
        zero_x: float = 0.0,
        extra: float = 1.0,
    ) -> Node[Affine]:
        """``matmul, affine``: the real value of a projection of codes x (value ``alpha_x*x + zero_x``), by ``extra``.

        ``codes`` [out, in] of ``kind``, value ``alpha_w[r]*codes``; ``bias`` [out]. Weights are entered under ``name``.
        """
        alpha_w = alpha_w.detach().double().flatten().cpu()
        total = torch.zeros_like(alpha_w) if bias is None else bias.detach().double().cpu()
        if zero_x:
            total = total + zero_x * alpha_w * codes.detach().cpu().sum(1, dtype=torch.float64)
        acc = self.add(Matmul(weight=self.codes(f"{name}.weight", codes, kind), weight_kind=kind), x)
        return self.affine(acc, name, alpha_w * (float(alpha_x) * extra), total * extra)

    def affine(self, acc: AnyNode, name: str, scale: Tensor, bias: Tensor) -> Node[Affine]:
        """``acc*scale + bias``, which are entered under ``name``."""
        scale_name, bias_name = self.weight(f"{name}.scale", scale), self.weight(f"{name}.bias", bias)
        return self.add(Affine(scale=scale_name, bias=bias_name), acc)

    def add_sat(self, h: AnyNode, y: AnyNode, name: str) -> Node[AddSat]:
        """``to_grid, add_sat``: the real sublayer output y added to the residual h."""
        return self.add(AddSat(name=name), h, self.add(ToGrid(frac=h.expect(Residual).frac), y))

    def probabilities(
        self, s: AnyNode, name: str, scale: float, causal: bool, alpha: float, kind: str
    ) -> Node[Quantize]:
        """``real_softmax, quantize``: scores to probability codes; ``scale`` = alpha_q*alpha_k."""
        return self.quantize(self.add(RealSoftmax(scale=float(scale), causal=causal), s), name, alpha, kind)

    def context(
        self, p: AnyNode, v: AnyNode, name: str, heads: int, scale: float, alpha: float, kind: str
    ) -> Node[Quantize]:
        """``context, affine, quantize``: ``scale`` = alpha_p*alpha_v, ``alpha`` and ``kind`` of the result."""
        acc = self.add(Context(heads=heads), p, v)
        one, none = torch.tensor([scale], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        return self.quantize(self.affine(acc, name, one, none), name, alpha, kind)
