"""The output-stationary array: rows x cols processing elements, the row-sum column, operand registers, column selection."""

from amaranth.hdl import Cat, Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ternbin.hw import HwConfig
from ternbin.rtl.pe import PE_MODULE, ROWSUM_MODULE
from ternbin.rtl.primitives import instance


class Array(wiring.Component):
    """``row_load`` and ``col_load[c]`` copy operands to the registers that the elements see from the next cycle on.

    A step: ``en[c]`` for the columns that take part, with ``first``, ``double``, ``subtract`` as the processing element
    defines them; ``rowsum`` adds the row sums, ``init`` starts the constant of every row (at ``first``). ``capture`` with ``capture_cols``
    copies finished sums to the result registers; ``tile[c][r]`` (0 without ``tile_en``) is the result of row r in column c plus the
    row's constant, modulo 2^acc_bits, ``o`` that of column ``column``.
    """

    def __init__(self, hw: HwConfig):
        self._hw = hw
        word = hw.code_word_bits
        super().__init__({
            "row": In(data.ArrayLayout(word, hw.rows)), "row_load": In(1),
            "col": In(data.ArrayLayout(word, hw.cols)), "col_load": In(hw.cols),
            "en": In(hw.cols), "first": In(1), "double": In(1), "subtract": In(1),
            "rowsum": In(1), "init": In(signed(24)), "capture": In(1), "capture_cols": In(hw.cols),
            "column": In(range(hw.cols)), "o": Out(data.ArrayLayout(signed(hw.acc_bits), hw.rows)),
            "tile_en": In(1), "tile": Out(data.ArrayLayout(data.ArrayLayout(signed(hw.acc_bits), hw.rows), hw.cols)),
        })

    def elaborate(self, platform):
        m = Module()
        hw = self._hw
        rows = [self._operand(m, f"row{r}", self.row[r], self.row_load) for r in range(hw.rows)]
        cols = [self._operand(m, f"col{c}", self.col[c], self.col_load[c]) for c in range(hw.cols)]
        captures = self._split(m, "capture", self.capture.replicate(hw.cols) & self.capture_cols)
        enables = self._split(m, "enable", self.en)
        for r, row in enumerate(rows):
            results = [
                self._element(m, f"pe_{r}_{c}", row, cols[c], enables[c], captures[c]) for c in range(hw.cols)
            ]
            constant = self._row_constant(m, r, row)
            chosen = Signal(signed(hw.acc_bits), name=f"chosen{r}")
            m.d.comb += [chosen.eq(results[0]), self.o[r].eq(chosen + constant)]
            with m.If(self.tile_en):
                m.d.comb += [self.tile[c][r].eq(result + constant) for c, result in enumerate(results)]
            for c, result in enumerate(results[1:], 1):
                with m.If(self.column == c):
                    m.d.comb += chosen.eq(result)
        return m

    def _operand(self, m: Module, name: str, value, load) -> Value:
        """A code word, each of its planes a register."""
        lanes = self._hw.lanes
        planes = [Signal(lanes, name=f"{name}_{plane}", reset_less=True) for plane in range(self._hw.planes)]
        with m.If(load):
            m.d.sync += [register.eq(value[i * lanes : (i + 1) * lanes]) for i, register in enumerate(planes)]
        return Cat(planes)

    def _split(self, m: Module, name: str, bits) -> list[Signal]:
        """One signal a bit: elements get scalars, not slices of a vector."""
        signals = [Signal(name=f"{name}{c}") for c in range(self._hw.cols)]
        m.d.comb += [signal.eq(bits[c]) for c, signal in enumerate(signals)]
        return signals

    def _element(self, m: Module, name: str, row, col, enable, capture) -> Signal:
        result = Signal(signed(self._hw.acc_bits), name=f"{name}_result")
        instance(
            m, name, PE_MODULE, i_en=enable, i_first=self.first, i_double=self.double, i_subtract=self.subtract, i_capture=capture,
            i_row=row, i_col=col, o_result=result,
        )
        return result

    def _row_constant(self, m: Module, r: int, row) -> Signal:
        result = Signal(signed(self._hw.acc_bits), name=f"constant{r}")
        instance(
            m, f"rowsum_{r}", ROWSUM_MODULE, i_en=self.en.any(), i_first=self.first,
            i_enable=self.rowsum & self.en.any(), i_capture=self.capture, i_init=self.init, i_row=row, o_result=result,
        )
        return result
