"""Passes: real ops to the integer ops of docs/architecture.md."""

from dataclasses import replace

from ternbin.graph.ir import Graph, Lowered, Weights
from ternbin.graph.ops.registry import verify, weight_names
from ternbin.passes.attention import FOLD_SOFTMAX
from ternbin.passes.base import RulePass, run_passes
from ternbin.passes.codes import FOLD_CODES
from ternbin.passes.head import FOLD_HEAD
from ternbin.passes.residual import FOLD_RESIDUAL

FOLD: tuple[RulePass, ...] = (FOLD_RESIDUAL, FOLD_SOFTMAX, FOLD_CODES, FOLD_HEAD)

__all__ = ["FOLD", "RulePass", "fold", "prune", "run_passes"]


def prune(weights: Weights, *graphs: Graph) -> Weights:
    """The entries of the side table that some graph uses."""
    used = {name for graph in graphs for name in weight_names(graph)}
    return {name: tensor for name, tensor in weights.items() if name in used}


def fold(lowered: Lowered) -> Lowered:
    """A lowered model with only final ops left. Raises InputError naming the node that cannot be folded."""
    encoder, weights = run_passes(lowered.encoder, lowered.weights, FOLD)
    decoder, weights = run_passes(lowered.decoder, weights, FOLD)
    weights = prune(weights, encoder, decoder)
    for graph in (encoder, decoder):
        verify(graph, weights, final=True)
    return replace(lowered, encoder=encoder, decoder=decoder, weights=weights)
