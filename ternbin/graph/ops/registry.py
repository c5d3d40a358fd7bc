"""The op table: what a node of each op must look like, the type it has, and the verifier of graphs.

ternbin/graph/ir.py describes the ops.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS
from ternbin.graph.ir import (
    MAX_TOKENS,
    Codes,
    Dim,
    Graph,
    Grid,
    Ids,
    Ints,
    Node,
    Real,
    Residual,
    Tokens,
    Type,
    Weights,
    make,
)
from ternbin.graph.qtypes import KINDS

Infer = Callable[["Check"], Type]


@dataclass(frozen=True)
class OpSpec:
    """What a node of this op must look like; ``infer`` checks attributes and returns the type."""

    sources: int
    attrs: frozenset[str]
    stage: str  # "real", "final" or "both"
    infer: Infer


OPS: dict[str, OpSpec] = {}


def _op(name: str, sources: int, attrs: str, stage: str) -> Callable[[Infer], Infer]:
    def register(infer: Infer) -> Infer:
        OPS[name] = OpSpec(sources, frozenset(attrs.split()), stage, infer)
        return infer

    return register


@dataclass(frozen=True)
class Check:
    """One node under inspection: its sources' types, attributes, and the side table."""

    op: str
    src: tuple[Type, ...]
    attrs: dict[str, object]
    weights: Weights

    @property
    def where(self) -> str:
        return f"{self.op} {self.attrs.get('name', '')}".strip()

    def need(self, ok: bool, what: str, got: object) -> None:
        if not ok:
            raise InputError(f"{self.where}: {what}, not {got!r}")

    def source(self, i: int, *types: type) -> Type:
        names = " or ".join(t.__name__ for t in types)
        self.need(isinstance(self.src[i], types), f"source {i} must be {names}", self.src[i])
        return self.src[i]

    def weight(self, attr: str, dtype: torch.dtype, *shape: int | None) -> Tensor:
        """The table entry that ``attr`` names; a ``None`` dimension may be anything."""
        name = self.attrs[attr]
        self.need(name in self.weights, f"{attr} must name a weight", name)
        tensor = self.weights[name]
        self.need(tensor.dtype == dtype, f"{attr} {name} must hold {dtype}", tensor.dtype)
        fits = tensor.dim() == len(shape) and all(w in (None, s) for w, s in zip(shape, tensor.shape, strict=True))
        self.need(fits, f"{attr} {name} must have shape {list(shape)}", list(tensor.shape))
        return tensor

    def row_weight(self, attr: str, dtype: torch.dtype, rows: int, *more: int | None) -> Tensor:
        """As :meth:`weight` with ``rows`` rows, or one for all."""
        single = self.attrs[attr] in self.weights and self.weights[self.attrs[attr]].shape[:1] == (1,)
        return self.weight(attr, dtype, 1 if single else rows, *more)

    def kind(self, attr: str, *allowed: str) -> str:
        kind = self.attrs[attr]
        self.need(kind in (allowed or KINDS), f"{attr} must be one of {', '.join(allowed or KINDS)}", kind)
        return kind

    def between(self, attr: str, lo: int, hi: int) -> int:
        value = self.attrs[attr]
        self.need(isinstance(value, int) and lo <= value <= hi, f"{attr} must be in [{lo}, {hi}]", value)
        return value

    def codes(self, attr: str, dim: int | None) -> Tensor:
        """A table entry of codes [any, dim] whose kind is the attribute ``<attr>_kind``."""
        kind = KINDS[self.kind(f"{attr}_kind", "ternary", "binary", "int8")]
        tensor = self.weight(attr, torch.int8, None, dim)
        if tensor.numel():
            lo, hi = (int(v) for v in torch.aminmax(tensor))
            self.need(kind.lo <= lo and hi <= kind.hi, f"{attr} codes must be in [{kind.lo}, {kind.hi}]", (lo, hi))
        return tensor


