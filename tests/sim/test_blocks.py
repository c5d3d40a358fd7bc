"""The bench runner and its drivers, on small components made for it."""

import random

import cocotb
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ternbin.rtl.parts.interfaces import ReadPort, TransposedWritePort, WritePort
from ternbin.sim.bench import run_bench
from ternbin.sim.tb import drivers


class Adder(wiring.Component):
    """o = i + increment through a small FIFO."""

    # Ports as Amaranth's documentation writes them, a form of annotation that type checkers do not know.
    i: In(stream.Signature(8))  # pyright: ignore[reportInvalidTypeForm]
    o: Out(stream.Signature(8))  # pyright: ignore[reportInvalidTypeForm]

    def __init__(self, increment: int):
        super().__init__()
        self.increment = increment

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=8, depth=2)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload + self.increment),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        return m


class Copier(wiring.Component):
    """Copies word a of every bank to word a + 1, then writes codes to lane 2 of word 0."""

    r: Out(ReadPort(2, 8))  # pyright: ignore[reportInvalidTypeForm]
    w: Out(WritePort(2, 8, 4))  # pyright: ignore[reportInvalidTypeForm]
    t: Out(TransposedWritePort(2, 2, 4))  # pyright: ignore[reportInvalidTypeForm]
    done: Out(1)  # pyright: ignore[reportInvalidTypeForm]

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.r.mask.eq(0b01), self.r.addr.eq(3), self.w.addr.eq(5), self.w.mask.eq(0b10)]
        m.d.comb += [self.w.lane_mask.eq(0b0011), self.t.addr.eq(6), self.t.mask.eq(3), self.t.lane.eq(2)]
        m.d.comb += self.t.codes.eq(0b0111)
        with m.FSM():
            with m.State("read"):
                m.d.comb += self.r.valid.eq(1)
                with m.If(self.r.ready):
                    m.next = "data"
            with m.State("data"):
                m.d.sync += self.w.data.eq(self.r.data[0])
                m.next = "write"
            with m.State("write"):
                m.d.comb += self.w.valid.eq(1)
                with m.If(self.w.ready):
                    m.next = "transposed"
            with m.State("transposed"):
                m.d.comb += self.t.valid.eq(1)
                with m.If(self.t.ready):
                    m.next = "done"
            with m.State("done"):
                m.d.comb += self.done.eq(1)
        return m


@cocotb.test()
async def bench_stream(dut):
    await drivers.start(dut)
    values = [random.randrange(256) for _ in range(200)]
    source, sink = drivers.Source(dut, "i"), drivers.Sink(dut, "o")
    source.send(values)
    increment = drivers.parameters()["increment"]
    assert await sink.count(200) == [(value + increment) % 256 for value in values]
    await source.drained()


@cocotb.test()
async def bench_memory(dut):
    await drivers.start(dut)
    memory = drivers.MemoryModel(dut, banks=2, depth=8, word_bits=8, elements=4, planes=2)
    memory.read_port("r")
    memory.write_port("w")
    memory.transposed_port("t")
    memory.words[0][3] = 0b1010_0110
    memory.words[1][5] = 0b0101_1001
    await drivers.until(dut, lambda: drivers.get(dut, "done") == 1)
    assert memory.words[1][5] == 0b0110_1010
    assert memory.words[0][6] == 0b0100_0100 and memory.words[1][6] == 0b0000_0100
    assert (memory.reads, memory.writes) == (1, 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_stream(seed):
    run_bench(Adder(3), __name__, name="adder", parameters={"increment": 3}, testcase="bench_stream", seed=seed)


def test_memory():
    run_bench(Copier(), __name__, name="copier", testcase="bench_memory")


def test_failure_is_shown():
    with pytest.raises(AssertionError, match="(?s)bench_stream.*seed 7"):
        run_bench(Adder(3), __name__, name="adder", parameters={"increment": 4}, testcase="bench_stream", seed=7)


def test_no_bench_is_a_failure():
    with pytest.raises(AssertionError, match="must contain a cocotb test"):
        run_bench(Adder(3), __name__, name="adder", testcase="bench_that_does_not_exist")
