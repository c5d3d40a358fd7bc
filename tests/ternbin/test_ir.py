"""Nodes, graphs, the verifier, the builder and the rewriter."""

import re

import pytest
import torch

from ternbin.errors import InputError
from ternbin.graph.build import Builder
from ternbin.graph.ir import Codes, Graph, Ids, Ints, Node, Op, Real, Residual, make
from ternbin.graph.ops.attention import Context
from ternbin.graph.ops.codes import Quantize
from ternbin.graph.ops.ends import Input, Output
from ternbin.graph.ops.linear import Act, Affine
from ternbin.graph.ops.registry import OPS, operation, typed, verify, weight_names
from ternbin.graph.rewrite import Pattern, Rule, chain, rewrite


def raises(message: str):
    return pytest.raises(InputError, match=f"^{re.escape(message)}$")


@pytest.fixture
def b() -> Builder:
    return Builder({})


def codes_input(b: Builder, name: str = "x", width: int = 4, kind: str = "ternary") -> Node:
    return b.input(name, Codes(("S", width), kind))


def test_equal_nodes_are_one_object(b):
    assert codes_input(b) is codes_input(b)
    assert codes_input(b) is not codes_input(b, "y")
    x = codes_input(b)
    assert b.op("scores", x, x, name="s", heads=2) is b.op("scores", x, x, heads=2, name="s")
    assert b.op("scores", x, x, name="s", heads=2) is not b.op("scores", x, x, name="s", heads=1)


def test_nodes_are_frozen_and_say_what_they_lack(b):
    x = codes_input(b)
    with pytest.raises(AttributeError):
        setattr(x, "op", "output")  # noqa: B010
    with pytest.raises(AttributeError, match="'Input' object has no attribute 'heads'"):
        getattr(x.op, "heads")  # noqa: B009
    with pytest.raises(AttributeError):
        setattr(x.op, "name", "y")  # noqa: B010


def test_types_follow_from_the_op(b):
    x, y = codes_input(b), b.input("y", Codes(("T", 4), "ternary_nn"))
    assert b.op("scores", y, x, name="s", heads=2).type == Ints((2, "T", "S"), 4)
    assert b.op("cache", y, name="c").type == Codes(("N", 4), "ternary_nn")
    weight = b.codes("w", torch.tensor([[1, 0, -1, 1]] * 3), "ternary")
    assert b.op("matmul", y, weight=weight, weight_kind="ternary").type == Ints(("T", 3), 8)
    assert b.linear(x, "p", torch.ones(3, 4), "binary", torch.ones(3), 0.5, None).type == Real(("S", 3))


def test_order_puts_sources_first_and_is_stable(b):
    x, y = codes_input(b), codes_input(b, "y")
    s = b.op("scores", x, y, name="s", heads=1)
    p = b.probabilities(s, "p", 0.5, False, 0.3, "ternary_nn")
    c = b.context(p, y, "c", 1, 1.0, 1.0, "ternary")
    graph = Graph("g", (b.op("output", c, name="o"), b.op("output", x, name="o2")))
    assert [n.name for n in graph.nodes()] == ["x", "y", "s", "real_softmax", "p", "context", "affine", "c", "o", "o2"]
    assert graph.inputs() == [x, y]
    assert {n.name for n in graph.users()[y]} == {"s", "context"}


def test_linear_folds_zero_and_extra_into_the_bias(b):
    codes, alpha = torch.tensor([[1, 0, -1, 1], [-1, -1, 0, -1]]), torch.tensor([0.5, 2.0])
    b.linear(
        codes_input(b, kind="ternary_nn"), "p", codes, "ternary", alpha, 0.25, torch.tensor([1.0, -1.0]), -0.125, 0.5
    )
    assert b.weights["p.scale"].tolist() == [0.0625, 0.25]
    assert b.weights["p.bias"].tolist() == [(1 - 0.125 * 0.5 * 1) * 0.5, (-1 - 0.125 * 2 * -3) * 0.5]


def test_builder_rejects_a_second_weight_of_the_same_name(b):
    b.weight("w", torch.ones(2, 2))
    b.weight("w", torch.ones(2, 2))
    with raises("weight name must be new, not 'w'"):
        b.weight("w", torch.zeros(2, 2))


def test_what_does_not_fit_is_named(b):
    x = codes_input(b)
    with raises("op must be one of " + ", ".join(OPS) + ", not 'matmu'"):
        b.op("matmu", x)
    with raises("matmul: attributes must be ['weight', 'weight_kind'], not ['weight']"):
        b.op("matmul", x, weight="w")
    with raises("matmul: weight must name a weight, not 'w'"):
        b.op("matmul", x, weight="w", weight_kind="ternary")
    b.codes("w", torch.ones(3, 5, dtype=torch.int64), "ternary")
    with raises("matmul: weight w must have shape [None, 4], not [3, 5]"):
        b.op("matmul", x, weight="w", weight_kind="ternary")
    b.codes("w2", torch.full((3, 4), 2), "ternary")
    with raises("matmul: weight codes must be in [-1, 1], not (2, 2)"):
        b.op("matmul", x, weight="w2", weight_kind="ternary")
    with raises("scores s: q and k must have equal width, a multiple of heads, not (('S', 4), ('S', 4))"):
        b.op("scores", x, x, name="s", heads=3)
    with raises("quantize q: alpha must be positive and finite, not 0.0"):
        b.quantize(b.input("r", Residual(("S", 4), 16, 8)), "q", 0.0, "ternary")
    with raises("quantize q: source 0 must be Residual or Real, not Codes(shape=('S', 4), kind='ternary')"):
        b.quantize(x, "q", 1.0, "ternary")


