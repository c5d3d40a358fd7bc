"""Reference multiply-accumulate elements against PyTorch and plain integers."""

import random
import struct

import pytest
import torch
from amaranth.sim import Simulator

from ternbin.rtl.array.reference_pe import Bf16Element, Fp32Element, Int8Element

SPECIAL = [
    0x00000000,
    0x80000000,
    0x00000001,
    0x807FFFFF,
    0x00800000,
    0x7F7FFFFF,
    0x7F800000,
    0xFF800000,
    0x7FC00000,
    0x3F800000,
    0xBF800000,
    0x3F800001,
    0x34000000,
    0x33800000,
    0x00FFFFFF,
]


def _steps(element, cases):
    """acc0 is put in as acc0 * 1 first; returns results of acc0 + row*col."""
    results = []

    async def bench(ctx):
        ctx.set(element.en, 1)
        for acc0, one, row, col in cases:
            for first, r, c in ((1, acc0, one), (0, row, col)):
                ctx.set(element.first, first)
                ctx.set(element.row, r)
                ctx.set(element.col, c)
                await ctx.tick()
            ctx.set(element.en, 0)
            ctx.set(element.capture, 1)
            await ctx.tick()
            ctx.set(element.capture, 0)
            await ctx.tick()  # floating point is a stage longer
            results.append(ctx.get(element.result))
            ctx.set(element.en, 1)

    sim = Simulator(element)
    sim.add_clock(1e-9)
    sim.add_testbench(bench)
    sim.run()
    return results


def _float(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def _bits(tensor):
    return [struct.unpack("<I", struct.pack("<f", x))[0] for x in tensor.tolist()]


def _same(actual, expected):
    def canonical(x):
        return 0x7FC00000 if x & 0x7FFFFFFF > 0x7F800000 else x

    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert canonical(a) == canonical(e), f"case {i}: {a:08x}, not {e:08x}"


def _operand(rng, mask=0xFFFFFFFF):
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(SPECIAL) & mask
    if kind == 1:
        return rng.getrandbits(32) & mask
    exponent = rng.randrange(100, 150) if kind < 5 else rng.randrange(0, 40)  # near each other, so that sums cancel
    return (rng.getrandbits(1) << 31 | exponent << 23 | rng.getrandbits(23) >> rng.choice((0, 0, 12)) << 12) & mask


def test_fp32_multiply_and_add_round_as_pytorch_does():
    rng = random.Random(5)
    cases = [(_operand(rng), 0x3F800000, _operand(rng), _operand(rng)) for _ in range(400)]
    cases += [(a, 0x3F800000, b, 0x3F800000) for a in SPECIAL for b in SPECIAL]
    acc0, row, col = (torch.tensor([_float(c[i]) for c in cases], dtype=torch.float32) for i in (0, 2, 3))
    # x*1 + 0 of the first step turns -0 into 0, as PyTorch's own addition does
    expected = (acc0 * 1 + 0.0) + row * col
    _same(_steps(Fp32Element(), cases), _bits(expected))


def test_bf16_products_accumulate_in_fp32_as_pytorch_does():
    rng = random.Random(6)
    cases = [
        (_operand(rng, 0xFFFF0000) >> 16, 0x3F80, _operand(rng, 0xFFFF0000) >> 16, _operand(rng, 0xFFFF0000) >> 16)
        for _ in range(300)
    ]
    acc0, row, col = (torch.tensor([_float(c[i] << 16) for c in cases]).bfloat16().float() for i in (0, 2, 3))
    _same(_steps(Bf16Element(), cases), _bits((acc0 * 1 + 0.0) + row * col))


@pytest.mark.parametrize("lanes", [1, 16])
def test_int8_dot_product_is_exact(lanes):
    rng = random.Random(7)
    cases = []
    for _ in range(60):
        cases.append(
            (
                rng.getrandbits(8 * lanes),
                rng.getrandbits(8 * lanes),
                rng.getrandbits(8 * lanes),
                rng.getrandbits(8 * lanes),
            )
        )

    def dot(a, b):
        def lane(x, i):
            return (x >> 8 * i & 255 ^ 128) - 128

        return sum(lane(a, i) * lane(b, i) for i in range(lanes))

    expected = [(dot(a, b) + dot(c, d)) & 0xFFFFFFFF for a, b, c, d in cases]
    assert _steps(Int8Element(lanes), cases) == expected
