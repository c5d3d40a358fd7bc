"""How much work a graph is: multiply-accumulates and weights of every op, for one call."""

from dataclasses import dataclass

from ternbin.graph.ir import Graph, Weights


@dataclass(frozen=True)
class Work:
    """Useful multiply-accumulates of an op in one call, and the weights (codes) it reads."""

    macs: int = 0
    weights: int = 0


def _bound(shape: tuple, dims: dict[str, int]) -> tuple[int, ...]:
    return tuple(dims[d] if isinstance(d, str) else d for d in shape)


def work(graph: Graph, weights: Weights, dims: dict[str, int]) -> dict[str, Work]:
    """Op name -> Work for the ops that multiply; ``dims`` binds S, T, P, N. One operand pair is one multiply-accumulate,
    whatever its bits."""
    result = {}
    for node in graph.nodes():
        attrs = dict(node.attrs)
        if "weight" in attrs:
            out_features, in_features = weights[attrs["weight"]].shape
            (tokens, *_) = _bound(node.src[0].type.shape, dims)
            result[attrs["name"]] = Work(tokens * out_features * in_features, out_features * in_features)
        elif node.op == "scores":
            heads, queries, keys = _bound(node.type.shape, dims)
            result[attrs["name"]] = Work(queries * keys * _bound(node.src[0].type.shape, dims)[-1])
        elif node.op.startswith("context"):
            _, queries, keys = _bound(node.src[0].type.shape, dims)
            result[attrs["name"]] = Work(queries * keys * _bound(node.src[1].type.shape, dims)[-1])
    return result
