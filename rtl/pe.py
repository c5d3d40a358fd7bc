"""The processing element of the array and the row-sum unit beside it, each exported once as its own Verilog module.

Amaranth makes one module of every submodule instance, so a 16 x 16 array would be 256 copies of the same text; ``instances``
of modules that ``pe_verilog`` exports once keep Verilog small, and characterisation sees the element as one block.
"""

from amaranth.back import verilog
from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.hw import HwConfig
from ternbin.rtl.primitives import balance, difference

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
        """The dot product, negated with ``subtract``, as wide as the accumulator."""
        lanes, bits = self._hw.lanes, self._hw.acc_bits
        if self._hw.kind == "binary":
            return balance(m, "dot", ~(self.row ^ self.col), self.subtract, bits)
        nonzero = Signal(lanes)
        negative = Signal(lanes)
        m.d.comb += [
            nonzero.eq(self.row[:lanes] & self.col[:lanes]), negative.eq(self.row[lanes:] ^ self.col[lanes:]),
        ]
        return difference(m, "dot", nonzero & ~negative, nonzero & negative, self.subtract, bits)

    def elaborate(self, platform):
        m = Module()
        bits = self._hw.acc_bits  # unsigned: sign extension would only cost, modulo 2^acc_bits
        acc = Signal(bits, reset_less=True)
        result = Signal(bits, reset_less=True)
        before = Mux(self.first, 0, Mux(self.double, Cat(C(0, 1), acc[:-1]), acc))
        m.d.comb += self.result.eq(result)
        with m.If(self.en):
            m.d.sync += acc.eq(before + self._dot(m))
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

    def _sum(self, m: Module):
        lanes, bits = self._hw.lanes, self._hw.acc_bits
        row = Signal(len(self.row))
        m.d.comb += row.eq(Mux(self.enable, self.row, 0))
        if self._hw.kind == "binary":
            return balance(m, "sum", row, C(0, 1), bits)
        return difference(m, "sum", row[:lanes] & ~row[lanes:], row[:lanes] & row[lanes:], C(0, 1), bits)


def pe_verilog(hw: HwConfig) -> str:
    """Verilog of the modules that the array of ``hw`` instantiates; they use the primitives."""
    parts = ((PE_MODULE, ProcessingElement(hw)), (ROWSUM_MODULE, RowSum(hw)))
    return "\n".join(verilog.convert(part, name=name, emit_src=False, strip_internal_attrs=True) for name, part in parts)
