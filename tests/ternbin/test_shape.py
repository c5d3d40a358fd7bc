"""Which stacks a model has, and when they are called."""

import re
from dataclasses import replace

import pytest
from tiny import Tiny

from ternbin.errors import InputError
from ternbin.graph.build import Builder
from ternbin.graph.ir import Codes, Graph, Ids, Lowered
from ternbin.graph.shape import is_final, shape, stack
from ternbin.passes import fold


@pytest.fixture(scope="module")
def model() -> Lowered:
    return Tiny(layers=2).lowered()


def test_shape_of_an_encoder_decoder(model):
    found = shape(model)
    assert (found.prefill.graph, found.decode.graph) == (model.encoder, model.decoder) == model.stacks
    crossing = ["cross_k.0", "cross_v.0", "cross_k.1", "cross_v.1"]
    assert found.prefill.outputs == tuple(crossing) and found.prefill.handed == found.prefill.caches == ()
    assert sorted(node.name for node in found.decode.handed) == sorted(crossing)
    assert {node.name for node in found.decode.caches} == {
        f"dec.{layer}.self.{side}_cache" for layer in (0, 1) for side in "kv"
    }
    assert found.decode.outputs == ("next",)


def test_the_head_and_finality_follow_folding(model):
    assert not is_final(model)
    folded = fold(model)
    assert is_final(folded) and shape(folded).head.name == "lm_head"


def test_what_is_no_such_model_is_refused(model):
    with pytest.raises(InputError, match=r"^stacks must be one .*, not \['encoder'\]$"):
        shape(replace(model, stacks=(model.encoder,)))
    with pytest.raises(InputError, match=r"^stacks must be one .*, not \['decoder', 'encoder'\]$"):
        shape(replace(model, stacks=(model.decoder, model.encoder)))
    fewer = replace(model.encoder, outputs=model.encoder.outputs[1:])
    message = "input cross_k.0: encoder must give Codes(shape=('S', 16), kind='ternary'), not None"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        shape(replace(model, stacks=(fewer, model.decoder)))
    b = Builder({})
    other = Graph("g", (b.op("output", b.input("ids", Codes(("S", 4), "ternary")), name="o"),))
    assert stack(other).phase == "prefill"
    with pytest.raises(InputError, match=re.escape("ids of g must be of shape [S] or [T], not 'N'")):
        stack(Graph("g", (b.op("output", b.input("ids", Codes(("N", 4), "ternary")), name="o"),)))
    with pytest.raises(InputError, match=re.escape("ids of g must be of shape [S] or [T], not None")):
        stack(Graph("g", (b.op("output", b.input("x", Codes(("S", 4), "ternary")), name="o"),)))
    assert Ids(("S",)) == next(node.type for node in model.encoder.inputs())
