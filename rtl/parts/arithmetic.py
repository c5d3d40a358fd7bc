"""Building blocks of the vector unit: address walks, buffered reads, lane arithmetic."""

from collections.abc import Callable, Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.isa import ADDR, FIELDS, HEADER, STRIDE, Op
from ternbin.rtl.parts.interfaces import ReadInterface, ReadPort, Record, Stream

COUNT = 15  # bits of a loop count: tokens, or four times the words of a row
WIDE = ADDR + 10  # bits in which no address sum overflows: base + 4095 strides + a loop count


def instruction_fields(op: Op) -> data.StructLayout:
    """The fields of ``op`` behind the header, as they lie in an instruction."""
    return data.StructLayout({name: signed(-width) if width < 0 else unsigned(width) for name, width in FIELDS[op]})


def fields_of(instruction: Value, op: Op) -> data.View:
    """View of the raw ``instruction`` as the fields of ``op``."""
    layout = instruction_fields(op)
    low = sum(width for _, width in HEADER)
    return data.View(layout, instruction[low : low + layout.size])


def split_lanes(word: Value, lanes: int, bits: int) -> list[Value]:
    """The low ``bits`` of each of ``lanes`` equal elements of ``word``, signed."""
    pitch = len(word) // lanes
    return [word[e * pitch : e * pitch + bits].as_signed() for e in range(lanes)]


def registered(m: Module, value: Value, name: str) -> Signal:
    """``value`` (unsigned) a cycle later: a register ``name``."""
    result = Signal(len(value), name=name)
    m.d.sync += result.eq(value)
    return result


def round_shift(value: Value, shift: Value | int) -> Value:
    """``rshift`` of the numerics rules, exact for every shift: one bit more is kept, then rounded away."""
    return (((value << 1) >> shift) + 1) >> 1


def clip(value: Value, low: int, high: int) -> Value:
    """``value`` clipped to ``[low, high]``, in the shape that holds both."""
    shape = Shape.cast(range(low, high + 1))
    return Mux(value > high, Const(high, shape), Mux(value < low, Const(low, shape), value))


def outside(value: Value, low: int, high: int) -> Value:
    """Whether :func:`clip` changes ``value``."""
    return (value > high) | (value < low)


def clipped_shift(value: Value, shift: Value, low: int, high: int) -> tuple[Value, Value]:
    """:func:`clip` of :func:`round_shift`, and whether that changes it: found beside the rounding, not behind it."""
    shape = Shape.cast(range(low, high + 1))
    fine = (value << 1) >> shift  # a bit more than the result has
    over, under = fine > 2 * high, fine < 2 * low - 1
    rounded = (fine[: shape.width + 1] + 1)[1 : shape.width + 1].as_signed()
    return Mux(over, Const(high, shape), Mux(under, Const(low, shape), rounded)), over | under


def residual_range(bits: int) -> tuple[int, int]:
    return -(1 << bits - 1), (1 << bits - 1) - 1


