"""Passes: real ops to the integer ops of docs/graph.md."""

from collections.abc import Sequence
from dataclasses import replace

from ternbin.errors import InputError
from ternbin.graph.ir import Graph, Lowered, Weights
from ternbin.graph.ops.registry import verify, weight_names
from ternbin.passes.attention import FOLD_SOFTMAX
from ternbin.passes.base import After, Pass, RulePass, run_passes
from ternbin.passes.codes import FOLD_CODES
from ternbin.passes.fixed import OutOfRange
from ternbin.passes.head import FOLD_HEAD
from ternbin.passes.residual import FOLD_RESIDUAL

FOLD: tuple[RulePass, ...] = (FOLD_RESIDUAL, FOLD_SOFTMAX, FOLD_CODES, FOLD_HEAD)
PASSES: dict[str, Pass] = {each.name: each for each in FOLD}

__all__ = ["FOLD", "PASSES", "Pass", "RulePass", "fold", "named", "prune", "run_passes", "transform"]


def named(names: Sequence[str]) -> list[Pass]:
    """The passes of these names. Raises InputError for an unknown one."""
    for name in names:
        if name not in PASSES:
            raise InputError(f"pass must be one of {', '.join(PASSES)}, not {name!r}")
    return [PASSES[name] for name in names]


def prune(weights: Weights, *graphs: Graph) -> Weights:
    """The entries of the side table that some graph uses."""
    used = {name for graph in graphs for name in weight_names(graph)}
    return {name: tensor for name, tensor in weights.items() if name in used}


def transform(lowered: Lowered, passes: Sequence[Pass], after: After | None = None) -> Lowered:
    """The model after these passes, each graph in turn; weights that no graph uses any more are dropped.

    Raises InputError, naming the tensor of the checkpoint, for what no field of fixed point can hold.
    """
    graphs: list[Graph] = []
    weights = lowered.weights
    try:
        for graph in lowered.stacks:
            graph, weights = run_passes(graph, weights, passes, after)
            graphs.append(graph)
    except OutOfRange as error:
        source = lowered.origins.get(error.source, error.source)
        raise OutOfRange(error.where, source, error.what, error.got) from None
    return replace(lowered, stacks=tuple(graphs), weights=prune(weights, *graphs))


def fold(lowered: Lowered) -> Lowered:
    """A lowered model with only final ops left. Raises InputError naming the node that cannot be folded."""
    folded = transform(lowered, FOLD)
    for graph in folded.stacks:
        verify(graph, folded.weights, final=True)
    return folded
