"""The integer semantics of every op: what hardware, compiler and documentation must follow.

Pure functions on torch int64 tensors, CPU or GPU. Each is the definition of one rule of docs/numerics.md,
"Numerics"; the constants they take (multipliers, thresholds, tables) come from the passes. Leading dimensions are
free: a function that documents ``[T, d]`` also takes ``[batch, T, d]``. Where a result saturates, ``count`` (a
:class:`Saturation`) collects how many elements did.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph.fixedpoint import (
    EXP_BITS,
    LOG2_E,
    NATS_BITS,
    NO_EXPONENT,
    OCTAVE_BITS,
    RECIP_POINT,
    TOTAL_POINT,
    exp2_luts,
)

XHAT_BITS = 20  # fractional bits of the normalised value inside LayerNorm
ALWAYS, NEVER = -(1 << 15), (1 << 15) - 1  # thresholds every accumulator reaches, or none does


@dataclass
class Saturation:
    """How many elements of how many were clipped."""

    clipped: int = 0
    total: int = 0

    def add(self, before: Tensor, after: Tensor) -> None:
        self.clipped += int((before != after).sum())
        self.total += before.numel()


def rshift(v: Tensor, s: int | Tensor) -> Tensor:
    """``floor((v + 2^(s-1)) / 2^s)``, ``v`` where s is 0: round to nearest, ties upward."""
    if isinstance(s, int):
        return v if s == 0 else (v + (1 << (s - 1))) >> s
    return (v + ((1 << s) >> 1)) >> s


def sat(v: Tensor, bits: int, count: Saturation | None = None) -> Tensor:
    """Clip to the two's-complement range of ``bits``."""
    return clip(v, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, count)


def clip(v: Tensor, lo: int, hi: int, count: Saturation | None = None) -> Tensor:
    """Clip to ``[lo, hi]``."""
    out = v.clamp(lo, hi)
    if count is not None:
        count.add(v, out)
    return out


FAR = 1 << 62  # beyond every field of fixed point


def rne(values: Tensor) -> Tensor:
    """Nearest integers (int64), ties to even, of floating-point values; those beyond ``FAR`` become ``FAR``, with their sign."""
    return values.to(torch.float64).round().clamp(-FAR, FAR).to(torch.int64)


# ---- exact products -------------------------------------------------------------------------------------------------


def int_matmul(a: Tensor, b: Tensor, bound: int | None = None) -> Tensor:
    """Exact integer product ``a [.., M, K] @ b [.., K, N]`` as int64; operands hold integers in any dtype.

    Runs in float32 or float64 where no partial sum can leave the integers these represent exactly, else in int64.
    ``bound`` is at least ``K * max|a| * max|b|``, where the caller knows it.
    """
    if bound is None:
        bound = a.shape[-1] * _max_abs(a) * _max_abs(b)
    if bound < 1 << 24:
        return (a.to(torch.float32) @ b.to(torch.float32)).to(torch.int64)
    if bound < 1 << 53:
        return (a.to(torch.float64) @ b.to(torch.float64)).to(torch.int64)
    return a.to(torch.int64) @ b.to(torch.int64)


SMALL = (
    64  # what sums of two products with 8-bit integers may have without leaving 16 bits, as some processors sum them
)


# Of int8 matrices, as int32; torch has no public one.
_product8 = torch._int_mm  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def _int8_matmul(a: Tensor, b: Tensor) -> Tensor | None:
    """``a @ b`` of int8 ``b`` on a CPU, a third to a sixth of the time of float32; None where it is not for this.

    Torch 2.13 gives wrong products of matrices with K = 1.
    """
    if a.device.type != "cpu" or a.numel() == 0 or b.shape[0] == 1:
        return None
    lo, hi = torch.aminmax(a)
    rows = a.reshape(-1, a.shape[-1])
    if lo >= -128 and hi <= 127:
        product = _product8(rows.to(torch.int8), b).to(torch.int64)
    elif lo >= 0 and hi <= 255:
        high, low = (rows >= 128).to(torch.int8), (rows.to(torch.int64) & 127).to(torch.int8)
        product = _product8(low, b).to(torch.int64) + (_product8(high, b).to(torch.int64) << 7)
    else:
        return None
    return product.reshape(*a.shape[:-1], b.shape[1])


def small(codes: Tensor) -> bool:
    """Whether int8 ``codes`` may be multiplied as such."""
    return codes.dtype == torch.int8 and codes.device.type == "cpu" and _max_abs(codes) <= SMALL


def _max_abs(a: Tensor) -> int:
    if a.numel() == 0:
        return 0
    lo, hi = torch.aminmax(a)
    return max(-int(lo), int(hi))


