"""Verilog of an accelerator, and the manifest that says what is where in it."""

import gc
import re
from collections import Counter
from functools import cache
from pathlib import Path

from amaranth import Shape
from amaranth.back import verilog
from amaranth.lib.wiring import Out

import ternbin
from ternbin import isa
from ternbin.hw import HwConfig
from ternbin.rtl.counters import COUNTER_BITS
from ternbin.rtl.memory import geometries
from ternbin.rtl.pe import pe_verilog
from ternbin.rtl.top import Top, counters, top_ports

TOP = "ternbin"
_PRIMITIVES = Path(__file__).parent / "primitives"


@cache
def generate(hw: HwConfig) -> dict[str, str]:
    """Verilog texts by file name: the top module ``ternbin`` with its parts, and the primitives. The same input gives the same text."""
    collecting = gc.isenabled()
    gc.disable()  # millions of objects that live to the end: looking for garbage among them takes a third of the time
    try:
        text = verilog.convert(Top(hw), name=TOP, emit_src=False, strip_internal_attrs=True)
    finally:
        if collecting:
            gc.enable()
    primitives = {path.name: path.read_text() for path in sorted(_PRIMITIVES.glob("*.v"))}
    return {f"{TOP}.v": clocked(text), "ternbin_pe.v": pe_verilog(hw), **primitives}


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
        lines = [(line, _ASSIGNMENT.match(line)) for line in block[1].split("\n") if "$auto$verilog_backend" not in line]
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
        return "\n".join([f"  always @(posedge {clock}) begin", *body, "  end", ""])

    text = _BLOCK.sub(move, text)
    text = _REGISTER.sub(lambda register: "" if register[3] in moved else register[0], text)
    return re.sub(r"  reg (?:\[\d+:\d+\] )?(\\\$\d+ );\n", lambda declared: "" if declared[1] in moved else declared[0], text)


def _ports(hw: HwConfig) -> list[dict]:
    ports = [{"name": "clk", "direction": "input", "bits": 1}, {"name": "rst", "direction": "input", "bits": 1}]
    for name, member in top_ports(hw).items():
        direction = "output" if member.flow == Out else "input"
        ports.append({"name": name, "direction": direction, "bits": Shape.cast(member.shape).width})
    return ports


def _memories(hw: HwConfig) -> list[dict]:
    return [
        {
            "name": name, "banks": shape.banks, "depth": shape.depth, "word_bits": shape.word_bits, "elements": shape.elements,
            "planes": shape.planes, "instances": [f"{name}.bank{bank}" for bank in range(shape.banks)], "array": "mem",
        }
        for name, shape in geometries(hw).items()
    ]


def _counters(hw: HwConfig) -> list[dict]:
    return [
        {
            "name": name, "offset": isa.REG_COUNTERS + 8 * number, "bits": COUNTER_BITS, "instance": "counters",
            "signal": f"ctr_{name}",
        }
        for number, name in enumerate(counters(hw))
    ]


def manifest(hw: HwConfig) -> dict:
    """What the Verilog of ``generate`` contains, as data for JSON.

    ports; registers (name -> byte offset) and counters (in order, with byte offset and register signal) of the AXI4-Lite slave;
    memories with the instances of their banks below the top (each holds the array ``mem`` of ``depth`` words); clock and reset;
    the configuration; units in the order of the bits of ``trace_start`` and ``trace_done``.
    """
    registers = {name.removeprefix("REG_").lower(): value for name, value in vars(isa).items() if name.startswith("REG_")}
    return {
        "top": TOP, "version": ternbin.__version__, "hardware": hw.asdict(),
        "clock": "clk", "reset": {"name": "rst", "active": "high", "synchronous": True},
        "ports": _ports(hw), "registers": registers, "counters": _counters(hw), "memories": _memories(hw),
        "units": [unit.name.lower() for unit in isa.Unit],
    }
