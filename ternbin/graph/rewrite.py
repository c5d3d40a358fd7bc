"""Rewriting graphs by rules: a rule is a pattern of nodes and a function that builds the replacement."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from ternbin.graph.ir import Graph, Node, Op, Weights
from ternbin.graph.ops.registry import typed

O = TypeVar("O", bound=Op)  # noqa: E741


@dataclass(frozen=True)
class Match:
    """The matched nodes by the class of their op; a pattern names each class once."""

    nodes: dict[type[Op], Node[Op]] = field(default_factory=dict[type[Op], Node[Op]])

    def __getitem__(self, op: type[O]) -> Node[O]:
        return cast(Node[O], self.nodes[op])

    def get(self, op: type[O]) -> Node[O] | None:
        return self[op] if op in self.nodes else None


@dataclass(frozen=True)
class Pattern:
    """Matches a node of op ``op`` whose first sources match ``src``; None there matches anything."""

    op: type[Op]
    src: "tuple[Pattern | None, ...]" = ()

    def match(self, node: Node[Op]) -> Match | None:
        found = Match()
        return found if self._collect(node, found) else None

    def _collect(self, node: Node[Op], found: Match) -> bool:
        found.nodes[self.op] = node
        return type(node.op) is self.op and all(
            want is None or want._collect(source, found) for want, source in zip(self.src, node.src, strict=False)
        )


def chain(*ops: type[Op]) -> Pattern:
    """The pattern of ops that each are the first source of the one before: ``chain(Quantize, Affine, Matmul)``."""
    first, *rest = ops
    return Pattern(first, (chain(*rest),) if rest else ())


@dataclass(frozen=True)
class Rule:
    """``build(match, weights)`` returns the node that replaces the root of ``pattern``, or None to leave it.

    It may add entries to ``weights``.
    """

    pattern: Pattern
    build: Callable[[Match, Weights], Node[Op] | None]


def rewrite(graph: Graph, weights: Weights, rules: tuple[Rule, ...]) -> tuple[Graph, Weights]:
    """Apply the first rule that fits to every node of a valid graph, sources first; returns a new graph and a new side table."""
    table = dict(weights)

    def visit(node: Node[Op], src: tuple[Node[Op], ...]) -> Node[Op]:
        node = node if src == node.src else typed(table, node.op, *src)
        for rule in rules:
            match = rule.pattern.match(node)
            new = None if match is None else rule.build(match, table)
            if new is not None:
                return new
        return node

    return graph.rebuild(visit), table
