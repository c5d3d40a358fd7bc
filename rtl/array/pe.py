"""The processing element of the array and the row-sum unit beside it: for synthesis in Amaranth, for simulation in Verilog."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import BYTE_PLANES, HwConfig
from ternbin.rtl.parts.arithmetic import add_tree
from ternbin.rtl.parts.primitives import balance, difference

PE_MODULE = "ternbin_pe"
ROWSUM_MODULE = "ternbin_rowsum"


class ProcessingElement(wiring.Component):
    """``lanes``-wide dot product of codes into an accumulator, with a second register for finished results.

    A step (``en``) does ``acc = (0 if first, 2*acc if double, else acc) +- dot(row, col)``, minus with ``subtract``; ``capture``
    copies the accumulator, as it was before a step in the same cycle, to ``result``. ``row`` and ``col`` are stored code words; on an
    array that takes whole 8-bit codes ``col`` is nine planes of ``lanes`` bits, the codes' two's complement, lowest first.
    All sums are modulo 2^acc_bits. ``fpga`` (constructor): the products do not wait for ``en``, and each is negated, not their sum, which
    saves time, not energy.
    """

    en: Signal
    first: Signal
    double: Signal
    subtract: Signal
    capture: Signal
    row: Signal
    col: Signal
    result: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "double": In(1),
                "subtract": In(1),
                "capture": In(1),
                "row": In(hw.code_word_bits),
                "col": In(hw.column_word_bits),
                "result": Out(signed(hw.acc_bits)),
            }
        )

    def _dot(self, m: Module) -> Value:
        """The dot product, negated with ``subtract``, as wide as the accumulator."""
        lanes, bits = self._hw.lanes, self._hw.acc_bits
        if self._hw.kind == "binary":
            return balance(m, "dot", ~(self.row ^ self.col), self.subtract, bits)
        if self._hw.whole_columns:
            return self._whole_dot()
        nonzero = Signal(lanes)
        negative = Signal(lanes)
        m.d.comb += [
            nonzero.eq(self.row[:lanes] & self.col[:lanes]),
            negative.eq(self.row[lanes:] ^ self.col[lanes:]),
        ]
        negate = self.subtract
        if self._fpga:
            negative, negate = negative ^ negate.replicate(lanes), C(0, 1)
        return difference(m, "dot", nonzero & ~negative, nonzero & negative, negate, bits)

    def _whole_dot(self) -> Value:
        """A row a lane, one's complement where the product is the code's negative, a one for each of those, and -2^8 for every row as its
        sign inverted: no sign to extend. All in one compressor tree."""
        lanes, bits = self._hw.lanes, self._hw.acc_bits
        rows, ones = [], []
        for lane in range(lanes):
            nonzero = self.row[lane]
            negated = nonzero & (self.row[lanes + lane] ^ self.subtract)
            product = [self.col[lane + plane * lanes] & nonzero ^ negated for plane in range(BYTE_PLANES + 1)]
            rows.append(Cat(*product[:-1], ~product[-1]))
            ones.append(negated)
        return (add_tree(rows) + add_tree(ones) + (-(lanes << BYTE_PLANES) & (1 << bits) - 1))[:bits]

    def elaborate(self, platform):
        m = Module()
        bits = self._hw.acc_bits  # unsigned: sign extension would only cost, modulo 2^acc_bits
        acc = Signal(bits, reset_less=True)
        result = Signal(bits, reset_less=True)
        before = Mux(self.first, 0, Mux(self.double, Cat(C(0, 1), acc[:-1]), acc))
        m.d.comb += self.result.eq(result)
        dot = self._dot(m) if self._fpga else None
        with m.If(self.en):
            m.d.sync += acc.eq(before + (self._dot(m) if dot is None else dot))
        with m.If(self.capture):
            m.d.sync += result.eq(acc)
        return m


class RowSum(wiring.Component):
    """The product of a row with a column of ones, on top of a constant: what every column of the row gets added.

    A step (``en``) does ``acc = (init if first else acc) + (sum of the codes of row if enable else 0)``; ``capture`` as in the
    processing element. Without ``enable`` the popcount sees constant zeros, so that it does not switch; but not in the form for FPGAs
    (``fpga``, constructor).
    """

    en: Signal
    first: Signal
    enable: Signal
    capture: Signal
    init: Signal
    row: Signal
    result: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        super().__init__(
            {
                "en": In(1),
                "first": In(1),
                "enable": In(1),
                "capture": In(1),
                "init": In(signed(24)),
                "row": In(hw.code_word_bits),
                "result": Out(signed(hw.acc_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self._hw.acc_bits
        acc = Signal(bits, reset_less=True)
        result = Signal(bits, reset_less=True)
        total, init = Signal(bits), Signal(bits)
        m.d.comb += [total.eq(Mux(self.enable, self._sum(m), 0)), init.eq(self.init), self.result.eq(result)]
        with m.If(self.en):
            m.d.sync += acc.eq(Mux(self.first, init, acc) + total)
        with m.If(self.capture):
            m.d.sync += result.eq(acc)
        return m

    def _sum(self, m: Module) -> Signal:
        lanes, bits = self._hw.lanes, self._hw.acc_bits
        row = Signal(len(self.row))
        m.d.comb += row.eq(self.row if self._fpga else Mux(self.enable, self.row, 0))
        if self._hw.kind == "binary":
            return balance(m, "sum", row, C(0, 1), bits)
        return difference(m, "sum", row[:lanes] & ~row[lanes:], row[:lanes] & row[lanes:], C(0, 1), bits)


_SIMULATED = """
module {pe} (input clk, rst, en, first, double, subtract, capture, input [{word}:0] row, {col}output reg [{acc}:0] result);
  reg [{acc}:0] acc;
  /* verilator lint_off BLKSEQ */
  always @(posedge clk) begin
    if (capture) result <= acc;
    if (en) acc = (first ? 0 : double ? acc << 1 : acc) + (({dot} ^ {{{bits}{{subtract}}}}) + subtract);
  end
  /* verilator lint_on BLKSEQ */
