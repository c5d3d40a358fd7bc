"""Arithmetic of transfers."""

from amaranth import Module, Signal
from amaranth.sim import Simulator

from ternbin.rtl.transfer.words import fifth


def test_a_fifth():
    m, value, result = Module(), Signal(16), Signal(16)
    m.d.comb += result.eq(fifth(value))

    async def bench(ctx):
        for number in [*range(3000), *range(65000, 65536)]:
            ctx.set(value, number)
            assert ctx.get(result) == -(-number // 5)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
