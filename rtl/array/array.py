"""The output-stationary array: rows x cols processing elements, the row-sum column, operand registers, column selection."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import BYTE_PLANES, HwConfig
from ternbin.rtl.array.pe import PE_MODULE, ROWSUM_MODULE
from ternbin.rtl.parts.primitives import instance, shared_inputs

ROW_MODULE = "ternbin_row"


def operands(hw: HwConfig, f: data.View, words: data.View) -> data.View | Value:
    """What the columns' elements get for the words that were read. An array that takes whole 8-bit codes makes their two's complement of
    eight planes (the first one's code word, then the others), and of the one plane of other codes."""
    if not hw.whole_columns:
        return words
    return Cat(_complement(hw, f, word) for word in words)


def _complement(hw: HwConfig, f: data.View, word: Value) -> Value:
    first, minus, *others = (word.word_select(plane, hw.lanes) for plane in range(BYTE_PLANES + 1))
    whole, negative = f.col_planes[3], first & minus
    sign = Mux(f.col_signed, others[-1], 0)
    return Cat(first, *(Mux(whole, plane, negative) for plane in (*others, sign)))


def _operand(m: Module, hw: HwConfig, name: str, value: Value, load: Value) -> Value:
    """A word of planes, each of them a register."""
    planes = [Signal(hw.lanes, name=f"{name}_{plane}", reset_less=True) for plane in range(len(value) // hw.lanes)]
    with m.If(load):
        m.d.sync += [register.eq(value[i * hw.lanes : (i + 1) * hw.lanes]) for i, register in enumerate(planes)]
    return Cat(planes)


class Row(wiring.Component):
    """A row of the array: operand register, elements, row sum, column selection. Ports as those of the array; ``en``, ``capture_col``,
    ``col`` and ``tile`` with the number of the column behind, for elements get scalars, not slices of a vector."""

    row: Signal
    row_load: Signal
    first: Signal
    double: Signal
    subtract: Signal
    any: Signal
    rowsum: Signal
    init: Signal
    capture: Signal
    column: Signal
    o: Signal
    tile_en: Signal

    def __init__(self, hw: HwConfig):
        self._hw = hw
        acc, cols = signed(hw.acc_bits), range(hw.cols)
        super().__init__(
            {
                "row": In(hw.code_word_bits),
                "row_load": In(1),
                **{f"col{c}": In(hw.column_word_bits) for c in cols},
                **{f"en{c}": In(1) for c in cols},
                **{f"capture_col{c}": In(1) for c in cols},
                **{f"tile{c}": Out(acc) for c in cols},
                "first": In(1),
                "double": In(1),
                "subtract": In(1),
                "any": In(1),
                "rowsum": In(1),
                "init": In(signed(24)),
                "capture": In(1),
                **({"column": In(range(hw.cols))} if hw.cols > 1 else {}),
                "o": Out(acc),
                "tile_en": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        acc, cols = signed(self._hw.acc_bits), range(self._hw.cols)
        row = _operand(m, self._hw, "operand", self.row, self.row_load)
        results = [Signal(acc, name=f"result{c}") for c in cols]
        constant, chosen = Signal(acc), Signal(acc)
        for c in cols:
            instance(
                m,
                f"pe{c}",
                PE_MODULE,
                i_en=getattr(self, f"en{c}"),
                i_first=self.first,
                i_double=self.double,
                i_subtract=self.subtract,
                i_capture=getattr(self, f"capture_col{c}"),
                i_row=row,
                i_col=getattr(self, f"col{c}"),
                o_result=results[c],
            )
        instance(
            m,
            "rowsum",
            ROWSUM_MODULE,
            i_en=self.any,
            i_first=self.first,
            i_enable=self.rowsum,
            i_capture=self.capture,
            i_init=self.init,
            i_row=row,
            o_result=constant,
        )
        m.d.comb += [chosen.eq(results[0]), self.o.eq(chosen + constant)]
        with m.If(self.tile_en):
            m.d.comb += [getattr(self, f"tile{c}").eq(results[c] + constant) for c in cols]
        for c in cols[1:]:
            with m.If(self.column == c):
                m.d.comb += chosen.eq(results[c])
        return m


class Array(wiring.Component):
    """``row_load`` and ``col_load[c]`` copy operands to the registers that the elements see from the next cycle on.

    A step: ``en[c]`` for the columns that take part, with ``first``, ``double``, ``subtract`` as the processing element
    defines them; ``rowsum`` adds the row sums, ``init`` starts the constant of every row (at ``first``). ``capture`` with ``capture_cols``
    copies finished sums to the result registers; ``tile[c][r]`` (0 without ``tile_en``) is the result of row r in column c plus the
    row's constant, modulo 2^acc_bits, ``o`` that of column ``column``.
    """

    row: data.View
    row_load: Signal
    col: data.View
    col_load: Signal
    en: Signal
    first: Signal
    double: Signal
    subtract: Signal
    rowsum: Signal
    init: Signal
    capture: Signal
    capture_cols: Signal
    column: Signal
    o: data.View
    tile_en: Signal
    tile: data.View

    def __init__(self, hw: HwConfig):
        self._hw = hw
        super().__init__(
            {
                "row": In(data.ArrayLayout(hw.code_word_bits, hw.rows)),
                "row_load": In(1),
                "col": In(data.ArrayLayout(hw.column_word_bits, hw.cols)),
                "col_load": In(hw.cols),
                "en": In(hw.cols),
                "first": In(1),
                "double": In(1),
                "subtract": In(1),
                "rowsum": In(1),
                "init": In(signed(24)),
                "capture": In(1),
                "capture_cols": In(hw.cols),
                "column": In(range(hw.cols)),
                "o": Out(data.ArrayLayout(signed(hw.acc_bits), hw.rows)),
                "tile_en": In(1),
                "tile": Out(data.ArrayLayout(data.ArrayLayout(signed(hw.acc_bits), hw.rows), hw.cols)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw, cols = self._hw, range(self._hw.cols)
        common = {
            name: getattr(self, name)
            for name in ("row_load", "first", "double", "subtract", "init", "capture", "column", "tile_en")
            if name != "column" or hw.cols > 1
        }
        common |= {"any": self.en.any(), "rowsum": self.rowsum & self.en.any()}
        common |= {f"en{c}": self.en[c] for c in cols} | {
            f"capture_col{c}": self.capture & self.capture_cols[c] for c in cols
        }
        inputs = shared_inputs(m, common)
        inputs |= {f"i_col{c}": _operand(m, hw, f"col{c}", self.col[c], self.col_load[c]) for c in cols}
        for r in range(hw.rows):
            tile = {f"o_tile{c}": self.tile[c][r] for c in cols}
            instance(m, f"row{r}", ROW_MODULE, **inputs, i_row=self.row[r], o_o=self.o[r], **tile)
        return m