def linear_acc(x: Tensor, weight: Tensor, bound: int | None = None) -> Tensor:
    """``acc[.., r] = sum_i x[.., i] * weight[r, i]``, exact; ``bound`` as in :func:`int_matmul`.

    A ``weight`` of int8 must be one that is :func:`small`: where ``x`` holds 8-bit integers its product runs in int8.
    """
    product = _int8_matmul(x, weight.T) if weight.dtype == torch.int8 else None
    return int_matmul(x, weight.T, bound) if product is None else product


# ---- residual stream ------------------------------------------------------------------------------------------------


def embed(
    ids: Tensor,
    table: Tensor,
    scale: Tensor,
    pos: Tensor,
    pos_offset: int,
    past: int,
    res_bits: int,
    count: Saturation | None = None,
) -> Tensor:
    """Rule 1: ids ``[.., T]`` at positions ``past ..`` to residual integers ``[.., T, d]``."""
    first = past + pos_offset
    rows = pos[first : first + ids.shape[-1]]
    if rows.shape[0] != ids.shape[-1]:
        raise InputError(f"position must be below {pos.shape[0] - pos_offset}, not {past + ids.shape[-1] - 1}")
    return embed_rows(ids, table, scale, rows, res_bits, count)


def embed_rows(
    ids: Tensor, table: Tensor, scale: Tensor, rows: Tensor, res_bits: int, count: Saturation | None = None
) -> Tensor:
    """Rule 1: ids ``[.., T]`` on top of ``rows`` ``[.., T, d]`` to residual integers ``[.., T, d]``."""
    return sat(rows + table[ids].to(torch.int64) * scale[ids].unsqueeze(-1), res_bits, count)


def linear_residual(
    acc: Tensor, mul: Tensor, bias: Tensor, shift: int, h: Tensor, res_bits: int, count: Saturation | None = None
) -> Tensor:
    """Rule 2: ``sat(h + rshift(acc*mul + bias, shift))``; ``mul``, ``bias`` one a column of ``acc``."""
    return sat(h + rshift(acc * mul + bias, shift), res_bits, count)


def isqrt(v: Tensor) -> Tensor:
    """Exact floor of the square root, ``0 <= v < 2^62``."""
    root = v.to(torch.float64).sqrt().to(torch.int64)
    root = root - (root * root > v).to(torch.int64)
    return root + ((root + 1) * (root + 1) <= v).to(torch.int64)


def bit_length(v: Tensor) -> Tensor:
    """Bits of ``v``, ``1 <= v < 2^62``, as ``int.bit_length``."""
    length = torch.frexp(v.to(torch.float64)).exponent.to(torch.int64)
    return length - (v < (1 << (length - 1))).to(torch.int64)  # the conversion may have rounded up to a power of two


