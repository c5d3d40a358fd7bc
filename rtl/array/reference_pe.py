"""Multiply-accumulate elements of the reference precisions, with the ports of the array's element: integers and floating point.

Not part of the accelerator: they are synthesized under the same wrapper as ternary and binary elements, so that energies compare.
Floating point is what accelerators build: a fused dot product. Products are aligned to the largest exponent of the sum so far, cut off
``WINDOW`` bits below it and summed exactly; the sum is rounded once to FP32, to nearest even, when it is handed out. Subnormals of FP32
and BF16 count as zero, infinities and NaN are not told apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.rtl.parts.arithmetic import add_tree, tree
from ternbin.rtl.parts.primitives import popcount

EXP, FRAC = 8, 23  # of the accumulator, FP32
NAN = 0x7FC00000
WINDOW = 28  # bits of an addend, from the largest exponent on: FP32's 24, and four
HEADROOM = 12  # bits for carries: sums of up to 4,096 products


@dataclass(frozen=True)
class Format:
    """A floating-point operand: a sign, ``exp`` bits of exponent, ``frac`` of fraction. ``finite``: every pattern is a number, subnormals
    included, as in FP8; otherwise an exponent of ones is none, and of zeros is zero."""

    exp: int
    frac: int
    finite: bool = False

    @property
    def bits(self) -> int:
        return 1 + self.exp + self.frac

    @property
    def bias(self) -> int:
        return (1 << self.exp - 1) - 1


FORMATS = {"fp32": Format(EXP, FRAC), "bf16": Format(EXP, 7), "fp8": Format(4, 3, finite=True)}


class ReferenceElement(wiring.Component):
    """``acc = (0 if first else acc) + dot(row, col)`` with ``en``; ``capture`` copies the accumulator to ``result``.

    ``row`` and ``col`` hold ``lanes`` operands of ``row_bits`` and ``col_bits``, the accumulator 32 bits. ``double`` and ``subtract`` are
    there for the array's sake and unused.
    """

    en: Signal
    first: Signal
    double: Signal
    subtract: Signal
    capture: Signal
    row: Signal
    col: Signal
    result: Signal

    def __init__(self, row_bits: int, col_bits: int, lanes: int):
        self._row_bits, self._col_bits, self._lanes = row_bits, col_bits, lanes
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "double": In(1),
                "subtract": In(1),
                "capture": In(1),
                "row": In(row_bits * lanes),
                "col": In(col_bits * lanes),
                "result": Out(32),
            }
        )

    def pairs(self) -> list[tuple[Value, Value]]:
        """Operands of each lane."""
        lanes = range(self._lanes)
        return [(self.row.word_select(i, self._row_bits), self.col.word_select(i, self._col_bits)) for i in lanes]

    def offset(self, bits: int) -> int:
        """What the partial products of all lanes lack of the signed dot product, modulo 2^bits."""
        p, q = self._row_bits, self._col_bits
        return self._lanes * ((1 << p - 1) + (1 << q - 1) - (1 << p + q - 1)) & (1 << bits) - 1


class IntElement(ReferenceElement):
    """Signed products of ``lanes`` pairs, summed modulo 2^32: partial products of all in one compressor tree."""

    def elaborate(self, platform):
        m = Module()
        acc, result = (Signal(32, name=name, reset_less=True) for name in ("acc", "result"))
        rows = [row for a, b in self.pairs() for row in _partial_products(a, b)]
        m.d.comb += self.result.eq(result)
        with m.If(self.en):
            m.d.sync += acc.eq(Mux(self.first, 0, acc) + add_tree(rows) + self.offset(32))
        with m.If(self.capture):
            m.d.sync += result.eq(acc)
        return m


class DotElement(ReferenceElement):
    """``result = dot(row, col)`` with ``en``: a register behind a dot product of all that is summed, no accumulator, as accelerators have
    it that hold the weights of a whole window. ``form``: "ternary" (code words: nz plane low, neg plane high) and "binary" are of both
    operands, of "signs" the row is binary, and "integer" are the rest."""

    def __init__(self, form: str, row_bits: int, col_bits: int, lanes: int):
        super().__init__(row_bits, col_bits, lanes)
        self._form = form

    def elaborate(self, platform):
        m = Module()
        held = Signal(signed(self._row_bits + self._col_bits + self._lanes.bit_length()), reset_less=True)
        m.d.comb += self.result.eq(held)
        with m.If(self.en):
            m.d.sync += held.eq(self._dot(m, len(held)))
        return m

    def _dot(self, m: Module, bits: int) -> Value:
        lanes, top = self._lanes, self._col_bits - 1
        if self._form == "integer":
            return add_tree([row for a, b in self.pairs() for row in _partial_products(a, b)]) + self.offset(bits)
        if self._form == "signs":  # one's complement and a one where the sign is minus; no sign to extend
            rows = [Cat(bit ^ ~sign ^ (place == top) for place, bit in enumerate(code)) for sign, code in self.pairs()]
            return add_tree(rows) + add_tree([~sign for sign, _ in self.pairs()]) - (lanes << top)
        if self._form == "binary":
            return Cat(C(0, 1), popcount(m, "same", ~(self.row ^ self.col))) - lanes
        nonzero = self.row[:lanes] & self.col[:lanes]
        negative = self.row[lanes:] ^ self.col[lanes:]
        return popcount(m, "plus", nonzero & ~negative) - popcount(m, "minus", nonzero & negative)


def _partial_products(a: Value, b: Value) -> list[Value]:
    """Baugh and Wooley: unsigned rows that sum to the signed product of p and q bits - 2^(p-1) - 2^(q-1) + 2^(p+q-1), with no sign to
    extend."""
    p, q = len(a), len(b)
    rows = []
    for j in range(q):
        bits = [a[i] & b[j] for i in range(p)]
        inverted = [~bit if (i == p - 1) != (j == q - 1) else bit for i, bit in enumerate(bits)]
        rows.append(Cat(inverted) << j)
    return rows


class FloatElement(ReferenceElement):
    """A fused dot product of ``lanes`` pairs and of the steps before. A register behind the multipliers keeps their glitches out of the
    shifters and the adder; the result comes one cycle later. What rounds is at rest between results."""

    def __init__(self, form: Format, lanes: int):
        super().__init__(form.bits, form.bits, lanes)
        self._form = form

    def elaborate(self, platform):
        m = Module()
        result = Signal(32, name="result", reset_less=True)
        acc = _Sum.registers()
        en, first, capture = Signal(), Signal(), Signal()
        m.d.comb += self.result.eq(result)
        m.d.sync += [en.eq(self.en), first.eq(self.first), capture.eq(self.capture)]
        addends: list[_Addend] = []
        for i, (row, col) in enumerate(self.pairs()):
            product, held = _product(self._form, row, col), _Addend.held(f"product{i}", self._form)
            addends.append(held)
            with m.If(self.en):
                m.d.sync += held.eq(product)
        with m.If(en):
            m.d.sync += acc.eq(_fused(m, addends, acc.masked(~first)))
        with m.If(capture):
            m.d.sync += result.eq(_rounded(m, self._form, acc.masked(capture)))
        return m


SUM_BITS = WINDOW + HEADROOM + 1


@dataclass(frozen=True)
class _Sum:
    """A sum: ``exp`` is the largest exponent so far, that of bit WINDOW - 1 of the signed ``sig``. ``odd``: an addend was no number."""

    exp: Value
    sig: Value
    odd: Value

    @staticmethod
    def registers() -> "_Sum":
        return _Sum(
            Signal(SCALE_BITS, name="acc_exp", reset_less=True),
            Signal(signed(SUM_BITS), name="acc_sig", reset_less=True),
            Signal(name="acc_odd", reset_less=True),
        )

    def eq(self, other: "_Sum") -> list:
        return [self.exp.eq(other.exp), self.sig.eq(other.sig), self.odd.eq(other.odd)]

    def masked(self, on: Value) -> "_Sum":
        """This sum, or 0."""
        sig = (self.sig.as_unsigned() & on.replicate(SUM_BITS)).as_signed()
        return _Sum(self.exp & on.replicate(SCALE_BITS), sig, self.odd & on)


def _offset(form: Format) -> int:
    """What the exponents of two operands and this add up to is the exponent of their product's highest bit, on a scale of its own."""
    return max(0, EXP_ONE - 2 * form.bias)


