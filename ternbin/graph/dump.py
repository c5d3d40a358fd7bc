"""Graphs as text."""

from dataclasses import asdict

from ternbin.graph.ir import Graph, Node, Op, Type, WeightName, Weights


def type_text(type: Type) -> str:
    """``Codes[S, 64] ternary``, ``Residual[T, 64] bits=16 frac=11``."""
    fields = {k: v for k, v in asdict(type).items() if k != "shape"}
    rest = " ".join(str(v) if k == "kind" else f"{k}={v}" for k, v in fields.items())
    return f"{type.__class__.__name__}[{', '.join(map(str, type.shape))}] {rest}".rstrip()


def labels(graph: Graph) -> dict[Node[Op], str]:
    """A unique name for every node: its own, else ``op.index``. An output is named after what it keeps."""
    return {node: node.op.label or f"{node.op.opname}.{i}" for i, node in enumerate(graph.nodes())}


def dump(graph: Graph, weights: Weights | None = None) -> str:
    """One line a node, sources first: ``name = op(sources) attributes : type``; with ``weights`` these show their shape."""
    weights = weights or {}
    names = labels(graph)

    def attribute(op: Op, name: str, value: object) -> str:
        tensor = weights.get(op.weight_names().get(name, WeightName("")))
        return f"{name}={value}" if tensor is None else f"{name}={value}{list(tensor.shape)}"

    lines = [f"graph {graph.name}"]
    for node in graph.nodes():
        attrs = " ".join(attribute(node.op, k, v) for k, v in node.op.attributes().items() if k not in ("name", "of"))
        call = f"{node.op.opname}({', '.join(names[s] for s in node.src)})"
        lines.append(f"  {names[node]} = {call} {attrs}".rstrip() + f" : {type_text(node.type)}")
    return "\n".join(lines) + "\n"
