"""Passes: folded integers against exact arithmetic, element by element."""

import math
import re
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Tiny

from ternbin.decoding.greedy import reference_run
from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.activations import ACTIVATIONS, FUNCTIONS
from ternbin.graph.build import Builder
from ternbin.graph.ir import Codes, Graph, Ids, Residual, WeightName, as_op, make
from ternbin.graph.ops.attention import SoftmaxCodes
from ternbin.graph.ops.ends import Input
from ternbin.graph.ops.interpreter import Interpreter
from ternbin.graph.ops.linear import Affine
from ternbin.graph.ops.stream import Layernorm
from ternbin.graph.rewrite import Pattern, Rule
from ternbin.passes import FOLD, RulePass, fold, prune, run_passes
from ternbin.passes import steps as steps_module
from ternbin.passes.fixed import fixed_point, fixed_scale

torch.set_num_threads(1)
fast = settings(max_examples=40, deadline=None, derandomize=True)
RANGE = {"ternary": (-1, 1), "binary": (-1, 1), "ternary_nn": (0, 2), "binary_nn": (0, 1)}
RELU, GELU = ACTIVATIONS["relu"], ACTIVATIONS["gelu"]
SMOOTH = [fn for fn in FUNCTIONS if fn.smooth]
PLAIN = {  # the smooth functions in plain Python
    "gelu": lambda x: 0.5 * x * math.erfc(-x * math.sqrt(0.5)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu_new": lambda x: x / (1 + math.exp(min(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3), 700))),
}
PHI_1 = "0.84134474606854294858523254563203792247791296672660"
AFFINE = Affine(scale=WeightName("fc.scale"), bias=WeightName("fc.bias"))
eighths = st.integers(1, 40).map(lambda n: n / 8)  # so that ties abound


def exact_code(value: Fraction, alpha: float, zero: float, kind: str) -> int:
    """Codes by definition; Python rounds Fractions to even."""
    if kind == "binary":
        return 1 if value >= 0 else -1
    lo, hi = RANGE[kind]
    return min(max(round((value - Fraction(zero)) / Fraction(alpha)), lo), hi)


def thresholds_as_codes(folded: steps_module.Folded, row: int, acc: int) -> int:
    return int(golden.threshold_codes(torch.tensor([acc]), folded.thresholds[row : row + 1], folded.base, folded.dirs))


# ---- thresholds -----------------------------------------------------------------------------------------------------


@fast
@given(
    eighths,
    st.integers(-60, 60).map(lambda n: n / 8),
    eighths,
    st.sampled_from([None, RELU]),
    st.sampled_from(list(RANGE)),
)
def test_thresholds_equal_real_arithmetic_ties_included(scale, bias, alpha, fn, kind):
    limit = 25
    folded = steps_module.fold(torch.tensor([scale]), torch.tensor([bias]), limit, fn, alpha, 0.0, kind)
    for acc in range(-limit, limit + 1):
        value = Fraction(scale) * acc + Fraction(bias)
        value = max(value, Fraction(0)) if fn else value
        assert thresholds_as_codes(folded, 0, acc) == exact_code(value, alpha, 0.0, kind)


@fast
@given(
    st.sampled_from(SMOOTH),
    st.floats(0.001, 2),
    st.floats(-3, 3),
    st.floats(0.02, 1.5),
    st.sampled_from(["ternary_nn", "binary_nn", "ternary"]),
)
def test_thresholds_of_smooth_functions_equal_real_arithmetic(fn, scale, bias, alpha, kind):
    limit, zero = 60, fn.minimum if kind.endswith("nn") else 0.0
    folded = steps_module.fold(
        torch.tensor([scale], dtype=torch.float64),
        torch.tensor([bias], dtype=torch.float64),
        limit,
        fn,
        alpha,
        zero,
        kind,
    )
    for acc in range(-limit, limit + 1):
        x = scale * acc + bias
        position = (PLAIN[fn.name](x) - zero) / alpha
        if abs(position - math.floor(position) - 0.5) > 1e-9:
            assert thresholds_as_codes(folded, 0, acc) == min(max(round(position), RANGE[kind][0]), RANGE[kind][1])


def test_small_steps_of_gelu_take_four_thresholds():
    folded = steps_module.fold(
        torch.tensor([0.01]).double(), torch.tensor([0.0]).double(), 900, GELU, 0.05, GELU.minimum, "ternary_nn"
    )
    assert folded.base == 2 and sorted(folded.dirs) == [-1, -1, 1, 1]
    codes = [thresholds_as_codes(folded, 0, acc) for acc in range(-900, 901)]
    assert [c for i, c in enumerate(codes) if i == 0 or c != codes[i - 1]] == [2, 1, 0, 1, 2]


def test_gelu_ties_are_decided_exactly():
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    folded = steps_module.fold(one, none, 10, GELU, 0.5, -0.25, "ternary_nn")  # code 1 begins above 0, and GELU(0) = 0
    assert thresholds_as_codes(folded, 0, 0) == 0 and thresholds_as_codes(folded, 0, 1) == 2
    folded = steps_module.fold(one, none, 10, GELU, 0.5, -0.75, "ternary_nn")  # code 2 begins at 0
    assert thresholds_as_codes(folded, 0, 0) == 2


def test_rows_of_zero_scale_and_far_thresholds_are_constant():
    scale, bias = torch.tensor([0.0, 0.0, 0.0, 1e-9, 1e-9]).double(), torch.tensor([0.0, 9.0, -9.0, 9.0, -9.0]).double()
    for fn in (None, GELU):
        folded = steps_module.fold(scale, bias, 100, fn, 1.0, 0.0, "binary_nn")
        assert folded.thresholds[:, -1].tolist() == [
            golden.NEVER,
            golden.ALWAYS,
            golden.NEVER,
            golden.ALWAYS,
            golden.NEVER,
        ]


def test_digits_of_gelu():
    assert GELU.digits is not None and str(GELU.digits(Fraction(1)))[:52] == PHI_1


@pytest.mark.parametrize("fn", SMOOTH, ids=lambda fn: fn.name)
def test_a_smooth_function_is_one_function(fn):
    """Digits, float64, training and minimum agree with each other and with plain Python."""
    points = [-11.5, -3.0, fn.monotone_from, -1e-3, 0.0, 0.4, 5.5, 40.0]
    for x in points:
        assert float(fn.digits(Fraction(x))) == pytest.approx(PLAIN[fn.name](x), rel=1e-13, abs=1e-30)
    x = torch.tensor(points, dtype=torch.float64)
    torch.testing.assert_close(
        fn.exact(x), torch.tensor([PLAIN[fn.name](v) for v in points], dtype=torch.float64), rtol=1e-13, atol=0
    )
    torch.testing.assert_close(fn.trained(x.float()), fn.exact(x).float(), rtol=1e-5, atol=1e-6)
    assert float(fn.digits(Fraction(fn.monotone_from))) == pytest.approx(fn.minimum, abs=1e-16)
    near = [fn.digits(Fraction(fn.monotone_from) + Fraction(d, 1000)) for d in (-1, 0, 1)]
    assert near[1] < near[0] and near[1] < near[2]


# ---- fixed point ----------------------------------------------------------------------------------------------------


@fast
@given(st.lists(st.floats(1e-9, 1e5), min_size=1, max_size=5), st.floats(-1e6, 1e6))
def test_fixed_point_takes_the_largest_shift_that_fits(scale, bias):
    scale, bias = torch.tensor(scale).double(), torch.tensor([bias]).double()
    mul, offset, shift = fixed_point(scale, bias, "x", AFFINE)
    fits = [
        s
        for s in range(31)
        if all(round(Fraction(v) * 2**s) < 2**23 for v in scale.tolist())
        and abs(round(Fraction(bias.item()) * 2**s)) < 2**38
    ]
    assert shift == max(fits)
    assert mul.tolist() == [round(Fraction(v) * 2**shift) for v in scale.tolist()]
    assert offset.tolist() == [round(Fraction(bias.item()) * 2**shift)]


def test_fixed_point_that_cannot_fit():
    none = torch.zeros(1).double()
    for huge in (8388607.5, 1e7, 1e30):
        with message(f"enc.0.out: fc.scale must be below 2^23 steps of the result, not {huge:g}"):
            fixed_point(none + huge, none, "enc.0.out", AFFINE)
    for huge in (float(2**38), -1e12, 1e30):
        with message(f"enc.0.out: fc.bias must be below 2^38 steps of the result, not {abs(huge):g}"):
            fixed_point(none, none + huge, "enc.0.out", AFFINE)


def test_fixed_scale():
    assert fixed_scale(Fraction(1, 2)) == (1 << 22, 23)
    assert fixed_scale(Fraction(1, 3 << 20)) == (round(Fraction(1 << 10, 3)), 30)
    assert fixed_scale(Fraction(10**30)) == (
        (1 << 23) - 1,
        0,
    )  # every residual but 0 is at the end of its codes either way


# ---- whole graphs ---------------------------------------------------------------------------------------------------

EXACT_OPS = {"linear_codes", "context_codes", "cache", "scores", "embed", "input", "output"}
ALLOWED = {
    "quant": 0.02,
    "linear_codes8": 0.01,
    "context_codes8": 0.01,
    "linear_residual": 0.01,
    "layernorm": 0.01,
    "softmax_codes": 0.05,
    "lm_head": 0.0,
}


def compare(lowered, folded, ids, tokens):
    """By op: (elements that differ between real and folded op on identical inputs, all, largest difference)."""
    table, caches = {}, {}
    _, records = reference_run(folded, ids, tokens)
    for record in records:
        real, final = (getattr(m, record.graph) for m in (lowered, folded))
        cross = {k: v for k, v in records[0].tensors.items() if k.startswith("cross_")}
        interpreter = Interpreter(real, lowered.weights)
        inputs = {**record.given, **cross}
        values = interpreter.named(interpreter(inputs, record.past, caches, forced=record.tensors))
        assert set(values) == set(record.tensors)
        for node in final.nodes():
            got, want = record.tensors[node.name], values[node.name]
            if node.op.opname in ("lm_head", "output") and got.dim() == 2 and got.shape[-1] == 2:
                got, want = got[..., 0], want[..., 0]
            wrong, total, worst = table.get(node.op.opname, (0, 0, 0))
            difference = (got - want).abs()
            table[node.op.opname] = (
                wrong + int((difference > 0).sum()),
                total + got.numel(),
                max(worst, int(difference.max())),
            )
    return table


@pytest.mark.parametrize("fn", [fn.name for fn in FUNCTIONS])
@pytest.mark.parametrize("weight", ["ternary", "binary"])
@pytest.mark.parametrize("act", ["ternary", "binary", "int8"])
def test_folded_ops_equal_real_ones_on_identical_inputs(act, weight, fn):
    lowered = Tiny(act=act, weight=weight, fn=fn).lowered()
    folded = fold(lowered)
    table = compare(lowered, folded, [5, 9, 30, 4, 17, 8, 8], 8)
    for op, (wrong, total, worst) in table.items():
        assert wrong <= (0 if op in EXACT_OPS else ALLOWED[op] * total), (op, wrong, total)
        assert worst <= 1 or op == "output", (op, worst)


def test_folding_leaves_final_ops_every_name_and_only_used_weights():
    lowered = Tiny(layers=2).lowered()
    before = dict(lowered.weights)
    folded = fold(lowered)
    for name in ("encoder", "decoder"):
        old, new = ({n.op.label for n in getattr(m, name).nodes() if n.op.label} for m in (lowered, folded))
        assert old == new
        assert all(n.op.stage != "real" for n in getattr(folded, name).nodes())
    assert not any(t.is_floating_point() for t in folded.weights.values())
    assert folded.weights.keys() == prune(folded.weights, folded.encoder, folded.decoder).keys()
    assert lowered.weights.keys() == before.keys()


def test_layernorm_constants_follow_the_definition():
    b = Builder({})
    x = b.input("x", Residual(("S", 4), 16, 7))
    gamma, beta = [1.5, -0.25, 9.0, 1.0], [0.5, -3.25, 0.0, 1.0]
    node = b.op(
        "real_layernorm",
        x,
        name="ln",
        gamma=b.weight("g", torch.tensor(gamma)),
        beta=b.weight("b", torch.tensor(beta)),
        eps=1e-5,
        frac=11,
        bits=16,
    )
    graph, weights = run_passes(Graph("g", (b.op("output", node, name="o"),)), b.weights, FOLD)
    (only,) = graph.outputs[0].src
    ln = as_op(only, Layernorm)
    assert ln.op.shift == 20 + 19 - 11  # 9 * 2^20 would not fit 23 bits
    assert weights[ln.op.gamma].tolist() == [round(v * 2**19) for v in gamma]
    assert weights[ln.op.beta].tolist() == [round(v * 2**31) for v in beta]
    assert ln.op.eps == max(1, round(Fraction(1e-5) * 16 * 4**7))


@pytest.mark.parametrize("alpha, f", [(0.5, 8), (0.3, 11), (2.0**-9, 8), (7.0, 4)])
def test_residual_thresholds_are_exact_images(alpha, f):
    b = Builder({})
    x = b.input("x", Residual(("S", 1), 16, f))
    values = torch.arange(-4 * 2**f, 4 * 2**f)[:, None]
    for kind in ("ternary", "binary"):
        node = b.quantize(x, f"q_{kind}", alpha, kind)
        graph, weights = run_passes(Graph("g", (b.op("output", node, name="o"),)), b.weights, FOLD)
        got = Interpreter(graph, weights)({"x": values})[graph.outputs[0]]
        assert got.flatten().tolist() == [
            exact_code(Fraction(v, 2**f), alpha, 0.0, kind) for v in values.flatten().tolist()
        ]


def test_softmax_mode_follows_the_range_of_scores():
    def mode(kind: str, width: int) -> bool:
        b = Builder({})
        q = b.input("q", Codes(("T", width), kind))
        p = b.probabilities(b.op("scores", q, q, name="s", heads=1), "p", 0.01, False, 0.2, "ternary_nn")
        graph, _ = run_passes(Graph("g", (b.op("output", p, name="o"),)), b.weights, FOLD)
        return as_op(graph.outputs[0].src[0], SoftmaxCodes).op.power

    assert [mode("ternary", 127), mode("ternary", 128), mode("int8", 4)] == [False, True, True]


def message(text: str):
    return pytest.raises(InputError, match=f"^{re.escape(text)}$")


def test_what_cannot_be_folded_names_the_layer():
    def run(b, node):
        run_passes(Graph("g", (b.op("output", node, name="o"),)), b.weights, FOLD)

    b = Builder({})
    x = b.input("x", Codes(("S", 3), "int8"))
    with message("linear_codes enc.0.fc1: accumulator must stay below 32767, not 32768"):
        wide = b.input("wide", Codes(("S", 1 << 15), "ternary"))
        y = b.linear(wide, "enc.0.fc1", torch.ones(1, 1 << 15), "binary", torch.ones(1), 1.0, None)
        run(b, b.quantize(y, "enc.0.fc1", 1.0, "ternary"))
    y = b.linear(x, "fc1", torch.ones(2, 3), "binary", torch.ones(2), 1.0, None)
    with message(
        "fc1: 8-bit codes must be of a smooth function after a snap, of another without one, or of none, "
        "not of gelu without snap"
    ):
        run(b, b.quantize(b.op("act", y, fn="gelu"), "fc1", 1.0, "uint8", GELU.minimum))
    with message("q_in: a residual must become ternary, binary or int8 codes with zero 0, not uint8 with 0.0"):
        run(b, b.quantize(b.input("h", Residual(("S", 3), 16, 8)), "q_in", 1.0, "uint8"))
    with message("probs: probs.alpha must be at least 0.000244141 for uint8 probabilities, not 1e-06"):
        run(b, b.probabilities(b.op("scores", x, x, name="s", heads=1), "probs", 0.01, False, 1e-6, "uint8"))


def test_a_pass_that_breaks_the_graph_is_caught():
    b = Builder({})
    graph = Graph("g", (b.op("output", b.input("x", Codes(("S", 3), "int8")), name="o"),))
    broken = RulePass(
        "broken",
        (
            Rule(
                Pattern(Input),
                lambda match, _: make(replace(match[Input].op, of=Ids(("S",))), (), Codes(("S", 3), "int8")),
            ),
        ),
    )
    with message("input x: type must be as inferred, not Codes(shape=('S', 3), kind='int8')"):
        run_passes(graph, b.weights, (broken,))
