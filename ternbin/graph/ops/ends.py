"""The ends of a graph: inputs and outputs, caches, the embedding, and the language model head."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.fixedpoint import BIAS_BITS, EMBED_SCALE_BITS, MUL_BITS
from ternbin.graph.ir import Codes, Ids, Node, Op, Real, Residual, Tokens, Type, WeightName
from ternbin.graph.ops.call import Call
from ternbin.graph.ops.check import Check
from ternbin.graph.ops.linear import Product
from ternbin.graph.ops.registry import op


@op("input", sources=0, stage="both")
class Input(Op):
    """What a call is given: ids, rows of the residual stream, or keys and values that another graph made. ``of`` is its type."""

    name: str
    of: Type

    def infer(self, check: Check) -> Type:
        return self.of

    def compute(self, call: Call, node: Node["Input"]) -> Tensor:
        if self.name not in call.inputs:
            raise InputError(f"inputs must hold {self.name}, not only {sorted(call.inputs)}")
        return call.inputs[self.name]


@op("cache", sources=1, stage="both")
class Cache(Op):
    """Rows of earlier calls, then x."""

    name: str

    def infer(self, check: Check) -> Type:
        x = check.source(0, Codes)
        return Codes(("N", *x.shape[1:]), x.kind)

    def compute(self, call: Call, node: Node["Cache"], x: Tensor) -> Tensor:
        earlier = call.caches.get(self.name, x[..., :0, :])
        rows = call.past * (1 if call.mask is None else len(call.mask))
        if earlier.shape[-2] != rows:
            raise InputError(f"cache {self.name} must hold {rows} rows, not {earlier.shape[-2]}")
        call.caches[self.name] = x = torch.cat([earlier, x], dim=-2)
        return x


@op("output", sources=1, stage="both")
class Output(Op):
    """What a call gives: keys and values for another graph, the next token, or the residual stream."""

    name: str

    def infer(self, check: Check) -> Type:
        return check.source(0, Codes, Residual, Tokens)

    def compute(self, call: Call, node: Node["Output"], x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True, kw_only=True)
class Embedding(Op):
    """Rows of ``table``, codes [V, d], times their ``scale`` [V], plus rows of ``pos`` [any, d]. Of a real op ``scale`` = alpha*embed_scale
    and ``pos`` are float64, of a final one int64 on the grid of the result."""

    name: str
    table: WeightName
    table_kind: str
    scale: WeightName
    pos: WeightName
    frac: int
    bits: int

    def infer(self, check: Check) -> Type:
        table, ids = check.codes("table", None), check.source(0, Ids)
        dtype = torch.float64 if self.stage == "real" else torch.int64
        check.weight("scale", dtype, table.shape[0])
        check.weight("pos", dtype, None, table.shape[1])
        if self.stage != "real":
            check.fits("scale", EMBED_SCALE_BITS, table.shape[0])
            check.fits("pos", self.bits, None, None)
        return Residual((*ids.shape, table.shape[1]), *check.grid())

    def tables(self, call: Call) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, scales and positions, the latter two on the grid of the result."""
        table, scale, pos = (call.weights[name] for name in (self.table, self.scale, self.pos))
        if self.stage == "real":
            scale, pos = (golden.rne(x * 2.0**self.frac) for x in (scale, pos))
            pos = golden.sat(pos, self.bits)
        return table, scale, pos


@dataclass(frozen=True, kw_only=True)
class InOrder(Embedding):
    """The rows of ``pos`` are those of the tokens' positions, from ``pos_offset`` on."""

    pos_offset: int
    past: Literal[0, "P"]  # earlier tokens of the same text

    def compute(self, call: Call, node: Node[Any], ids: Tensor) -> Tensor:
        table, scale, pos = self.tables(call)
        first = call.past if self.past == "P" else 0
        at_once = call.mask is not None  # one position for all
        ids = ids.unsqueeze(-1) if at_once else ids
        out = golden.embed(ids, table, scale, pos, self.pos_offset, first, self.bits, call.count(node))
        return out.squeeze(-2) if at_once else out


@dataclass(frozen=True, kw_only=True)
class At(Embedding):
    """The rows of ``pos`` are those that source 1 names: positions, with what else depends on a token's place."""

    def infer(self, check: Check) -> Type:
        ids, places = check.source(0, Ids), check.source(1, Ids)
        check.need(ids.shape == places.shape, "both sources must have one shape", (ids.shape, places.shape))
        return super().infer(check)

    def compute(self, call: Call, node: Node[Any], ids: Tensor, places: Tensor) -> Tensor:
        table, scale, pos = self.tables(call)
        return golden.embed_rows(ids, table, scale, pos[places], self.bits, call.count(node))


@op("real_embed", sources=1, stage="real")
class RealEmbed(InOrder):
    """Rule 1."""


@op("embed", sources=1, stage="final")
class Embed(InOrder):
    """Rule 1."""


@op("real_embed_at", sources=2, stage="real")
class RealEmbedAt(At):
    """Rule 1, with chosen rows of ``pos``."""


@op("embed_at", sources=2, stage="final")
class EmbedAt(At):
    """Rule 1, with chosen rows of ``pos``."""


@op("argmax", sources=1, stage="real")
class Argmax(Op):
    """Lowest index of the largest: ``[.., T, 2]`` float64, token id and logit."""

    name: str

    def infer(self, check: Check) -> Type:
        return Tokens(check.source(0, Real).shape[:-1])

    def compute(self, call: Call, node: Node["Argmax"], x: Tensor) -> Tensor:
        best = x.argmax(-1, keepdim=True)
        return torch.cat([best.to(x.dtype), x.gather(-1, best)], dim=-1)


@op("lm_head", sources=1, stage="final")
class LmHead(Product):
    """Rule 10: ``[.., T, 2]``, token id and logit in units of ``2^-logit_scale_log2``; of a search rule 11: ``[.., T, top + 1, 2]``."""

    name: str
    mul: WeightName
    bias: WeightName
    logit_scale_log2: int

    def infer(self, check: Check) -> Type:
        acc = self.sums(check)
        check.fits("mul", MUL_BITS, acc.shape[-1])
        check.fits("bias", BIAS_BITS, acc.shape[-1])
        return Tokens(acc.shape[:-1])

    def compute(self, call: Call, node: Node["LmHead"], x: Tensor) -> Tensor:
        acc, mul, bias = self.acc(call, node, x), call.weights[self.mul], call.weights[self.bias]
        if call.top:
            return golden.lm_top(golden.lm_logits(acc, mul, bias), call.top, self.logit_scale_log2)
        return torch.stack(golden.lm_head(acc, mul, bias), dim=-1)
