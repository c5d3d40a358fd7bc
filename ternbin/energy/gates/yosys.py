"""Yosys as pyosys, in a process of its own; and what it reads of an accelerator."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ternbin.errors import InputError, MissingToolError
from ternbin.rtl.parts.primitives import PLANE_RAM, primitives

# Memory banks stay black boxes: a macro takes their place.
_RAM = """
(* blackbox *)
module ternbin_ram #(parameter DEPTH = 16, parameter WIDTH = 8, parameter ADDR = 4, parameter ELEMENTS = 1, parameter PLANES = 1) (
    input clk, input ren, input [ADDR-1:0] raddr, output [WIDTH-1:0] rdata,
    input wen, input [ADDR-1:0] waddr, input [WIDTH-1:0] wdata, input [ELEMENTS-1:0] wmask);
endmodule
"""
# Its body for simulation holds a latch: synthesis puts the library's cell there.
_CLOCK_GATE = """
(* blackbox *)
module ternbin_clock_gate (input clk, input enable, output gated);
endmodule
"""


def sources(verilog: Mapping[str, str]) -> dict[str, str]:
    """``verilog`` (file name -> text) with memory banks and clock gates as black boxes; one with planes is made of such banks."""
    planes = {name: primitives("fpga")[name] for name in (PLANE_RAM,) if name in verilog}
    return {**verilog, **planes, "ternbin_ram.v": _RAM, "ternbin_clock_gate.v": _CLOCK_GATE}


def tool_versions() -> dict[str, str]:
    """Versions that decide a characterisation. Raises MissingToolError."""
    try:
        return {name: importlib.metadata.version(name) for name in ("pyosys", "amaranth")}
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingToolError(f"synthesis needs {error.name}: pip install 'ternbin[energy]'") from None


def run_passes(passes: Sequence[str], folder: Path) -> None:
    """Runs Yosys passes in ``folder``, in a process of their own: a fatal error of Yosys ends the process it is in.

    Raises MissingToolError without pyosys, InputError with the tool's last words when it refuses.
    """
    tool_versions()
    code = (
        "import json, sys\nfrom ternbin.processes import begin_worker\nbegin_worker()\n"
        "from pyosys import libyosys as ys\ndesign = ys.Design()\n"
        "for one in json.load(sys.stdin): ys.run_pass(one, design)\nprint('all passes done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(list(passes)),
        cwd=folder,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode or not done.stdout.endswith("all passes done\n"):
        raise InputError(f"synthesis must succeed, not stop with: {done.stdout[-2000:]}")
