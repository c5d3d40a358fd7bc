"""One lane of the epilogue's and the vector unit's arithmetic as blocks of their own, for characterisation.

The same expressions and register places as the epilogue (rtl/epilogue/epilogue.py), LayerNorm and softmax (rtl/vector) have for each
of their ``rows`` lanes; addressing, handshakes and tables are not in them. Ports as the array's elements: ``row`` holds parameters,
``col`` the data.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.rtl.parts.arithmetic import clip, residual_range, round_shift

ACC, RES, MUL, BIAS = 24, 16, 24, 40


class Lane(wiring.Component):
    """``en`` takes a value; results leave some cycles later. ``first`` starts a sum; the other controls are unused."""

    en: Signal
    first: Signal
    double: Signal
    subtract: Signal
    capture: Signal
    row: Signal
    col: Signal
    result: Signal

    row_bits, col_bits, result_bits = 1, 1, 1

    def __init__(self):
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "double": In(1),
                "subtract": In(1),
                "capture": In(1),
                "row": In(self.row_bits),
                "col": In(self.col_bits),
                "result": Out(self.result_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        with m.If(self.en):
            self._steps(m)
        return m

    def _register(self, m: Module, value: Value, shape: Shape | int, name: str) -> Signal:
        register = Signal(shape, name=name, reset_less=True)
        m.d.sync += register.eq(value)
        return register

    def _steps(self, m: Module) -> None:
        raise NotImplementedError


class ScaleLane(Lane):
    """sat(old + rshift(acc * M + B, S)): the epilogue's RESIDUAL; its first three stages are those of CODES8 and ARGMAX.

    ``row``: M, B, S (5 bits); ``col``: accumulator, old value.
    """

    row_bits, col_bits, result_bits = MUL + BIAS + 5, ACC + RES, RES

    def _steps(self, m: Module) -> None:
        mul, bias = self.row[:MUL].as_signed(), self.row[MUL : MUL + BIAS].as_signed()
        acc, old = self.col[:ACC].as_signed(), self.col[ACC:].as_signed()
        product = self._register(m, acc * mul, signed(ACC + MUL), "product")
        total = self._register(m, product + bias, signed(ACC + MUL + 1), "total")
        scaled = clip(round_shift(total, self.row[MUL + BIAS :]), *residual_range(RES + 2))
        scaled = self._register(m, scaled, signed(RES + 2), "scaled")
        m.d.sync += self.result.eq(clip(old + scaled, *residual_range(RES)))


class ThresholdLane(Lane):
    """Codes by two thresholds of 16 bits: the epilogue's CODES and the vector unit's QUANT."""

    row_bits, col_bits, result_bits = 32, ACC, 2

    def _steps(self, m: Module) -> None:
        value = self.col.as_signed()
        above = Cat(value >= self.row[16 * j : 16 * j + 16].as_signed() for j in range(2))
        m.d.sync += self.result.eq(Cat(above.all() | ~above.any(), ~above.any()))


class SumLane(Lane):
    """LAYERNORM's sums of x and of x^2 over the words of a token."""

    row_bits, col_bits, result_bits = 1, RES, 48

    def _steps(self, m: Module) -> None:
        value = self.col.as_signed()
        plain, squares = Signal(signed(32), reset_less=True), Signal(48, reset_less=True)
        square = self._register(m, value * value, 2 * RES, "square")
        m.d.sync += [
            plain.eq(Mux(self.first, 0, plain) + value),
            squares.eq(Mux(self.first, 0, squares) + square),
            self.result.eq(squares ^ plain),
        ]


class NormLane(Lane):
    """sat(rshift(rshift((n*x - s) * r, k) * G + (B << 8), S)): LAYERNORM's second pass. ``row``: s (32), r (25), G, B; n = 256."""

    row_bits, col_bits, result_bits = 32 + 25 + MUL + BIAS, RES, RES

    def _steps(self, m: Module) -> None:
        mean, root = self.row[:29].as_signed(), self.row[32:57]
        gain, bias = self.row[57 : 57 + MUL].as_signed(), self.row[57 + MUL :].as_signed()
        centred = self._register(m, (self.col.as_signed() << 8) - mean, signed(29), "centred")
        product = self._register(m, centred * root, signed(54), "product")
        normal = self._register(m, round_shift(product, Const(14, 5)), signed(27), "normal")
        scaled = self._register(m, normal * gain, signed(51), "scaled")
        total = self._register(m, scaled + (bias << 8), signed(52), "total")
        m.d.sync += self.result.eq(clip(round_shift(total, Const(28, 6)), *residual_range(RES)))


class ExpLane(Lane):
    """SOFTMAX: distance to the maximum, times C, shifted; the table's entry shifted by the exponent. ``row``: maximum, C, shift
    (6 bits); ``col``: score, table entry (16 bits)."""

    row_bits, col_bits, result_bits = ACC + 16 + 6, ACC + 16, 24

    def _steps(self, m: Module) -> None:
        maximum, factor, shift = self.row[:ACC].as_signed(), self.row[ACC : ACC + 16], self.row[ACC + 16 :]
        distance = self._register(m, (maximum - self.col[:ACC].as_signed())[:ACC], ACC, "distance")
        product = self._register(m, distance * factor, ACC + 16, "product")
        scaled = product >> shift
        exponent = self._register(m, Mux(scaled[8:] > 31, 31, scaled[8:13]), 5, "exponent")
        index = self._register(m, scaled[:8], 8, "index")
        m.d.sync += self.result.eq(Cat(self.col[ACC:] >> exponent, index))


LANES = {"scale": ScaleLane, "threshold": ThresholdLane, "sum": SumLane, "norm": NormLane, "exp": ExpLane}
