"""Reference multiply-accumulate elements against exact arithmetic."""

import math
import random
from fractions import Fraction

import pytest
from amaranth.sim import Simulator

from ternbin.rtl.array.reference_pe import FORMATS, NAN, WINDOW, FloatElement, Format, IntElement


def _steps(element, cases):
    """Results of ``acc + dot(row, col)``; each case is the operands of two steps, the first of which begins a sum."""
    results = []

    async def bench(ctx):
        for steps in cases:
            ctx.set(element.en, 1)
            for number, (row, col) in enumerate(steps):
                ctx.set(element.first, number == 0)
                ctx.set(element.row, row)
                ctx.set(element.col, col)
                await ctx.tick()
            ctx.set(element.en, 0)
            ctx.set(element.capture, 1)
            await ctx.tick()
            ctx.set(element.capture, 0)
            await ctx.tick()  # floating point is a stage longer
            results.append(ctx.get(element.result))

    sim = Simulator(element)
    sim.add_clock(1e-9)
    sim.add_testbench(bench)
    sim.run()
    return results


# ---- floating point: the definition, in exact numbers ---------------------------------------------------------------


def _number(form: Format, bits: int) -> tuple[int, int, int] | None:
    """Sign, exponent and significand (of ``2^(exponent - bias - frac)``); None: no number."""
    fraction, exp = bits & (1 << form.frac) - 1, bits >> form.frac & (1 << form.exp) - 1
    sign = -1 if bits >> form.bits - 1 else 1
    if not form.finite and exp == (1 << form.exp) - 1:
        return None
    if exp:
        return sign, exp, fraction | 1 << form.frac
    return (sign, 1, fraction) if form.finite else (sign, 0, 0)


def _fp32(value: Fraction) -> int:
    """Rounded once, to nearest even; what would be subnormal is zero, what is too large infinity."""
    if not value:
        return 0
    size, sign = abs(value), int(value < 0) << 31
    exp = math.floor(math.log2(size.numerator) - math.log2(size.denominator))
    exp += (size >= Fraction(2) ** (exp + 1)) - (size < Fraction(2) ** exp)
    if exp < -126:
        return 0
    whole = round(size / Fraction(2) ** (exp - 23))  # of a Fraction: to even
    if whole == 1 << 24:
        exp, whole = exp + 1, whole // 2
    return sign | (255 << 23 if exp > 127 else exp + 127 << 23 | whole - (1 << 23))


def fused(form: Format, steps: list[tuple[list[int], list[int]]]) -> int:
    """Products cut off WINDOW bits below the largest exponent so far, and the sum with them; rounded once, at the end."""
    total, largest = Fraction(0), None
    for row, col in steps:
        addends = []
        for a, b in zip((_number(form, x) for x in row), (_number(form, x) for x in col), strict=True):
            if a is None or b is None:
                return NAN
            (s, e, m), (t, f, n) = a, b
            lowest = e + f - 2 * form.bias - 2 * form.frac
            if m * n:
                addends.append((lowest + 2 * form.frac + 1, s * t * m * n * Fraction(2) ** lowest))
        exponents = [exp for exp, _ in addends] + ([largest] if largest is not None else [])
        if not exponents:
            continue
        largest = max(exponents)
        unit = Fraction(2) ** (largest - WINDOW + 1)
        total = math.floor(total / unit) * unit + sum(math.trunc(value / unit) * unit for _, value in addends)
    return _fp32(total)


def _word(values, bits):
    return sum(value << bits * i for i, value in enumerate(values))


def _operand(rng: random.Random, form: Format) -> int:
    top = (1 << form.exp) - 1
    kind = rng.randrange(8)
    near = rng.randrange(max(0, form.bias - 8), min(top, form.bias + 8))
    exp = rng.randrange(top) if kind == 0 else 0 if kind == 1 else near
    fraction = rng.choice((rng.getrandbits(form.frac), 0, (1 << form.frac) - 1))
    return _word([fraction, exp], form.frac) | rng.getrandbits(1) << form.bits - 1


@pytest.mark.parametrize("name, lanes", [("fp32", 1), ("fp32", 4), ("bf16", 16), ("fp8", 16)])
def test_floating_point_sums_are_rounded_once(name, lanes):
    form, rng = FORMATS[name], random.Random(lanes)
    cases = []
    for number in range(150):
        steps = [[[_operand(rng, form) for _ in range(lanes)] for _ in "rc"] for _ in range(3)]
        if number % 3 == 0:  # the sum of the steps before is taken away again, but for a little
            steps[2] = [[x ^ 1 << form.bits - 1 for x in steps[0][0]], steps[0][1]]
        if number % 10 == 1:
            steps[1][0][0] |= (1 << form.exp) - 1 << form.frac  # no number, but in FP8
        cases.append(steps)
    expected = [fused(form, steps) for steps in cases]
    words = [[(_word(row, form.bits), _word(col, form.bits)) for row, col in steps] for steps in cases]
    assert _steps(FloatElement(form, lanes), words) == expected
    assert NAN in expected or form.finite
    assert len({x >> 23 & 255 for x in expected}) > 8


def _signed(word: int, bits: int, lane: int) -> int:
    return (word >> bits * lane & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)


@pytest.mark.parametrize("row_bits, col_bits, lanes", [(8, 8, 1), (8, 8, 16), (4, 8, 16)])
def test_integer_dot_products_are_exact(row_bits, col_bits, lanes):
    rng = random.Random(7)
    cases = [
        [(rng.getrandbits(row_bits * lanes), rng.getrandbits(col_bits * lanes)) for _ in range(2)] for _ in range(60)
    ]
    expected = [
        sum(_signed(a, row_bits, i) * _signed(b, col_bits, i) for a, b in steps for i in range(lanes)) & 0xFFFFFFFF
        for steps in cases
    ]
    assert _steps(IntElement(row_bits, col_bits, lanes), cases) == expected
