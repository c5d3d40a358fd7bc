"""Graphs for people and other tools: ``dump`` (text), ``picture`` (SVG), and ONNX with ops of the domain ``ternbin``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph import ir
from ternbin.graph.dump import dump, labels
from ternbin.graph.ir import Graph, Node, Op, Type, Weights, declared
from ternbin.graph.ops.ends import Input
from ternbin.graph.ops.registry import OPS, operation, typed, verify, weight_names
from ternbin.graph.picture import picture, to_svg
from ternbin.storage import replacing

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = ["dump", "from_onnx", "picture", "save_onnx", "to_onnx", "to_svg"]

DOMAIN, DOMAIN_VERSION, OPSET = "ternbin", 1, 21


def to_onnx(graph: Graph, weights: Weights) -> "ModelProto":
    """The graph as an ``onnx.ModelProto`` that holds all of it: :func:`from_onnx` gives back graph and weights.

    Every op becomes a node of the domain ``ternbin`` named as in docs/graph.md, its weights initializers; outputs
    become Identity nodes. Symbolic dimensions keep their names; the type of each tensor is its ``doc_string``, as JSON.
    """
    from onnx import helper  # slow to import, needed here only

    names = labels(graph)
    nodes: list[NodeProto] = []
    used = {name: weights[name] for name in weight_names(graph)}
    clash = set(used) & set(names.values())
    if clash:
        raise InputError(f"weight name must differ from every node name, not {min(clash)!r}")
    for node in graph.nodes():
        if node.op.opname == "output":
            nodes.append(helper.make_node("Identity", [names[node.src[0]]], [names[node]], names[node]))
        elif node.op.opname != "input":
            nodes.append(_onnx_node(node, names))
    info = {node: _value_info(node.type, names[node]) for node in graph.nodes()}
    inner = [info[n] for n in graph.nodes() if n.op.opname not in ("input", "output")]
    body = helper.make_graph(
        nodes,
        graph.name,
        [info[n] for n in graph.inputs()],
        [info[n] for n in graph.outputs],
        [_initializer(name, t) for name, t in used.items()],
        value_info=inner,
    )
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return helper.make_model(body, opset_imports=imports, producer_name="ternbin", ir_version=10)


def save_onnx(graph: Graph, weights: Weights, path: Path) -> None:
    """Write the ONNX form, checked by onnx itself."""
    import onnx

    model = to_onnx(graph, weights)
    # Of both onnx leaves the type argument of a PathLike out.
    onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]
    with replacing(path) as fresh:
        onnx.save(model, str(fresh))  # pyright: ignore[reportUnknownMemberType]


def from_onnx(model: "ModelProto") -> tuple[Graph, Weights]:
    """Inverse of :func:`to_onnx`. Raises InputError for a model that is not of this form."""
    from onnx import helper, numpy_helper

    if DOMAIN not in {entry.domain for entry in model.opset_import}:
        raise InputError(f"ONNX model must import the domain {DOMAIN}, not {[e.domain for e in model.opset_import]}")
    body = model.graph
    weights = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in body.initializer}
    made: dict[str, Node[Op]] = {
        i.name: typed(weights, Input(name=i.name, of=_type_of(i.doc_string))) for i in body.input
    }
    for entry in body.node:
        src = tuple(made[name] for name in entry.input if name in made)
        attrs: dict[str, Any] = {a.name: _plain(helper.get_attribute_value(a)) for a in entry.attribute}
        keys, name = attrs.pop("weights", ()), entry.op_type if entry.op_type in OPS else "output"
        attrs |= dict(zip(keys, entry.input[len(src) :], strict=True))
        made[entry.output[0]] = typed(weights, operation(name, _attributes(OPS[name], attrs, entry.name)), *src)
    graph = Graph(body.name, tuple(made[o.name] for o in body.output))
    verify(graph, weights)
    return graph, weights


def _attributes(op: type[Op], attrs: dict[str, object], name: str) -> dict[str, object]:
    """Attributes of ``op`` from those of its ONNX node: None is left out there, a bool an integer, the name that of the node."""
    known = {
        key: bool(attrs[key]) if of is bool else attrs.get(key) for key, of in declared(op).items() if key != "name"
    }
    return known | ({"name": name} if "name" in declared(op) else {})


def _onnx_node(node: Node[Op], names: dict[Node[Op], str]) -> "NodeProto":
    from onnx import helper

    refs = node.op.weight_names()
    inputs = [names[s] for s in node.src] + list(refs.values())
    entry = helper.make_node(node.op.opname, inputs, [names[node]], names[node], domain=DOMAIN)
    values = {k: v for k, v in node.op.attributes().items() if k not in {"name", *refs} and v is not None}
    if refs:
        values["weights"] = tuple(refs)
    entry.attribute.extend(_attribute(k, v) for k, v in values.items())
    return entry


def _attribute(key: str, value: object) -> "AttributeProto":
    from onnx import AttributeProto, TensorProto, helper

    if isinstance(value, float):  # ONNX's own float attribute has 32 bits
        return helper.make_attribute(key, helper.make_tensor(key, TensorProto.DOUBLE, [], [value]))
    if value == ():
        return helper.make_attribute(key, [], attr_type=AttributeProto.INTS)
    return helper.make_attribute(key, int(value) if isinstance(value, bool) else value)


def _plain(value: object) -> object:
    """An ONNX attribute value as the graph's attribute value."""
    from onnx import TensorProto, numpy_helper

    if isinstance(value, TensorProto):
        return float(numpy_helper.to_array(value))
    if isinstance(value, bytes):
        return value.decode()
    return tuple(map(_plain, cast(list[object], value))) if isinstance(value, list) else value


def _initializer(name: str, tensor: Tensor) -> "TensorProto":
    from onnx import numpy_helper

    return numpy_helper.from_array(tensor.cpu().numpy(), name)


def _value_info(type: Type, name: str) -> "ValueInfoProto":
    from onnx import TensorProto, helper

    element = TensorProto.DOUBLE if isinstance(type, ir.Real) else TensorProto.INT64
    if isinstance(type, ir.Codes):
        element = TensorProto.UINT8 if type.kind == "uint8" else TensorProto.INT8
    shape = (*type.shape, 2) if isinstance(type, ir.Tokens) else type.shape  # id and logit
    doc = json.dumps({"type": type.__class__.__name__} | asdict(type))
    return helper.make_tensor_value_info(name, element, list(shape), doc_string=doc)


def _type_of(doc: str) -> Type:
    fields = json.loads(doc)
    return getattr(ir, fields.pop("type"))(**fields | {"shape": tuple(fields["shape"])})
