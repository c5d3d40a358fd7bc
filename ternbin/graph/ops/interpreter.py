"""The interpreter: what every op of a graph computes, real and final, on torch tensors.

Final ops call golden.py. Real ops compute in float64 and serve to check the passes. Every op takes leading batch
dimensions: ``ids`` [S] or [batch, S].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.activations import ACTIVATIONS
from ternbin.graph.ir import Graph, Node, Residual, Weights
from ternbin.graph.ops.registry import verify, weight_names
from ternbin.graph.qtypes import KINDS


@dataclass
class Call:
    """What one evaluation of a graph knows besides its nodes."""

    weights: Weights
    inputs: dict[str, Tensor]
    past: int = 0
    caches: dict[str, Tensor] = field(default_factory=dict)
    lengths: Tensor | None = None  # valid source tokens of each sequence, [batch]; None: all
    saturation: dict[str, golden.Saturation] | None = None
    mask: Tensor | None = None  # the tokens are beams at position ``past``: keys that each sees, bool [T, N]
    sources: Tensor | None = (
        None  # the source tokens are those of several texts: which of them each token sees, bool [T, S]
    )
    top: int = 0  # best tokens of the language model head, with the normaliser; 0: the best one alone

    def count(self, node: Node) -> golden.Saturation | None:
        return None if self.saturation is None else self.saturation.setdefault(node.name, golden.Saturation())

    def valid(self, node: Node, scores: Tensor) -> Tensor:
        """How many keys each query sees, broadcastable to ``scores.shape[:-1]``, or which ones, bool, to ``scores.shape``."""
        if node["causal"] and self.mask is not None:
            return self.mask
        if not node["causal"] and self.sources is not None:
            return self.sources
        if node["causal"]:
            return golden.causal_valid(scores.shape[-2], self.past, scores.device)
        if self.lengths is None:
            return torch.tensor(scores.shape[-1], device=scores.device)
        return self.lengths[:, None, None]


class Interpreter:
    """Evaluates a graph. ``saturation`` says, by node name, how many elements were clipped, padding included.

    With ``keep`` a call returns the tensor of every node; without, only those of the outputs, and forgets the others
    as soon as nothing needs them.
    """

    def __init__(self, graph: Graph, weights: Weights, device: torch.device | str = "cpu", keep: bool = True):
        verify(graph, weights)
        self.graph, self.nodes, self.keep = graph, graph.nodes(), keep
        self.saturation: dict[str, golden.Saturation] = {}
        names = {name for node in self.nodes for name in weight_names(node, weights)}
        factors = {node["weight"] for node in self.nodes if node.get("weight") is not None}
        # codes that are multiplied become float32 once, ready for the exact products; an embedding's table does not
        self.weights = {name: weights[name].to(device, torch.float32 if name in factors else None) for name in names}
        self.last_use = {source: node for node in self.nodes for source in node.src}

    def __call__(
        self,
        inputs: dict[str, Tensor],
        past: int = 0,
        caches: dict[str, Tensor] | None = None,
        lengths: Tensor | None = None,
        forced: dict[str, Tensor] | None = None,
        *,
        mask: Tensor | None = None,
        sources: Tensor | None = None,
        top: int = 0,
    ) -> dict[Node, Tensor]:
        """Tensor of each node. ``inputs`` by input name; ``caches`` (cache name -> earlier rows) is extended in place.

        ``past`` is P. ``lengths`` [batch], where source tokens are padded at the end, holds their true numbers.
        ``forced`` tensors, by node name, are what later nodes see instead of the result, which is still returned: so
        two graphs are compared op by op on identical inputs. With ``mask``, bool [T, (P+1) * T], the tokens are T beams at
        position P, which share the caches: T rows a position. ``sources``, ``top``: see :class:`Call`.
        """
        call = Call(
            self.weights,
            inputs,
            past,
            {} if caches is None else caches,
            lengths,
            self.saturation if self.keep else None,
            mask,
            sources,
            top,
        )
        values: dict[Node, Tensor] = {}
        seen = values if forced is None else _Forced(values, forced)
        for node in self.nodes:
            values[node] = COMPUTE[node.op](call, node, *(seen[source] for source in node.src))
            if not self.keep:
                for source in set(node.src):
                    if self.last_use[source] is node:
                        del values[source]
        return values

    def named(self, values: dict[Node, Tensor]) -> dict[str, Tensor]:
        """The kept tensors by node name: all that a program would write."""
        return {node["name"]: value for node, value in values.items() if node.get("name") is not None}


@dataclass(frozen=True)
class _Forced:
    """Values by node, replaced by those of ``by_name`` where the node's name is there."""

    values: dict[Node, Tensor]
    by_name: dict[str, Tensor]

    def __getitem__(self, node: Node) -> Tensor:
        return self.by_name.get(node.name, self.values[node])


