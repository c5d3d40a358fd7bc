"""Popcount primitives: both bodies agree. The array: every kind of step against integers, with columns idle and rows summed."""

import dataclasses
import random
import re

import cocotb
import pytest
from cocotb import triggers

from ternbin.contract.hw import NAMED
from ternbin.rtl.array.array import Array
from ternbin.rtl.verilog.shared import shared_verilog
from ternbin.sim.bench import primitives, run_bench, to_verilog
from ternbin.sim.tb import drivers

EXHAUSTIVE = range(1, 15)  # widths whose every value is tried
WIDE = (16, 31, 32, 64, 100, 128, 256, 512)  # powers of two and others, random values of all densities
CONFIGS = {
    "ternary": NAMED["tiny"],
    "binary": NAMED["tiny-binary"],
    "ternary8": NAMED["tiny-ternary8"],
    "one-column": dataclasses.replace(NAMED["tiny"], cols=1, acc_bits=16),
}


def popcount_bench() -> dict[str, str]:
    """Verilog of a circuit that compares the bodies for one value of every width a cycle; ``good`` falls at a difference."""
    names = ("popcount", "difference", "balance")
    simulated = {f"ternbin_{name}.v": primitives()[f"ternbin_{name}.v"] for name in names}
    tree = primitives()["ternbin_popcount_tree.v"]
    renamed = {
        f"built_{name}": "`define SYNTHESIS\n"
        + re.sub(r"ternbin_(popcount|difference|balance) ", r"built_\1 ", text)
        + "`undef SYNTHESIS\n"
        for name, text in simulated.items()
    }
    parts, checks = [], []
    for width in (*EXHAUSTIVE, *WIDE):
        bits = f"counter[{width - 1}:0]" if width in EXHAUSTIVE else f"noise[{width - 1}:0]"
        other = "counter[31:16]" if width in EXHAUSTIVE else f"noise[{511}:{512 - width}]"
        count = width.bit_length()
        for name in ("ternbin", "built"):
            parts.append(f"wire [{count - 1}:0] {name}_p{width};")
            parts.append(
                f"{name}_popcount #(.WIDTH({width})) {name}_pop_{width} (.bits({bits}), .count({name}_p{width}));"
            )
            parts.append(f"wire [15:0] {name}_d{width}, {name}_b{width};")
            parts.append(
                f"{name}_difference #(.WIDTH({width}), .OUT(16)) {name}_diff_{width} "
                f"(.plus({bits}), .minus({width}'({other})), .negate(counter[16]), .difference({name}_d{width}));"
            )
            parts.append(
                f"{name}_balance #(.WIDTH({width}), .OUT(16)) {name}_bal_{width} "
                f"(.bits({bits}), .negate(counter[17]), .balance({name}_b{width}));"
            )
        checks += [f"(ternbin_{kind}{width} == built_{kind}{width})" for kind in "pdb"]
    text = f"""
module popcounts (input clk, output reg good, output reg [9:0] largest);
  reg [31:0] counter = 0;
  reg [511:0] noise = 512'h1;
  initial good = 1;
  {chr(10).join(parts)}
  always @(posedge clk) begin
    counter <= {{counter[31:16] * 16'd25173 + 16'd13849, counter[15:0] + 16'd1}};
    case (counter[7:0])
      8'd0: noise <= 0;
      8'd1: noise <= ~512'h0;
      default: noise <= {{noise[510:0], 1'b0}} ^ {{noise[447:0], noise[511:448]}} ^ {{16{{counter}}}};
    endcase
    if (!({" && ".join(checks)})) good <= 0;
    if (built_p512 > largest) largest <= built_p512;
  end
endmodule
"""
    return {"popcounts.v": text, "tree.v": tree, **simulated, **renamed}


@cocotb.test()
async def bench_popcount(dut):
    await drivers.start(dut)
    await triggers.ClockCycles(dut.clk, 1 << max(EXHAUSTIVE))
    assert drivers.get(dut, "good") == 1
    assert drivers.get(dut, "largest") == 512


def test_popcount_bodies_agree():
    run_bench(popcount_bench(), __name__, name="popcounts", testcase="bench_popcount", fast="-O0")


def value_of(hw, word: int) -> list[int]:
    """Codes of a stored word."""
    lanes = range(hw.lanes)
    if hw.kind == "binary":
        return [1 if word >> lane & 1 else -1 for lane in lanes]
    return [(word >> lane & 1) * (1 - 2 * (word >> hw.lanes + lane & 1)) for lane in lanes]


