"""What the parts of the execute unit share: decoding of a GEMM, clamped addresses, the record of a drained column."""

from copy import copy

from amaranth.hdl import C, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.utils import exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, Dest, Epilogue, Op
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

    def kept(self, m: Module, load: Value) -> "Mode":
        """What it is in a cycle with ``load``, from the next one on: registers."""
        result = copy(self)
        for name, value in vars(self).items():
            if value is not None:
                register = Signal(name=f"mode_{name}", reset_less=True)
                with m.If(load):
                    m.d.sync += register.eq(value)
                setattr(result, name, register)
        return result