def _lead(form: Format) -> int:
    """How far that scale is above FP32's."""
    return max(0, 2 * form.bias - EXP_ONE)


EXP_ONE = 1 << EXP - 1  # a product's highest bit stands for twice what its exponents add up to
SCALE_BITS = EXP + 2


@dataclass(frozen=True)
class _Addend:
    """A sign, the exponent of the highest bit of ``sig`` (0 if it is zero), and at most WINDOW bits. ``odd``: not a number."""

    sign: Value
    exp: Value
    sig: Value
    odd: Value

    @staticmethod
    def held(name: str, form: Format) -> "_Addend":
        """Registers for a product."""
        widths = {"sign": 1, "exp": SCALE_BITS, "sig": min(WINDOW, 2 * (form.frac + 1)), "odd": 1}
        return _Addend(**{part: Signal(bits, name=f"{name}_{part}", reset_less=True) for part, bits in widths.items()})

    def eq(self, other: "_Addend") -> list:
        return [
            self.sign.eq(other.sign),
            self.exp.eq(other.exp),
            self.sig.eq(other.sig),
            self.odd.eq(other.odd),
        ]

    def aligned(self, largest: Value) -> Value:
        """WINDOW bits from ``largest`` down, what is below cut off."""
        padded = Cat(C(0, WINDOW - len(self.sig)), self.sig) if len(self.sig) < WINDOW else self.sig
        distance = (largest - self.exp)[:SCALE_BITS]
        return Mux(distance[5:].any(), 0, padded >> distance[:5])