def test_verify_finds_wrong_types_names_and_leftovers(b):
    x = codes_input(b)
    good = Graph("g", (b.op("output", x, name="o"),))
    verify(good, b.weights, final=True)
    wrong = make(Output(name="o"), (x,), Ids(("S",)))
    with raises("output o: type must be as inferred, not Ids(shape=('S',))"):
        verify(Graph("g", (wrong,)), b.weights)
    twice = b.op("scores", x, b.op("cache", x, name="x"), name="s", heads=1)
    p = b.probabilities(twice, "p", 1.0, False, 0.3, "ternary_nn")
    with raises("cache: name must be unique, not 'x'"):
        verify(Graph("g", (b.op("output", p, name="o"),)), b.weights)
    single = b.probabilities(b.op("scores", x, x, name="s", heads=1), "p", 1.0, False, 0.3, "ternary_nn")
    with raises("real_softmax real_softmax: op must be one of the final ops, not 'real_softmax'"):
        verify(Graph("g", (b.op("output", single, name="o"),)), b.weights, final=True)
    with raises("outputs of g must be output nodes, not [<input x>]"):
        verify(Graph("g", (x,)), b.weights)


def test_weight_names(b):
    node = b.linear(codes_input(b), "p", torch.ones(3, 4), "binary", torch.ones(3), 0.5, None)
    assert node.op.weight_names() == {"bias": "p.bias", "scale": "p.scale"}
    assert node.src[0].op.weight_names() == {"weight": "p.weight"}
    quantized = b.op("output", b.quantize(node, "q", 1.0, "ternary"), name="o")
    assert set(weight_names(Graph("g", (quantized,)))) == {"p.scale", "p.bias", "p.weight"}
    requantized = dict(weight="p.weight", weight_kind="binary", mul="m", bias="m", shift=0, kind="int8", name="r")
    b.weight("m", torch.ones(1))
    assert operation("linear_codes8", requantized | {"lut": None}).weight_names().keys() == {"weight", "mul", "bias"}


def test_attributes_have_exactly_the_declared_types(b):
    x = codes_input(b)
    s = b.op("scores", x, x, name="s", heads=1)
    with raises("scores s: heads must be int, not True"):
        b.op("scores", x, x, name="s", heads=True)
    with raises("real_softmax: scale must be float, not 1"):
        b.op("real_softmax", s, scale=1, causal=False)
    with raises("real_softmax: causal must be bool, not 0"):
        b.op("real_softmax", s, scale=1.0, causal=0)
    r = b.input("r", Residual(("S", 4), 16, 8))
    fields = dict(name="q", kind="ternary", mul=0, shift=0)
    with raises("quant q: thresholds must be a tuple of int, not [0, 1]"):
        b.op("quant", r, **fields, thresholds=[0, 1])
    with raises("quant q: thresholds must be a tuple of int, not (0, 1.0)"):
        b.op("quant", r, **fields, thresholds=(0, 1.0))
    with raises("act: fn must be str, not None"):
        b.op("act", r, fn=None)
    with raises("linear_codes8 l: lut must be WeightName or None, not 3"):
        b.op(
            "linear_codes8",
            x,
            name="l",
            weight="w",
            weight_kind="binary",
            mul="m",
            bias="b",
            shift=0,
            kind="int8",
            lut=3,
        )
    with raises("embed e: past must be 0 or 'P', not 1"):
        rows = dict(table="t", table_kind="binary", scale="s", pos="p", pos_offset=2, frac=8, bits=16)
        b.op("embed", b.input("ids", Ids(("S",))), name="e", past=1, **rows)


def test_every_op_says_what_it_is(b):
    for name, op in OPS.items():
        assert op.opname == name and op.__doc__ and op.stage in ("real", "final", "both") and op.sources in (0, 1, 2)
        assert op.infer is not Op.infer and op.compute is not Op.compute


def test_rewrite_applies_rules_to_chains_and_keeps_the_old_graph(b):
    x = codes_input(b)
    real = b.linear(x, "p", torch.ones(4, 4), "binary", torch.ones(4), 0.5, None)
    q = b.quantize(b.op("act", real, fn="relu"), "q", 1.0, "ternary")
    graph = Graph("g", (b.op("output", q, name="o"),))

    def drop_relu(match, weights):
        return typed(weights, match[Quantize].op, *match[Act].src)

    rule = Rule(chain(Quantize, Act, Affine), drop_relu)
    new, _ = rewrite(graph, b.weights, (rule,))
    assert [n.op.opname for n in new.nodes()] == ["input", "matmul", "affine", "quantize", "output"]
    assert [n.op.opname for n in graph.nodes()] == ["input", "matmul", "affine", "act", "quantize", "output"]
    same, _ = rewrite(graph, b.weights, (Rule(chain(Quantize, Affine), drop_relu),))
    assert same == graph


def test_patterns_match_sources_by_position(b):
    x = codes_input(b)
    p = b.probabilities(b.op("scores", x, x, name="s", heads=1), "p", 1.0, False, 0.3, "ternary_nn")
    c = b.op("context", p, x, heads=1)
    found = Pattern(Context, (None, Pattern(Input))).match(c)
    assert found is not None and found.nodes == {Context: c, Input: x}
    assert Pattern(Context, (Pattern(Input), None)).match(c) is None
