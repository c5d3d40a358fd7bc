"""Instruction fetch: reads the program upwards, ahead of what is needed, and puts 64-byte instructions together."""

from amaranth import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS, INSTRUCTION_BYTES
from ternbin.contract.pipeline import PREFETCH
from ternbin.rtl.parts.interfaces import Record, Stream
from ternbin.rtl.transfer.axi import Burst, BurstView, ReadBeat, ReadBeatView


class Fetched(data.StructLayout):
    """An instruction, its byte address, the XOR of its halfwords, and whether the bus answered with an error."""

    word: Signal
    addr: Signal
    check: Signal
    bus_error: Signal

    def __init__(self, hw: HwConfig):
        super().__init__({"word": INSTRUCTION_BITS, "addr": hw.axi_addr_bits, "check": 16, "bus_error": 1})


class FetchedView(Record):
    word: Value
    addr: Value
    check: Value
    bus_error: Value


class Fetch(wiring.Component):
    """Fetches from ``base`` (a multiple of 64) after ``start``, until ``stop`` (level): then it drops everything.

    It never asks for more than its buffer holds, so it always takes its beats and cannot block the channel for others. It reads
    up to PREFETCH instructions beyond the last one used. ``busy``: beats are due. Fetch ends at the end of the address space.
    """

    start: Signal
    stop: Signal
    base: Signal
    o: Stream[FetchedView]
    ar: Stream[BurstView]
    r: Stream[ReadBeatView]
    busy: Signal

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "base": In(hw.axi_addr_bits),
                "o": Out(stream.Signature(Fetched(hw))),
                "ar": Out(stream.Signature(Burst(hw))),
                "r": In(stream.Signature(ReadBeat(hw))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        beats = INSTRUCTION_BYTES // hw.axi_bytes
        burst = min(beats, hw.burst_beats)
        capacity = PREFETCH * beats
        fifo = SyncFIFO(width=hw.axi_data_bits + 1, depth=capacity)
        m.submodules.beats = ResetInserter(self.stop)(fifo)
        asked, space, due = Signal(hw.axi_addr_bits + 1), Signal(range(capacity + 1)), Signal(range(capacity + 1))
        running, sent = Signal(), Signal()
        m.d.comb += [
            self.ar.valid.eq(running & (space >= burst) & ~asked[-1] & ~self.stop),
            sent.eq(self.ar.valid & self.ar.ready),
            self.ar.payload.addr.eq(asked),
            self.ar.payload.len.eq(burst - 1),
            self.r.ready.eq(1),
            self.busy.eq(due != 0),
            fifo.w_data.eq(Cat(self.r.payload.data, self.r.payload.error)),
            fifo.w_en.eq(self.r.valid & ~self.stop),
        ]
        m.d.sync += [
            space.eq(space - Mux(sent, burst, 0) + (fifo.r_en & fifo.r_rdy)),
            due.eq(due + sent - (self.r.valid & self.r.payload.last)),
        ]
        with m.If(sent):
            m.d.sync += asked.eq(asked + burst * hw.axi_bytes)
        with m.If(self.start):
            m.d.sync += [running.eq(1), asked.eq(self.base), space.eq(capacity)]
        with m.If(self.stop):
            m.d.sync += running.eq(0)
        self._assemble(m, fifo, beats)
        return m

    def _assemble(self, m: Module, fifo: SyncFIFO, beats: int) -> None:
        width = self.hw.axi_data_bits
        beat, error = fifo.r_data[:width], fifo.r_data[width]
        word, count, o = Signal(INSTRUCTION_BITS), Signal(range(beats + 1)), self.o.payload
        addr, check, bus_error = Signal(self.hw.axi_addr_bits), Signal(16), Signal()
        fold = 0
        for at in range(0, width, 16):
            fold = fold ^ beat[at : at + 16]
        complete = count == beats
        m.d.comb += [
            fifo.r_en.eq(~complete),
            self.o.valid.eq(complete & ~self.stop),
            o.word.eq(word),
            o.addr.eq(addr),
            o.check.eq(check),
            o.bus_error.eq(bus_error),
        ]
        with m.If(fifo.r_en & fifo.r_rdy):
            m.d.sync += [
                word.eq(Cat(word, beat)[width:]),
                count.eq(count + 1),
                check.eq(Mux(count == 0, 0, check) ^ fold),
                bus_error.eq(Mux(count == 0, 0, bus_error) | error),
            ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [count.eq(0), addr.eq(addr + INSTRUCTION_BYTES)]
        with m.If(self.stop):
            m.d.sync += count.eq(0)
        with m.If(self.start):
            m.d.sync += [count.eq(0), addr.eq(self.base)]
