"""Lists of best tokens against sorting, sums of exponentials against rule 11 in golden.py: ties, extremes, ids that do not count."""

import random

import pytest
import torch
from amaranth.sim import Simulator

from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import ENGINES, LOGITS
from ternbin.graph import golden
from ternbin.graph.fixedpoint import NO_EXPONENT
from ternbin.rtl.epilogue.topengine import TopEngine

BITS = 42
LEAST = -(1 << BITS - 1)  # which no logit is: M and acc are never both the least
ENDS = LEAST + 1, -LEAST - 1


def columns(hw, rng, shift, count, ties):
    """Values, id of the first one, beam, whether it begins anew. Logits of some nats, or ``ties`` and ends of the range."""
    few, ident = [*ENDS, *(rng.randint(-3, 3) << rng.choice((0, 16, 30)) for _ in range(4))], 0
    for _ in range(count):
        values = [rng.choice(few) if ties else round(rng.gauss(0, 2.5) * 2 ** (16 + shift)) for _ in range(hw.rows)]
        yield values, ident, rng.randrange(ceil_div(hw.beams, ENGINES)), rng.random() < 0.1
        ident += rng.choice((0, hw.rows))


def expected(hw, given, features, shift, own):
    """Entries (logit, id), largest first, and (m, s) of beam ``own``."""
    best, total = [], (NO_EXPONENT, 0)
    for values, ident, beam, restart in given:
        if beam != own:
            continue
        if restart:
            best, total = [], (NO_EXPONENT, 0)
        counted = values[: max(0, features - ident)]
        best = sorted([*best, *zip(counted, range(ident, ident + len(counted)), strict=True)], key=lambda e: -e[0])
        if counted:
            total = tuple(golden.exp_total(torch.tensor(counted), shift, total).tolist())
    return [*best, *[(LEAST, -1)] * hw.top][: hw.top], total


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("rows, beams, shift", [(4, 2, 0), (8, 5, 3)])
def test_lists_and_sums(rows, beams, shift, ties):
    hw, rng = HwConfig(rows=rows, lanes=16, axi_data_bits=32).searching(beams), random.Random(rows)
    unit, given = TopEngine(hw, BITS), list(columns(hw, rng, shift, 50, ties))
    features = max(ident for _, ident, _, _ in given) + rows // 2 + 1
    waits, found = [], {}

    async def drive(ctx):
        ctx.set(unit.features, features)
        ctx.set(unit.shift, shift)
        for values, ident, own, restart in given:
            for _ in range(rng.choice((0, 0, 5))):
                await ctx.tick()
            waited = 0
            while not ctx.get(unit.free):
                await ctx.tick()
                waited += 1
            waits.append(waited)
            for port, value in (("ident", ident), ("own", own), ("restart", restart), ("take", 1)):
                ctx.set(getattr(unit, port), value)
            for place, value in enumerate(values):
                ctx.set(unit.values[place], value)
            await ctx.tick()
            ctx.set(unit.take, 0)
        while ctx.get(unit.busy):
            await ctx.tick()
        for own in range(ceil_div(beams, ENGINES)):
            entries = [(ctx.get(unit.best[own][k].logit), ctx.get(unit.best[own][k].id)) for k in range(hw.top)]
            found[own] = entries, (ctx.get(unit.sums[own].m), ctx.get(unit.sums[own].s))

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    assert found == {own: expected(hw, given, features, shift, own) for own in found}
    assert len(found) == ceil_div(beams, ENGINES)
    assert max(waits) == rows // LOGITS - 1
