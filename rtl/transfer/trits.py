"""Weights packed as 5 trits in 8 bits: bus beats to words of WBUF."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.rtl.parts.interfaces import Stream

TRITS = 5  # of a byte


def digits(m: Module, byte: Value) -> list[Value]:
    """The trits 0, 1, 2 of a byte, lowest first; 243..255 give what 242 gives: five times 2."""
    result, rest = [], byte
    for place in reversed(range(TRITS)):
        digit, left = Signal(2), Signal(7)
        high, low = rest >= 2 * 3**place, rest >= 3**place
        m.d.comb += [
            digit.eq(Cat(low & ~high, high)),
            left.eq(rest - Mux(high, 2 * 3**place, Mux(low, 3**place, 0))),
        ]
        result.insert(0, digit)
        rest = left
    return result


class Unpack(wiring.Component):
    """Beats of packed trits to words for ``hw.load_words`` banks of WBUF, at a beat a cycle.

    The trits of a beat are axi_data_bits / 8 times 5, those of a word ``units`` times axi_data_bits / 8. ``drop`` with the transfer
    of a word: what is left of its last beat belongs to no word. ``last`` with it: the next beat must not be taken yet.
    """

    i: Stream[Value]
    o: Stream[Value]
    drop: Signal
    last: Signal

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__(
            {
                "i": In(stream.Signature(hw.axi_data_bits)),
                "o": Out(stream.Signature(hw.code_word_bits * hw.load_words)),
                "drop": In(1),
                "last": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        unit = hw.axi_bytes  # trits
        units = hw.load_words * hw.lanes // unit
        level, kept_level, taken = Signal(range(units + TRITS)), Signal(range(units + TRITS)), Signal()
        codes = [digit for byte in range(hw.axi_bytes) for digit in digits(m, self.i.payload.word_select(byte, 8))]
        m.d.comb += [
            self.o.valid.eq(level >= units),
            taken.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(~self.o.valid | (taken & ~self.last)),
            kept_level.eq(Mux(taken, Mux(self.drop, 0, level - units), level)),
        ]
        m.d.sync += level.eq(kept_level + Mux(self.i.valid & self.i.ready, TRITS, 0))
        planes = []
        for name, beat in (("nz", Cat(~code[0] for code in codes)), ("neg", Cat(~code.any() for code in codes))):
            held, kept = (
                Signal((units + TRITS - 1) * unit, name=name),
                Signal((units + TRITS - 1) * unit, name=f"kept_{name}"),
            )
            m.d.comb += kept.eq(Mux(taken, held[units * unit :], held))
            with m.Switch(kept_level):
                for at in range(units):
                    with m.Case(at):
                        m.d.comb += kept[at * unit : (at + TRITS) * unit].eq(beat)
            m.d.sync += held.eq(kept)
            planes.append(held)
        m.d.comb += self.o.payload.eq(
            Cat(plane.word_select(word, hw.lanes) for word in range(hw.load_words) for plane in planes)
        )
        return m
