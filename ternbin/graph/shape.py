"""The shape of a model: what its stacks read and give, and when they are called.

A stack whose rows are source tokens ([S]) belongs to *prefill*: it is called once a text. One that reads target tokens
(``ids`` [T]) belongs to *decode*: it is called for every new token, keeps what it needs of earlier ones in caches, and reads what
prefill gave. A model without the latter generates nothing: it gives the residual stream of its tokens. Mapping, decoding and
counting ask here and know no names of stacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph.given import IDS, PLACES, Given, rows
from ternbin.graph.ir import Codes, Graph, Ids, Lowered, Node, Residual, features, is_op
from ternbin.graph.ops.ends import Cache, EmbedAt, Input, LmHead, RealEmbedAt

NEXT = "next"  # the output that holds the next token
SOURCE, TARGET = "S", "T"
Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class Stack:
    """One graph of a model and what goes in and out."""

    graph: Graph
    phase: Phase
    reads: tuple[Node[Input], ...]  # inputs that the host gives: ids, or rows of the residual stream
    handed: tuple[Node[Input], ...]  # other inputs: keys and values that another stack gives
    caches: tuple[Node[Cache], ...]  # keys and values of its own that it keeps from call to call

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.graph.outputs)

    @property
    def streams(self) -> tuple[Node[Any], ...]:
        """Outputs that the host reads back: rows of the residual stream."""
        return tuple(node for node in self.graph.outputs if isinstance(node.type, Residual))

    def given(
        self, source: Given, device: torch.device | str = "cpu", lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """Every input that the host gives, as tensors. Raises InputError as :func:`ternbin.graph.given.rows`."""
        found = rows(source, [node.name for node in self.reads], lengths)
        return {name: torch.as_tensor(value, device=device) for name, value in found.items()}


def stack(graph: Graph) -> Stack:
    """Raises InputError for a graph that is given nothing, or rows of neither side or of both."""
    nodes = graph.nodes()
    inputs = [node for node in nodes if is_op(node, Input)]
    reads = tuple(node for node in inputs if isinstance(node.type, Ids | Residual))
    sides = {node.type.shape[0] for node in reads}
    if len(sides) != 1 or not sides < {SOURCE, TARGET}:
        found = sorted(map(str, sides)) or None
        raise InputError(f"inputs of {graph.name} must be of shape [{SOURCE}] or [{TARGET}], not {found}")
    return Stack(
        graph,
        "prefill" if sides == {SOURCE} else "decode",
        reads,
        tuple(node for node in inputs if node not in reads),
        tuple(node for node in nodes if is_op(node, Cache)),
    )


@dataclass(frozen=True)
class ModelShape:
    """A model that reads a text in one call, its prefill, and where it generates writes another token by token."""

    prefill: Stack
    decode: Stack | None

    @property
    def generating(self) -> Stack:
        """The decode stack. Raises InputError for a model without one."""
        if self.decode is None:
            raise InputError(f"model must generate tokens, not only give {', '.join(self.prefill.outputs)}")
        return self.decode

    @property
    def head(self) -> Node[LmHead]:
        """The language model head of a folded model, which decode ends with."""
        (head,) = (node for node in self.generating.graph.nodes() if is_op(node, LmHead))
        return head


def shape(lowered: Lowered) -> ModelShape:
    """Raises InputError for a model of other stacks, or where decode reads what prefill does not give."""
    stacks = [stack(graph) for graph in lowered.stacks]
    if [each.phase for each in stacks] not in (["prefill", "decode"], ["prefill"]):
        raise InputError(
            "stacks must be one that reads a source and at most one that writes a target, "
            f"not {[g.name for g in lowered.stacks]}"
        )
    prefill, decode = stacks[0], stacks[1] if len(stacks) > 1 else None
    given = {node.name: node.type for node in prefill.graph.outputs}
    for node in decode.handed if decode else ():
        if not isinstance(node.type, Codes) or given.get(node.name) != node.type:
            raise InputError(
                f"{node.where}: {prefill.graph.name} must give {node.type!r}, not {given.get(node.name)!r}"
            )
    if decode is None and not prefill.streams:
        raise InputError(f"{prefill.graph.name} must give the residual stream, or keys and values to another stack")
    return ModelShape(prefill, decode)


def generates(lowered: Lowered) -> bool:
    """Whether the model writes tokens."""
    return shape(lowered).decode is not None


def places(lowered: Lowered) -> int:
    """Rows that ``places`` may name; 0 where the prefill stack reads none."""
    tables = [n.op.pos for n in shape(lowered).prefill.graph.nodes() if is_op(n, EmbedAt, RealEmbedAt)]
    return len(lowered.weights[tables[0]]) if tables else 0


@dataclass(frozen=True)
class Range:
    """Values of an input from ``low`` to ``high``; ``width`` of them a row of the residual stream, 0: one id."""

    low: int
    high: int
    width: int


def ranges(lowered: Lowered) -> dict[str, Range]:
    """What prefill can be given, by input."""
    limits = {IDS: lowered.meta["vocab_size"], PLACES: places(lowered)}
    found: dict[str, Range] = {}
    for node in shape(lowered).prefill.reads:
        if isinstance(node.type, Residual):
            limit = 1 << node.type.bits - 1
            found[node.name] = Range(-limit, limit - 1, features(node.type))
        else:
            found[node.name] = Range(0, limits[node.name] - 1, 0)
    return found


def check_source(source: Given, lowered: Lowered) -> None:
    """Raise InputError unless prefill can read this text."""
    allowed, most = ranges(lowered), lowered.meta["max_positions"]
    for name, values in rows(source, list(allowed)).items():
        own = allowed[name]
        if not 1 <= len(values) <= most:
            raise InputError(f"source length must be in [1, {most}], not {len(values)}")
        if values.shape[1:] != ((own.width,) if own.width else ()):
            raise InputError(
                f"{name} must be of shape {['S', own.width][: 1 + bool(own.width)]}, not {list(values.shape)}"
            )
        for value in (values.min(), values.max()):
            if not own.low <= value <= own.high:
                what = "source token" if name == IDS else name
                raise InputError(f"{what} must be in [{own.low}, {own.high}], not {value}")


def draw_source(rng: Random, lowered: Lowered, length: int) -> dict[str, list[Any]]:
    """Random rows of every input, of the whole range."""

    def row(own: Range) -> int | list[int]:
        values = [rng.randrange(own.low, own.high + 1) for _ in range(own.width or 1)]
        return values if own.width else values[0]

    return {name: [row(own) for _ in range(length)] for name, own in ranges(lowered).items()}


def is_final(lowered: Lowered) -> bool:
    """Whether the model is folded: no op is left that only passes and their checks know."""
    return all(node.op.stage != "real" for graph in lowered.stacks for node in graph.nodes())