def outputs(graph: Graph, values: dict[Node, Tensor]) -> dict[str, Tensor]:
    """Values of the output nodes by name."""
    return {node["name"]: values[node] for node in graph.outputs}


# ---- ops ------------------------------------------------------------------------------------------------------------

COMPUTE: dict[str, Callable[..., Tensor]] = {}


def _computes(op: str) -> Callable:
    def register(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        COMPUTE[op] = f
        return f

    return register


@_computes("input")
def _input(call: Call, node: Node) -> Tensor:
    if node["name"] not in call.inputs:
        raise InputError(f"inputs must hold {node['name']}, not only {sorted(call.inputs)}")
    return call.inputs[node["name"]]


@_computes("output")
def _output(call: Call, node: Node, x: Tensor) -> Tensor:
    return x


@_computes("cache")
def _cache(call: Call, node: Node, x: Tensor) -> Tensor:
    earlier = call.caches.get(node["name"], x[..., :0, :])
    rows = call.past * (1 if call.mask is None else len(call.mask))
    if earlier.shape[-2] != rows:
        raise InputError(f"cache {node['name']} must hold {rows} rows, not {earlier.shape[-2]}")
    call.caches[node["name"]] = x = torch.cat([earlier, x], dim=-2)
    return x


@_computes("scores")
def _scores(call: Call, node: Node, q: Tensor, k: Tensor) -> Tensor:
    return golden.scores(q, k, node["heads"], node.type.limit)


@_computes("embed")
def _embed(call: Call, node: Node, ids: Tensor) -> Tensor:
    w = call.weights
    past = call.past if node["past"] == "P" else 0
    at_once = call.mask is not None  # one position for all
    out = golden.embed(
        ids.unsqueeze(-1) if at_once else ids,
        w[node["table"]],
        w[node["scale"]],
        w[node["pos"]],
        node["pos_offset"],
        past,
        node.type.bits,
        call.count(node),
    )
    return out.squeeze(-2) if at_once else out


@_computes("layernorm")
def _layernorm(call: Call, node: Node, x: Tensor) -> Tensor:
    return golden.layernorm(
        x,
        call.weights[node["gamma"]],
        call.weights[node["beta"]],
        node["eps"],
        node["shift"],
        node.type.bits,
        call.count(node),
    )


@_computes("quant")
def _quant(call: Call, node: Node, x: Tensor) -> Tensor:
    if node["kind"] == "int8":
        return golden.quant_int8(x, node["mul"], node["shift"])
    return golden.quant_thresholds(x, node["kind"], node["thresholds"])


def _acc(call: Call, node: Node, x: Tensor) -> Tensor:
    weight = call.weights[node["weight"]]
    bound = x.shape[-1] * _magnitude(node.src[0]) * KINDS[node["weight_kind"]].magnitude
    return golden.linear_acc(x, weight, bound)


def _magnitude(node: Node) -> int:
    return KINDS[node.type.kind].magnitude


def _context_sum(node: Node, p: Tensor, v: Tensor) -> Tensor:
    bound = p.shape[-1] * _magnitude(node.src[0]) * _magnitude(node.src[1])
    return golden.context_acc(p, v, node["heads"], bound)


def _thresholds(call: Call, node: Node, acc: Tensor) -> Tensor:
    return golden.threshold_codes(acc, call.weights[node["thresholds"]], node["base"], node["dirs"])


def _requant8(call: Call, node: Node, acc: Tensor, lut: Tensor | None = None) -> Tensor:
    kind = KINDS[node["kind"]]
    return golden.requant8(
        acc, call.weights[node["mul"]], call.weights[node["bias"]], node["shift"], kind.lo, kind.hi, lut
    )


@_computes("linear_codes")
def _linear_codes(call: Call, node: Node, x: Tensor) -> Tensor:
    return _thresholds(call, node, _acc(call, node, x))


@_computes("linear_codes8")
def _linear_codes8(call: Call, node: Node, x: Tensor) -> Tensor:
    lut = None if node["lut"] is None else call.weights[node["lut"]]
    return _requant8(call, node, _acc(call, node, x), lut)


@_computes("linear_residual")
def _linear_residual(call: Call, node: Node, x: Tensor, h: Tensor) -> Tensor:
    return golden.linear_residual(
        _acc(call, node, x),
        call.weights[node["mul"]],
        call.weights[node["bias"]],
        node["shift"],
        h,
        node.type.bits,
        call.count(node),
    )


@_computes("softmax_codes")
def _softmax_codes(call: Call, node: Node, s: Tensor) -> Tensor:
    constants = {key: node[key] for key in ("power", "mul", "shift", "kind", "c1", "c2", "recip")}
    return golden.softmax_codes(s, call.valid(node, s), lut=call.weights[node["lut"]], **constants)


@_computes("context_codes")
def _context_codes(call: Call, node: Node, p: Tensor, v: Tensor) -> Tensor:
    return _thresholds(call, node, _context_sum(node, p, v))


@_computes("context_codes8")
def _context_codes8(call: Call, node: Node, p: Tensor, v: Tensor) -> Tensor:
    return _requant8(call, node, _context_sum(node, p, v))


@_computes("lm_head")
def _lm_head(call: Call, node: Node, x: Tensor) -> Tensor:
    """``[.., T, 2]``: token id and logit; with ``top`` ``[.., T, top + 1, 2]``."""
    acc = _acc(call, node, x)
    if call.top:
        logits = golden.lm_logits(acc, call.weights[node["mul"]], call.weights[node["bias"]])
        return golden.lm_top(logits, call.top, node["logit_scale_log2"])
    return torch.stack(golden.lm_head(acc, call.weights[node["mul"]], call.weights[node["bias"]]), dim=-1)


# ---- real ops -------------------------------------------------------------------------------------------------------


def quantized(value: Tensor, alpha: float, zero: float, kind: str) -> Tensor:
    """Codes of real values: the definition that thresholds and fixed-point multipliers stand for."""
    if kind == "binary":
        return torch.where(value >= 0, 1, -1)
    return ((value - zero) / alpha).round().clamp(KINDS[kind].lo, KINDS[kind].hi).to(torch.int64)


def _value(node: Node, x: Tensor) -> Tensor:
    """Real value of a residual or real tensor that ``node`` produced."""
    return x * 2.0**-node.type.frac if isinstance(node.type, Residual) else x


@_computes("real_embed")
def _real_embed(call: Call, node: Node, ids: Tensor) -> Tensor:
    w, grid = call.weights, 2.0 ** node["frac"]
    past = call.past if node["past"] == "P" else 0
    scale, pos = ((w[node[key]] * grid).round().to(torch.int64) for key in ("scale", "pos"))
    return golden.embed(
        ids,
        w[node["table"]],
        scale,
        golden.sat(pos, node["bits"]),
        node["pos_offset"],
        past,
        node["bits"],
        call.count(node),
    )


@_computes("real_layernorm")
def _real_layernorm(call: Call, node: Node, x: Tensor) -> Tensor:
    gamma, beta = call.weights[node["gamma"]], call.weights[node["beta"]]
    value = _value(node.src[0], x.to(torch.float64))
    y = torch.nn.functional.layer_norm(value, gamma.shape, gamma, beta, node["eps"])
    return golden.sat((y * 2.0 ** node["frac"]).round().to(torch.int64), node["bits"], call.count(node))


@_computes("quantize")
def _quantize(call: Call, node: Node, x: Tensor) -> Tensor:
    return quantized(_value(node.src[0], x.to(torch.float64)), node["alpha"], node["zero"], node["kind"])


@_computes("matmul")
def _matmul(call: Call, node: Node, x: Tensor) -> Tensor:
    return _acc(call, node, x)


@_computes("affine")
def _affine(call: Call, node: Node, acc: Tensor) -> Tensor:
    return acc * call.weights[node["scale"]] + call.weights[node["bias"]]


@_computes("act")
def _act(call: Call, node: Node, x: Tensor) -> Tensor:
    return ACTIVATIONS[node["fn"]].exact(x)


@_computes("snap")
def _snap(call: Call, node: Node, x: Tensor) -> Tensor:
    return node["delta"] * (x / node["delta"]).round().clamp(-128, 127)


@_computes("to_grid")
def _to_grid(call: Call, node: Node, x: Tensor) -> Tensor:
    return (x * 2.0 ** node["frac"]).round().to(torch.int64)


@_computes("add_sat")
def _add_sat(call: Call, node: Node, h: Tensor, y: Tensor) -> Tensor:
    return golden.sat(h + y, node.type.bits, call.count(node))


@_computes("real_softmax")
def _real_softmax(call: Call, node: Node, s: Tensor) -> Tensor:
    outside = torch.arange(s.shape[-1], device=s.device) >= call.valid(node, s).unsqueeze(-1)
    return (s * node["scale"]).masked_fill(outside, -math.inf).softmax(-1)


@_computes("context")
def _context(call: Call, node: Node, p: Tensor, v: Tensor) -> Tensor:
    return _context_sum(node, p, v)


@_computes("argmax")
def _argmax(call: Call, node: Node, x: Tensor) -> Tensor:
    """``[.., T, 2]`` float64: token id and logit."""
    best = x.argmax(-1, keepdim=True)
    return torch.cat([best.to(x.dtype), x.gather(-1, best)], dim=-1)
