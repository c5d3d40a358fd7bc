"""Rewriting graphs by rules: a rule is a pattern of nodes and a function that builds the replacement."""

from collections.abc import Callable
from dataclasses import dataclass

from ternbin.graph.ir import Graph, Node, Weights
from ternbin.graph.ops.registry import typed

Match = dict[str, Node]


@dataclass(frozen=True)
class Pattern:
    """Matches a node of op ``op`` whose first sources match ``src``; None there matches anything."""

    op: str
    src: tuple["Pattern | None", ...] = ()

    def match(self, node: Node) -> Match | None:
        """The matched nodes by op (patterns name each op once), or None."""
        found: dict[str, Node] = {}
        return found if self._collect(node, found) else None

    def _collect(self, node: Node, found: dict[str, Node]) -> bool:
        found[self.op] = node
        return node.op == self.op and all(
            want is None or want._collect(source, found) for want, source in zip(self.src, node.src, strict=False)
        )


def chain(*ops: str) -> Pattern:
    """The pattern of ops that each are the first source of the one before: ``chain("quantize", "affine", "matmul")``."""
    first, *rest = ops
    return Pattern(first, (chain(*rest),) if rest else ())


@dataclass(frozen=True)
class Rule:
    """``build(match, weights)`` returns the node that replaces the root of ``pattern``, or None to leave it.

    It may add entries to ``weights``.
    """

    pattern: Pattern
    build: Callable[[Match, Weights], Node | None]


def rewrite(graph: Graph, weights: Weights, rules: tuple[Rule, ...]) -> tuple[Graph, Weights]:
    """Apply the first rule that fits to every node, sources first; returns a new graph and a new side table."""
    table = dict(weights)

    def visit(node: Node, src: tuple[Node, ...]) -> Node:
        node = typed(table, node.op, src, dict(node.attrs))
        for rule in rules:
            match = rule.pattern.match(node)
            new = None if match is None else rule.build(match, table)
            if new is not None:
                return new
        return node

    return graph.rebuild(visit), table
