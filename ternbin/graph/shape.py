"""The shape of a model: what its stacks read and give, and when they are called.

A stack that reads source tokens (``ids`` [S]) belongs to *prefill*: it is called once a text. One that reads target tokens
(``ids`` [T]) belongs to *decode*: it is called for every new token, keeps what it needs of earlier ones in caches, and reads what
prefill gave. Mapping, decoding and counting ask here and know no names of stacks.
"""

from dataclasses import dataclass
from typing import Literal

from ternbin.errors import InputError
from ternbin.graph.ir import Codes, Graph, Lowered, Node, is_op
from ternbin.graph.ops.ends import Cache, Input, LmHead

IDS, NEXT = "ids", "next"  # the input that holds tokens, the output that holds the next one
SOURCE, TARGET = "S", "T"
Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class Stack:
    """One graph of a model and what goes in and out."""

    graph: Graph
    phase: Phase
    handed: tuple[Node[Input], ...]  # inputs besides the tokens: keys and values that another stack gives
    caches: tuple[Node[Cache], ...]  # keys and values of its own that it keeps from call to call

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.graph.outputs)


def stack(graph: Graph) -> Stack:
    """Raises InputError for a graph that reads no tokens, or those of neither side."""
    nodes = graph.nodes()
    inputs = [node for node in nodes if is_op(node, Input)]
    tokens = next((node.type.shape[0] for node in inputs if node.name == IDS), None)
    if tokens not in (SOURCE, TARGET):
        raise InputError(f"{IDS} of {graph.name} must be of shape [{SOURCE}] or [{TARGET}], not {tokens!r}")
    return Stack(
        graph,
        "prefill" if tokens == SOURCE else "decode",
        tuple(node for node in inputs if node.name != IDS),
        tuple(node for node in nodes if is_op(node, Cache)),
    )


@dataclass(frozen=True)
class ModelShape:
    """A model that reads a text in one call and writes another token by token: one stack for prefill, one for decode."""

    prefill: Stack
    decode: Stack

    @property
    def head(self) -> Node[LmHead]:
        """The language model head of a folded model, which decode ends with."""
        (head,) = (node for node in self.decode.graph.nodes() if is_op(node, LmHead))
        return head


def shape(lowered: Lowered) -> ModelShape:
    """Raises InputError for a model of other stacks, or where decode reads what prefill does not give."""
    stacks = [stack(graph) for graph in lowered.stacks]
    if [each.phase for each in stacks] != ["prefill", "decode"]:
        raise InputError(
            f"stacks must be one that reads a source and one that writes a target, not {[g.name for g in lowered.stacks]}"
        )
    prefill, decode = stacks
    given = {node.name: node.type for node in prefill.graph.outputs}
    for node in decode.handed:
        if not isinstance(node.type, Codes) or given.get(node.name) != node.type:
            raise InputError(
                f"{node.where}: {prefill.graph.name} must give {node.type!r}, not {given.get(node.name)!r}"
            )
    return ModelShape(prefill, decode)


def is_final(lowered: Lowered) -> bool:
    """Whether the model is folded: no op is left that only passes and their checks know."""
    return all(node.op.stage != "real" for graph in lowered.stacks for node in graph.nodes())
