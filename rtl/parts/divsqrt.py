"""Digit recurrences: square root, division, and the reciprocal square root of LayerNorm. Each has its model beside it."""

import math
from typing import Generic

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.memories import ceil_div
from ternbin.rtl.parts.interfaces import Payload, Record, Stream

NORMAL_BITS = 48  # a normalised variance: 2^46 <= Vn < 2^48
ROOT_BITS = NORMAL_BITS // 2
RECIPROCAL_BITS = 25  # r is at most 2^24


def isqrt_model(value: int) -> int:
    return math.isqrt(value)


def divide_model(numerator: int, denominator: int, bits: int) -> int:
    """The quotient in ``bits``; all ones for a division by zero."""
    return numerator // denominator if denominator else (1 << bits) - 1


def rsqrt_model(variance: int) -> tuple[int, int]:
    """``(r, shift)``: the reciprocal root of ``variance`` >= 1 and ``27 - k/2`` of numerics rule 3."""
    k = (NORMAL_BITS - variance.bit_length()) & ~1
    normal = variance << k if k >= 0 else variance >> -k
    return (1 << 47) // math.isqrt(normal), 27 - k // 2


class Division(Record):
    num: Value
    den: Value


class Root(Record):
    r: Value
    shift: Value


class _Recurrence(wiring.Component, Generic[Payload]):
    """A loop of ``cycles`` steps between two streams: takes an input when idle, holds the result until it is taken."""

    i: Stream[Payload]
    o: Stream[Value]

    def control(self, m: Module, cycles: int) -> tuple[Signal, Signal]:
        """``(load, step)``: in this cycle the operands are taken; a step is done."""
        left, busy = Signal(range(cycles + 1)), Signal()
        load, step = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~busy),
            load.eq(self.i.valid & ~busy),
            step.eq(left != 0),
            self.o.valid.eq(busy & (left == 0)),
        ]
        with m.If(load):
            m.d.sync += [busy.eq(1), left.eq(cycles)]
        with m.Elif(step):
            m.d.sync += left.eq(left - 1)
        with m.Elif(self.o.ready):
            m.d.sync += busy.eq(0)
        return load, step