def tree(op: Callable[[Value, Value], Value], values: Sequence[Value]) -> Value:
    """Balanced reduction of ``values`` by the two-operand ``op``."""
    while len(values) > 1:
        values = [op(values[i], values[i + 1]) if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
    return values[0]


def add_tree(values: Sequence[Value]) -> Value:
    return tree(lambda a, b: a + b, values)


def clip_address(value: Value) -> Value:
    """``value`` in ADDR bits; one that does not fit becomes the highest address, so that the memory refuses it."""
    top = (1 << ADDR) - 1
    return Mux(value > top, Const(top, ADDR), value[:ADDR])


class WalkItem(Record):
    addr: Value
    mask: Value
    sub: Value
    keep: Value
    row_last: Value
    last: Value


class Walk(wiring.Component):
    """Addresses of a two-dimensional region: for t < outer, for w < inner.

    Step (t, w) is sub-word ``w % sub`` of word ``base + (t // banks)*stride + w // sub`` in bank ``t % banks``. ``keep`` marks the
    elements of the step (``elements`` of them) that lie below ``features``. ``start`` (one cycle, when idle) begins a walk; the
    inputs must then stay; ``outer`` and ``inner`` are at least 1.
    """

    start: Signal
    base: Signal
    stride: Signal
    outer: Signal
    inner: Signal
    features: Signal
    o: Stream[WalkItem]

    def __init__(self, *, banks: int = 1, sub: int = 1, elements: int = 1):
        self.banks, self.sub, self.elements = banks, sub, elements
        super().__init__(
            {
                "start": In(1),
                "base": In(ADDR),
                "stride": In(STRIDE),
                "outer": In(COUNT),
                "inner": In(COUNT),
                "features": In(20),
                "o": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "addr": ADDR,
                                "mask": banks,
                                "sub": exact_log2(sub),
                                "keep": elements,
                                "row_last": 1,
                                "last": 1,
                            }
                        )
                    )
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        addr, row = Signal(WIDE), Signal(WIDE)
        mask = Signal(self.banks)
        outer_left, inner_left = Signal(COUNT), Signal(COUNT)
        sub = Signal(exact_log2(self.sub))
        left = Signal(21)
        item = self.o.payload
        next_row = Signal(WIDE)
        m.d.comb += [
            item.addr.eq(clip_address(addr)),
            item.mask.eq(mask),
            item.sub.eq(sub),
            item.keep.eq(Cat(left > e for e in range(self.elements))),
            item.row_last.eq(inner_left == 1),
            item.last.eq(item.row_last & (outer_left == 1)),
            next_row.eq(row + Mux(mask[-1], self.stride, 0)),
        ]
        with m.If(self.o.valid & self.o.ready):
            with m.If(item.row_last):
                m.d.sync += [
                    addr.eq(next_row),
                    row.eq(next_row),
                    mask.eq(mask.rotate_left(1)),
                    sub.eq(0),
                    inner_left.eq(self.inner),
                    outer_left.eq(outer_left - 1),
                    left.eq(self.features),
                    self.o.valid.eq(~item.last),
                ]
            with m.Else():
                m.d.sync += [
                    inner_left.eq(inner_left - 1),
                    sub.eq(sub + 1),
                    addr.eq(addr + (sub == self.sub - 1)),
                    left.eq(Mux(left > self.elements, left - self.elements, 0)),
                ]
        with m.If(self.start):
            m.d.sync += [
                addr.eq(self.base),
                row.eq(self.base),
                mask.eq(1),
                sub.eq(0),
                inner_left.eq(self.inner),
                outer_left.eq(self.outer),
                left.eq(self.features),
                self.o.valid.eq(1),
            ]
        return m


class Request(Record):
    addr: Value
    mask: Value
    read: Value
    tag: Any  # its shape is the user's


class Word(Record):
    data: Value
    tag: Any


class ReadBuffer(wiring.Component):
    """Turns a stream of addresses into a stream of words, in order, one a cycle; ``tag`` travels along.

    An item with ``read`` = 0 makes no memory access (its word is undefined). ``mask`` selects one bank. No request depends on
    ``o.ready`` within a cycle: a word that arrives while ``o`` is blocked waits in one of two places.
    """

    i: Stream[Request]
    o: Stream[Word]
    port: ReadInterface

    def __init__(self, banks: int, word_bits: int, tag: data.Layout | int):
        self.item = data.StructLayout({"data": word_bits, "tag": tag})
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"addr": ADDR, "mask": banks, "read": 1, "tag": tag}))),
                "o": Out(stream.Signature(self.item)),
                "port": Out(ReadPort(banks, word_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        request, port = self.i.payload, self.port
        pending, mask, arriving = Signal(), Signal(len(request.mask)), Signal(self.item)
        first, second = Signal(self.item), Signal(self.item)
        first_valid, second_valid = Signal(), Signal()
        room = Signal()
        m.d.comb += [
            room.eq(~(first_valid & (second_valid | pending))),
            port.valid.eq(self.i.valid & request.read & room),
            port.addr.eq(request.addr),
            port.mask.eq(request.mask),
            self.i.ready.eq(room & (port.ready | ~request.read)),
            arriving.data.eq(
                tree(lambda a, b: a | b, [Mux(mask[b], port.data[b], 0) for b in range(len(request.mask))])
                if len(request.mask) > 1
                else port.data[0]
            ),
            self.o.valid.eq(first_valid | pending),
            self.o.payload.eq(Mux(first_valid, first, arriving)),
        ]
        m.d.sync += pending.eq(self.i.valid & self.i.ready)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [arriving.tag.eq(request.tag), mask.eq(request.mask)]
        with m.If(~first_valid):
            with m.If(pending & ~self.o.ready):
                m.d.sync += [first.eq(arriving), first_valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += [
                first.eq(Mux(second_valid, second, arriving)),
                first_valid.eq(second_valid | pending),
                second_valid.eq(0),
            ]
        with m.Elif(pending):
            m.d.sync += [second.eq(arriving), second_valid.eq(1)]
        return m
