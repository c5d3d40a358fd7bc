"""Drain side of the execute unit: capture of finished tiles; one column a cycle to the epilogue, or a tile of scores to SBUF."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.counters import DRAIN_EVENTS
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS
from ternbin.rtl.parts.arithmetic import registered
from ternbin.rtl.parts.gemm_fields import POINTER, Column, Mode, address, clamp, column_layout, gemm_fields
from ternbin.rtl.parts.interfaces import Stream, WriteInterface, WritePort, events_signature


class Skid(wiring.Component):
    """Two-entry buffer; ``i.ready`` comes from a register, and so does everything of ``o``."""

    i: Stream[Column]
    o: Stream[Column]

    def __init__(self, shape: data.Layout):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        spare, full = Signal.like(self.i.payload, reset_less=True), Signal()
        m.d.comb += self.i.ready.eq(~full)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [self.o.valid.eq(full | self.i.valid), full.eq(0)]
            with m.If(full):
                m.d.sync += self.o.payload.eq(spare)
            with m.Elif(self.i.valid):
                m.d.sync += self.o.payload.eq(self.i.payload)
        with m.Elif(self.i.valid & ~full):
            m.d.sync += [spare.eq(self.i.payload), full.eq(1)]
        return m


class Drain(wiring.Component):
    """Takes tiles in the order in which the sequencer finishes them; offers their valid columns on ``o``, or writes them as scores.

    ``finish`` with ``finish_cols``: the accumulators hold a finished tile from the next cycle on; ``capture`` then copies it to the
    result registers as soon as these are drained. ``tile`` shows these; ``column`` selects what ``values`` shows, in the same cycle.
    ``tile_free`` pulses with the last column of a tile, of scores never: they are written at once, for SBUF is always ready. All
    outputs depend on registers only. Tiles of the next instruction may be finished before its ``start``; ``busy`` from there to the
    last column. ``fpga`` (constructor): the signal ``following`` has the instruction in the cycle before ``start``, for the product of
    key and stride. ``mode`` (constructor): that of the instruction, if it is decoded.
    """

    instruction: Signal
    start: Signal
    finish: Signal
    finish_cols: Signal
    capture: Signal
    capture_cols: Signal
    column: Signal
    values: data.View
    tile: Signal
    tile_free: Signal
    busy: Signal
    o: Stream[Column]
    sbuf_w: WriteInterface
    ev_drained_scores: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False, mode: Mode | None = None):
        self._hw, self._fpga, self._mode = hw, fpga, mode
        self.following = Signal(INSTRUCTION_BITS)
        super().__init__(
            {
                "instruction": In(INSTRUCTION_BITS),
                "start": In(1),
                "finish": In(1),
                "finish_cols": In(hw.cols),
                "capture": Out(1),
                "capture_cols": Out(hw.cols),
                "column": Out(range(hw.cols)),
                "values": In(data.ArrayLayout(signed(hw.acc_bits), hw.rows)),
                "tile": In(hw.score_word_bits * hw.cols),
                "tile_free": Out(1),
                "busy": Out(1),
                "o": Out(stream.Signature(column_layout(hw))),
                "sbuf_w": Out(WritePort(hw.cols, hw.score_word_bits * hw.cols, 1)),
                **events_signature(DRAIN_EVENTS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        f = gemm_fields(self.instruction)
        m.submodules.skid = skid = Skid(column_layout(self._hw))
        scores, taken, push = (self._mode or Mode(f)).scores, Signal(), Signal()
        finished, captured = Signal(), Signal()
        last_column, released, last_tile, row_tile = Signal(), Signal(), Signal(), Signal(16)
        col_tile = Signal(10)
        last_col_tile = Signal()
        low = exact_log2(self._hw.cols)
        last_of_tile = Signal(low)
        m.d.comb += [
            last_col_tile.eq(col_tile == f.col_tiles - 1),
            last_tile.eq(row_tile == f.row_tiles - 1),
            last_of_tile.eq(Mux(last_col_tile, (f.tokens - 1)[:low], self._hw.cols - 1)),
            last_column.eq(scores | (self.column == last_of_tile)),
            taken.eq(captured & self.busy),
            push.eq(taken & (scores | skid.i.ready)),
            released.eq(push & last_column),
            self.tile_free.eq(released & ~scores),
            self.capture.eq(finished & (~captured | released)),
            self.sbuf_w.valid.eq(taken & scores),
            self.sbuf_w.addr.eq(skid.i.payload.addr),
            self.sbuf_w.data.eq(self.tile),
            self.sbuf_w.mask.eq(Cat(c <= last_of_tile for c in range(self._hw.cols))),
            self.sbuf_w.lane_mask.eq(1),
            self.ev_drained_scores.eq(Mux(push & scores, last_of_tile + 1, 0)),
            skid.i.valid.eq(taken & ~scores),
            skid.i.payload.values.eq(self.values),
            skid.i.payload.first.eq((col_tile == 0) & (self.column == 0)),
            skid.i.payload.last.eq(last_col_tile & last_column),
            skid.i.payload.first_tile.eq(row_tile == 0),
            skid.i.payload.last_tile.eq(last_tile),
            self.o.valid.eq(skid.o.valid),
            self.o.payload.eq(skid.o.payload),
            skid.o.ready.eq(self.o.ready),
        ]
        m.d.sync += [
            finished.eq(self.finish | (finished & ~self.capture)),
            captured.eq(self.capture | (captured & ~released)),
        ]
        with m.If(self.finish):
            m.d.sync += self.capture_cols.eq(self.finish_cols)
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), row_tile.eq(0), col_tile.eq(0), self.column.eq(0)]
        with m.Elif(push):
            m.d.sync += self.column.eq(Mux(last_column, 0, self.column + 1))
            with m.If(last_column):
                m.d.sync += col_tile.eq(Mux(last_col_tile, 0, col_tile + 1))
                with m.If(last_col_tile):
                    m.d.sync += [row_tile.eq(row_tile + 1), self.busy.eq(~last_tile)]
        self._places(m, f, skid.i.payload, push, last_column, last_column & last_col_tile)
        return m

    def _places(self, m: Module, f: data.View, place: Column, push: Value, tile_ends: Value, row_ends: Value) -> None:
        """Address, bank and place in the word of the column; see "Codes go to `dest`" in docs/instruction-set.md."""
        hw, mode = self._hw, self._mode or Mode(f)
        row_bits, lane_bits = exact_log2(hw.rows), exact_log2(hw.lanes)
        granule_bits = lane_bits - row_bits
        row_pointer, pointer = Signal(POINTER), Signal(POINTER)  # of the row tile's first column; of this column
        key, granule = Signal(lane_bits), Signal(granule_bits)
        word_ends = granule.all() if granule_bits else C(1, 1)
        begin, row_step, step = Signal(POINTER), Signal(16), Signal(16)
        keys = f.key[row_bits:] * f.dst_stride
        if self._fpga:
            after = gemm_fields(self.following)
            keys = registered(m, after.key[row_bits:] * after.dst_stride, "keys")
        with m.If(mode.tokens):
            m.d.comb += [begin.eq(clamp(f.dst_addr + f.lane[lane_bits:])), row_step.eq(word_ends)]
            m.d.comb += step.eq(Mux(tile_ends, f.dst_stride, 0))
        with m.Elif(mode.keys):
            m.d.comb += begin.eq(clamp(f.dst_addr + keys + f.lane[lane_bits:]))
            m.d.comb += [row_step.eq(word_ends), step.eq(Mux(key[:row_bits].all(), f.dst_stride, 0))]
        with m.Elif(mode.transposed):
            m.d.comb += [begin.eq(clamp(f.dst_addr + f.key[lane_bits:])), row_step.eq(f.dst_stride), step.eq(key.all())]
        with m.Elif(mode.argmax):
            m.d.comb += [begin.eq(f.dst_addr), row_step.eq(0), step.eq(1)]
        with m.Else():
            m.d.comb += [begin.eq(f.dst_addr), row_step.eq(1), step.eq(f.dst_stride)]
        next_row = Signal(POINTER)
        m.d.comb += [
            next_row.eq(clamp(row_pointer + row_step)),
            place.addr.eq(address(pointer)),
            place.bank.eq(Mux(mode.keys, key[:row_bits], self.column)),
            place.place.eq(Mux(mode.transposed, key, granule)),
        ]
        with m.If(self.start):
            m.d.sync += [
                row_pointer.eq(begin),
                pointer.eq(begin),
                key.eq(f.key),
                granule.eq(f.lane[row_bits:lane_bits]),
            ]
        with m.Elif(push & row_ends):
            m.d.sync += [row_pointer.eq(next_row), pointer.eq(next_row), key.eq(f.key), granule.eq(granule + 1)]
        with m.Elif(push):
            m.d.sync += [pointer.eq(clamp(pointer + step)), key.eq(key + 1)]
