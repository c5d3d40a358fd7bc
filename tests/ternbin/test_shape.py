"""Which stacks a model has, and when they are called."""

import re
from dataclasses import replace

import pytest
import torch
from tiny import Tiny

from ternbin.errors import InputError
from ternbin.graph.build import Builder
from ternbin.graph.given import rows
from ternbin.graph.ir import Codes, Graph, Ids, Lowered, Residual
from ternbin.graph.shape import check_source, generates, is_final, shape, stack
from ternbin.passes import fold


@pytest.fixture(scope="module")
def model() -> Lowered:
    return Tiny(layers=2).lowered()


def test_shape_of_an_encoder_decoder(model):
    found = shape(model)
    assert found.decode is not None
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


def test_shape_of_a_model_that_gives_its_stream():
    found = shape(stream_model())
    assert found.decode is None and not generates(stream_model())
    assert found.prefill.outputs == ("hidden",) and [n.name for n in found.prefill.streams] == ["hidden"]
    assert [n.name for n in found.prefill.reads] == ["x"] and found.prefill.handed == ()
    with pytest.raises(InputError, match="^model must generate tokens, not only give hidden$"):
        _ = found.head


def stream_model(width: int = 4) -> Lowered:
    """The identity on the residual stream."""
    b = Builder({})
    x = b.input("x", Residual(("S", width), 8, 0))
    return Lowered((Graph("g", (b.op("output", x, name="hidden"),)),), b.weights, {"vocab_size": 3, "max_positions": 5})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": torch.zeros(6, 4)}, "source length must be in [1, 5], not 6"),
        ({"x": torch.zeros(2, 3)}, "x must be of shape ['S', 4], not [2, 3]"),
        ({"x": torch.full((2, 4), 128)}, "x must be in [-128, 127], not 128"),
        ([1, 2], "inputs must be x, not ids"),
    ],
)
def test_sources_that_the_model_cannot_read_are_refused(given, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_source(given, stream_model())
    check_source({"x": torch.full((5, 4), -128)}, stream_model())


def test_places_count_up_where_they_are_not_given():
    assert rows([7, 8, 9], ["ids", "places"])["places"].tolist() == [0, 1, 2]
    assert rows([7, 8, 9], ["ids", "places"], [1, 2])["places"].tolist() == [0, 0, 1]
    assert rows({"ids": [7, 8], "places": [5, 3]}, ["ids", "places"])["places"].tolist() == [5, 3]
    with pytest.raises(InputError, match="^inputs must have one number of rows, not "):
        rows({"ids": [7, 8], "places": [5]}, ["ids", "places"])


def test_what_is_no_such_model_is_refused(model):
    message = "encoder must give the residual stream, or keys and values to another stack"
    with pytest.raises(InputError, match=f"^{message}$"):
        shape(replace(model, stacks=(model.encoder,)))
    with pytest.raises(InputError, match=r"^stacks must be one .*, not \['decoder', 'encoder'\]$"):
        shape(replace(model, stacks=(model.decoder, model.encoder)))
    fewer = replace(model.encoder, outputs=model.encoder.outputs[1:])
    message = "input cross_k.0: encoder must give Codes(shape=('S', 16), kind='ternary'), not None"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        shape(replace(model, stacks=(fewer, model.decoder)))
    assert Ids(("S",)) == next(node.type for node in model.encoder.inputs())


@pytest.mark.parametrize(
    ("sides", "found"), [(("N",), "['N']"), (("S", "T"), "['S', 'T']"), ((), "None")], ids=["other", "both", "none"]
)
def test_a_stack_of_no_side_or_of_both_is_refused(sides, found):
    b = Builder({})
    types = [Residual((side, 4), 8, 0) for side in sides] or [Codes(("S", 4), "ternary")]
    outputs = tuple(b.op("output", b.input(f"x{i}", of), name=f"o{i}") for i, of in enumerate(types))
    with pytest.raises(InputError, match=re.escape(f"inputs of g must be of shape [S] or [T], not {found}")):
        stack(Graph("g", outputs))
