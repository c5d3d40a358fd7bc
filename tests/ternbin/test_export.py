"""Text, picture and ONNX of graphs."""

import re
import xml.etree.ElementTree as ET

import onnx
import pytest
import torch
from tiny import Tiny

from ternbin.errors import InputError
from ternbin.graph.build import Builder
from ternbin.graph.export import dump, from_onnx, picture, save_onnx, to_onnx
from ternbin.graph.ir import Codes, Graph
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.graph.picture import BOX_H, layers, layout, to_svg
from ternbin.passes import fold

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", params=["ternary", "int8"])
def model(request):
    return Tiny(act=request.param, layers=2).lowered()


def test_text_has_a_line_for_every_node():
    b = Builder({})
    x = b.input("x", Codes(("S", 4), "ternary"))
    y = b.linear(x, "p", torch.ones(3, 4), "binary", torch.ones(3), 0.5, None)
    graph = Graph("g", (b.op("output", b.quantize(y, "q", 0.25, "int8"), name="o"),))
    assert (
        dump(graph, b.weights)
        == """graph g
  x = input() : Codes[S, 4] ternary
  matmul.1 = matmul(x) weight=p.weight[3, 4] weight_kind=binary : Ints[S, 3] limit=4
  affine.2 = affine(matmul.1) bias=p.bias[3] scale=p.scale[3] : Real[S, 3]
  q = quantize(affine.2) alpha=0.25 kind=int8 zero=0.0 : Codes[S, 3] int8
  o = output(q) : Codes[S, 3] int8
"""
    )
    assert "matmul(x) weight=p.weight weight_kind" in dump(graph)


@pytest.mark.parametrize("stage", ["real", "final"])
@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_onnx_holds_the_whole_graph(model, name, stage, tmp_path):
    lowered = model if stage == "real" else fold(model)
    graph = getattr(lowered, name)
    save_onnx(graph, lowered.weights, tmp_path / "g.onnx")
    loaded = onnx.load(str(tmp_path / "g.onnx"))
    onnx.checker.check_model(loaded, full_check=True)
    again, weights = from_onnx(loaded)
    assert again == graph  # interned nodes: equal means the same ops, sources, attributes and types
    assert all(torch.equal(tensor, lowered.weights[key]) for key, tensor in weights.items())
    if name == "encoder":
        ids = {"ids": torch.tensor([3, 9, 4])}
        got, want = (outputs(g, Interpreter(g, w)(ids)) for g, w in ((again, weights), (graph, lowered.weights)))
        assert got.keys() == want.keys() and all(torch.equal(got[k], want[k]) for k in got)


def test_onnx_tensors_say_what_they_are(model):
    graph = to_onnx(fold(model).decoder, fold(model).weights).graph
    assert [i.name for i in graph.input][0] == "ids" and [o.name for o in graph.output] == ["next"]
    scores = next(v for v in graph.value_info if v.name == "dec.0.self.scores").type.tensor_type
    assert [d.dim_param or d.dim_value for d in scores.shape.dim] == [2, "T", "N"]
    assert {n.domain for n in graph.node if n.op_type != "Identity"} == {"ternbin"}
    assert {n.name for n in graph.node} >= {"dec.0.self.q", "dec.1.cross.ctx", "lm_head"}


def test_onnx_rejects_other_models_and_clashing_names():
    other = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    with pytest.raises(InputError, match=re.escape("ONNX model must import the domain ternbin, not ['']")):
        from_onnx(other)
    b = Builder({})
    b.codes("x", torch.ones(3, 4), "binary")
    y = b.op("matmul", b.input("x", Codes(("S", 4), "ternary")), weight="x", weight_kind="binary")
    y = b.op("affine", y, scale=b.weight("s", torch.ones(1)), bias="s")
    graph = Graph("g", (b.op("output", b.quantize(y, "q", 1.0, "ternary"), name="o"),))
    with pytest.raises(InputError, match="^weight name must differ from every node name, not 'x'$"):
        to_onnx(graph, b.weights)


def test_layers_of_the_picture(model):
    folded = fold(model)
    assert list(layers(folded.encoder)) == ["inputs", "enc", "enc.0", "enc.1", "dec.0", "dec.1", "outputs"]
    assert list(layers(model.decoder)) == ["inputs", "dec", "dec.0", "dec.1", "lm_head", "outputs"]
    for graph in (folded.encoder, model.decoder):
        nodes = [node for group in layers(graph).values() for node in group]
        assert sorted(map(id, nodes)) == sorted(map(id, graph.nodes()))


def test_picture_flows_down_without_overlap(model):
    for graph in (fold(model).encoder, fold(model).decoder, model.encoder):
        places, frames = layout(graph)
        assert all(places[s].y + BOX_H <= places[node].y for node in places for s in node.src)
        assert len({(p.x, p.y) for p in places.values()}) == len(places)
        assert all(a.y + a.height < b.y for a, b in zip(frames, frames[1:], strict=False))
        root = ET.fromstring(to_svg(graph))
        assert len(root.findall(f"{SVG}g/{SVG}g")) == len(places)
        assert len(root.findall(f"{SVG}g/{SVG}path")) == sum(len(node.src) for node in places)


def test_picture_of_a_model_shows_both_graphs_side_by_side(model):
    root = ET.fromstring(picture(model))
    titles = [text.text for text in root.findall(f"{SVG}g/{SVG}text")]
    assert titles[0] == "encoder" and "decoder" in titles
    assert [g.get("transform") for g in root.findall(f"{SVG}g")][0] == "translate(0,0)"
