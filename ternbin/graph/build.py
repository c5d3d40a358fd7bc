"""Building graphs of real ops; models/bart/lower.py uses it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph.ir import Node, Type, Weights
from ternbin.graph.ops.registry import typed


@dataclass(frozen=True)
class Builder:
    """Builds real ops; ``weights`` is the side table it fills."""

    weights: Weights

    def weight(self, name: str, tensor: Tensor) -> str:
        """Enter a tensor: codes (any integers) become int8, floating point becomes float64. Returns ``name``."""
        dtype = torch.float64 if tensor.is_floating_point() else torch.int8
        tensor = tensor.detach().cpu().to(dtype)
        if name in self.weights and not torch.equal(self.weights[name], tensor):
            raise InputError(f"weight name must be new, not {name!r}")
        self.weights[name] = tensor
        return name

    def op(self, op: str, *src: Node, **attrs: object) -> Node:
        """One op of the table."""
        return typed(self.weights, op, src, attrs)

    def input(self, name: str, of: Type) -> Node:
        return self.op("input", name=name, of=of)

    def quantize(self, x: Node, name: str, alpha: float, kind: str, zero: float = 0.0) -> Node:
        return self.op("quantize", x, name=name, alpha=float(alpha), zero=float(zero), kind=kind)

    def linear(
        self,
        x: Node,
        name: str,
        codes: Tensor,
        kind: str,
        alpha_w: Tensor,
        alpha_x: float,
        bias: Tensor | None,
        zero_x: float = 0.0,
        extra: float = 1.0,
    ) -> Node:
        """``matmul, affine``: the real value of a projection of codes x (value ``alpha_x*x + zero_x``), by ``extra``.

        ``codes`` [out, in] of ``kind``, value ``alpha_w[r]*codes``; ``bias`` [out]. Weights are entered under ``name``.
        """
        alpha_w = alpha_w.detach().double().flatten().cpu()
        shift = zero_x * alpha_w * codes.detach().cpu().sum(1, dtype=torch.float64)
        total = shift if bias is None else bias.detach().double().cpu() + shift
        acc = self.op("matmul", x, weight=self.weight(f"{name}.weight", codes.to(torch.int8)), weight_kind=kind)
        return self.op(
            "affine",
            acc,
            scale=self.weight(f"{name}.scale", alpha_w * (float(alpha_x) * extra)),
            bias=self.weight(f"{name}.bias", total * extra),
        )

    def add_sat(self, h: Node, y: Node, name: str) -> Node:
        """``to_grid, add_sat``: the real sublayer output y added to the residual h."""
        return self.op("add_sat", h, self.op("to_grid", y, frac=h.type.frac), name=name)

    def probabilities(self, s: Node, name: str, scale: float, causal: bool, alpha: float, kind: str) -> Node:
        """``real_softmax, quantize``: scores to probability codes; ``scale`` = alpha_q*alpha_k."""
        return self.quantize(self.op("real_softmax", s, scale=float(scale), causal=causal), name, alpha, kind)

    def context(self, p: Node, v: Node, name: str, heads: int, scale: float, alpha: float, kind: str) -> Node:
        """``context, affine, quantize``: ``scale`` = alpha_p*alpha_v, ``alpha`` and ``kind`` of the result."""
        acc = self.op("context", p, v, heads=heads)
        real = self.op(
            "affine",
            acc,
            scale=self.weight(f"{name}.scale", torch.tensor([scale], dtype=torch.float64)),
            bias=self.weight(f"{name}.bias", torch.zeros(1, dtype=torch.float64)),
        )
        return self.quantize(real, name, alpha, kind)
