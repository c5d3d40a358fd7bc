"""Parameters of the epilogue: one row tile in use, the next one fetched meanwhile."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS
from ternbin.contract.memories import PARAM_BITS
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.rtl.parts.gemm_fields import POINTER, Mode, address, clamp, gemm_fields
from ternbin.rtl.parts.interfaces import ReadInterface, ReadPort


class Parameters(wiring.Component):
    """``o[r]``: the 16-bit parameters 0..3 of row r, first one lowest, while ``valid``; unused ones are undefined.

    ``release``: pulse with the last column of a row tile; the next tile's parameters follow, if they were read, in the next cycle.
    With ``param_stride`` 0 all row tiles share one set, read once. ``mode`` (constructor): that of the instruction, if it is decoded.
    """

    instruction: Signal
    start: Signal
    release: Signal
    pbuf: ReadInterface
    valid: Signal
    o: data.View

    def __init__(self, hw: HwConfig, mode: Mode | None = None):
        self._hw, self._mode = hw, mode
        super().__init__(
            {
                "instruction": In(INSTRUCTION_BITS),
                "start": In(1),
                "release": In(1),
                "pbuf": Out(ReadPort(1, hw.param_word_bits)),
                "valid": Out(1),
                "o": Out(data.ArrayLayout(PARAM_BITS * SCALE_WORDS, hw.rows)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        f, mode = gemm_fields(self.instruction), self._mode or Mode(gemm_fields(self.instruction), self._hw.beams)
        words, shared = Signal(3), Signal()
        reading, taken, word, pointer, tiles = Signal(), Signal(), Signal(2), Signal(POINTER), Signal(16)
        arrives, arriving, staged, active = Signal(), Signal(2), Signal(), Signal()
        last_word, copy = Signal(), Signal()
        staging = [Signal(self._hw.param_word_bits, name=f"staging{j}", reset_less=True) for j in range(SCALE_WORDS)]
        values = Signal(PARAM_BITS * SCALE_WORDS * self._hw.rows, name="values", reset_less=True)
        m.d.comb += [
            words.eq(Mux(mode.codes, f.thresholds, Mux(mode.scaled, SCALE_WORDS, 0))),
            shared.eq(f.param_stride == 0),
            last_word.eq(word == words - 1),
            taken.eq(reading & self.pbuf.ready),
            self.pbuf.valid.eq(reading),
            self.pbuf.mask.eq(1),
            self.pbuf.addr.eq(address(clamp(pointer + word))),
            copy.eq(staged & (~active | (self.release & ~shared))),
            self.valid.eq(active | (words == 0)),
            self.o.eq(values),
        ]
        m.d.sync += [arrives.eq(taken), arriving.eq(word)]
        for j, register in enumerate(staging):
            with m.If(arrives & (arriving == j)):
                m.d.sync += register.eq(self.pbuf.data[0])
        with m.If(arrives & (arriving == words - 1)):
            m.d.sync += staged.eq(1)
        with m.If(taken):
            m.d.sync += [word.eq(word + 1), reading.eq(~last_word)]
        with m.If(copy):
            m.d.sync += [active.eq(1), staged.eq(0), tiles.eq(tiles - 1), word.eq(0)]
            m.d.sync += [pointer.eq(clamp(pointer + f.param_stride)), reading.eq((tiles != 1) & ~shared)]
            m.d.sync += values.eq(
                Cat(register.word_select(r, PARAM_BITS) for r in range(self._hw.rows) for register in staging)
            )
        with m.Elif(self.release & ~shared):
            m.d.sync += active.eq(0)
        with m.If(self.start):
            m.d.sync += [
                reading.eq(words != 0),
                word.eq(0),
                pointer.eq(f.param_addr),
                tiles.eq(f.row_tiles),
                staged.eq(0),
                active.eq(0),
            ]
        return m