def layernorm_sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and sum of squares over the last dimension, ``[.., 1]`` each."""
    return x.sum(-1, keepdim=True), (x * x).sum(-1, keepdim=True)


def layernorm_rsqrt(v: Tensor) -> tuple[Tensor, Tensor]:
    """``(r, k)`` of a variance ``V``, ``1 <= V < 2^62``: ``r * 2^((k - 94)/2)`` is about ``1/sqrt(V)``.

    ``2^23 < r <= 2^24``; ``k`` is even and may be negative.
    """
    k = (48 - bit_length(v)) & ~1
    normal = torch.where(k >= 0, v << k.clamp(min=0), v >> (-k).clamp(min=0))
    return (1 << 47) // isqrt(normal), k


def layernorm_xhat(x: Tensor, eps: int) -> Tensor:
    """The normalised value of every element, 20 fractional bits; ``eps`` is E of rule 3."""
    n = x.shape[-1]
    total, squares = layernorm_sums(x)
    r, k = layernorm_rsqrt(n * squares - total * total + eps)
    return rshift((n * x - total) * r, 27 - k // 2)


def layernorm(
    x: Tensor, gamma: Tensor, beta: Tensor, eps: int, shift: int, res_bits: int, count: Saturation | None = None
) -> Tensor:
    """Rule 3 on residual integers ``[.., d]``: ``gamma`` = G, ``beta`` = Bt, ``eps`` = E, ``shift`` = S."""
    return sat(rshift(layernorm_xhat(x, eps) * gamma + (beta << 8), shift), res_bits, count)


# ---- codes ----------------------------------------------------------------------------------------------------------


def quant_thresholds(x: Tensor, kind: str, thresholds: tuple[int, ...]) -> Tensor:
    """Rule 4, ternary (t0, t1) or binary (t0,): residual integers to signed codes."""
    if kind == "ternary":
        t0, t1 = thresholds
        return -1 + (x >= t0).to(torch.int64) + (x >= t1).to(torch.int64)
    if kind == "binary":
        (t0,) = thresholds
        return -1 + 2 * (x >= t0).to(torch.int64)
    raise InputError(f"kind must be ternary or binary, not {kind!r}")


def quant_int8(x: Tensor, mul: int, shift: int, count: Saturation | None = None) -> Tensor:
    """Rule 4, int8: ``clip(rshift(x*mul, shift), -127, 127)``."""
    return clip(rshift(x * mul, shift), -127, 127, count)


def threshold_codes(acc: Tensor, thresholds: Tensor, base: int, dirs: tuple[int, ...]) -> Tensor:
    """Rule 5: ``base + sum_j dirs[j] * [acc >= thresholds[r, j]]``, ``acc [.., R]``, thresholds of all or one row."""
    out = torch.full_like(acc, base)
    for j, direction in enumerate(dirs):
        out += direction * (acc >= thresholds[:, j])
    return out


def requant8(
    acc: Tensor,
    mul: Tensor,
    bias: Tensor,
    shift: int,
    lo: int,
    hi: int,
    lut: Tensor | None = None,
    count: Saturation | None = None,
) -> Tensor:
    """Rule 6: ``clip(rshift(acc*mul + bias, shift), lo, hi)``; ``lut`` [256]: clip to [-128, 127] and look up."""
    value = rshift(acc * mul + bias, shift)
    if lut is None:
        return clip(value, lo, hi, count)
    return lut[clip(value, -128, 127, count) + 128]


# ---- attention ------------------------------------------------------------------------------------------------------


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``[.., T, d]`` to ``[.., heads, T, d/heads]``."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """``[.., heads, T, d/heads]`` to ``[.., T, d]``."""
    return x.transpose(-3, -2).flatten(-2)


def scores(q: Tensor, k: Tensor, heads: int, bound: int | None = None) -> Tensor:
    """Exact products of codes ``q [.., T, d]`` and ``k [.., N, d]`` by head: ``[.., heads, T, N]``."""
    return int_matmul(split_heads(q, heads), split_heads(k, heads).transpose(-2, -1), bound)


def causal_valid(tokens: int, past: int, device: torch.device | str = "cpu") -> Tensor:
    """How many keys each of ``tokens`` queries at positions ``past ..`` may see: ``[tokens]``."""
    return torch.arange(past + 1, past + tokens + 1, device=device)


def exp_lut_direct(alpha: float) -> Tensor:
    """256 entries ``rne(2^15 * exp(-alpha*d))``, ``alpha`` = alpha_q*alpha_k, the value of one step of the score."""
    return torch.tensor([round(2**EXP_BITS * math.exp(-alpha * d)) for d in range(256)])


def exp_lut_power() -> Tensor:
    """256 entries ``rne(2^15 * 2^(-i/256))``."""
    return torch.tensor([round(2**EXP_BITS * 2 ** (-i / 256)) for i in range(256)])


def exp_power_constants(alpha: float) -> tuple[int, int]:
    """``(C, Sx)`` of rule 7 for scores with a step of ``alpha``: Sx the largest in [0, 40] with C below 2^16.

    From a step of 177 on, where the exponential is 0 one step below the largest score, C is 2^16 - 1.
    """
    for shift in range(40, -1, -1):
        mul = round(alpha * math.log2(math.e) * 2.0 ** (8 + shift))
        if mul < 1 << 16:
            return mul, shift
    return (1 << 16) - 1, 0


def exp_codes(scores: Tensor, valid: Tensor, lut: Tensor, power: bool, mul: int = 0, shift: int = 0) -> Tensor:
    """Rule 7: ``e`` of every score ``[.., N]``, 0 for keys beyond the first ``valid``, ``[..]``, at least 1; or, where ``valid`` is
    bool ``[.., N]``, for keys that are not."""
    inside = (
        valid
        if valid.dtype == torch.bool
        else torch.arange(scores.shape[-1], device=scores.device) < valid.unsqueeze(-1)
    )
    best = scores.masked_fill(~inside, torch.iinfo(torch.int64).min).amax(-1, keepdim=True)
    distance = (best - scores).clamp(min=0)
    if power:
        t = (distance * mul) >> shift
        e = lut[t & 255] >> (t >> 8).clamp(max=31)
    else:
        e = lut[distance.clamp(max=255)]
    return e * inside


def softmax_codes(
    scores: Tensor,
    valid: Tensor,
    *,
    lut: Tensor,
    power: bool,
    mul: int,
    shift: int,
    kind: str,
    c1: int,
    c2: int,
    recip: int,
) -> Tensor:
    """Rules 7 and 8: scores ``[.., heads, T, N]`` to non-negative probability codes of the same shape.

    ``valid``, broadcastable to ``[.., heads, T]``, says how many keys from the first on each query sees (at least one):
    the source length, or :func:`causal_valid`; or, bool and broadcastable to ``[.., heads, T, N]``,
    which keys. ``c1`` and ``recip`` are at least 1, so that invalid keys get code 0.
    """
    shape = scores.shape if valid.dtype == torch.bool else scores.shape[:-1]
    return probability_codes(
        exp_codes(scores, valid.expand(shape), lut, power, mul, shift), kind=kind, c1=c1, c2=c2, recip=recip
    )


def probability_codes(e: Tensor, *, kind: str, c1: int, c2: int, recip: int) -> Tensor:
    """Rule 8: exponentials ``[.., N]`` to non-negative probability codes."""
    total = e.sum(-1, keepdim=True)
    if kind == "ternary_nn":
        return ((e << 16) > c1 * total).to(torch.int64) + ((e << 16) >= c2 * total)
    if kind == "binary_nn":
        return ((e << 16) > c1 * total).to(torch.int64)
    if kind == "uint8":
        return rshift(e * (recip // total), RECIP_POINT).clamp(max=255)
    raise InputError(f"kind must be ternary_nn, binary_nn or uint8, not {kind!r}")


def context_acc(p: Tensor, v: Tensor, heads: int, bound: int | None = None) -> Tensor:
    """Rule 9: probability codes ``[.., heads, T, N]`` times value codes ``[.., N, d]``: exact ``[.., T, d]``."""
    return merge_heads(int_matmul(p, split_heads(v, heads), bound))


# ---- language model head --------------------------------------------------------------------------------------------


def lm_logits(acc: Tensor, mul: Tensor, bias: Tensor) -> Tensor:
    """All logits ``acc*mul + bias`` of rule 10, in units of 2^-F."""
    return acc * mul + bias


def lm_head(acc: Tensor, mul: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rule 10: ``(id, logit)`` of the largest logit of each row of ``acc [.., V]``, the lowest id on ties."""
    logits = lm_logits(acc, mul, bias)
    best = logits.argmax(-1, keepdim=True)  # torch: the first of several maxima
    return best.squeeze(-1), logits.gather(-1, best).squeeze(-1)


