"""The blocks that are compared, each behind operand registers: the multiply-accumulate elements of every kind, the decoder of packed
trits, what lists the best tokens of beams, the dot products of published chips."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from amaranth.back import verilog
from amaranth.lib.wiring import Component

from ternbin.contract.hw import KINDS, NAMED, HwConfig
from ternbin.contract.memories import ID_BITS
from ternbin.contract.pipeline import ENGINES, LOGITS
from ternbin.energy.dots import DOTS
from ternbin.energy.figures import COLUMN_LOGITS
from ternbin.rtl.array.pe import PE_MODULE, ProcessingElement
from ternbin.rtl.array.reference_pe import FORMATS, DotElement, FloatElement, IntElement
from ternbin.rtl.epilogue.epilogue import sum_bits
from ternbin.rtl.epilogue.topengine import SUM_LAYOUT, TopEngine, entry_layout
from ternbin.rtl.parts.primitives import primitives
from ternbin.rtl.transfer.trits import Unpack

CONTROLS = ("rst", "row_load", "col_load", "en", "first", "double", "subtract", "capture")
ELEMENT = "element"  # instance name; its module is kept apart from the wrapper

_WRAPPER = """
module {top} (
    input clk, {controls}, input [{row_high}:0] row, input [{col_high}:0] col, output [{result}:0] result
);
  reg [{row_high}:0] row_register;
  reg [{col_high}:0] col_register;
  always @(posedge clk) begin
    if (row_load) row_register <= row;
    if (col_load) col_register <= col;
  end
  {module} element (.clk(clk), .rst(rst), {pins});
endmodule
"""
_ARRAY_PINS = """.en(en), .first(first), .double(double), .subtract(subtract), .capture(capture),
      .row(row_register), .col(col_register), .result(result)"""
_TRITS_PINS = (
    """.i__payload(col_register), .i__valid(en), .o__ready(1'b1), .drop(1'b0), .last(1'b0), .o__payload(result)"""
)
_TOP_PINS = (
    """.take(capture), .restart(1'b0), .shift(4'd{shift}), .features({{{ids}{{1'b1}}}}), .ident(row_register[{ids}-1:0]), .own({own}), """
    """.values(col_register), .best(result[{best}-1:0]), .sums(result[{result}-1:{best}])"""
)
TOP_SHIFT = 4  # of its logits: they have 20 fractional bits


@dataclass(frozen=True)
class Block:
    """One wrapped element: ``lanes`` results (products of ``bits``-bit operands; planes of 1-bit words for binary and ternary) a step.
    ``event``: what one of them is called; ``entries``: of the list that it keeps."""

    name: str
    kind: str
    lanes: int
    row_bits: int
    col_bits: int
    result_bits: int
    module: str
    top: str
    verilog: dict[str, str]
    event: str = "multiply-accumulate"
    entries: int = 0

    @property
    def operand_bits(self) -> int:
        """Bits of both operand registers."""
        return self.row_bits + self.col_bits

    @property
    def inputs(self) -> dict[str, int]:
        return dict.fromkeys(CONTROLS, 1) | {"row": self.row_bits, "col": self.col_bits}

    @property
    def outputs(self) -> dict[str, int]:
        return {"result": self.result_bits}


def _array_element(kind: str, lanes: int):
    hw = HwConfig(name="characterised", kind=kind, lanes=lanes)
    return ProcessingElement(hw), hw.planes, hw.column_word_bits // lanes, hw.acc_bits


@cache
def mac_block(kind: str, lanes: int) -> Block:
    """``kind``: of the array, or one of the references' elements."""
    if kind in KINDS:
        element, row, col, result = _array_element(kind, lanes)
    elif kind in FORMATS:
        element, result = FloatElement(FORMATS[kind], lanes), 32
        row = col = FORMATS[kind].bits
    else:
        row, col = INTEGERS[kind]
        element, result = IntElement(row, col, lanes), 32
    module = PE_MODULE if kind in KINDS else f"{kind}_element"
    name, top = f"{kind} x{lanes}", f"wrapped_{kind}_{lanes}"
    return _wrapped(element, Block(name, kind, lanes, row * lanes, col * lanes, result, module, top, {}))


