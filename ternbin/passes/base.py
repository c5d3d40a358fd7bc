"""What a pass is, and how passes run."""

from dataclasses import dataclass

import torch

from ternbin.errors import InputError
from ternbin.graph.ir import Graph, WeightName, Weights
from ternbin.graph.ops.registry import verify
from ternbin.graph.rewrite import Rule, rewrite


@dataclass(frozen=True)
class RulePass:
    """A pass made of rewrite rules."""

    name: str
    rules: tuple[Rule, ...]

    def apply(self, graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
        """The rewritten graph and the side table with what the rules added. Arguments are not changed."""
        return rewrite(graph, weights, self.rules)


def run_passes(graph: Graph, weights: Weights, passes: tuple[RulePass, ...]) -> tuple[Graph, Weights]:
    """Apply passes in order; the graph is verified before the first and after each."""
    verify(graph, weights)
    for each in passes:
        graph, weights = each.apply(graph, weights)
        verify(graph, weights)
    return graph, weights


def enter(weights: Weights, name: str, tensor: torch.Tensor) -> WeightName:
    """Add an integer tensor to the side table under ``name``; returns the name."""
    if name in weights and not torch.equal(weights[name], tensor):
        raise InputError(f"weight name must be new, not {name!r}")
    weights[name] = tensor.to(torch.int64)
    return WeightName(name)