def _dot_limit(a: str, b: str, depth: Dim) -> int:
    return (MAX_TOKENS if isinstance(depth, str) else depth) * KINDS[a].magnitude * KINDS[b].magnitude


@_op("input", 0, "name of", "both")
def _input(c: Check) -> Type:
    return c.attrs["of"]


@_op("cache", 1, "name", "both")
def _cache(c: Check) -> Type:
    x = c.source(0, Codes)
    return Codes(("N", *x.shape[1:]), x.kind)


@_op("output", 1, "name", "both")
def _output(c: Check) -> Type:
    return c.source(0, Codes, Residual, Tokens)


@_op("scores", 2, "name heads", "both")
def _scores(c: Check) -> Type:
    q, k = c.source(0, Codes), c.source(1, Codes)
    heads = c.between("heads", 1, 1 << 10)
    fits = q.shape[-1] == k.shape[-1] and q.shape[-1] % heads == 0
    c.need(fits, "q and k must have equal width, a multiple of heads", (q.shape, k.shape))
    return Ints((heads, q.shape[0], k.shape[0]), _dot_limit(q.kind, k.kind, q.shape[-1] // heads))


# real ops


@_op("real_embed", 1, "name table table_kind scale pos pos_offset past frac bits", "real")
def _real_embed(c: Check) -> Type:
    table = c.codes("table", None)
    c.weight("scale", torch.float64, table.shape[0])
    c.weight("pos", torch.float64, None, table.shape[1])
    return _embedded(c, table)


def _embedded(c: Check, table: Tensor) -> Type:
    ids = c.source(0, Ids)
    c.need(c.attrs["past"] in (0, "P"), "past must be 0 or 'P'", c.attrs["past"])
    return Residual((*ids.shape, table.shape[1]), c.between("bits", 8, 20), c.between("frac", -20, 30))


@_op("real_layernorm", 1, "name gamma beta eps frac bits", "real")
def _real_layernorm(c: Check) -> Type:
    x = c.source(0, Residual)
    c.weight("gamma", torch.float64, x.shape[-1])
    c.weight("beta", torch.float64, x.shape[-1])
    return Residual(x.shape, c.between("bits", 8, 20), c.between("frac", -20, 30))


@_op("quantize", 1, "name alpha zero kind", "real")
def _quantize(c: Check) -> Type:
    x = c.source(0, Residual, Real)
    c.need(c.attrs["alpha"] > 0, "alpha must be positive", c.attrs["alpha"])
    return Codes(x.shape, c.kind("kind"))


@_op("matmul", 1, "weight weight_kind", "real")
def _matmul(c: Check) -> Type:
    x = c.source(0, Codes)
    weight = c.codes("weight", x.shape[-1])
    return Ints((*x.shape[:-1], weight.shape[0]), _dot_limit(x.kind, c.attrs["weight_kind"], x.shape[-1]))


@_op("affine", 1, "scale bias", "real")
def _affine(c: Check) -> Type:
    acc = c.source(0, Ints)
    scale = c.row_weight("scale", torch.float64, acc.shape[-1])
    c.row_weight("bias", torch.float64, acc.shape[-1])
    c.need(bool((scale >= 0).all()), "scale must not be negative", float(scale.min()))
    return Real(acc.shape)


@_op("act", 1, "fn", "real")
def _act(c: Check) -> Type:
    c.need(c.attrs["fn"] in ACTIVATIONS, f"fn must be one of {', '.join(ACTIVATIONS)}", c.attrs["fn"])
    return c.source(0, Real)


@_op("snap", 1, "delta", "real")
def _snap(c: Check) -> Type:
    c.need(c.attrs["delta"] > 0, "delta must be positive", c.attrs["delta"])
    return c.source(0, Real)


@_op("to_grid", 1, "frac", "real")
def _to_grid(c: Check) -> Type:
    return Grid(c.source(0, Real).shape, c.between("frac", -20, 30))


@_op("add_sat", 2, "name", "real")
def _add_sat(c: Check) -> Type:
    h, y = c.source(0, Residual), c.source(1, Grid)
    c.need(h.shape == y.shape and h.frac == y.frac, "both sources must have one shape and grid", (h, y))
    return h


@_op("real_softmax", 1, "scale causal", "real")
def _real_softmax(c: Check) -> Type:
    c.need(c.attrs["scale"] > 0, "scale must be positive", c.attrs["scale"])
    return Real(c.source(0, Ints).shape)


@_op("context", 2, "heads", "real")
def _context(c: Check) -> Type:
    p, v = _attended(c)
    return Ints((p.shape[1], v.shape[1]), _dot_limit(p.kind, v.kind, v.shape[0]))


def _attended(c: Check) -> tuple[Codes, Codes]:
    p, v, heads = c.source(0, Codes), c.source(1, Codes), c.between("heads", 1, 1 << 10)
    fits = len(p.shape) == 3 and p.shape[0] == heads and p.shape[2] == v.shape[0] and v.shape[1] % heads == 0
    c.need(fits, "p [heads, T, N] and v [N, d] must fit", (p.shape, v.shape))
    return p, v


@_op("argmax", 1, "name", "real")
def _argmax(c: Check) -> Type:
    return Tokens(c.source(0, Real).shape[:-1])


# final ops


@_op("embed", 1, "name table table_kind scale pos pos_offset past frac bits", "final")
def _embed(c: Check) -> Type:
    table = c.codes("table", None)
    c.weight("scale", torch.int64, table.shape[0])
    c.weight("pos", torch.int64, None, table.shape[1])
    return _embedded(c, table)


@_op("layernorm", 1, "name gamma beta eps shift frac bits", "final")
def _layernorm(c: Check) -> Type:
    x = c.source(0, Residual)
    c.weight("gamma", torch.int64, x.shape[-1])
    c.weight("beta", torch.int64, x.shape[-1])
    c.between("eps", 1, 1 << 60)
    c.between("shift", 0, 62)
    return Residual(x.shape, c.between("bits", 8, 20), c.between("frac", -20, 30))


@_op("quant", 1, "name kind thresholds mul shift", "final")
def _quant(c: Check) -> Type:
    x = c.source(0, Residual)
    want = {"ternary": 2, "binary": 1, "int8": 0}[c.kind("kind", "ternary", "binary", "int8")]
    c.need(len(c.attrs["thresholds"]) == want, f"thresholds must be {want}", c.attrs["thresholds"])
    fits = all(-(1 << 23) <= t < 1 << 23 for t in c.attrs["thresholds"])
    c.need(fits, "thresholds must fit 24 bits", c.attrs["thresholds"])
    c.between("mul", 0, (1 << 23) - 1)
    c.between("shift", 0, 30)
    return Codes(x.shape, c.attrs["kind"])


def _thresholds(c: Check, rows: int) -> None:
    c.row_weight("thresholds", torch.int64, rows, len(c.attrs["dirs"]))
    c.need(1 <= len(c.attrs["dirs"]) <= 4, "dirs must have 1 to 4 entries", c.attrs["dirs"])


def _requant(c: Check, rows: int) -> None:
    c.row_weight("mul", torch.int64, rows)
    c.row_weight("bias", torch.int64, rows)
    c.between("shift", 0, 30)


@_op("linear_codes", 1, "name weight weight_kind thresholds base dirs kind", "final")
def _linear_codes(c: Check) -> Type:
    acc = _matmul(c)
    c.need(acc.limit < (1 << 15) - 1, "accumulator must stay below 32767", acc.limit)
    _thresholds(c, acc.shape[-1])
    return Codes(acc.shape, c.kind("kind", "ternary", "binary", "ternary_nn", "binary_nn"))


@_op("linear_codes8", 1, "name weight weight_kind mul bias shift kind lut", "final")
def _linear_codes8(c: Check) -> Type:
    acc = _matmul(c)
    _requant(c, acc.shape[-1])
    if c.attrs["lut"] is not None:
        c.weight("lut", torch.int64, 256)
    return Codes(acc.shape, c.kind("kind", "int8", "uint8"))


@_op("linear_residual", 2, "name weight weight_kind mul bias shift", "final")
def _linear_residual(c: Check) -> Type:
    acc, h = _matmul(c), c.source(1, Residual)
    _requant(c, acc.shape[-1])
    c.need(acc.shape == h.shape, "h must have the shape of the product", (acc.shape, h.shape))
    return h


@_op("softmax_codes", 1, "name causal lut power mul shift kind c1 c2 recip", "final")
def _softmax_codes(c: Check) -> Type:
    c.weight("lut", torch.int64, 256)
    c.between("mul", 0, (1 << 16) - 1)
    c.between("shift", 0, 40)
    c.between("c1", 1, (1 << 20) - 1)
    c.between("c2", 1, (1 << 20) - 1)
    c.between("recip", 1, (1 << 48) - 1)
    return Codes(c.source(0, Ints).shape, c.kind("kind", "ternary_nn", "binary_nn", "uint8"))


@_op("context_codes", 2, "name heads thresholds base dirs kind", "final")
def _context_codes(c: Check) -> Type:
    p, v = _attended(c)
    limit = _dot_limit(p.kind, v.kind, v.shape[0])
    c.need(limit < (1 << 15) - 1, "accumulator must stay below 32767", limit)
    _thresholds(c, 1)
    return Codes((p.shape[1], v.shape[1]), c.kind("kind", "ternary", "binary"))


@_op("context_codes8", 2, "name heads mul bias shift kind", "final")
def _context_codes8(c: Check) -> Type:
    p, v = _attended(c)
    _requant(c, 1)
    return Codes((p.shape[1], v.shape[1]), c.kind("kind", "int8"))


@_op("lm_head", 1, "name weight weight_kind mul bias logit_scale_log2", "final")
def _lm_head(c: Check) -> Type:
    acc = _matmul(c)
    c.row_weight("mul", torch.int64, acc.shape[-1])
    c.row_weight("bias", torch.int64, acc.shape[-1])
    return Tokens(acc.shape[:-1])


# ---- verifying ------------------------------------------------------------------------------------------------------


def typed(weights: Weights, op: str, src: tuple[Node, ...], attrs: dict[str, object]) -> Node:
    """The node with its inferred type. Raises InputError where sources, attributes or weights do not fit the op."""
    if op not in OPS:
        raise InputError(f"op must be one of {', '.join(OPS)}, not {op!r}")
    spec, check = OPS[op], Check(op, tuple(s.type for s in src), attrs, weights)
    check.need(len(src) == spec.sources, f"it must have {spec.sources} sources", len(src))
    check.need(set(attrs) == spec.attrs, f"attributes must be {sorted(spec.attrs)}", sorted(attrs))
    return make(op, src, attrs, spec.infer(check))


def verify(graph: Graph, weights: Weights, final: bool = False) -> None:
    """Raise InputError unless every node fits the op table; with ``final``, unless no real op is left."""
    names: dict[str, Node] = {}
    for node in graph.nodes():
        if typed(weights, node.op, node.src, dict(node.attrs)) is not node:
            raise InputError(f"{node.op} {node.name}: type must be as inferred, not {node.type!r}")
        if final and OPS[node.op].stage == "real":
            raise InputError(f"{node.op} {node.name}: op must be one of the final ops, not {node.op!r}")
        if "name" in OPS[node.op].attrs and names.setdefault(node["name"], node) is not node:
            raise InputError(f"{node.op}: name must be unique, not {node['name']!r}")
    if any(node.op != "output" for node in graph.outputs):
        raise InputError(f"outputs of {graph.name} must be output nodes, not {list(graph.outputs)!r}")


def weight_names(node: Node, weights: Weights) -> Iterator[str]:
    """The entries of the side table that the node refers to."""
    for key, value in node.attrs:
        if key not in ("name", "kind") and isinstance(value, str) and value in weights:
            yield value
