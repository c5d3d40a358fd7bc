"""Graphs as text."""

from dataclasses import asdict

from ternbin.graph.ir import Graph, Node, Type, Weights


def type_text(type: Type) -> str:
    """``Codes[S, 64] ternary``, ``Residual[T, 64] bits=16 frac=11``."""
    fields = {k: v for k, v in asdict(type).items() if k != "shape"}
    rest = " ".join(str(v) if k == "kind" else f"{k}={v}" for k, v in fields.items())
    return f"{type.__class__.__name__}[{', '.join(map(str, type.shape))}] {rest}".rstrip()


def labels(graph: Graph) -> dict[Node, str]:
    """A unique name for every node: its own, else ``op.index``. An output is named after what it keeps."""
    return {node: node["name"] if node.get("name") else f"{node.op}.{i}" for i, node in enumerate(graph.nodes())}


def dump(graph: Graph, weights: Weights | None = None) -> str:
    """One line a node, sources first: ``name = op(sources) attributes : type``; with ``weights`` these show their shape."""
    weights = weights or {}
    names = labels(graph)

    def value(item: object) -> str:
        return f"{item}{list(weights[item].shape)}" if isinstance(item, str) and item in weights else str(item)

    lines = [f"graph {graph.name}"]
    for node in graph.nodes():
        attrs = " ".join(f"{k}={value(v)}" for k, v in node.attrs if k not in ("name", "of"))
        call = f"{node.op}({', '.join(names[s] for s in node.src)})"
        lines.append(f"  {names[node]} = {call} {attrs}".rstrip() + f" : {type_text(node.type)}")
    return "\n".join(lines) + "\n"
