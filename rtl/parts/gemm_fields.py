"""What the parts of the execute unit share: decoding of a GEMM, clamped addresses, the record of a drained column."""

from amaranth.hdl import C, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.utils import exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, Dest, Epilogue, Kind, Op
from ternbin.rtl.parts.arithmetic import fields_of
from ternbin.rtl.parts.interfaces import Record

POINTER = ADDR + 1  # an address whose top bit says that it has left the address space


def gemm_fields(instruction: Value) -> data.View:
    """The fields of a GEMM in a raw instruction."""
    return fields_of(instruction, Op.GEMM)


def clamp(value: Value) -> Value:
    """A POINTER: ``value``, or 2^ADDR for everything from there on, so that no address sum wraps to a valid address."""
    return Mux(value[ADDR:].any(), C(1 << ADDR, POINTER), value[:ADDR])


def address(pointer: Value) -> Value:
    """The address of a POINTER; the highest one where it has left the address space: the memory refuses it."""
    return pointer[:ADDR] | pointer[ADDR].replicate(ADDR)


class Place(Record):
    """See :func:`place_layout`."""

    addr: Value
    bank: Value
    place: Value
    first: Value
    last: Value
    first_tile: Value
    last_tile: Value


class PlacedValues(Record):
    """A value a row, and the place of the column."""

    values: data.View
    place: Place


class Column(Place):
    """See :func:`column_layout`."""

    values: data.View


def column_layout(hw: HwConfig) -> data.StructLayout:
    """A finished column on its way to the epilogue.

    ``values``: one accumulator a row. ``addr``: of the write. ``bank``: array column, or the bank of a key. ``place``: granule of
    the word, or the lane of a transposed code. ``first``, ``last``: column of its row tile; ``first_tile``, ``last_tile``: row tile.
    """
    return data.StructLayout(
        {
            "values": data.ArrayLayout(signed(hw.acc_bits), hw.rows),
            **place_layout(hw).members,
        }
    )


def place_layout(hw: HwConfig) -> data.StructLayout:
    """All of a column but its values."""
    return data.StructLayout(
        {
            "addr": ADDR,
            "bank": exact_log2(max(hw.rows, hw.cols)),
            "place": exact_log2(hw.lanes),
            "first": 1,
            "last": 1,
            "first_tile": 1,
            "last_tile": 1,
        }
    )


class Mode:
    """Decoded epilogue and destination of ``fields``; ``top`` is None without beams."""

    def __init__(self, fields: data.View, beams: int = 1):
        self.codes = fields.epilogue == Epilogue.CODES
        self.codes8 = fields.epilogue == Epilogue.CODES8
        self.residual = fields.epilogue == Epilogue.RESIDUAL
        self.scores = fields.epilogue == Epilogue.SCORES
        self.argmax = fields.epilogue == Epilogue.ARGMAX
        self.top = fields.epilogue == Epilogue.TOP if beams > 1 else None
        self.logits = self.argmax if self.top is None else self.argmax | self.top
        self.any_codes = self.codes | self.codes8
        self.scaled = self.codes8 | self.residual | self.logits
        self.tokens = self.any_codes & (fields.dest == Dest.TOKENS)
        self.keys = self.any_codes & (fields.dest == Dest.KEYS)
        self.transposed = self.any_codes & (fields.dest == Dest.TRANSPOSED)


def impossible(m: Module, hw: HwConfig, instruction: Value) -> Signal:
    """1 for a GEMM that this unit cannot run.

    Zero counts; plane counts other than 1 and 8; signed single planes; row sums of bit planes; tokens that do not end in the last
    column tile; an unknown epilogue or destination; a code kind that the epilogue or the array does not have; not 1 to 4 thresholds;
    a lane that is no multiple of rows; ARGMAX over several column tiles; TOP of more tokens than beams, or with a shift of 16 or
    more; residual rows that overlap.
    """
    f = gemm_fields(instruction)
    mode = Mode(f, hw.beams)
    opcode = instruction[:8]
    low = exact_log2(hw.cols)
    one_bit = (f.kind == Kind.BINARY) | ((f.kind == Kind.TERNARY) if hw.kind == "ternary" else 0)
    problems = [
        opcode != Op.GEMM,
        (f.chunks == 0) | (f.row_tiles == 0) | (f.col_tiles == 0) | (f.tokens == 0),
        (f.row_planes != 1) & (f.row_planes != 8),
        (f.col_planes != 1) & (f.col_planes != 8),
        (f.row_signed & (f.row_planes == 1)) | (f.col_signed & (f.col_planes == 1)),
        f.rowsum & ((f.row_planes != 1) | (f.col_planes != 1)),
        ((f.tokens - 1)[low:] + 1) != f.col_tiles,
        f.epilogue > (Epilogue.TOP if hw.beams > 1 else Epilogue.ARGMAX),
        mode.any_codes & (f.dest > max(Dest)),
        mode.any_codes & (f.lane[: exact_log2(hw.rows)] != 0),
        mode.codes & (~one_bit | (f.thresholds == 0) | (f.thresholds > 4)),
        mode.codes8 & (f.kind != Kind.INT8) & (f.kind != Kind.UINT8),
        mode.argmax & (f.col_tiles != 1),
        *([] if mode.top is None else [mode.top & ((f.tokens > hw.beams) | f.shift[4:].any())]),
        mode.residual & (f.tokens != 1) & (f.dst_stride < f.row_tiles),
    ]
    result = Signal(name="impossible")
    for problem in problems:
        with m.If(problem):
            m.d.comb += result.eq(1)
    return result