def lm_top(logits: Tensor, count: int, log2_scale: int) -> Tensor:
    """Rule 11 on all logits ``[.., V]``, V at least ``count``: ``[.., count + 1, 2]``, the best as (id, logit), then (m, s)."""
    if log2_scale < NATS_BITS:
        raise InputError(f"logits must have at least {NATS_BITS} fractional bits for beams, not {log2_scale}")
    values, ids = logits.sort(dim=-1, descending=True, stable=True)  # stable: the lowest id first
    best = torch.stack([ids, values], dim=-1)[..., :count, :]
    return torch.cat([best, exp_total(logits, log2_scale - NATS_BITS).unsqueeze(-2)], dim=-2)


def exp_total(logits: Tensor, shift: int, before: tuple[int, int] = (NO_EXPONENT, 0)) -> Tensor:
    """Sum over ``[.., V]`` of the exponentials, in the order of the ids, as ``[.., 2]``: (m, s), s in units of ``2^(m - 31)``.

    ``before``: (m, s) of the logits before these; ``shift``: F - 16.
    """
    high, low = (torch.tensor(lut, device=logits.device) for lut in exp2_luts())
    t = (sat(logits >> shift, 36) * LOG2_E) >> (20 + NATS_BITS - OCTAVE_BITS)
    fraction, exponent = t & 4095, t >> OCTAVE_BITS
    e = ((high[fraction >> 6] * low[fraction & 63]) >> EXP_BITS) << (TOTAL_POINT - EXP_BITS)
    largest = exponent.cummax(-1).values.clamp(min=before[0])
    terms = e >> (largest - exponent).clamp(max=63)
    rows = [_total(m, x, *before) for m, x in zip(*(x.reshape(-1, x.shape[-1]) for x in (largest, terms)), strict=True)]
    return torch.tensor(rows, device=logits.device).reshape(*logits.shape[:-1], 2)


def _total(largest: Tensor, terms: Tensor, exponent: int, total: int) -> tuple[int, int]:
    """The terms added to ``total``; where the largest exponent grows, what has been added so far is shifted down, truncating."""
    ends: list[int] = [*(largest.diff().nonzero().flatten() + 1).cpu().numpy().tolist(), len(largest)]
    for start, end in zip([0, *ends], ends, strict=False):
        now = int(largest[start])
        total = (total >> min(now - exponent, 63)) + int(terms[start:end].sum())
        exponent = now
    return exponent, total


def log_total(exponent: int, total: int) -> float:
    """Logarithm of the sum of rule 11, in nats."""
    return (exponent + math.log2(total) - TOTAL_POINT) * math.log(2)
