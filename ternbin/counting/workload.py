"""How much work a graph is: multiply-accumulates and weights of every op, for one call."""

from dataclasses import dataclass

from ternbin.graph.ir import Graph, Shape, Weights
from ternbin.graph.ops.attention import Attended, Scores
from ternbin.graph.ops.linear import Product

PHASES = ("prefill", "decode")


@dataclass(frozen=True)
class Work:
    """Useful multiply-accumulates of an op in one call, and the weights (codes) it reads."""

    macs: int = 0
    weights: int = 0


def _bound(shape: Shape, dims: dict[str, int]) -> tuple[int, ...]:
    return tuple(dims[d] if isinstance(d, str) else d for d in shape)


def work(graph: Graph, weights: Weights, dims: dict[str, int]) -> dict[str, Work]:
    """Op name -> Work for the ops that multiply; ``dims`` binds S, T, P, N. One operand pair is one multiply-accumulate,
    whatever its bits."""
    result: dict[str, Work] = {}
    for node in graph.nodes():
        if isinstance(node.op, Product):
            out_features, in_features = weights[node.op.weight].shape
            (tokens, *_) = _bound(node.src[0].type.shape, dims)
            result[node.name] = Work(tokens * out_features * in_features, out_features * in_features)
        elif isinstance(node.op, Scores):
            _, queries, keys = _bound(node.type.shape, dims)
            result[node.name] = Work(queries * keys * _bound(node.src[0].type.shape, dims)[-1])
        elif isinstance(node.op, Attended):
            _, queries, keys = _bound(node.src[0].type.shape, dims)
            result[node.name] = Work(queries * keys * _bound(node.src[1].type.shape, dims)[-1])
    return result
