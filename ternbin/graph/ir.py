"""The dataflow graph: frozen, interned nodes over a side table of weights.

A :class:`Node` has an op with typed attributes, sources, and a type. Weights live in a side table ``dict[str, Tensor]`` that all
graphs of a model share; attributes of the type :data:`WeightName` refer to its entries. The table holds codes as
:func:`code_type` says, integers as int64 and reals as float64. Dimensions are integers or the symbols S (source tokens), T (target
tokens of this call), P (past target tokens), N = P + T.

Lowering (models/bart/lower.py) builds *real* ops with ``build.Builder``; the passes (ternbin/passes) fold them into the
*final* ops of docs/graph.md. ternbin/graph/ops declares every op: its attributes, its type rule and what it
computes, side by side.

What lowering composes from the real ops (``Builder`` has a method for each):

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

import builtins
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, ClassVar, Generic, Literal, NewType, TypeGuard, TypeVar, get_args, get_type_hints
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ternbin.graph.qtypes import kind_of

MAX_TOKENS = 8192  # what a symbolic dimension may be at run time, for accumulator bounds

HEAD = "lm_head"  # name of the node that chooses the next token, in every decoder

Dim = int | str
Shape = tuple[Dim, ...]
Weights = dict[str, Tensor]
WeightName = NewType("WeightName", str)  # of an entry of the side table


def code_type(kind: str) -> torch.dtype:
    """In which the side table holds codes of a kind."""
    return torch.int8 if kind_of(kind).magnitude <= 127 else torch.int16


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
T = TypeVar("T", Ids, Codes, Residual, Grid, Ints, Real, Tokens)


def features(of: Type) -> int:
    """The last dimension of a type, which must be a number."""
    width = of.shape[-1]
    if not isinstance(width, int):
        raise TypeError(f"last dimension must be a number, not {width!r}")
    return width


# ---- ops ------------------------------------------------------------------------------------------------------------

Stage = Literal["real", "final", "both"]


@dataclass(frozen=True, kw_only=True)
class Op:
    """What a node does. The subclasses in ternbin/graph/ops are the ops; their fields are the attributes.

    ``infer(check)`` is the type rule (ops/check.py says what it is given), ``compute(call, node, *tensors)`` the meaning
    (ops/call.py). ``stage`` says whether the op stands in a graph before folding, after it, or both.
    """

    opname: ClassVar[str]
    sources: ClassVar[int]
    stage: ClassVar[Stage]

    def infer(self, check: Any) -> Type:
        raise NotImplementedError

    def compute(self, call: Any, node: Any, *args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError

    @property
    def label(self) -> str | None:
        """The attribute ``name``, where the op has one."""
        return getattr(self, "name", None)

    def attributes(self) -> dict[str, Any]:
        """Attributes by name, in alphabetical order."""
        return {name: getattr(self, name) for name in declared(type(self))}

    def weight_names(self) -> dict[str, WeightName]:
        """The entries of the side table that the op refers to, by attribute."""
        names = (name for name, of in declared(type(self)).items() if of is WeightName or WeightName in get_args(of))
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@cache
def declared(op: type[Op]) -> dict[str, Any]:
    """The type of each attribute, in alphabetical order."""
    hints = get_type_hints(op)
    return {name: hints[name] for name in sorted(field.name for field in fields(op))}


O = TypeVar("O", bound=Op, covariant=True)  # noqa: E741
N = TypeVar("N", bound=Op)


# ---- nodes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Node(Generic[O]):
    """An op on the results of other nodes. Made by :func:`make` only, which returns the same object for equal arguments."""

    op: O
    src: "tuple[Node[Op], ...]"
    type: Type

    @property
    def name(self) -> str:
        """The ``name`` attribute, or the op's name where it has none."""
        return self.op.label or self.op.opname

    @property
    def where(self) -> str:
        """Op and name, for messages."""
        return f"{self.op.opname} {self.name}"

    def expect(self, wanted: builtins.type[T]) -> T:
        """The node's type, which must be of one class."""
        if not isinstance(self.type, wanted):
            raise TypeError(f"{self.where}: type must be {wanted.__name__}, not {self.type!r}")
        return self.type

    def __repr__(self) -> str:
        return f"<{self.where}>"


def is_op(node: Node[Op], *ops: type[N]) -> TypeGuard[Node[N]]:
    """Whether the node's op is of one of these classes."""
    return isinstance(node.op, ops)


def as_op(node: Node[Op], *ops: type[N]) -> Node[N]:
    """The node, whose op must be of one of these classes."""
    if not is_op(node, *ops):
        raise TypeError(f"{node.where}: op must be {' or '.join(op.opname for op in ops)}")
    return node


_interned: WeakValueDictionary[tuple[Op, tuple[Node[Op], ...], Type], Node[Any]] = WeakValueDictionary()


def make(op: N, src: tuple[Node[Op], ...], type: Type) -> Node[N]:
    """The node with these fields. Attribute values must be hashable."""
    key = (op, src, type)
    node = _interned.get(key)
    if node is None:
        node = Node(op, src, type)
        _interned[key] = node
    return node


@dataclass(frozen=True)
class Graph:
    """What computes ``outputs`` (``output`` nodes, in the order a run should produce them)."""

    name: str
    outputs: tuple[Node[Op], ...]

    def nodes(self) -> list[Node[Op]]:
        """Every node, sources before users, in one fixed order."""
        order: dict[Node[Op], None] = {}
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

    def users(self) -> dict[Node[Op], list[Node[Op]]]:
        """The nodes that read each node."""
        table: dict[Node[Op], list[Node[Op]]] = {node: [] for node in self.nodes()}
        for node in table:
            for source in dict.fromkeys(node.src):
                table[source].append(node)
        return table

    def inputs(self) -> list[Node[Op]]:
        return [node for node in self.nodes() if node.op.opname == "input"]

    def rebuild(self, f: Callable[[Node[Op], tuple[Node[Op], ...]], Node[Op]]) -> "Graph":
        """The graph with every node replaced by ``f(node, new sources)``, sources first."""
        new: dict[Node[Op], Node[Op]] = {}
        for node in self.nodes():
            new[node] = f(node, tuple(new[s] for s in node.src))
        return replace(self, outputs=tuple(new[node] for node in self.outputs))


# ---- models ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lowered:
    """A model: its graphs, each called a *stack*, in the order in which they are called first; shape.py says when and with what.

    ``meta`` holds JSON values; running needs ``decoder_start_id``, ``eos_id``, ``pad_id``, ``forced_bos_id``,
    ``forced_eos_id`` (the last two may be None) and ``max_positions``; ``search`` may hold settings of the generation config.
    ``origins``: what a weight, or ``<node>.<attribute>``, was in the checkpoint, for messages.
    """

    stacks: tuple[Graph, ...]
    weights: Weights
    meta: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    def stack(self, name: str) -> Graph:
        """The graph of this name."""
        return next(graph for graph in self.stacks if graph.name == name)

    @property
    def encoder(self) -> Graph:
        """Of an encoder-decoder model: input ``ids`` [S], outputs ``cross_k.i`` and ``cross_v.i``."""
        return self.stack("encoder")

    @property
    def decoder(self) -> Graph:
        """Of an encoder-decoder model: inputs ``ids`` [T], ``cross_k.i`` and ``cross_v.i``, output ``next``."""
        return self.stack("decoder")
