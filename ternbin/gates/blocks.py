"""The multiply-accumulate blocks that are compared: every element kind under one wrapper of operand registers."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from amaranth.back import verilog

import ternbin.rtl
from ternbin.hw import HwConfig
from ternbin.rtl.pe import PE_MODULE, ProcessingElement
from ternbin.rtl.reference_pe import Bf16Element, Fp32Element, Int8Element

CONTROLS = ("rst", "row_load", "col_load", "en", "first", "double", "subtract", "capture")
ELEMENT = "element"  # instance name; its module is kept apart from the wrapper

_WRAPPER = """
module {top} (
    input clk, {controls}, input [{high}:0] row, input [{high}:0] col, output [{result}:0] result
);
  reg [{high}:0] row_register, col_register;
  always @(posedge clk) begin
    if (row_load) row_register <= row;
    if (col_load) col_register <= col;
  end
  {module} element (
      .clk(clk), .rst(rst), .en(en), .first(first), .double(double), .subtract(subtract), .capture(capture),
      .row(row_register), .col(col_register), .result(result));
endmodule
"""


@dataclass(frozen=True)
class Block:
    """One wrapped element: ``lanes`` products of ``bits``-bit operands (planes of 1-bit words for binary and ternary) a step."""

    name: str
    kind: str
    lanes: int
    bits: int
    result_bits: int
    module: str
    top: str
    verilog: dict[str, str]

    @property
    def operand_bits(self) -> int:
        """Bits of one operand register."""
        return self.lanes * self.bits

    @property
    def inputs(self) -> dict[str, int]:
        return dict.fromkeys(CONTROLS, 1) | {"row": self.operand_bits, "col": self.operand_bits}

    @property
    def outputs(self) -> dict[str, int]:
        return {"result": self.result_bits}


@cache
def primitives() -> dict[str, str]:
    """The Verilog primitives of the design, file name -> text."""
    folder = Path(ternbin.rtl.__file__).parent / "primitives"
    return {path.name: path.read_text() for path in sorted(folder.glob("*.v"))}


def _array_element(kind: str, lanes: int):
    hw = HwConfig(name="characterised", kind=kind, lanes=lanes)
    return ProcessingElement(hw), hw.planes, hw.acc_bits


@cache
def mac_block(kind: str, lanes: int) -> Block:
    """``kind``: ternary, binary, int8, bf16 or fp32; the last two have one lane."""
    if kind in ("ternary", "binary"):
        element, bits, result = _array_element(kind, lanes)
    else:
        element, bits = {"int8": lambda: (Int8Element(lanes), 8), "bf16": lambda: (Bf16Element(), 16),
                         "fp32": lambda: (Fp32Element(), 32)}[kind]()
        result = 32
    module, top = PE_MODULE if kind in ("ternary", "binary") else f"{kind}_element", f"wrapped_{kind}_{lanes}"
    text = verilog.convert(element, name=module, emit_src=False, strip_internal_attrs=True)
    wrapper = _WRAPPER.format(top=top, module=module, high=lanes * bits - 1, result=result - 1,
                              controls=", ".join(f"input {name}" for name in CONTROLS))
    return Block(f"{kind} x{lanes}", kind, lanes, bits, result, module, top,
                 {f"{module}.v": text, "wrapper.v": wrapper, **primitives()})


# The array's own widths, and the references: a dot product of 16 for int8, one multiply-accumulate for floating point.
MAC_BLOCKS = (("ternary", 32), ("ternary", 64), ("binary", 64), ("int8", 16), ("bf16", 1), ("fp32", 1))
