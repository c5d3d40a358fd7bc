"""Digit recurrences against their models: every value of small sizes, random and extreme values of the sizes in use."""

import random

import pytest
from amaranth.sim import Simulator

from ternbin.rtl.parts.divsqrt import Divide, Isqrt, Rsqrt, divide_model, isqrt_model, rsqrt_model


def run_stream(component, values, *, stall=0.2, seed=1):
    """Results of sending ``values`` (ints, or dicts of payload fields) through ``component``, with random stalls."""
    rng, results = random.Random(seed), []

    async def send(ctx):
        for value in values:
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(component.i.payload, value)
            ctx.set(component.i.valid, 1)
            await ctx.tick().until(component.i.ready)
            ctx.set(component.i.valid, 0)

    async def receive(ctx):
        for _ in values:
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(component.o.ready, 1)
            (payload,) = await ctx.tick().sample(component.o.payload).until(component.o.valid)
            results.append(payload)
            ctx.set(component.o.ready, 0)

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.run_until(1e-6 * (200 + 80 * len(values)))
    assert len(results) == len(values), "the block must not hang"
    return results


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_isqrt_every_value_of_8_bits(steps):
    values = list(range(256))
    assert run_stream(Isqrt(8, steps=steps), values) == [isqrt_model(v) for v in values]


def test_isqrt_48_bits():
    rng = random.Random(2)
    values = [0, 1, (1 << 48) - 1, 1 << 46, 1 << 47]
    values += [root * root + d for root in (rng.getrandbits(24) | 1 << 23 for _ in range(40)) for d in (-1, 0, 1)]
    values += [rng.getrandbits(rng.randint(1, 48)) for _ in range(100)]
    assert run_stream(Isqrt(48), values) == [isqrt_model(v) for v in values]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_divide_every_value_of_5_by_4_bits(steps):
    pairs = [(n, d) for n in range(32) for d in range(16)]
    results = run_stream(Divide(5, 4, 5, steps=steps), [{"num": n, "den": d} for n, d in pairs])
    assert results == [divide_model(n, d, 5) for n, d in pairs]


def test_divide_48_by_29_bits():
    rng = random.Random(3)
    pairs = [(rng.getrandbits(48), rng.getrandbits(rng.randint(1, 29))) for _ in range(150)]
    pairs += [((1 << 48) - 1, 1), (0, 5), (5, 0), ((1 << 48) - 1, (1 << 29) - 1)]
    results = run_stream(Divide(48, 29, 48), [{"num": n, "den": d} for n, d in pairs])
    assert results == [divide_model(n, d, 48) for n, d in pairs]


def test_divide_short_quotient():
    """A quotient known to fit takes fewer steps: the reciprocal of LayerNorm."""
    rng = random.Random(4)
    roots = [1 << 23, (1 << 24) - 1, *(rng.getrandbits(23) | 1 << 23 for _ in range(60))]
    results = run_stream(Divide(48, 24, 25), [{"num": 1 << 47, "den": root} for root in roots])
    assert results == [(1 << 47) // root for root in roots]


@pytest.mark.parametrize("bits", [48, 65, 67])
def test_rsqrt(bits):
    rng = random.Random(5)
    values = [v for b in range(1, bits + 1) for v in {1 << b - 1, (1 << b) - 1}]
    values += [rng.getrandbits(rng.randint(1, bits)) or 1 for _ in range(100)]
    results = run_stream(Rsqrt(bits), values)
    assert [(int(o.r), int(o.shift)) for o in results] == [rsqrt_model(v) for v in values]


def test_rsqrt_stays_in_the_documented_range():
    for bits in range(1, 68):
        r, shift = rsqrt_model(1 << bits - 1)
        assert 1 << 23 < r <= 1 << 24 and 4 <= shift <= 37
