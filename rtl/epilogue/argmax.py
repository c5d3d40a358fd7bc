"""Running arg-max of logits, one best (id, logit) for each array column."""

from collections.abc import Sequence
from typing import cast

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS
from ternbin.contract.memories import ID_BITS, ID_WORD_BITS, LOGIT_BITS
from ternbin.rtl.parts.gemm_fields import Place, PlacedValues, gemm_fields, place_layout
from ternbin.rtl.parts.interfaces import Stream, WriteInterface, WritePort

LEVELS = 2  # of the reduction tree between registers


def logits_layout(hw: HwConfig, bits: int) -> data.StructLayout:
    return data.StructLayout({"values": data.ArrayLayout(signed(bits), hw.rows), "place": place_layout(hw)})


class LogitUnit(wiring.Component):
    """Ports of what keeps the best logits: columns of ``rows`` logits of ``bits`` in, words of IDBUF out."""

    instruction: Signal
    start: Signal
    i: Stream[PlacedValues]
    idbuf_w: WriteInterface
    busy: Signal

    def __init__(self, hw: HwConfig, bits: int):
        self._hw, self._bits = hw, bits
        super().__init__(
            {
                "instruction": In(INSTRUCTION_BITS),
                "start": In(1),
                "i": In(stream.Signature(logits_layout(hw, bits))),
                "idbuf_w": Out(WritePort(1, ID_WORD_BITS, 1)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        raise NotImplementedError


class ArgMax(LogitUnit):
    """Columns of ``rows`` logits in; the best of each array column, lowest id on ties, is kept from instruction to instruction.

    The id of row r in row tile rt is ``index + rt*rows + r``. The ``first`` flag of the instruction forgets what was kept, ``last``
    writes the columns' bests, with the columns of the last row tile.
    """

    def elaborate(self, platform):
        m = Module()
        f = gemm_fields(self.instruction)
        move = Signal()
        m.d.comb += [move.eq(~self.idbuf_w.valid | self.idbuf_w.ready), self.i.ready.eq(move)]
        valid, logit, row, place = self._reduce(m, move)

        base, ident = Signal(ID_BITS), Signal(ID_BITS)
        better, first = Signal(), Signal()
        kept_logit, kept_id = Signal(signed(self._bits)), Signal(ID_BITS)
        best_logit, best_id = Signal(signed(self._bits)), Signal(ID_BITS)
        m.d.comb += [
            ident.eq(base + row),
            first.eq(f.first & place.first_tile),
            better.eq(first | (logit > kept_logit) | ((logit == kept_logit) & (ident < kept_id))),
            best_logit.eq(Mux(better, logit, kept_logit)),
            best_id.eq(Mux(better, ident, kept_id)),
        ]
        for c in range(self._hw.cols):
            column_logit = Signal(signed(self._bits), name=f"logit{c}")
            column_id = Signal(ID_BITS, name=f"id{c}")
            with m.If(place.bank == c):
                m.d.comb += [kept_logit.eq(column_logit), kept_id.eq(column_id)]
                with m.If(valid & move):
                    m.d.sync += [column_logit.eq(best_logit), column_id.eq(best_id)]
        with m.If(self.start):
            m.d.sync += base.eq(f.index)
        with m.Elif(valid & move & place.last):
            m.d.sync += base.eq(base + self._hw.rows)
        with m.If(move):
            m.d.sync += self.idbuf_w.valid.eq(valid & place.last_tile & f.last)
            with m.If(valid):
                wide = Signal(signed(LOGIT_BITS))
                m.d.comb += wide.eq(best_logit)
                m.d.sync += [self.idbuf_w.data.eq(Cat(best_id, wide)), self.idbuf_w.addr.eq(place.addr)]
        m.d.comb += [self.idbuf_w.mask.eq(1), self.idbuf_w.lane_mask.eq(1)]
        return m

    def _reduce(self, m: Module, move: Value) -> tuple[Value, Value, Value | int, Place]:
        """Tree over the rows, the lower row on ties, with a register behind every LEVELS levels."""
        valid, place = self.i.valid, self.i.payload.place
        best = [(self.i.payload.values[r], r) for r in range(self._hw.rows)]
        stages = []
        while len(best) > 1:
            for _ in range(LEVELS):
                if len(best) > 1:
                    best = [self._better(m, low, high) for low, high in zip(best[::2], best[1::2], strict=True)]
            valid, place, best = self._register(m, move, valid, place, best)
            stages.append(valid)
        m.d.comb += self.busy.eq(Cat(stages).any() | self.idbuf_w.valid)
        logit, row = best[0]
        return valid, logit, row, place

    def _better(
        self, m: Module, low: tuple[Value, Value | int], high: tuple[Value, Value | int]
    ) -> tuple[Signal, Signal]:
        upper, logit, row = Signal(), Signal(signed(self._bits)), Signal(range(self._hw.rows))
        m.d.comb += [
            upper.eq(high[0] > low[0]),
            logit.eq(Mux(upper, high[0], low[0])),
            row.eq(Mux(upper, high[1], low[1])),
        ]
        return logit, row

    def _register(
        self, m: Module, move: Value, valid: Value, place: Place, best: Sequence[tuple[Value, Value | int]]
    ) -> tuple[Signal, Place, list[tuple[Signal, Signal]]]:
        later_valid, later_place = Signal(), Signal(place_layout(self._hw), reset_less=True)
        later = [
            (Signal(signed(self._bits), reset_less=True), Signal(range(self._hw.rows), reset_less=True)) for _ in best
        ]
        with m.If(move):
            m.d.sync += later_valid.eq(valid)
            with m.If(valid):
                m.d.sync += later_place.eq(place)
                m.d.sync += [
                    register.eq(value)
                    for pair, new in zip(later, best, strict=True)
                    for register, value in zip(pair, new, strict=True)
                ]
        return later_valid, cast(Place, later_place), later
