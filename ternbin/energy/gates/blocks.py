"""The blocks that are compared, each behind operand registers: the multiply-accumulate elements of every kind, a lane of the softmax, the
decoder of packed trits."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from amaranth.back import verilog
from amaranth.lib.wiring import Component

from ternbin.contract.hw import KINDS, NAMED, HwConfig
from ternbin.rtl.array.pe import PE_MODULE, ProcessingElement
from ternbin.rtl.array.reference_pe import FORMATS, FloatElement, IntElement
from ternbin.rtl.parts.primitives import primitives
from ternbin.rtl.transfer.trits import Unpack
from ternbin.rtl.vector.softmax_lanes import ENTRY_BITS, EXP_LANE, ExpLane

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
_EXP_PINS = """.advance(en), .take(en), .multiply(en), .keep(1'b1), .keep2(1'b1), .power(1'b1),
      .maximum(row_register[{high}:0]), .mul(row_register[{mul}:{bits}]), .shift(row_register[{row}:{shift}]),
      .score(col_register[{high}:0]), .entry(col_register[{mul}:{bits}]), .index(result[7:0]), .exponential(result[23:8])"""

_TRITS_PINS = (
    """.i__payload(col_register), .i__valid(en), .o__ready(1'b1), .drop(1'b0), .last(1'b0), .o__payload(result)"""
)


@dataclass(frozen=True)
class Block:
    """One wrapped element: ``lanes`` results (products of ``bits``-bit operands; planes of 1-bit words for binary and ternary) a step.
    ``event``: what one of them is called."""

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
def exp_block() -> Block:
    """The lane of the softmax that computes an exponential, as the RTL has it (rtl/vector/softmax.py). Row operand: maximum, factor and
    shift; column operand: score and the table's entry."""
    hw = HwConfig(name="characterised")
    bits, entry = hw.acc_bits, ENTRY_BITS
    return _wrapped(
        ExpLane(hw),
        Block(
            "exp lane", "exp", 1, bits + entry + 6, bits + entry, 8 + entry, EXP_LANE, "wrapped_exp_lane", {}, "result"
        ),
        _EXP_PINS.format(bits=bits, high=bits - 1, mul=bits + entry - 1, shift=bits + entry, row=bits + entry + 5),
    )


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
    used = {name: part for name, part in primitives().items() if block.module == PE_MODULE}
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
