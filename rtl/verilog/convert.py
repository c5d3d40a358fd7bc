"""Amaranth to Verilog."""

import gc
import re
from collections import Counter
from collections.abc import Mapping
from unittest.mock import patch

from amaranth.back import rtlil, verilog
from amaranth.hdl import Elaboratable
from amaranth.hdl._nir import Netlist


def convert(parts: Mapping[str, Elaboratable]) -> str:
    """Verilog of ``parts`` by the name of their modules, their submodules included; of instances only the use.

    Amaranth would look for combinational loops bit by bit, for a quarter of the time, and within a part only: Verilator's lint
    (tests/rtl/test_verilog.py) looks for them in the whole.
    """
    collecting = gc.isenabled()
    gc.disable()  # millions of objects that live to the end: looking for garbage among them takes a third of the time
    try:
        with patch.object(Netlist, "check_comb_cycles"):
            texts = [rtlil.convert(part, name=name, emit_src=False) for name, part in parts.items()]
        # What verilog.convert does with one of them: Yosys takes longer to start than to translate a small one.
        return clocked(verilog._convert_rtlil_text("\n".join(texts), strip_internal_attrs=True))
    finally:
        if collecting:
            gc.enable()


_NAME = r"\\\S+ |[A-Za-z_]\w*"
_REGISTER = re.compile(rf"  always @\(posedge (\S+)\)\n    ({_NAME}) *<= (\\\$\d+ );\n")
_BLOCK = re.compile(r"  always @\* begin\n(.*?)\n  end\n", re.S)
_ASSIGNMENT = re.compile(rf"^( +)({_NAME}) *(\[\d+(?::\d+)?\])? *= (.*);$")


def clocked(text: str) -> str:
    """``text`` of Yosys with the process that computes a register's next value moved into the register's own process.

    Yosys writes ``always @* begin next = ...; end`` and ``always @(posedge clk) register <= next;``. A simulator evaluates the former
    whenever anything in it may have changed, the reset among it, even while the register has no clock edge.
    """
    return "endmodule".join(_clocked_module(module) for module in text.split("endmodule"))


def _clocked_module(text: str) -> str:
    registers = {next_value: (clock, register) for clock, register, next_value in _REGISTER.findall(text)}
    uses = Counter(re.findall(r"\\\$\d+ ", text))
    moved = set()

    def move(block: re.Match) -> str:
        lines = [
            (line, _ASSIGNMENT.match(line)) for line in block[1].split("\n") if "$auto$verilog_backend" not in line
        ]
        targets = [assignment[2] for _, assignment in lines if assignment]
        name = targets[0]
        # Declared, assigned here and nothing else, and copied to the register.
        if set(targets) != {name} or name not in registers or uses[name] != len(targets) + 2:
            return block[0]
        moved.add(name)
        clock, register = registers[name]
        body = []
        for line, assignment in lines:
            if assignment is None:
                body.append(line)
            elif assignment[3] or assignment[4].strip() != register.strip():
                body.append(f"{assignment[1]}{register}{assignment[3] or ''} <= {assignment[4]};")
            elif body and body[-1].endswith(":"):  # a case that holds the value
                body.append(f"{assignment[1]};")
        return "\n".join([f"  always @(posedge {clock}) begin", *body, "  end", ""])

    text = _BLOCK.sub(move, text)
    text = _REGISTER.sub(lambda register: "" if register[3] in moved else register[0], text)
    return re.sub(
        r"  reg (?:\[\d+:\d+\] )?(\\\$\d+ );\n", lambda declared: "" if declared[1] in moved else declared[0], text
    )
