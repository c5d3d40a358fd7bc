"""LAYERNORM at the limits of its widths: 16383 features of 20 bits."""

import math
import random

import pytest
from amaranth.sim import Simulator

from ternbin.contract.hw import HwConfig
from ternbin.rtl.parts.divsqrt import rsqrt_model
from ternbin.rtl.vector.layernorm import XHAT_BITS, Variance, variance_bits

FEATURES = (1 << 14) - 1
LOW, HIGH = -(1 << 19), (1 << 19) - 1
ROWS = 64
HW = HwConfig(rows=ROWS, lanes=64, res_bits=20)


def tokens():
    rng = random.Random(1)
    return {
        "all lowest": [LOW] * FEATURES,
        "all highest": [HIGH] * FEATURES,
        "half and half": [LOW, HIGH] * (FEATURES // 2) + [LOW],
        "one outlier": [HIGH] + [LOW] * (FEATURES - 1),
        "random": [rng.randint(LOW, HIGH) for _ in range(FEATURES)],
    }


@pytest.mark.parametrize("eps", [1, (1 << 64) - 1])
def test_sums_and_variance_are_exact(eps):
    unit, results = Variance(HW), []

    async def send(ctx):
        ctx.set(unit.features, FEATURES)
        ctx.set(unit.eps, eps)
        ctx.set(unit.i.valid, 1)
        for values in tokens().values():
            for first in range(0, FEATURES, ROWS):
                part = values[first : first + ROWS]
                word = sum((value & 0xFFFFFFFF) << 32 * e for e, value in enumerate(part))
                ctx.set(unit.i.payload, {"word": word, "end": first + ROWS > FEATURES})
                await ctx.tick().until(unit.i.ready)
        ctx.set(unit.i.valid, 0)

    async def receive(ctx):
        for wait in (1, 3, 400, 1, 2):  # 400 cycles block the sums of the next token
            await ctx.tick().repeat(wait)
            ctx.set(unit.o.ready, 1)
            (payload,) = await ctx.tick().sample(unit.o.payload).until(unit.o.valid)
            results.append((payload.s, payload.v))
            ctx.set(unit.o.ready, 0)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.run()
    for (name, values), (s, v) in zip(tokens().items(), results, strict=True):
        total = sum(values)
        assert s == total, name
        assert v == FEATURES * sum(x * x for x in values) - total * total + eps, name


@pytest.mark.parametrize("features", [2, 3, 768, 1024, FEATURES])
def test_normalised_value_fits_its_width(features):
    """The largest is that of a single outlier, sqrt(n-1), whatever the reciprocal's truncation adds."""
    for high in (1000, HIGH):
        values = [high] + [0] * (features - 1)
        total = sum(values)
        variance = features * sum(x * x for x in values) - total * total + 1
        assert variance < 1 << variance_bits(HW)
        r, shift = rsqrt_model(variance)
        normal = ((features * high - total) * r + (1 << shift - 1)) >> shift
        assert normal < 1 << XHAT_BITS - 1
        assert normal == pytest.approx(math.sqrt(features - 1) * 2**20, rel=1e-5)