@cache
def dot_block(kind: str) -> Block:
    """A dot product of a published chip (ternbin/energy/published.py), without an accumulator. Row operand: the weights."""
    row, col, lanes = DOTS[kind]
    form = {"ternary dot": "ternary", "binary dot": "binary", "binary12 dot": "signs"}.get(kind, "integer")
    module, top = f"{kind.replace(' ', '_')}_element", f"wrapped_{kind.replace(' ', '_')}_{lanes}"
    element = DotElement(form, row, col, lanes)
    return _wrapped(element, Block(f"{kind} x{lanes}", kind, lanes, row * lanes, col * lanes, 32, module, top, {}))


@cache
def trits_block() -> Block:
    """The decoder of packed trits in the load path of ``small`` (rtl/transfer/trits.py), a beat a cycle. Column operand: the beat; it has
    no parameters."""
    hw = replace(NAMED["small"], weight_pack="5trit")
    result = hw.code_word_bits * hw.load_words
    block = Block(
        "trit decoder",
        "trits",
        hw.axi_bytes,
        1,
        hw.axi_data_bits,
        result,
        "trit_decoder",
        "wrapped_trit_decoder",
        {},
        "byte",
    )
    return _wrapped(Unpack(hw), block, _TRITS_PINS)


TOP_BEAMS = (2, 8)  # the fewest and the most that a search has: lists of 8 and of 20


@cache
def top_block(beams: int) -> Block:
    """What works through columns of logits for a search of ``beams`` (rtl/epilogue/topengine.py), ``LOGITS`` of them a cycle. Column
    operand: a column of ``COLUMN_LOGITS``; row operand: the id of the first one, and whose column it is."""
    hw = HwConfig(name="characterised", rows=COLUMN_LOGITS).searching(beams)
    engine = TopEngine(hw, bits := sum_bits(hw))
    two = beams > ENGINES  # of them to an engine
    best, sums = (1 + two) * hw.top * entry_layout(bits).size, (1 + two) * SUM_LAYOUT.size
    own = f"row_register[{ID_BITS}]" if two else "1'b0"
    block = Block(
        f"best tokens x{hw.top}",
        "top",
        LOGITS,
        ID_BITS + two,
        hw.rows * bits,
        best + sums,
        "top_engine",
        f"wrapped_top_engine_{hw.top}",
        {},
        "logit",
        hw.top,
    )
    return _wrapped(
        engine, block, _TOP_PINS.format(shift=TOP_SHIFT, ids=ID_BITS, own=own, best=best, result=best + sums)
    )


def _wrapped(element: "Component[Any]", block: Block, pins: str = _ARRAY_PINS) -> Block:
    text = verilog.convert(  # pyright: ignore[reportUnknownMemberType]  # its parameters have no types in the stubs
        element, name=block.module, emit_src=False, strip_internal_attrs=True
    )
    wrapper = _WRAPPER.format(
        top=block.top,
        module=block.module,
        row_high=block.row_bits - 1,
        col_high=block.col_bits - 1,
        result=block.result_bits - 1,
        pins=pins,
        controls=", ".join(f"input {name}" for name in CONTROLS),
    )
    used = {name: part for name, part in primitives().items() if block.module == PE_MODULE or block.kind in DOTS}
    return replace(block, verilog={f"{block.module}.v": text, "wrapper.v": wrapper, **used})


INTEGERS = {"int8": (8, 8), "int4x8": (4, 8)}  # bits of a row operand (weights), of a column operand

# The array's own widths, and the references: dot products of 16, of 4 in FP32.
MAC_BLOCKS = (
    ("ternary", 16),
    ("ternary", 32),
    ("ternary", 64),
    ("binary", 64),
    ("ternary8", 16),
    ("ternary8", 32),
    ("ternary8", 64),
    ("int8", 16),
    ("int4x8", 16),
    ("fp8", 16),
    ("bf16", 16),
    ("fp32", 4),
)