class Isqrt(_Recurrence[Value]):
    """``floor(sqrt(i))`` of a value of ``bits`` (even), ``steps`` result bits a cycle (a divisor of bits/2)."""

    def __init__(self, bits: int, *, steps: int = 2):
        self.bits, self.steps = bits, steps
        super().__init__({"i": In(stream.Signature(bits)), "o": Out(stream.Signature(bits // 2))})

    def elaborate(self, platform):
        m = Module()
        half = self.bits // 2
        value, rest, root = Signal(self.bits), Signal(half + 2), Signal(half)
        load, step = self.control(m, half // self.steps)
        m.d.comb += self.o.payload.eq(root)
        next_rest, next_root = rest, root
        for i in range(self.steps):
            high = self.bits - 2 * i
            trial, wide = Signal(half + 2, name=f"trial{i}"), Signal(half + 2, name=f"wide{i}")
            m.d.comb += [trial.eq(Cat(Const(1, 2), next_root)), wide.eq(Cat(value[high - 2 : high], next_rest))]
            fits = wide >= trial
            next_rest, next_root = Mux(fits, wide - trial, wide), Cat(fits, next_root)
        with m.If(load):
            m.d.sync += [value.eq(self.i.payload), rest.eq(0), root.eq(0)]
        with m.Elif(step):
            m.d.sync += [value.eq(value << 2 * self.steps), rest.eq(next_rest), root.eq(next_root)]
        return m


class Divide(_Recurrence[Division]):
    """``floor(num / den)``, ``steps`` quotient bits a cycle; all ones where ``den`` is 0.

    ``quotient_bits`` is rounded up to a multiple of ``steps``; ``num >> quotient_bits`` must be below ``den`` (or be 0).
    """

    def __init__(self, num_bits: int, den_bits: int, quotient_bits: int, *, steps: int = 2):
        self.den_bits, self.steps = den_bits, steps
        self.quotient_bits = ceil_div(quotient_bits, steps) * steps
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"num": num_bits, "den": den_bits}))),
                "o": Out(stream.Signature(quotient_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self.quotient_bits
        work, rest, den = Signal(bits), Signal(self.den_bits + 1), Signal(self.den_bits)
        load, step = self.control(m, bits // self.steps)
        m.d.comb += self.o.payload.eq(work)
        next_work, next_rest = work, rest
        for i in range(self.steps):
            wide = Signal(self.den_bits + 1, name=f"wide{i}")
            m.d.comb += wide.eq(Cat(work[bits - 1 - i], next_rest))
            fits = wide >= den
            next_work, next_rest = Cat(fits, next_work), Mux(fits, wide - den, wide)
        with m.If(load):
            m.d.sync += [
                work.eq(self.i.payload.num),
                rest.eq(self.i.payload.num >> bits),
                den.eq(self.i.payload.den),
            ]
        with m.Elif(step):
            m.d.sync += [work.eq(next_work), rest.eq(next_rest)]
        return m


class Rsqrt(wiring.Component):
    """Reciprocal square root of a variance of ``bits``: normalise, root, reciprocal, three values in flight, in order.

    ``o``: ``r = floor(2^47 / isqrt(Vn))`` and ``shift = 27 - k/2`` of numerics rule 3. The variance is at least 1. ``fpga``
    (constructor): its highest bits are looked for while it is taken.
    """

    i: Stream[Value]
    o: Stream[Root]

    def __init__(self, bits: int, *, steps: int = 2, fpga: bool = False):
        self.bits, self.steps, self._fpga = bits, steps, fpga
        super().__init__(
            {
                "i": In(stream.Signature(bits)),
                "o": Out(stream.Signature(data.StructLayout({"r": RECIPROCAL_BITS, "shift": 6}))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.isqrt = isqrt = Isqrt(NORMAL_BITS, steps=self.steps)
        m.submodules.divide = divide = Divide(NORMAL_BITS, ROOT_BITS, RECIPROCAL_BITS, steps=self.steps)
        pairs = ceil_div(self.bits, 2)
        variance, full = Signal(2 * pairs), Signal()
        top = Signal(range(pairs))  # number of the highest pair of bits that is not 0
        root_shift, divide_shift = Signal(6), Signal(6)
        looked_at = self.i.payload if self._fpga else variance
        highest = Signal.like(top) if self._fpga else top
        for i in range(pairs):
            with m.If(looked_at[2 * i : 2 * i + 2] != 0):
                m.d.comb += highest.eq(i)
        m.d.comb += [
            self.i.ready.eq(~full | isqrt.i.ready),
            isqrt.i.valid.eq(full),
            isqrt.i.payload.eq((variance << NORMAL_BITS - 2) >> (top << 1)),
            divide.i.valid.eq(isqrt.o.valid),
            isqrt.o.ready.eq(divide.i.ready),
            divide.i.payload.num.eq(1 << NORMAL_BITS - 1),
            divide.i.payload.den.eq(isqrt.o.payload),
            self.o.valid.eq(divide.o.valid),
            divide.o.ready.eq(self.o.ready),
            self.o.payload.r.eq(divide.o.payload),
            self.o.payload.shift.eq(divide_shift),
        ]
        with m.If(self.i.ready):
            m.d.sync += [full.eq(self.i.valid), variance.eq(self.i.payload)]
            if self._fpga:
                m.d.sync += top.eq(highest)
        with m.If(isqrt.i.valid & isqrt.i.ready):
            m.d.sync += root_shift.eq(top + 4)  # k/2 = 23 - top
        with m.If(divide.i.valid & divide.i.ready):
            m.d.sync += divide_shift.eq(root_shift)
        return m
