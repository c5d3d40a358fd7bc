"""The dataflow graph: frozen, interned nodes over a side table of weights.

A :class:`Node` has an op, sources, attributes and a type. Weights live in a side table ``dict[str, Tensor]`` that two
graphs (``encoder``, ``decoder``) share; attributes refer to its entries by name. The table holds codes as int8,
integers as int64 and reals as float64. Dimensions are integers or the symbols S (source tokens), T (target tokens of
this call), P (past target tokens), N = P + T.

Lowering (models/bart/lower.py) builds *real* ops with ``build.Builder``; the passes (ternbin/passes) fold them into the
*final* ops of docs/architecture.md, "The graph". ops.py holds the op table and the verifier, interpret.py what each op
computes.

Ops of both stages::

    input()      name, of (its type)   ids; in the decoder also cross_k.i, cross_v.i       -> of
    cache(x)     name                  rows of earlier calls, then x                       -> Codes [N, d]
    scores(q, k) name, heads           exact products by head                              -> Ints [heads, T, N]
    output(x)    name                  cross_k.i, cross_v.i, next                          -> type of x

Real ops; the value of a residual integer x is ``x * 2^-frac``::

    real_embed(ids)    name, table codes [V, d], table_kind, scale float64 [V] = alpha*embed_scale,
                       pos float64 [positions, d], pos_offset, past (0 or "P"), frac, bits
                                       rule 1                                              -> Residual [.., d]
    real_layernorm(x)  name, gamma and beta float64 [d], eps float, frac and bits of the result
                                       LayerNorm, rounded (rne) to the grid, clipped       -> Residual
    quantize(x)        name, alpha, zero, kind; x Residual or Real
                                       clip(rne((value - zero)/alpha)); binary: sign, +1 at 0
                                                                                           -> Codes
    matmul(x)          weight codes [out, in], weight_kind
                                       exact sum over code values                          -> Ints [.., out]
    affine(acc)        scale, bias float64 [out] or [1]
                                       acc*scale + bias                                    -> Real
    act(x)             fn: of activations.py                                               -> Real
    snap(x)            delta           delta*clip(rne(x/delta), -128, 127): before a smooth fn
                                                                                           -> Real
    to_grid(x)         frac            rne(x*2^frac), not clipped                          -> Grid
    add_sat(h, y)      name            h + y, clipped                                      -> type of h
    real_softmax(s)    scale = alpha_q*alpha_k, causal
                                       softmax of scale*s over valid keys                  -> Real [heads, T, N]
    context(p, v)      heads           exact sum over code values, heads merged            -> Ints [T, d]
    argmax(x)          name            lowest index of the largest                         -> Tokens [T]

What lowering composes from them (``Builder`` has a method for each):

- projection to codes: ``matmul, affine, [act], quantize``; ``scale = alpha_x*alpha_w*extra``,
  ``bias = (bias + zero_x*alpha_w*rowsum(codes))*extra``, where ``extra`` is ``head_dim^-0.5`` for q and 1 elsewhere;
  for an 8-bit input of fc2 after a smooth function: ``matmul, affine, snap, act, quantize``
- projection into the residual stream: ``matmul, affine, to_grid, add_sat``
- attention: ``scores, real_softmax, quantize, context, affine (scale [1] = alpha_p*alpha_v, bias [1] = 0), quantize``
- language model head: ``quantize, matmul, affine, argmax, output``

The attribute ``name`` of an op that writes a tensor is unique in its graph: ``enc.0.self.q``, ``enc.0.ln1``,
``dec.1.cross.ctx``, ``dec.0.fc1``, ... Folding a chain keeps the name of its last node, so the ``quantize`` after a
projection bears the projection's name. ``cache`` and ``output`` are named by what they keep: ``dec.0.self.k_cache``,
``cross_k.0``. Inputs are ``ids`` (both graphs) and, in the decoder, ``cross_k.i`` and ``cross_v.i``, which the encoder
outputs under the same names; the decoder's output is ``next``. Lowering returns a :class:`Lowered`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from torch import Tensor

MAX_TOKENS = 8192  # what a symbolic dimension may be at run time, for accumulator bounds

Dim = int | str
Shape = tuple[Dim, ...]
Weights = dict[str, Tensor]


# ---- types ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ids:
    """Token ids."""

    shape: Shape


@dataclass(frozen=True)
class Codes:
    """Small integers; ``kind`` is one of ``qtypes.KINDS``."""

    shape: Shape
    kind: str


@dataclass(frozen=True)
class Residual:
    """Integers of ``bits`` bits on the grid ``2^-frac``."""

    shape: Shape
    bits: int
    frac: int


@dataclass(frozen=True)
class Grid:
    """Integers on the grid ``2^-frac``, unbounded: what is about to be added to a residual."""

    shape: Shape
    frac: int


@dataclass(frozen=True)
class Ints:
    """Exact sums of products, in ``[-limit, limit]``."""

    shape: Shape
    limit: int


@dataclass(frozen=True)
class Real:
    """Real numbers, float64 in the interpreter; absent from a folded graph."""

    shape: Shape


@dataclass(frozen=True)
class Tokens:
    """``(id, logit)`` of the next token at each position."""

    shape: Shape


Type = Ids | Codes | Residual | Grid | Ints | Real | Tokens


# ---- nodes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """One op. Made by :func:`make` only, which returns the same object for equal arguments."""

    op: str
    src: tuple["Node", ...]
    attrs: tuple[tuple[str, object], ...]
    type: Type

    def __getitem__(self, key: str):
        for name, value in self.attrs:
            if name == key:
                return value
        raise KeyError(f"{self.op} has no attribute {key}")

    def get(self, key: str, default=None):
        return dict(self.attrs).get(key, default)

    @property
    def name(self) -> str:
        """The ``name`` attribute, or the op where it has none."""
        return self.get("name", self.op)

    def __repr__(self) -> str:
        return f"<{self.op} {self.name}>"


_interned: WeakValueDictionary[tuple, Node] = WeakValueDictionary()


def make(op: str, src: tuple[Node, ...], attrs: dict[str, object], type: Type) -> Node:
    """The node with these fields. Attribute values must be hashable."""
    items = tuple(sorted(attrs.items()))
    key = (op, src, items, type)
    node = _interned.get(key)
    if node is None:
        node = Node(op, src, items, type)
        _interned[key] = node
    return node


@dataclass(frozen=True)
class Graph:
    """What computes ``outputs`` (``output`` nodes, in the order a run should produce them)."""

    name: str
    outputs: tuple[Node, ...]

    def nodes(self) -> list[Node]:
        """Every node, sources before users, in one fixed order."""
        order: dict[Node, None] = {}
        stack = [(node, iter(node.src)) for node in reversed(self.outputs)]
        while stack:
            node, sources = stack[-1]
            source = next((s for s in sources if s not in order), None)
            if source is None:
                stack.pop()
                order[node] = None
            else:
                stack.append((source, iter(source.src)))
        return list(order)

    def users(self) -> dict[Node, list[Node]]:
        """The nodes that read each node."""
        table: dict[Node, list[Node]] = {node: [] for node in self.nodes()}
        for node in table:
            for source in dict.fromkeys(node.src):
                table[source].append(node)
        return table

    def inputs(self) -> list[Node]:
        return [node for node in self.nodes() if node.op == "input"]

    def rebuild(self, f: Callable[[Node, tuple[Node, ...]], Node]) -> "Graph":
        """The graph with every node replaced by ``f(node, new sources)``, sources first."""
        new: dict[Node, Node] = {}
        for node in self.nodes():
            new[node] = f(node, tuple(new[s] for s in node.src))
        return replace(self, outputs=tuple(new[node] for node in self.outputs))


# ---- models ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lowered:
    """A model: ``encoder`` (input ``ids`` [S]) and ``decoder`` (inputs ``ids`` [T], ``cross_k.i``, ``cross_v.i``).

    ``meta`` holds JSON values; running needs ``decoder_start_id``, ``eos_id``, ``pad_id``, ``forced_bos_id``,
    ``forced_eos_id`` (the last two may be None) and ``max_positions``; ``search`` may hold settings of a beam search.
    """

    encoder: Graph
    decoder: Graph
    weights: Weights
    meta: dict
