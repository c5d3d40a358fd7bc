"""The interpreter: evaluates graphs, real and final, on torch tensors. What each op computes stands with the op.

Final ops call golden.py. Real ops compute in float64 and serve to check the passes. Every op takes leading batch
dimensions: ``ids`` [S] or [batch, S].
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ternbin.graph import golden
from ternbin.graph.ir import Graph, Node, Op, Weights
from ternbin.graph.ops.call import Call
from ternbin.graph.ops.linear import Product
from ternbin.graph.ops.registry import verify, weight_names

Values = dict[Node[Op], Tensor]


class Interpreter:
    """Evaluates a graph. ``saturation`` says, by node name, how many elements were clipped, padding included.

    With ``keep`` a call returns the tensor of every node; without, only those of the outputs, and forgets the others
    as soon as nothing needs them.
    """

    def __init__(self, graph: Graph, weights: Weights, device: torch.device | str = "cpu", keep: bool = True):
        verify(graph, weights)
        self.graph, self.nodes, self.keep = graph, graph.nodes(), keep
        self.saturation: dict[str, golden.Saturation] = {}
        factors = {node.op.weight for node in self.nodes if isinstance(node.op, Product)}
        self.weights = {name: _ready(weights[name].to(device), name in factors) for name in set(weight_names(graph))}
        self.last_use = {source: node for node in self.nodes for source in node.src}

    def __call__(
        self,
        inputs: dict[str, Tensor],
        past: int = 0,
        caches: dict[str, Tensor] | None = None,
        lengths: Tensor | None = None,
        forced: dict[str, Tensor] | None = None,
        *,
        mask: Tensor | None = None,
        sources: Tensor | None = None,
        top: int = 0,
    ) -> Values:
        """Tensor of each node. ``inputs`` by input name; ``caches`` (cache name -> earlier rows) is extended in place.

        ``past`` is P. ``lengths`` [batch], where source tokens are padded at the end, holds their true numbers.
        ``forced`` tensors, by node name, are what later nodes see instead of the result, which is still returned: so
        two graphs are compared op by op on identical inputs. With ``mask``, bool [T, (P+1) * T], the tokens are T beams at
        position P, which share the caches: T rows a position. ``sources``, ``top``: see :class:`Call`.
        """
        call = Call(
            self.weights,
            inputs,
            past,
            {} if caches is None else caches,
            lengths,
            self.saturation if self.keep else None,
            mask,
            sources,
            top,
        )
        values: Values = {}
        seen = values if forced is None else _Forced(values, forced)
        for node in self.nodes:
            values[node] = node.op.compute(call, node, *(seen[source] for source in node.src))
            if not self.keep:
                for source in set(node.src):
                    if self.last_use[source] is node:
                        del values[source]
        return values

    def named(self, values: Values) -> dict[str, Tensor]:
        """The kept tensors by node name: all that a program would write."""
        return {node.op.label: value for node, value in values.items() if node.op.label is not None}


def _ready(weight: Tensor, factor: bool) -> Tensor:
    """Codes that are multiplied, ready for the exact products: as int8 where these are made of such, else float32 once and for all."""
    return weight.to(torch.float32) if factor and not golden.small(weight) else weight


@dataclass(frozen=True)
class _Forced:
    """Values by node, replaced by those of ``by_name`` where the node's name is there."""

    values: Values
    by_name: dict[str, Tensor]

    def __getitem__(self, node: Node[Op]) -> Tensor:
        return self.by_name.get(node.name, self.values[node])


def outputs(graph: Graph, values: Values) -> dict[str, Tensor]:
    """Values of the output nodes by name."""
    return {node.name: values[node] for node in graph.outputs}
