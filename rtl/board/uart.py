"""A serial line: 8 bits, no parity, one stop bit."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.rtl.parts.interfaces import Stream

BITS = 10  # of a byte on the line: start, eight of data lowest first, stop


class Receiver(wiring.Component):
    """Bytes of ``line``, ``divisor`` cycles a bit (at least 4). ``o`` must be taken before the next byte has come: a line cannot wait."""

    line: Signal
    o: Stream[Value]

    def __init__(self, divisor: int):
        self._divisor = divisor
        super().__init__({"line": In(1), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        early, now = Signal(init=1), Signal(init=1)  # the line has no clock
        wait, left, bits = Signal(range(2 * self._divisor)), Signal(range(BITS)), Signal(8)
        m.d.sync += [early.eq(self.line), now.eq(early)]
        m.d.comb += self.o.payload.eq(bits)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(left == 0):
            with m.If(~now):  # the middle of the first bit is half a bit of start and one of data away
                m.d.sync += [left.eq(BITS - 1), wait.eq(self._divisor + self._divisor // 2 - 1)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Else():
            m.d.sync += [left.eq(left - 1), wait.eq(self._divisor - 1)]
            with m.If(left == 1):
                m.d.sync += self.o.valid.eq(now)  # without a stop bit it was no byte
            with m.Else():
                m.d.sync += bits.eq(Cat(bits[1:], now))
        return m


class Sender(wiring.Component):
    """Bytes to ``line``, ``divisor`` cycles a bit."""

    line: Signal
    i: Stream[Value]

    def __init__(self, divisor: int):
        self._divisor = divisor
        super().__init__({"line": Out(1), "i": In(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        wait, left, bits = Signal(range(self._divisor)), Signal(range(BITS + 1)), Signal(BITS)
        m.d.comb += [self.i.ready.eq(left == 0), self.line.eq(Mux(left == 0, 1, bits[0]))]
        with m.If(left == 0):
            with m.If(self.i.valid):
                m.d.sync += [bits.eq(Cat(0, self.i.payload, 1)), left.eq(BITS), wait.eq(self._divisor - 1)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Else():
            m.d.sync += [bits.eq(bits >> 1), left.eq(left - 1), wait.eq(self._divisor - 1)]
        return m