def column_of(hw, word: int) -> list[int]:
    """Codes of a column's operand."""
    if not hw.whole_columns:
        return value_of(hw, word)
    bits = [[word >> plane * hw.lanes + lane & 1 for plane in range(9)] for lane in range(hw.lanes)]
    return [sum(bit << plane for plane, bit in enumerate(planes[:8])) - 256 * planes[8] for planes in bits]


class ArrayModel:
    """The array as a few lists of integers; ``drive`` is told the inputs of every cycle."""

    def __init__(self, hw):
        self.hw = hw
        self.rows, self.cols = [0] * hw.rows, [0] * hw.cols
        self.acc, self.result = ([[0] * hw.cols for _ in range(hw.rows)] for _ in range(2))
        self.constant, self.held = [0] * hw.rows, [0] * hw.rows

    def output(self, r: int, c: int) -> int:
        return drivers.signed(self.result[r][c] + self.held[r], self.hw.acc_bits)

    def clock(self, i: dict) -> None:
        hw, columns = self.hw, range(self.hw.cols)
        if i["capture"]:
            self.held = list(self.constant)
        for r in range(hw.rows):
            row = value_of(hw, self.rows[r])
            for c in columns:
                if i["capture"] and i["capture_cols"] >> c & 1:
                    self.result[r][c] = self.acc[r][c]
                if i["en"] >> c & 1:
                    dot = sum(a * b for a, b in zip(row, column_of(hw, self.cols[c]), strict=True))
                    before = 0 if i["first"] else self.acc[r][c] * (2 if i["double"] else 1)
                    self.acc[r][c] = drivers.signed(before + (-dot if i["subtract"] else dot), hw.acc_bits)
            if i["en"]:
                start = drivers.signed(i["init"], 24) if i["first"] else self.constant[r]
                self.constant[r] = start + (sum(row) if i["rowsum"] else 0)
        word = (1 << hw.code_word_bits) - 1
        if i["row_load"]:
            self.rows = [i["row"] >> r * hw.code_word_bits & word for r in range(hw.rows)]
        word = (1 << hw.column_word_bits) - 1
        self.cols = [
            i["col"] >> c * hw.column_word_bits & word if i["col_load"] >> c & 1 else self.cols[c] for c in columns
        ]


@cocotb.test()
async def bench_array(dut):
    hw = CONFIGS[drivers.parameters()["config"]]
    await drivers.start(dut)
    model = ArrayModel(hw)
    fresh = {
        "row": 0,
        "col": 0,
        "row_load": 1,
        "col_load": (1 << hw.cols) - 1,
        "en": 0,
        "first": 0,
        "double": 0,
        "subtract": 0,
        "rowsum": 0,
        "init": 0,
        "capture": 0,
        "capture_cols": 0,
    }
    first = fresh | {"en": (1 << hw.cols) - 1, "first": 1, "capture_cols": (1 << hw.cols) - 1}
    prologue = [fresh, first, first | {"capture": 1}]  # from here on nothing depends on power-up values
    for cycle in range(500):
        inputs = {
            "row": random.getrandbits(hw.rows * hw.code_word_bits),
            "col": random.getrandbits(hw.cols * hw.column_word_bits),
            "row_load": random.random() < 0.8,
            "col_load": random.getrandbits(hw.cols),
            "en": random.getrandbits(hw.cols),
            "first": random.random() < 0.1,
            "double": random.random() < 0.2,
            "subtract": random.random() < 0.3,
            "rowsum": random.random() < 0.5,
            "init": random.getrandbits(24),
            "capture": random.random() < 0.2,
            "capture_cols": random.getrandbits(hw.cols),
        }
        inputs = {name: int(value) for name, value in (prologue[cycle] if cycle < 3 else inputs).items()}
        column = random.randrange(hw.cols)
        for name, value in inputs.items():
            getattr(dut, name).value = value
        if hw.cols > 1:
            dut.column.value = column
        await triggers.RisingEdge(dut.clk)
        if cycle > 3:
            shown = drivers.get(dut, "o")
            for r in range(hw.rows):
                assert drivers.signed(shown >> r * hw.acc_bits, hw.acc_bits) == model.output(r, column), (
                    cycle,
                    r,
                    column,
                )
        model.clock(inputs)


@pytest.mark.parametrize("body", ["simulation", "SYNTHESIS"])
@pytest.mark.parametrize("name", CONFIGS)
def test_array(name, body):
    hw = CONFIGS[name]
    texts = to_verilog(Array(hw), "array") | shared_verilog(hw)
    if body == "SYNTHESIS":
        texts = {file: f"`define SYNTHESIS\n{text}" for file, text in texts.items()}
    run_bench(texts, __name__, name="array", testcase="bench_array", parameters={"config": name})
