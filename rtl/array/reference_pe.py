"""Multiply-accumulate elements of the reference precisions, with the ports of the array's element: int8, bf16 and fp32.

Not part of the accelerator: they are synthesized under the same wrapper as ternary and binary elements, so that energies compare.
Floating point is IEEE 754 with round to nearest even, subnormals, infinities and NaN (quiet, 0x7FC00000).
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.rtl.parts.arithmetic import add_tree

EXP, FRAC = 8, 23
NAN = 0x7FC00000


class ReferenceElement(wiring.Component):
    """``acc = (0 if first else acc) + dot(row, col)`` with ``en``; ``capture`` copies the accumulator to ``result``.

    ``row`` and ``col`` hold ``lanes`` operands of ``bits`` each, the accumulator 32 bits. ``double`` and ``subtract`` are there
    for the array's sake and unused.
    """

    en: Signal
    first: Signal
    double: Signal
    subtract: Signal
    capture: Signal
    row: Signal
    col: Signal
    result: Signal

    def __init__(self, bits: int, lanes: int):
        self._lanes = lanes
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "double": In(1),
                "subtract": In(1),
                "capture": In(1),
                "row": In(bits * lanes),
                "col": In(bits * lanes),
                "result": Out(32),
            }
        )


class FloatElement(ReferenceElement):
    """fp32(acc + fp32(row * col)): two roundings, as separate multiply and add instructions do.

    A register between the two keeps glitches of the multiplier out of the adder; the result comes one cycle later.
    """

    def __init__(self, bits: int, frac: int):
        super().__init__(bits, 1)
        self._frac = frac

    def elaborate(self, platform):
        m = Module()
        acc, result, product = (
            Signal(32, name=name, reset_less=True) for name in ("acc", "result", "product_register")
        )
        en, first, capture = Signal(), Signal(), Signal()
        m.d.comb += self.result.eq(result)
        m.d.sync += [en.eq(self.en), first.eq(self.first), capture.eq(self.capture)]
        with m.If(self.en):
            m.d.sync += product.eq(multiply(m, self.row, self.col, self._frac))
        with m.If(en):
            m.d.sync += acc.eq(add(m, product, Mux(first, 0, acc)))
        with m.If(capture):
            m.d.sync += result.eq(acc)
        return m


class Int8Element(ReferenceElement):
    """Signed 8-bit products of ``lanes`` pairs, summed modulo 2^32."""

    def __init__(self, lanes: int = 16):
        super().__init__(8, lanes)

    def elaborate(self, platform):
        m = Module()
        acc, result = (Signal(32, name=name, reset_less=True) for name in ("acc", "result"))
        rows = [
            row
            for i in range(self._lanes)
            for row in _partial_products(self.row.word_select(i, 8), self.col.word_select(i, 8))
        ]
        offset = self._lanes * ((1 << 8) - (1 << 15)) & (1 << 32) - 1
        m.d.comb += self.result.eq(result)
        with m.If(self.en):
            m.d.sync += acc.eq(Mux(self.first, 0, acc) + add_tree(rows) + offset)
        with m.If(self.capture):
            m.d.sync += result.eq(acc)
        return m


def _partial_products(a: Value, b: Value) -> list[Value]:
    """Baugh and Wooley: unsigned rows that sum to the signed 8 x 8-bit product - 2^8 + 2^15, with no sign to extend."""
    rows = []
    for j in range(8):
        bits = [a[i] & b[j] for i in range(8)]
        inverted = [~bit if (i == 7) != (j == 7) else bit for i, bit in enumerate(bits)]
        rows.append(Cat(inverted) << j)
    return rows


class Fp32Element(FloatElement):
    def __init__(self):
        super().__init__(32, FRAC)


class Bf16Element(FloatElement):
    """bfloat16 operands, fp32 sums; the product is exact unless it is subnormal in fp32."""

    def __init__(self):
        super().__init__(16, 7)


class _Unpacked:
    """Fields of an IEEE number with 8 exponent bits; ``exp`` is at least 1, ``sig`` has the hidden bit."""

    def __init__(self, value: Value, frac: int):
        self.sign, exp, fraction = value[frac + EXP], value[frac : frac + EXP], value[:frac]
        normal = exp.any()
        self.exp, self.sig = Mux(normal, exp, 1), Cat(fraction, normal)
        self.inf = exp.all() & ~fraction.any()
        self.nan = exp.all() & fraction.any()
        self.zero = ~normal & ~fraction.any()


def _leading_zeros(m: Module, value: Value, name: str) -> Signal:
    """Zeros above the highest one of ``value``; undefined for 0."""
    count = Signal(range(len(value)), name=name)
    for i in range(len(value)):  # the last assignment wins: the highest one
        with m.If(value[i]):
            m.d.comb += count.eq(len(value) - 1 - i)
    return count


def _pack(sign: Value, exp: Value, sig: Value, sticky: Value) -> Value:
    """Rounds ``sig`` (hidden bit on top, at least two bits below the fraction) to nearest even; ``exp`` counts from 1.

    A significand without hidden bit is subnormal (``exp`` must be 1). Overflow gives infinity.
    """
    low = len(sig) - FRAC - 1
    guard, below = sig[low - 1], sig[: low - 1].any() | sticky
    field = Mux(sig[-1], exp, 0)  # of a subnormal: 0
    whole = Cat(sig[low:-1], field)[: FRAC + len(exp)] + (guard & (below | sig[low]))  # a carry runs into the exponent
    overflow = (whole >> FRAC) >= 255
    return Cat(Mux(overflow, C(255 << FRAC, 31), whole[:31]), sign)


def multiply(m: Module, a: Value, b: Value, frac: int) -> Signal:
    """fp32 product of two numbers with ``frac`` fraction bits."""
    x, y = _Unpacked(a, frac), _Unpacked(b, frac)
    bits = 2 * (frac + 1)
    product, sign = Signal(bits, name="product"), x.sign ^ y.sign
    zeros = _leading_zeros(m, product, "product_zeros")
    left, exp = Signal(bits, name="product_left"), Signal(signed(11), name="product_exp")
    # Hidden bit at the top: exponent ea + eb - 127 + 1, less one for each leading zero.
    m.d.comb += [product.eq(x.sig * y.sig), left.eq(product << zeros), exp.eq(x.exp + y.exp - 126 - zeros)]
    wide = max(bits, FRAC + 3)
    padded = Cat(C(0, wide - bits), left) if wide > bits else left
    right = Signal(6, name="product_right")
    m.d.comb += right.eq(Mux(exp >= 1, 0, Mux(exp < -40, 42, 1 - exp)))
    shifted = Signal(2 * wide, name="product_shifted")
    m.d.comb += shifted.eq(Cat(C(0, wide), padded) >> right)
    packed = _pack(sign, Mux(exp >= 1, exp, 1)[:10], shifted[wide:], shifted[:wide].any())
    result = Signal(32, name="product_fp32")
    nan = x.nan | y.nan | (x.inf & y.zero) | (y.inf & x.zero)
    m.d.comb += result.eq(
        Mux(
            nan,
            NAN,
            Mux(x.inf | y.inf, Cat(C(255 << FRAC, 31), sign), Mux(x.zero | y.zero, Cat(C(0, 31), sign), packed)),
        )
    )
    return result


def add(m: Module, a: Value, b: Value) -> Signal:
    """fp32 sum."""
    swap = Signal(name="sum_swap")
    large, small = Signal(32, name="sum_large"), Signal(32, name="sum_small")
    m.d.comb += [swap.eq(b[:31] > a[:31]), large.eq(Mux(swap, b, a)), small.eq(Mux(swap, a, b))]
    x, y = _Unpacked(large, FRAC), _Unpacked(small, FRAC)
    distance = Signal(EXP, name="sum_distance")
    aligned = Signal(2 * FRAC + 6, name="sum_aligned")  # 24 + 2 bits, then what is shifted out
    total = Signal(unsigned(FRAC + 5), name="sum_total")
    below = Signal(name="sum_sticky")
    width = FRAC + 3
    subtract = x.sign ^ y.sign
    m.d.comb += [
        distance.eq(x.exp - y.exp),
        aligned.eq(Cat(C(0, FRAC + 5), y.sig) >> Mux(distance > FRAC + 4, FRAC + 4, distance)),
        below.eq(aligned[: len(aligned) - width].any()),
    ]
    near = Cat(below, aligned[len(aligned) - width :])  # sticky as the lowest bit keeps a difference on the right side
    far = Cat(C(0, 3), x.sig)
    m.d.comb += total.eq(Mux(subtract, far - near, far + near))
    zeros = _leading_zeros(m, total, "sum_zeros")
    # The top bit of total is a carry: exponent + 1 with it. A shift beyond the exponent leaves a subnormal.
    limit = Signal(EXP, name="sum_limit")
    m.d.comb += limit.eq(Mux(zeros > x.exp, x.exp, zeros))
    left = Signal(FRAC + 5, name="sum_left")
    exp = Signal(10, name="sum_exp")
    m.d.comb += [left.eq(total << limit), exp.eq(Mux(zeros > x.exp, 1, x.exp + 1 - zeros))]
    packed = _pack(x.sign, exp, left, C(0, 1))
    zero = total == 0
    special = Signal(32, name="sum_fp32")
    nan = x.nan | y.nan | (x.inf & y.inf & subtract)
    m.d.comb += special.eq(Mux(nan, NAN, Mux(x.inf, large, Mux(zero, Cat(C(0, 31), x.sign & y.sign), packed))))
    return special
