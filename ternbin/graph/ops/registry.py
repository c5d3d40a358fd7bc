"""The table of ops, nodes of them with their inferred types, and the verifier of graphs.

An op is one class in this folder, registered by :func:`op`. docs/add-an-op.md shows how to add one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar, dataclass_transform

from ternbin.errors import InputError
from ternbin.graph.ir import Graph, Node, Op, Stage, Weights, make
from ternbin.graph.ops.check import Check

O = TypeVar("O", bound=Op)  # noqa: E741
OPS: dict[str, type[Op]] = {}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def op(name: str, *, sources: int, stage: Stage) -> Callable[[type[O]], type[O]]:
    """Declare the op ``name``: the class becomes a frozen dataclass of attributes and enters :data:`OPS`."""

    def register(cls: type[O]) -> type[O]:
        cls = dataclass(frozen=True, kw_only=True)(cls)
        cls.opname, cls.sources, cls.stage = name, sources, stage
        OPS[name] = cls
        return cls

    return register


def operation(name: str, attrs: Mapping[str, object]) -> Op:
    """The op ``name`` with these attributes. Raises InputError for an unknown op and for missing or unknown attributes."""
    if name not in OPS:
        raise InputError(f"op must be one of {', '.join(OPS)}, not {name!r}")
    wanted = {field.name for field in fields(OPS[name])}
    if set(attrs) != wanted:
        where = f"{name} {attrs.get('name', '')}".strip()
        raise InputError(f"{where}: attributes must be {sorted(wanted)}, not {sorted(attrs)}")
    return OPS[name](**attrs)


def typed(weights: Weights, op: O, *src: Node[Op]) -> Node[O]:
    """The node with its inferred type. Raises InputError where sources, attributes or weights do not fit the op."""
    check = Check(op, tuple(s.type for s in src), weights)
    check.signature()
    return make(op, src, op.infer(check))


def verify(graph: Graph, weights: Weights, final: bool = False) -> None:
    """Raise InputError unless every node fits its op; with ``final``, unless no real op is left."""
    names: dict[str, Node[Op]] = {}
    for node in graph.nodes():
        if typed(weights, node.op, *node.src) is not node:
            raise InputError(f"{node.where}: type must be as inferred, not {node.type!r}")
        if final and node.op.stage == "real":
            raise InputError(f"{node.where}: op must be one of the final ops, not {node.op.opname!r}")
        if node.op.label is not None and names.setdefault(node.op.label, node) is not node:
            raise InputError(f"{node.op.opname}: name must be unique, not {node.op.label!r}")
    if any(node.op.opname != "output" for node in graph.outputs):
        raise InputError(f"outputs of {graph.name} must be output nodes, not {list(graph.outputs)!r}")


def weight_names(graph: Graph) -> Iterator[str]:
    """The entries of the side table that the graph refers to."""
    for node in graph.nodes():
        yield from node.op.weight_names().values()