endmodule

module {rowsum} (input clk, rst, en, first, enable, capture, input [23:0] init, input [{word}:0] row, output reg [{acc}:0] result);
  reg [{acc}:0] acc;
  /* verilator lint_off BLKSEQ */
  always @(posedge clk) begin
    if (capture) result <= acc;
    if (en) begin
      if (enable) acc = (first ? {init} : acc) + {sum};
      else if (first) acc = {init};
    end
  end
  /* verilator lint_on BLKSEQ */
endmodule
"""
_POPCOUNT_BITS = 64  # what a simulator's host counts at once


def _ternary(nonzero: str, negative: str) -> str:
    return f"$countones({nonzero}) - 2 * $countones({nonzero} & ({negative}))"


def _planes(hw: HwConfig, low: int) -> list[str]:
    """Products of the lanes from ``low`` on with each plane of the codes."""
    high, lanes = min(low + _POPCOUNT_BITS, hw.lanes) - 1, hw.lanes
    planes = [f"[{high + plane * lanes}:{low + plane * lanes}]" for plane in range(BYTE_PLANES + 1)]
    row, negative = f"row[{high}:{low}]", f"row[{high + lanes}:{low + lanes}]"
    sums = [f"{1 << p} * ({_ternary(f'{row} & col{part}', negative)})" for p, part in enumerate(planes)]
    return [*sums[:-1], f"-{sums[-1]}"]


def simulated(hw: HwConfig) -> str:
    """Both modules as a simulator likes them: nothing is evaluated without its enable, no value has a variable of its own; the accumulator,
    which nothing else reads, is written at once, after it was captured."""
    bits, lanes = hw.acc_bits, hw.lanes
    dots, sums = [], []
    for low in range(0, lanes, _POPCOUNT_BITS):
        part = f"[{min(low + _POPCOUNT_BITS, lanes) - 1}:{low}]"
        if hw.kind == "binary":
            dots.append(f"2 * $countones(~(row{part} ^ col{part}))")
            sums.append(f"2 * $countones(row{part})")
        else:
            neg = f"[{min(low + _POPCOUNT_BITS, lanes) - 1 + lanes}:{low + lanes}]"
            dots += (
                _planes(hw, low) if hw.whole_columns else [_ternary(f"row{part} & col{part}", f"row{neg} ^ col{neg}")]
            )
            sums.append(f"$countones(row{part}) - 2 * $countones(row{part} & row{neg})")
    zeros = [f"{lanes}"] if hw.kind == "binary" else []
    init = f"init[{bits - 1}:0]" if bits <= 24 else f"{{{{{bits - 24}{{init[23]}}}}, init}}"
    return _SIMULATED.format(
        pe=PE_MODULE,
        rowsum=ROWSUM_MODULE,
        word=hw.code_word_bits - 1,
        col=f"input [{hw.column_word_bits - 1}:0] col, " if hw.whole_columns else "col, ",
        acc=bits - 1,
        bits=bits,
        init=init,
        dot=f"{bits}'({' - '.join([' + '.join(dots), *zeros])})",
        sum=f"{bits}'({' - '.join([' + '.join(sums), *zeros])})",
    )