def _unpacked(form: Format, value: Value) -> tuple[Value, Value, Value, Value]:
    """Sign, exponent, significand with its hidden bit, and whether it is no number."""
    fraction, exp = value[: form.frac], value[form.frac : form.frac + form.exp]
    normal = exp.any()
    if form.finite:
        return value[-1], Mux(normal, exp, 1), Cat(fraction, normal), C(0, 1)
    return value[-1], exp, Cat(Mux(normal, fraction, 0), normal), exp.all()


def _product(form: Format, row: Value, col: Value) -> _Addend:
    (sign, exp, sig, odd), (other_sign, other_exp, other_sig, other_odd) = (_unpacked(form, x) for x in (row, col))
    product = (sig * other_sig)[: 2 * (form.frac + 1)]
    some = (sig != 0) & (other_sig != 0)
    scale = (exp + other_exp + _offset(form))[:SCALE_BITS]
    return _Addend(sign ^ other_sign, Mux(some, scale, 0), product[-min(WINDOW, len(product)) :], odd | other_odd)


def _leading_zeros(m: Module, value: Value, name: str) -> Signal:
    """Zeros above the highest one of ``value``; undefined for 0."""
    count = Signal(range(len(value)), name=name)
    for i in range(len(value)):  # the last assignment wins: the highest one
        with m.If(value[i]):
            m.d.comb += count.eq(len(value) - 1 - i)
    return count


def _fused(m: Module, products: Sequence[_Addend], acc: _Sum) -> _Sum:
    """The sum with ``products``."""
    largest = Signal(SCALE_BITS, name="largest")
    m.d.comb += largest.eq(tree(lambda a, b: Mux(a > b, a, b), [acc.exp, *(product.exp for product in products)]))
    distance = (largest - acc.exp)[:SCALE_BITS]
    before = Mux(distance[6:].any(), acc.sig >> SUM_BITS, acc.sig >> distance[:6])
    # One's complement of the negative, their ones, and -2^WINDOW for each of them as its sign inverted: no sign to extend.
    rows = [Cat(a.aligned(largest) ^ a.sign.replicate(WINDOW), ~a.sign) for a in products]
    offset = -(len(products) << WINDOW) & (1 << SUM_BITS) - 1
    total = add_tree([before.as_unsigned(), *rows, *(a.sign for a in products)]) + offset
    odd = tree(lambda a, b: a | b, [acc.odd, *(a.odd for a in products)])
    return _Sum(largest, total[:SUM_BITS].as_signed(), odd)


def _rounded(m: Module, form: Format, total: _Sum) -> Value:
    """FP32 of a sum."""
    lead, width = _lead(form), SUM_BITS - 1
    negative = total.sig[-1]
    size, left = Signal(width, name="size"), Signal(width, name="left")
    m.d.comb += size.eq(Mux(negative, -total.sig, total.sig))
    zeros = _leading_zeros(m, size, "zeros")
    m.d.comb += left.eq(size << zeros)
    top = total.exp + (width - WINDOW)  # exponent of the highest bit of ``size``
    low = width - (FRAC + 1)
    guard, below = left[low - 1], left[: low - 1].any()
    field = Signal(SCALE_BITS, name="field")
    m.d.comb += field.eq(top - zeros - lead)
    packed = Cat(left[low:-1], field) + (guard & (below | left[low]))  # a carry runs into the exponent
    large = (packed >> FRAC)[:SCALE_BITS] >= 255
    value = Mux(large, C(255 << FRAC, 31), packed[:31])
    none = (size == 0) | (top <= zeros + lead)
    return Mux(total.odd, NAN, Mux(none, 0, Cat(value, negative)))
