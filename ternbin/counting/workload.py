"""How much work a graph is: multiply-accumulates and weights of every op, for one call or for several."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ternbin.contract.program import Program
from ternbin.graph.ir import Graph, Lowered, Shape, Weights
from ternbin.graph.ops.attention import Attended, Scores
from ternbin.graph.ops.linear import Product
from ternbin.graph.shape import shape


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


def call_work(lowered: Lowered, program: Program, number: int, steps: Sequence[int] = ()) -> dict[str, Work]:
    """Work by op of one program call: prefill of a text, or decode at a position: each beam with its own keys. ``steps``: decode calls of
    each text until it was done, beyond which its beams count as no work (default: all calls)."""
    model = shape(lowered)
    if number < program.encoders:
        return work(model.prefill.graph, lowered.weights, {"S": program.lengths[number]})
    past = number - program.encoders
    total: dict[str, Work] = {}
    for length in [own for text, own in enumerate(program.lengths) if not steps or past < steps[text]]:
        dims = {"S": length, "T": program.beams // program.encoders, "P": past, "N": past + 1}
        for name, own in work(model.generating.graph, lowered.weights, dims).items():
            total[name] = Work(own.macs + total.get(name, Work()).macs, own.weights)
    return total


def sum_work(parts: Iterable[dict[str, Work]]) -> dict[str, Work]:
    """Sums by op."""
    total: dict[str, Work] = {}
    for part in parts:
        for op, item in part.items():
            before = total.get(op, Work())
            total[op] = Work(before.macs + item.macs, before.weights + item.weights)
    return total
