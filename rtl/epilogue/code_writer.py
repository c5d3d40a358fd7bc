"""Writes of code columns: routing to tokens, keys or transposed codes; 8-bit codes as planes, with the table look-up."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS, Kind
from ternbin.contract.memories import TABLE_ENTRIES
from ternbin.rtl.parts.arithmetic import clip
from ternbin.rtl.parts.gemm_fields import POINTER, Mode, Place, PlacedValues, address, clamp, gemm_fields, place_layout
from ternbin.rtl.parts.interfaces import Stream, TransposedInterface, TransposedWritePort, WriteInterface, WritePort

BYTE_RANGE = 11  # bits that hold every 8-bit code and tell what is beyond


class CodeWriter(wiring.Component):
    """Routes one column of stored codes (``nz``, ``neg``: one bit a row) to the destination of the instruction.

    Combinational: ``ready`` is that of the port. On a binary array a code is its ``nz`` bit alone. ``mode`` (constructor): that of the
    instruction, if it is decoded.
    """

    instruction: Signal
    valid: Signal
    ready: Signal
    addr: Signal
    place: Place
    nz: Signal
    neg: Signal
    abuf_w: WriteInterface
    kbuf_w: WriteInterface
    kbuf_t: TransposedInterface

    def __init__(self, hw: HwConfig, mode: Mode | None = None):
        self._hw, self._mode = hw, mode
        super().__init__(
            {
                "instruction": In(INSTRUCTION_BITS),
                "valid": In(1),
                "ready": Out(1),
                "addr": In(POINTER - 1),
                "place": In(place_layout(hw)),
                "nz": In(hw.rows),
                "neg": In(hw.rows),
                "abuf_w": Out(WritePort(hw.cols, hw.code_word_bits, hw.lanes)),
                "kbuf_w": Out(WritePort(hw.rows, hw.code_word_bits, hw.lanes)),
                "kbuf_t": Out(TransposedWritePort(hw.rows, hw.planes, hw.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw, mode = self._hw, self._mode or Mode(gemm_fields(self.instruction))
        planes = [self.nz, self.neg][: hw.planes]
        granules = hw.lanes // hw.rows
        granule, at_zero = Signal(exact_log2(granules)), Signal()
        word, lane_mask = Signal(hw.code_word_bits), Signal(hw.lanes)
        # The codes stand in every granule and the mask picks one; a write at lane 0 also clears the others.
        keep = (~at_zero).replicate(hw.rows)
        m.d.comb += [
            granule.eq(self.place.place),
            at_zero.eq(granule == 0),
            word.eq(Cat(Cat(plane, Cat(plane & keep for _ in range(granules - 1))) for plane in planes)),
            lane_mask.eq(Cat((at_zero | (granule == g)).replicate(hw.rows) for g in range(granules))),
        ]
        for port in (self.abuf_w, self.kbuf_w):
            m.d.comb += [port.addr.eq(self.addr), port.data.eq(word), port.lane_mask.eq(lane_mask)]
        m.d.comb += [
            self.abuf_w.valid.eq(self.valid & mode.tokens),
            self.abuf_w.mask.eq(1 << self.place.bank),
            self.kbuf_w.valid.eq(self.valid & mode.keys),
            self.kbuf_w.mask.eq(1 << self.place.bank),
            self.kbuf_t.valid.eq(self.valid & mode.transposed),
            self.kbuf_t.addr.eq(self.addr),
            self.kbuf_t.mask.eq(~C(0, hw.rows)),
            self.kbuf_t.lane.eq(self.place.place),
            self.kbuf_t.codes.eq(Cat(planes)),
            self.ready.eq(Mux(mode.tokens, self.abuf_w.ready, Mux(mode.keys, self.kbuf_w.ready, self.kbuf_t.ready))),
        ]
        return m


class Table(wiring.Component):
    """LUTX: 256 bytes, ``reads`` combinational look-ups; written by beats of 16-bit entries whose low bytes it keeps."""

    w: WriteInterface
    index: data.View
    value: data.View

    def __init__(self, hw: HwConfig, reads: int):
        self._per_beat, self._reads = hw.axi_data_bits // 16, reads
        super().__init__(
            {
                "w": In(WritePort(1, hw.axi_data_bits, 1)),
                "index": In(data.ArrayLayout(8, reads)),
                "value": Out(data.ArrayLayout(8, reads)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=TABLE_ENTRIES, init=[])
        m.d.comb += self.w.ready.eq(1)
        for e in range(self._per_beat):
            write = memory.write_port()
            m.d.comb += [
                write.addr.eq(Cat(C(e, exact_log2(self._per_beat)), self.w.addr)),
                write.data.eq(self.w.data.word_select(e, 16)[:8]),
                write.en.eq(self.w.valid & (self.w.addr < TABLE_ENTRIES // self._per_beat)),
            ]
        for i in range(self._reads):
            read = memory.read_port(domain="comb")
            m.d.comb += [read.addr.eq(self.index[i]), self.value[i].eq(read.data)]
        return m


def scaled_layout(hw: HwConfig) -> data.StructLayout:
    """A scaled column: one value a row, saturated to BYTE_RANGE bits, and its place."""
    return data.StructLayout({"values": data.ArrayLayout(signed(BYTE_RANGE), hw.rows), "place": place_layout(hw)})


class ByteWriter(wiring.Component):
    """Scaled columns to 8-bit codes: clip, table look-up (a few rows a cycle), eight plane writes through a code writer.

    ``fpga`` (constructor): then the signals ``refused`` and ``taken`` say what ``i.ready`` is if a write is that.
    """

    instruction: Signal
    i: Stream[PlacedValues]
    lutx_w: WriteInterface
    busy: Signal
    finished: Signal
    valid: Signal
    ready: Signal
    addr: Signal
    place: Place
    bits: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        self.refused = Signal()
        self.taken = Signal()
        super().__init__(
            {
                "instruction": In(INSTRUCTION_BITS),
                "i": In(stream.Signature(scaled_layout(hw))),
                "lutx_w": In(WritePort(1, hw.axi_data_bits, 1)),
                "busy": Out(1),
                "finished": Out(1),
                "valid": Out(1),
                "ready": In(1),
                "addr": Out(POINTER - 1),
                "place": Out(place_layout(hw)),
                "bits": Out(hw.rows),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, f = self._hw.rows, gemm_fields(self.instruction)
        reads = max(1, rows // 8)
        m.submodules.table = table = Table(self._hw, reads)
        wiring.connect(m, wiring.flipped(self.lutx_w), table.w)
        looking, left, indices = Signal(), Signal(range(rows // reads + 1)), Signal(8 * rows, reset_less=True)
        place = Signal(place_layout(self._hw), reset_less=True)
        writing, plane, pointer = Signal(), Signal(3), Signal(POINTER)
        codes = Signal(8 * rows, reset_less=True)
        write_free, found = Signal(), Signal()
        m.d.comb += [
            table.index.eq(indices[: 8 * reads]),
            self.finished.eq(writing & self.ready & (plane == 7)),
            write_free.eq(~writing | self.finished),
            found.eq(looking & (left == 0)),
            self.i.ready.eq(~looking | (found & write_free)),
            self.busy.eq(looking | writing),
            self.valid.eq(writing),
            self.addr.eq(address(pointer)),
            self.bits.eq(Cat(codes.word_select(r, 8)[0] for r in range(rows))),
        ]
        if self._fpga:
            m.d.comb += [
                self.refused.eq(~looking | (found & ~writing)),
                self.taken.eq(~looking | (found & (~writing | (plane == 7)))),
            ]
        with m.If(self.i.ready):
            m.d.sync += looking.eq(self.i.valid)
            with m.If(self.i.valid):
                m.d.sync += [
                    left.eq(Mux(f.lut, rows // reads, 0)),
                    place.eq(self.i.payload.place),
                    indices.eq(Cat(self._code(value, f) for value in self.i.payload.values)),
                ]
        with m.Elif(looking & ~found):  # the looked-up bytes come in at the top: after a full turn all are in place
            m.d.sync += [indices.eq(Cat(indices[8 * reads :], table.value)), left.eq(left - 1)]
        with m.If(write_free):
            m.d.sync += writing.eq(found)
            with m.If(found):
                m.d.sync += [codes.eq(indices), pointer.eq(place.addr), self.place.eq(place), plane.eq(0)]
        with m.Elif(self.ready):
            m.d.sync += [codes.eq(codes >> 1), pointer.eq(clamp(pointer + f.dst_plane)), plane.eq(plane + 1)]
        return m

    def _code(self, value: Value, f: data.View) -> Value:
        """The byte of a scaled value: the code, or the index into the table."""
        signed_code = clip(value, -127, 127)[:8]
        index = clip(value, -128, 127)[:8] ^ 0x80
        return Mux(f.lut, index, Mux(f.kind == Kind.UINT8, clip(value, 0, 255)[:8], signed_code))
