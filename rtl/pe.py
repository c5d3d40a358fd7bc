"""The processing element of the array and the row-sum unit beside it, each exported once as its own Verilog module.

Amaranth makes one module of every submodule instance, so a 16 x 16 array would be 256 copies of the same text; ``instances``
of modules that ``pe_verilog`` exports once keep Verilog small, and characterisation sees the element as one block.
"""

from amaranth.back import verilog
from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.hw import HwConfig
from ternbin.rtl.primitives import difference, popcount

PE_MODULE = "ternbin_pe"
ROWSUM_MODULE = "ternbin_rowsum"


class ProcessingElement(wiring.Component):
    """``lanes``-wide dot product of codes into an accumulator, with a second register for finished results.

    A step (``en``) does ``acc = (0 if first, 2*acc if double, else acc) +- dot(row, col)``, minus with ``subtract``; ``capture``
    copies the accumulator, as it was before a step in the same cycle, to ``result``. ``row`` and ``col`` are stored code words.
    All sums are modulo 2^acc_bits.
    """

    def __init__(self, hw: HwConfig):
        self._hw = hw
        super().__init__({
            "en": In(1), "first": In(1), "double": In(1), "subtract": In(1), "capture": In(1),
            "row": In(hw.code_word_bits), "col": In(hw.code_word_bits), "result": Out(signed(hw.acc_bits)),
        })

    def _dot(self, m: Module):
        lanes = self._hw.lanes
        if self._hw.kind == "binary":
            equal = popcount(m, "popcount", ~(self.row ^ self.col))
            return Cat(C(0, 1), equal) - lanes
        nonzero = Signal(lanes)
        negative = Signal(lanes)
        m.d.comb += [
            nonzero.eq(self.row[:lanes] & self.col[:lanes]), negative.eq(self.row[lanes:] ^ self.col[lanes:]),
        ]
        return difference(m, "popcount", nonzero & ~negative, nonzero & negative)

    def elaborate(self, platform):
        m = Module()
        bits = self._hw.acc_bits
        acc = Signal(signed(bits), reset_less=True)
        result = Signal(signed(bits), reset_less=True)
        dot = Signal(signed(self._hw.lanes.bit_length() + 1))
        before = Mux(self.first, C(0, signed(bits)), Mux(self.double, acc << 1, acc))
        m.d.comb += [dot.eq(self._dot(m)), self.result.eq(result)]
        with m.If(self.en):
            m.d.sync += acc.eq(before + Mux(self.subtract, -dot, dot))
        with m.If(self.capture):
            m.d.sync += result.eq(acc)
        return m


class RowSum(wiring.Component):
    """The product of a row with a column of ones, on top of a constant: what every column of the row gets added.

    A step (``en``) does ``acc = (init if first else acc) + (sum of the codes of row if enable else 0)``; ``capture`` as in the
    processing element. Without ``enable`` the popcount sees constant zeros, so that it does not switch.
    """

    def __init__(self, hw: HwConfig):
        self._hw = hw
        super().__init__({
            "en": In(1), "first": In(1), "enable": In(1), "capture": In(1), "init": In(signed(24)),
            "row": In(hw.code_word_bits), "result": Out(signed(hw.acc_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        bits, lanes = self._hw.acc_bits, self._hw.lanes
        acc = Signal(signed(bits), reset_less=True)
        result = Signal(signed(bits), reset_less=True)
        total = Signal(signed(lanes.bit_length() + 1))
        row = Signal(len(self.row))
        m.d.comb += [row.eq(Mux(self.enable, self.row, 0)), self.result.eq(result)]
        if self._hw.kind == "binary":
            positive = popcount(m, "popcount", row)
            m.d.comb += total.eq(Mux(self.enable, Cat(C(0, 1), positive) - lanes, 0))
        else:
            m.d.comb += total.eq(difference(m, "popcount", row[:lanes] & ~row[lanes:], row[:lanes] & row[lanes:]))
        with m.If(self.en):
            m.d.sync += acc.eq(Mux(self.first, self.init, acc) + total)
        with m.If(self.capture):
            m.d.sync += result.eq(acc)
        return m


def pe_verilog(hw: HwConfig) -> str:
    """Verilog of the modules that the array of ``hw`` instantiates; they use the primitives."""
    parts = ((PE_MODULE, ProcessingElement(hw)), (ROWSUM_MODULE, RowSum(hw)))
    return "\n".join(verilog.convert(part, name=name, emit_src=False, strip_internal_attrs=True) for name, part in parts)
