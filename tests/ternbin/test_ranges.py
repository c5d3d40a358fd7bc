"""The ends of every range of docs/numerics.md: what a field cannot hold is refused by name, what it can hold agrees everywhere.

Interpreter, functional machine, fields and a few whole runs in RTL; the units' benches in tests/rtl draw their fields from end to end.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mapped import differences
from ranges import BITS, change, kinds, lower_changed, packed, patterns

from ternbin.contract.hw import MAX_BEAMS, NAMED, top_tokens
from ternbin.contract.rows import scale_values, scale_words
from ternbin.counting.external import MemoryModel
from ternbin.decoding.search import Policy
from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.build import Builder
from ternbin.graph.fixedpoint import BIAS_BITS, KEPT, MUL_BITS
from ternbin.graph.ir import Codes, Graph, Residual, as_op
from ternbin.graph.ops.ends import LmHead
from ternbin.graph.ops.interpreter import Interpreter
from ternbin.graph.ops.stream import Layernorm, LinearResidual, most_eps
from ternbin.mapping.mapper import map_model
from ternbin.passes import FOLD, run_passes
from ternbin.passes.fixed import OutOfRange, saturated
from ternbin.passes.head import LOWEST
from ternbin.sim.check import check
from ternbin.sim.runner import run

few = settings(max_examples=24, deadline=None, derandomize=True)
many = settings(max_examples=80, deadline=None, derandomize=True)
TINY = NAMED["tiny"]
huge = st.floats(-1e38, 1e38, allow_nan=False)


def real(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(*ends: float) -> st.SearchStrategy[float]:
    """Around powers of two and zero: an end, the floats beside it, and others."""
    beside = [v for end in ends for v in (end, math.nextafter(end, 0), math.nextafter(end, math.inf))]
    return st.one_of(st.sampled_from([*beside, *(-v for v in beside), 0.0]), huge)


# ---- whole models: every kind of tensor ------------------------------------------------------------------------------


@few
@given(st.data())
def test_every_tensor_is_refused_by_name_or_agrees(data):
    bits = data.draw(st.sampled_from(BITS))
    name = data.draw(st.sampled_from(kinds(packed(bits))))
    pattern = data.draw(st.sampled_from(patterns))
    value = data.draw(st.one_of(near(2.0**23, 2.0**31, 2.0**38, 2.0**42), st.sampled_from([1e-30, 1e6, 1e12, 1e30])))
    try:
        lowered = lower_changed(bits, {name: (pattern, value)})
    except InputError as error:
        assert name.rpartition(".")[0] in str(error) or name in str(error), str(error)
        return
    wrong, seen = differences(lowered, map_model(lowered, TINY, 4, 2), [0, 5, 6, 2])
    assert seen and not wrong, (name, pattern, value)


def test_the_tensor_of_the_checkpoint_is_named():
    norm = "model.decoder.layernorm_embedding.weight"
    with pytest.raises(InputError, match=rf"^dec.embed_ln: {norm} must be below 2\^3[0-9], not 1e\+30$"):
        lower_changed("2-2", {norm: ("all", 1e30)})
    step = "model.decoder.layers.0.fc1.x_quant.alpha"
    with pytest.raises(InputError, match=rf"^{step} must be at most 1.04858e\+06, not 1.0000000\d+e\+30$"):
        lower_changed("2-2", {step: ("all", 1e30)})
    scale = "model.encoder.layers.0.fc2.scale"
    wanted = r"^enc.0.fc2: row scales of model.encoder.layers.0.fc2 times model.encoder.layers.0.fc2.x_quant.alpha must be below"
    with pytest.raises(InputError, match=wanted):
        lower_changed("2-2", {scale: ("one", 1e30)})


# ---- LayerNorm -------------------------------------------------------------------------------------------------------


def fold_norm(gamma, beta, eps, f_in, frac, bits):
    b = Builder({})
    x = b.input("x", Residual(("T", len(gamma)), bits, f_in))
    attrs = dict(gamma=b.weight("g", real(gamma)), beta=b.weight("b", real(beta)))
    node = b.op("real_layernorm", x, name="ln", eps=eps, frac=frac, bits=bits, **attrs)
    graph = Graph("g", (b.op("output", node, name="o"),))
    return graph, b.weights, *run_passes(graph, b.weights, FOLD)


@many
@given(
    st.lists(st.tuples(near(2.0**20, 2.0**42, 2.0**63), near(2.0**20, 2.0**46)), min_size=1, max_size=6),
    st.sampled_from([1e-30, 1e-5, 1.0, 1e12, 1e30]),
    st.integers(-20, 24),
    st.integers(-20, 30),
    st.integers(8, 20),
    st.randoms(use_true_random=False),
)
def test_layernorm_constants_fit_their_fields(parameters, eps, f_in, frac, bits, rng):
    gamma, beta = ([pair[i] for pair in parameters] for i in (0, 1))
    try:
        before, side, graph, weights = fold_norm(gamma, beta, eps, f_in, frac, bits)
    except OutOfRange as error:
        assert error.source in ("g", "b", "ln.eps")
        if error.source == "g":
            assert max(map(abs, gamma)) >= 2.0 ** (23 - max(frac - 20, -20)) * (1 - 2**-23)
        return
    op = as_op(graph.outputs[0].src[0], Layernorm).op
    g, bt = (weights[name].numpy() for name in (op.gamma, op.beta))
    pad = -len(g) % TINY.rows
    words = scale_words(TINY, np.pad(g, (0, pad)), np.pad(bt, (0, pad)))
    again = (part.reshape(-1)[: len(g)] for part in scale_values(words.swapaxes(0, 1).reshape(4, -1)))
    assert all(np.array_equal(one, other) for one, other in zip(again, (g, bt), strict=True))
    assert 1 <= op.eps <= most_eps(len(g), bits) and 0 <= op.shift <= 62
    limit = 1 << bits - 1
    x = torch.tensor([[rng.choice([-limit, 0, limit - 1]) for _ in g] for _ in range(3)])
    results = [
        Interpreter(each, table)({"x": x})[each.outputs[0]] for each, table in ((before, side), (graph, weights))
    ]
    # G is rounded: an element errs by sqrt(n) * 2^-(g+1) of the value that its own weight gives
    step = math.sqrt(len(g)) * 2.0 ** (frac - (op.shift - 20 + frac))
    assert ((results[0] - results[1]).abs() <= 2 + step + results[0].abs() * 2.0**-17).all()


def test_layernorm_at_its_widest():
    with pytest.raises(InputError, match=r"^ln: width must be below 4096 at 20 bits, not 4096$"):
        fold_norm([1.0] * 4096, [0.0] * 4096, 1e-5, 0, 0, 20)
    graph, weights = fold_norm([1.0] * 4095, [0.0] * 4095, 1e-5, 0, 12, 20)[2:]
    high = (1 << 19) - 1
    x = torch.tensor([[high] * 2047 + [-high - 1] * 2048])
    y = Interpreter(graph, weights)({"x": x})[graph.outputs[0]]
    assert set(y.flatten().tolist()) == {4097, -4095} or y.abs().sub(4096).abs().max() <= 2


def test_a_huge_bias_of_layernorm_costs_the_others_a_bit_or_two():
    plain, outlier = (fold_norm([1.0] * 8, [0.1] * 7 + [v], 1e-5, 10, 10, 16)[2:] for v in (0.1, 1e30))
    ops = [as_op(graph.outputs[0].src[0], Layernorm).op for graph, _ in (plain, outlier)]
    assert ops[0].shift - ops[1].shift <= 1
    x = torch.randint(-(1 << 15), 1 << 15, (5, 8), generator=torch.Generator().manual_seed(0))
    first, second = (Interpreter(graph, weights)({"x": x})[graph.outputs[0]] for graph, weights in (plain, outlier))
    assert (first[:, :7] - second[:, :7]).abs().max() <= 1 and (second[:, 7] == (1 << 15) - 1).all()


# ---- projections -----------------------------------------------------------------------------------------------------


@many
@given(st.floats(0, 1e6), st.integers(0, 1 << 20), st.integers(8, 20), near(2.0**20, 2.0**38), st.integers(0, 30))
def test_a_bias_that_saturates_is_brought_nearer(scale, most, bits, bias, shift):
    """The residual that results is the same for every sum and every residual before."""
    kept = saturated(real([bias]), real([scale * most]), 1 << bits).item()
    assert abs(kept) <= abs(bias)
    mul, limit = round(scale * 2**shift), 1 << bits - 1
    ends = [acc for acc in (-most, -1, 0, 1, most) if abs(acc) <= most]
    for acc in ends:
        for h in (-limit, 0, limit - 1):
            first, second = (
                max(
                    -limit,
                    min(
                        limit - 1,
                        h + math.floor(Fraction(acc * mul + round(Fraction(b) * 2**shift), 2**shift) + Fraction(1, 2)),
                    ),
                )
                for b in (bias, kept)
            )
            if kept != bias:
                assert first == second == (limit - 1 if bias > 0 else -limit)


def test_a_huge_bias_of_a_projection_costs_the_others_a_bit_or_two():
    def fold(value):
        b = Builder({})
        x, h = b.input("x", Codes(("T", 8), "int8")), b.input("h", Residual(("T", 3), 16, 10))
        codes = torch.randint(-1, 2, (3, 8), generator=torch.Generator().manual_seed(0))
        y = b.linear(x, "fc", codes, "ternary", torch.ones(3) * 0.01, 0.1, real([0.1, value, 0.3]))
        graph = Graph("g", (b.op("output", b.add_sat(h, y, "fc"), name="o"),))
        return run_passes(graph, b.weights, FOLD)

    plain, outlier = fold(0.1), fold(-1e30)
    ops = [as_op(graph.outputs[0].src[0], LinearResidual).op for graph, _ in (plain, outlier)]
    assert ops[0].shift - ops[1].shift <= 2


# ---- the head --------------------------------------------------------------------------------------------------------


def fold_logits(scale, bias, codes):
    b = Builder({})
    x = b.input("x", Codes(("T", codes.shape[1]), "int8"))
    acc = b.op("matmul", x, weight=b.codes("w", codes, "ternary"), weight_kind="ternary")
    logits = b.affine(acc, "lm_head", scale, bias)
    graph, weights = run_passes(
        Graph("g", (b.op("output", b.op("argmax", logits, name="lm_head"), name="o"),)), b.weights, FOLD
    )
    return as_op(graph.outputs[0].src[0], LmHead).op, weights


def test_a_search_looks_at_no_more_than_the_head_keeps():
    assert top_tokens(MAX_BEAMS) <= KEPT


@many
@given(
    st.integers(0, 99),
    st.lists(st.tuples(st.integers(0, 59), st.sampled_from([-1e3, -1e4, -1e6, -1e9, -1e10, -1e30])), max_size=50),
    st.sampled_from([0.001, 0.05, 1.0]),
)
def test_banned_tokens_change_no_list_of_the_best(seed, banned, spread):
    """The best tokens, their order and their ties are those of the same integers without saturation."""
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(-1, 2, (60, 16), generator=g).char()
    scale, bias = torch.rand(60, generator=g).double() * spread, torch.randn(60, generator=g).double()
    scale[50:], codes[50:], bias[50:] = scale[50], codes[50], bias[50]  # ties
    for row, value in banned:
        bias[row] = value
    op, weights = fold_logits(scale, bias, codes)
    mul, offset, log2 = weights[op.mul].tolist(), weights[op.bias].tolist(), op.logit_scale_log2
    exact = [round(Fraction(value) * 2**log2) for value in bias.tolist()]
    lost = [row for row in range(60) if offset[row] != exact[row]]
    assert all(offset[row] == LOWEST > exact[row] for row in lost)
    assert 60 - len(lost) >= KEPT
    x = torch.randint(-127, 128, (4, 16), generator=g)
    x[0] = 127 * codes[banned[0][0]] if banned else 127  # the input that a banned token likes best
    for acc in golden.linear_acc(x, codes).tolist():
        wanted = sorted(range(60), key=lambda row: -(acc[row] * mul[row] + exact[row]))[:KEPT]
        logits = golden.lm_logits(torch.tensor(acc), weights[op.mul], weights[op.bias])
        top = golden.lm_top(logits, KEPT, max(log2, 16))
        assert top[:KEPT, 0].tolist() == wanted


def test_a_banned_token_does_not_set_the_scale():
    g = torch.Generator().manual_seed(0)
    codes, scale = torch.randint(-1, 2, (60, 16), generator=g).char(), torch.rand(60, generator=g).double() * 0.05
    bias = torch.randn(60, generator=g).double()
    plain = fold_logits(scale, bias, codes)[0].logit_scale_log2
    for value in (-1e6, -1e9, -1e38):
        bias[1] = value
        assert fold_logits(scale, bias, codes)[0].logit_scale_log2 == plain
    bias[:45] = -1e9  # too few are left to fill the list of a search
    assert fold_logits(scale, bias, codes)[0].logit_scale_log2 < plain


# ---- softmax ---------------------------------------------------------------------------------------------------------


@many
@given(
    st.sampled_from(["ternary_nn", "binary_nn", "uint8"]),
    near(2.0**-12, 2.0**-15, 10.0, 2.0**20),
    near(1.0, 177.0),
    st.booleans(),
)
def test_probabilities_at_the_ends_of_their_steps(kind, alpha, scale, power):
    if not 0 < alpha or not 0 < scale:
        return
    b, width = Builder({}), 200 if power else 20
    q, k = (b.input(name, Codes((dim, width), "ternary")) for name, dim in (("q", "T"), ("k", "S")))
    try:
        p = b.probabilities(b.op("scores", q, k, name="s", heads=1), "p", scale, False, alpha, kind)
        graph, weights = run_passes(Graph("g", (b.op("output", p, name="o"),)), b.weights, FOLD)
    except OutOfRange as error:
        assert error.source == "p.alpha" and alpha < (2.0**-12 if kind == "uint8" else 2.0**-15)
        return
    g = torch.Generator().manual_seed(1)
    inputs = {name: torch.randint(-1, 2, (n, width), generator=g) for name, n in (("q", 4), ("k", 9))}
    got = Interpreter(graph, weights)(inputs)[graph.outputs[0]]
    output = b.op("output", p, name="o")
    wanted = Interpreter(Graph("g", (output,)), b.weights)(inputs)[output]
    assert ((got - wanted).abs() <= (1 + wanted * 0.04 if kind == "uint8" else 1)).all()


# ---- fields ----------------------------------------------------------------------------------------------------------


@many
@given(st.lists(near(2.0**62, 2.0**63, 2.0**31), min_size=1))
def test_rounding_never_wraps(values):
    wanted = [max(-(1 << 62), min(1 << 62, round(Fraction(v)))) for v in values]
    assert golden.rne(torch.tensor(values, dtype=torch.float64)).tolist() == wanted


@pytest.mark.parametrize("field, bits", [("mul", MUL_BITS), ("bias", BIAS_BITS)])
def test_a_graph_with_a_constant_too_wide_is_refused(field, bits):
    def head(value):
        b = Builder({})
        x = b.input("x", Codes(("T", 4), "int8"))
        table = {"mul": torch.zeros(1, dtype=torch.int64), "bias": torch.zeros(1, dtype=torch.int64)}
        b.weights.update({**table, field: torch.tensor([value])})
        weight = b.codes("w", torch.ones(1, 4), "ternary")
        b.op("lm_head", x, name="h", weight=weight, weight_kind="ternary", mul="mul", bias="bias", logit_scale_log2=0)

    limit = 1 << bits - 1
    head(limit - 1)
    head(-limit)
    for value in (limit, -limit - 1, -(1 << 63)):
        with pytest.raises(InputError, match=f"{field} {field} must fit {bits} bits"):
            head(value)


def test_the_patterns_change_what_they_say():
    old = torch.ones(3, 4)
    assert change(old, "all", 7.0).tolist() == [[7.0] * 4] * 3
    assert int((change(old, "one", 7.0) == 7).sum()) == 1
    assert change(torch.tensor(2.0), "one", 7.0).item() == 7


# ---- RTL -------------------------------------------------------------------------------------------------------------

NORM, LAYER = "model.decoder.layernorm_embedding", "model.encoder.layers.0"
ENDS = {
    "zero": {f"{NORM}.weight": ("all", 0.0), f"{LAYER}.fc1.scale": ("all", 0.0), f"{LAYER}.fc2.bias": ("all", 0.0)},
    "huge weights": {
        f"{NORM}.weight": ("all", 2.0**30),
        "model.encoder.layernorm_embedding.weight": ("one", -(2.0**30)),
    },
    "huge biases": {
        f"{NORM}.bias": ("all", -1e30),
        f"{LAYER}.fc2.bias": ("one", 1e30),
        f"{LAYER}.self_attn.v_proj.bias": ("all", -1e30),
        "model.encoder.embed_positions.weight": ("one", 1e30),
        "final_logits_bias": ("one", -1e30),
    },
    "least steps": {
        f"{LAYER}.self_attn.p_quant.alpha": ("all", 1e-30),
        f"{LAYER}.self_attn.q_proj.x_quant.alpha": ("all", 1e-6),
        f"{LAYER}.self_attn.k_proj.y_quant.alpha": ("all", 1e-30),
    },
    "largest steps": {
        f"{LAYER}.self_attn.p_quant.alpha": ("all", 2.0**20),
        f"{LAYER}.self_attn.k_proj.y_quant.alpha": ("all", 2.0**20),
        f"{LAYER}.self_attn.q_proj.y_quant.alpha": ("all", 2.0**20),
    },
}


@pytest.mark.parametrize(
    "bits, ends", [*zip(BITS * 2, ENDS, strict=False), ("2-8", "huge biases"), ("2-2", "largest steps")]
)
def test_the_core_agrees_at_the_ends(bits, ends):
    lowered, ids = lower_changed(bits, ENDS[ends]), [0, 5, 6, 2]
    program, policy = map_model(lowered, TINY, len(ids), 2), Policy.of(lowered.meta, 2)
    verdict = check(program, lowered, ids, policy.prompt[0], run(program, ids=ids, policy=policy, memory=MemoryModel()))
    assert verdict.bit_exact, verdict.first_divergence
