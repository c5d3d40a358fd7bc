"""golden.py against naive references in Python integers and, where a rule approximates, against real arithmetic."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ternbin.errors import InputError
from ternbin.graph import golden

torch.set_num_threads(1)
fast = settings(max_examples=60, deadline=None, derandomize=True)


def ints(seed: int, shape: tuple[int, ...], lo: int, hi: int) -> torch.Tensor:
    return torch.randint(lo, hi + 1, shape, generator=torch.Generator().manual_seed(seed))


# ---- naive references -----------------------------------------------------------------------------------------------


def naive_rshift(v, s):
    return v if s == 0 else math.floor((v + 2 ** (s - 1)) // 2**s)


def naive_clip(v, lo, hi):
    return min(max(v, lo), hi)


def naive_sat(v, bits):
    return naive_clip(v, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def naive_layernorm(x, gamma, beta, eps, shift, bits):
    n, s, q = len(x), sum(x), sum(v * v for v in x)
    variance = n * q - s * s + eps
    k = (48 - variance.bit_length()) & ~1
    normal = variance << k if k >= 0 else variance >> -k
    assert 2**46 <= normal < 2**48
    r = 2**47 // math.isqrt(normal)
    out = []
    for v, g, b in zip(x, gamma, beta, strict=True):
        xhat = naive_rshift((n * v - s) * r, 27 - k // 2)
        assert abs(xhat) < 2**26
        out.append(naive_sat(naive_rshift(xhat * g + (b << 8), shift), bits))
    return out


def naive_softmax(scores, valid, lut, power, mul, shift, kind, c1, c2, recip):
    best, e = max(scores[:valid]), []
    for j, score in enumerate(scores):
        d = best - score
        if j >= valid:
            e.append(0)
        elif power:
            t = (d * mul) >> shift
            e.append(lut[t % 256] >> min(t >> 8, 31))
        else:
            e.append(lut[min(d, 255)])
    total = sum(e)
    if kind == "uint8":
        return [min(naive_rshift(v * (recip // total), 36), 255) for v in e]
    ones = [int(v * 65536 > c1 * total) for v in e]
    return [a + int(kind == "ternary_nn" and v * 65536 >= c2 * total) for a, v in zip(ones, e, strict=True)]


# ---- scalars --------------------------------------------------------------------------------------------------------


@fast
@given(st.integers(-(2**55), 2**55), st.integers(0, 40))
def test_rshift(v, s):
    assert int(golden.rshift(torch.tensor(v), s)) == naive_rshift(v, s)
    assert int(golden.rshift(torch.tensor(v), torch.tensor(s))) == naive_rshift(v, s)


def test_rshift_ties_go_upward():
    assert golden.rshift(torch.tensor([-3, -2, -1, 1, 2, 3]), 1).tolist() == [-1, -1, 0, 1, 1, 2]


def test_sat_counts_what_it_clips():
    count = golden.Saturation()
    assert golden.sat(torch.tensor([-129, -128, 127, 128]), 8, count).tolist() == [-128, -128, 127, 127]
    assert (count.clipped, count.total) == (2, 4)


@fast
@given(st.integers(1, 2**61))
def test_isqrt_and_bit_length(v):
    for near in {v, v - 1, v + 1, math.isqrt(v) ** 2, max(math.isqrt(v) ** 2 - 1, 0), 1 << v.bit_length() - 1}:
        assert int(golden.isqrt(torch.tensor(near))) == math.isqrt(near)
        if near:
            assert int(golden.bit_length(torch.tensor(near))) == near.bit_length()


@pytest.mark.parametrize("limit", [3, 2**10, 2**24, 2**30])
def test_int_matmul_is_exact(limit):
    a, b = ints(0, (3, 5, 33), -limit, limit), ints(1, (3, 33, 4), -limit, limit)
    want = [
        [[sum(int(a[i, r, k]) * int(b[i, k, c]) for k in range(33)) for c in range(4)] for r in range(5)]
        for i in range(3)
    ]
    assert golden.int_matmul(a, b).tolist() == want


def test_int_matmul_at_the_edge_of_float32():
    a, b = torch.tensor([[1 << 23, 1 << 23, 1]]), torch.ones(3, 1, dtype=torch.int64)
    assert golden.int_matmul(a, b).item() == (1 << 24) + 1


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (0, 255), (-1, 1), (-129, 255), (-5000, 5000)])
@pytest.mark.parametrize("shape", [(1, 1, 9), (3, 1, 4), (1, 2, 1), (5, 67, 3), (1, 768, 33)])
def test_products_with_int8_weights_are_exact(low, high, shape):
    rows, depth, out = shape
    weight = ints(2, (out, depth), -golden.SMALL, golden.SMALL).to(torch.int8)
    weight[0] = golden.SMALL  # with the largest operands: sums of pairs at the edge of 16 bits
    x = ints(3, (2, rows, depth), low, high)
    x[0], x[1, 0] = high, low
    want = x @ weight.to(torch.int64).T
    assert torch.equal(golden.linear_acc(x, weight), want)
    assert torch.equal(golden.linear_acc(x[0], weight), want[0])


def test_only_small_codes_are_multiplied_as_int8():
    codes = torch.tensor([[golden.SMALL, -golden.SMALL]], dtype=torch.int8)
    assert golden.small(codes) and not golden.small(codes - 1) and not golden.small(codes.to(torch.int16))


# ---- rules ----------------------------------------------------------------------------------------------------------


def test_embed():
    ids, table, scale = torch.tensor([[2, 0], [1, 1]]), ints(2, (3, 4), -1, 1), torch.tensor([100, 7, 30000])
    pos = ints(3, (9, 4), -30000, 30000)
    got = golden.embed(ids, table, scale, pos, pos_offset=2, past=5, res_bits=16)
    for b, row in enumerate(ids.tolist()):
        for t, token in enumerate(row):
            want = [naive_sat(int(pos[7 + t, i]) + int(table[token, i]) * int(scale[token]), 16) for i in range(4)]
            assert got[b, t].tolist() == want


def test_embed_past_the_last_position():
    with pytest.raises(InputError, match="^position must be below 7, not 7$"):
        golden.embed(torch.tensor([0]), torch.ones(1, 1), torch.ones(1), torch.zeros(9, 1), 2, 7, 16)


@fast
@given(st.integers(0, 30), st.integers(0, 2**20))
def test_linear_residual(shift, seed):
    acc, h = ints(seed, (2, 3), -6144, 6144), ints(seed + 1, (2, 3), -(2**15), 2**15 - 1)
    mul, bias = ints(seed + 2, (3,), 0, 2**23 - 1), ints(seed + 3, (3,), -(2**38) + 1, 2**38 - 1)
    got = golden.linear_residual(acc, mul, bias, shift, h, 16)
    for t in range(2):
        for r in range(3):
            y = naive_rshift(int(acc[t, r]) * int(mul[r]) + int(bias[r]), shift)
            assert int(got[t, r]) == naive_sat(int(h[t, r]) + y, 16)


@fast
@given(st.integers(1, 40), st.sampled_from([8, 12, 16, 20]), st.integers(0, 2**20), st.integers(0, 20))
def test_layernorm(n, bits, seed, spread):
    limit = min(1 << spread, (1 << (bits - 1)) - 1)
    x = ints(seed, (3, n), -limit, limit)
    gamma, beta = ints(seed + 1, (n,), -(2**23) + 1, 2**23 - 1), ints(seed + 2, (n,), -(2**39) + 1, 2**39 - 1)
    got = golden.layernorm(x, gamma, beta, eps=max(1, seed), shift=30, res_bits=bits)
    for row, want in zip(got.tolist(), x.tolist(), strict=True):
        assert row == naive_layernorm(want, gamma.tolist(), beta.tolist(), max(1, seed), 30, bits)


def test_layernorm_with_extreme_rows():
    n, limit = 1024, (1 << 19) - 1
    one_hot = torch.zeros(n, dtype=torch.int64)
    one_hot[5] = -limit - 1
    split = torch.full((n,), limit)
    split[: n // 2] = -limit - 1
    rows = torch.stack([one_hot, split, torch.zeros(n, dtype=torch.int64), torch.full((n,), limit)])
    gamma, beta = torch.full((n,), 2**23 - 1), torch.full((n,), -(2**39) + 1)
    got = golden.layernorm(rows, gamma, beta, eps=1, shift=30, res_bits=20)
    for out, row in zip(got.tolist(), rows.tolist(), strict=True):
        assert out == naive_layernorm(row, gamma.tolist(), beta.tolist(), 1, 30, 20)


@pytest.mark.parametrize("f_in", [4, 8, 11])
def test_layernorm_is_correctly_rounded_except_next_to_ties(f_in):
    n, f_out, g = 192, 11, 20
    x = ints(4, (200, n), -(2**14), 2**14)
    gamma, beta = ints(5, (n,), 500, 1500) / 1000.0, ints(6, (n,), -1000, 1000) / 500.0
    gamma, beta = gamma.double(), beta.double()
    eps = max(1, round(1e-5 * n * n * 4.0**f_in))
    got = golden.layernorm(
        x, (gamma * 2**g).round().long(), (beta * 2 ** (12 + g)).round().long(), eps, 20 + g - f_out, 16
    )
    real = torch.nn.functional.layer_norm(x.double() * 2.0**-f_in, (n,), gamma, beta, 1e-5) * 2**f_out
    tie_distance = ((real - real.floor()) - 0.5).abs()
    wrong = got != real.round().clamp(-32768, 32767)
    assert wrong.float().mean() < 1e-3
    assert not wrong.any() or tie_distance[wrong].max() < 5e-3


def test_quant_thresholds():
    x = torch.tensor([-5, -4, 0, 3, 4, 5])
    assert golden.quant_thresholds(x, "ternary", (-4, 5)).tolist() == [-1, 0, 0, 0, 0, 1]
    assert golden.quant_thresholds(x, "binary", (0,)).tolist() == [-1, -1, 1, 1, 1, 1]
    with pytest.raises(InputError, match="^kind must be ternary or binary, not 'int8'$"):
        golden.quant_thresholds(x, "int8", (0,))


@fast
@given(st.integers(-(2**19), 2**19 - 1), st.integers(0, 2**23 - 1), st.integers(0, 30))
def test_quant_int8(x, mul, shift):
    assert int(golden.quant_int8(torch.tensor(x), mul, shift)) == naive_clip(naive_rshift(x * mul, shift), -127, 127)


@fast
@given(st.integers(0, 2**20), st.integers(1, 4), st.booleans())
def test_threshold_codes(seed, count, shared):
    acc, rows = ints(seed, (5, 6), -40, 40), 1 if shared else 6
    thresholds, dirs = ints(seed + 1, (rows, count), -45, 45), tuple(ints(seed, (count,), 0, 1).mul(2).sub(1).tolist())
    got = golden.threshold_codes(acc, thresholds, 1, dirs)
    for t in range(5):
        for r in range(6):
            row = thresholds[0 if shared else r].tolist()
            assert int(got[t, r]) == 1 + sum(d for d, at in zip(dirs, row, strict=True) if int(acc[t, r]) >= at)


@fast
@given(st.integers(0, 2**20), st.integers(0, 30), st.sampled_from([(-127, 127), (0, 255)]), st.booleans())
def test_requant8(seed, shift, limits, use_lut):
    acc, lut = ints(seed, (4, 3), -(2**20), 2**20), ints(seed, (256,), 0, 255)
    mul, bias = ints(seed + 2, (3,), 0, 2**23 - 1), ints(seed + 3, (3,), -(2**38) + 1, 2**38 - 1)
    got = golden.requant8(acc, mul, bias, shift, limits[0], limits[1], lut if use_lut else None)
    for t in range(4):
        for r in range(3):
            value = naive_rshift(int(acc[t, r]) * int(mul[r]) + int(bias[r]), shift)
            want = int(lut[naive_clip(value, -128, 127) + 128]) if use_lut else naive_clip(value, *limits)
            assert int(got[t, r]) == want


def test_scores_and_context_by_head():
    q, k, p, v = ints(1, (3, 8), -1, 1), ints(2, (5, 8), -1, 1), ints(3, (2, 3, 5), 0, 2), ints(4, (5, 8), -127, 127)
    scores, context = golden.scores(q, k, 2), golden.context_acc(p, v, 2)
    for h in range(2):
        for t in range(3):
            for j in range(5):
                assert int(scores[h, t, j]) == sum(int(q[t, i]) * int(k[j, i]) for i in range(4 * h, 4 * h + 4))
            for i in range(4 * h, 4 * h + 4):
                assert int(context[t, i]) == sum(int(p[h, t, j]) * int(v[j, i]) for j in range(5))


@fast
@given(
    st.integers(0, 2**20),
    st.sampled_from(["ternary_nn", "binary_nn", "uint8"]),
    st.booleans(),
    st.floats(0.001, 0.5),
    st.floats(0.003, 1.0),
)
def test_softmax_codes(seed, kind, power, step, alpha):
    limit = 20000 if power else 64
    scores, valid = ints(seed, (2, 4, 9), -limit, limit), ints(seed + 1, (4,), 1, 9)
    mul, shift = golden.exp_power_constants(step) if power else (0, 0)
    lut = golden.exp_lut_power() if power else golden.exp_lut_direct(step)
    fixed: dict[str, Any] = dict(
        power=power,
        mul=mul,
        shift=shift,
        kind=kind,
        c1=max(1, round(alpha * 2**15)),
        c2=max(1, round(3 * alpha * 2**15)),
        recip=round(2**36 / alpha),
    )
    got = golden.softmax_codes(scores, valid, lut=lut, **fixed)
    for h in range(2):
        for t in range(4):
            want = naive_softmax(scores[h, t].tolist(), int(valid[t]), lut.tolist(), **fixed)
            assert got[h, t].tolist() == want
            assert not any(want[int(valid[t]) :])


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("kind, high", [("ternary_nn", 2), ("binary_nn", 1), ("uint8", 255)])
def test_softmax_codes_follow_the_real_softmax(power, kind, high):
    step, alpha = 0.05, 1 / 255 if kind == "uint8" else 0.13
    scores = ints(7, (4, 50, 12), -60, 60)
    mul, shift = golden.exp_power_constants(step)
    got = golden.softmax_codes(
        scores,
        torch.tensor(12),
        lut=golden.exp_lut_power() if power else golden.exp_lut_direct(step),
        power=power,
        mul=mul,
        shift=shift,
        kind=kind,
        c1=round(alpha * 2**15),
        c2=round(3 * alpha * 2**15),
        recip=round(2**36 / alpha),
    )
    real = (scores * step).double().softmax(-1) / alpha
    wrong = got != real.round().clamp(0, high)
    assert wrong.float().mean() < 5e-3 if kind != "uint8" or not power else wrong.float().mean() < 0.05
    assert ((got - real.clamp(0, high)).abs() < 0.5 + 0.003 * real.clamp(0, high) + 0.01).all()


def test_causal_valid():
    assert golden.causal_valid(3, 4).tolist() == [5, 6, 7]


def test_exp_power_constants_saturate():
    assert golden.exp_power_constants(1.0) == (round(math.log2(math.e) * 2**15), 7)
    for alpha in (178.0, 1e30):
        mul, shift = golden.exp_power_constants(alpha)
        assert (mul, shift) == (65535, 0)
        e = golden.exp_codes(
            torch.tensor([[0, -1, -(1 << 24)]]), torch.tensor([3]), golden.exp_lut_power(), True, mul, shift
        )
        assert e.tolist() == [[1 << 15, 0, 0]]


def test_lm_head_takes_the_first_of_equal_logits():
    acc = torch.tensor([[3, 7, 7, 1], [0, 0, 0, 0]])
    mul, bias = torch.tensor([2, 1, 1, 14]), torch.tensor([0, 7, 7, 0])
    ids, logits = golden.lm_head(acc, mul, bias)
    assert ids.tolist() == [1, 1] and logits.tolist() == [14, 7]
