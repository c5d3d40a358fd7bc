"""The rewriting of registers (rtl/verilog/clocked.py) changes no hardware: proven for every module of a configuration."""

import re
from dataclasses import replace
from unittest.mock import patch

import pytest
from equal import differing, modules

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.rtl.array.sequencer import Sequencer
from ternbin.rtl.parts.primitives import primitives
from ternbin.rtl.top import APART, UNITS, Top
from ternbin.rtl.verilog import convert as converting
from ternbin.rtl.verilog.clocked import clocked
from ternbin.rtl.verilog.convert import convert
from ternbin.rtl.verilog.generate import TOP, generate
from ternbin.rtl.verilog.shared import shared_verilog

pytest.importorskip("pyosys")


def as_yosys_wrote_it(hw: HwConfig) -> dict[str, str]:
    """What ``generate`` gives but for primitives, registers not rewritten."""
    with patch.object(converting, "clocked", str):
        units = [convert({APART[name]: UNITS[name](hw)}) for name in APART]
        return {f"{TOP}.v": "\n".join([convert({TOP: Top(hw)}), *units]), **shared_verilog(hw)}


def prove(hw: HwConfig, folder) -> None:
    stubs, before = primitives("asic"), as_yosys_wrote_it(hw)
    after = {name: text for name, text in generate(hw).items() if name not in stubs}
    assert differing(before, after, stubs, folder) == []
    before, after = modules(before), modules(after)
    left = sum(len(re.findall(r"always @\(posedge \S+\)\n", text)) for text in after.values())
    assert sum(before[name] != after[name] for name in before) > 50 and left < 50


def test_every_module_is_what_it_was(tmp_path):
    prove(NAMED["tiny"], tmp_path)


OTHERS = {
    "tiny-binary": NAMED["tiny-binary"],
    "small": NAMED["small"],
    "resident": NAMED["small-resident"],
    "micro": NAMED["micro"],
    "beams": replace(NAMED["tiny"].searching(3), kv_external=True, weight_pack="5trit"),
}


@pytest.mark.soak
@pytest.mark.parametrize("hw", OTHERS.values(), ids=OTHERS)
def test_every_module_of_others(hw, tmp_path):
    prove(hw, tmp_path)


STATEMENT = re.compile(r"^( +\S+ ?(?:\[\S+\])? *)<= (.*);$", re.M)
RESET = re.compile(r"^    if \(rst\) begin\n.*?^    end\n", re.M | re.S)
CONDITION = re.compile(r"if \((?!rst|\\\$auto)(.*)\) begin\n")
MISTAKES = {
    "another value": lambda text: STATEMENT.sub(r"\1<= ~(\2);", text, count=1),
    "a statement lost": lambda text: STATEMENT.sub("", text, count=1),
    "a reset lost": lambda text: RESET.sub("", text, count=1),
    "a condition turned": lambda text: CONDITION.sub(r"if (!(\1)) begin\n", text, count=1),
    "the other edge": lambda text: text.replace("always @(posedge clk)", "always @(negedge clk)", 1),
    "a register held by another": lambda text: STATEMENT.sub(_of_another(text), text, count=1),
}


def _of_another(text: str) -> str:
    """A statement with the last register of the text in the place of its value."""
    *_, last = re.findall(r"^    +(\w+) *<= ", text, re.M)
    return rf"\1<= {last};"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake, tmp_path):
    with patch.object(converting, "clocked", str):
        before = convert({"part": Sequencer(NAMED["tiny"])})
    right = clocked(before)
    wrong = MISTAKES[mistake](right)
    assert wrong != right

    assert differing({"part.v": before}, {"part.v": wrong}, {}, tmp_path)


def test_a_case_that_holds_a_register_keeps_a_statement():
    text = clocked(
        "module m (input clk, input x, input d, output reg r);\n  reg \\$1 ;\n  always @* begin\n    \\$1  = r;\n    casez (x)\n"
        "      1'h0:\n          \\$1  = d;\n      default:\n          \\$1  = r;\n    endcase\n  end\n"
        "  always @(posedge clk)\n    r <= \\$1 ;\nendmodule\n"
    )
    assert "always @*" not in text and "r <= d;" in text
    assert re.search(r"default:\s*;\s*endcase", text)
