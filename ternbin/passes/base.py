"""What a pass is, and how passes run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ternbin.errors import InputError
from ternbin.graph.ir import Graph, WeightName, Weights
from ternbin.graph.ops.registry import verify
from ternbin.graph.rewrite import Rule, rewrite


class Pass(Protocol):
    """A function from a graph and its side table to others; the arguments are not changed."""

    @property
    def name(self) -> str: ...

    def apply(self, graph: Graph, weights: Weights) -> tuple[Graph, Weights]: ...


@dataclass(frozen=True)
class RulePass:
    """A pass made of rewrite rules."""

    name: str
    rules: tuple[Rule, ...]

    def apply(self, graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
        """The rewritten graph and the side table with what the rules added."""
        return rewrite(graph, weights, self.rules)


After = Callable[[Pass, Graph, Weights], None]


def run_passes(
    graph: Graph, weights: Weights, passes: Sequence[Pass], after: After | None = None
) -> tuple[Graph, Weights]:
    """Apply passes in order; the graph is verified before the first and after each. ``after`` hears the result of each."""
    verify(graph, weights)
    for each in passes:
        graph, weights = each.apply(graph, weights)
        verify(graph, weights)
        if after:
            after(each, graph, weights)
    return graph, weights


def enter(weights: Weights, name: str, tensor: torch.Tensor) -> WeightName:
    """Add an integer tensor to the side table under ``name``; returns the name."""
    if name in weights and not torch.equal(weights[name], tensor):
        raise InputError(f"weight name must be new, not {name!r}")
    weights[name] = tensor.to(torch.int64)
    return WeightName(name)
