"""Verilog of an accelerator, and the manifest that says what is where in it."""

import json
import re
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from amaranth import Shape
from amaranth.lib.wiring import Out

from ternbin.contract import isa
from ternbin.contract.counters import counters
from ternbin.contract.hw import KINDS, HwConfig
from ternbin.contract.memories import banked
from ternbin.errors import InputError
from ternbin.processes import begin_worker
from ternbin.rtl.control.counters import COUNTER_BITS
from ternbin.rtl.parts.primitives import PLANE_RAM, primitives
from ternbin.rtl.top import APART, UNITS, Top, top_ports
from ternbin.rtl.verilog.convert import convert
from ternbin.rtl.verilog.shared import shared_verilog
from ternbin.version import __version__

TOP = "ternbin"
FORMS = ("asic", "fpga")
_WAIVERS = Path(__file__).parents[1] / "lint.vlt"


@cache
def generate(hw: HwConfig, form: str = "asic") -> dict[str, str]:
    """Verilog texts by file name: the top module ``ternbin`` with its parts, and the primitives. The same input gives the same text.

    ``form``: "asic", or "fpga", whose primitives have no latches and whose memories infer as block RAM; bits and cycles are the same.
    Raises InputError for another form, and for a configuration that is for accounting only.
    """
    if form not in FORMS:
        raise InputError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    unused = set() if hw.whole_columns else {PLANE_RAM}
    return _parts(hw, form == "fpga") | {name: text for name, text in primitives(form).items() if name not in unused}


def _parts(hw: HwConfig, fpga: bool) -> dict[str, str]:
    """All but the primitives; ``fpga``: in the form for FPGAs. The larger parts are converted at the same time, in processes of their
    own."""
    if hw.kind not in KINDS:
        raise InputError(f"hardware configuration: kind must be one of {', '.join(KINDS)} for Verilog, not {hw.kind!r}")
    with ProcessPoolExecutor(max_workers=2, initializer=begin_worker) as pool:
        units = [pool.submit(_unit, name, hw, fpga) for name in APART]
        shared, top = pool.submit(shared_verilog, hw, fpga), convert({TOP: Top(hw, fpga=fpga)})
        return {f"{TOP}.v": "\n".join([top, *(unit.result() for unit in units)]), **shared.result()}


def _unit(name: str, hw: HwConfig, fpga: bool) -> str:
    return convert({APART[name]: UNITS[name](hw, fpga=fpga)})


def _ports(hw: HwConfig) -> list[dict]:
    ports = [{"name": "clk", "direction": "input", "bits": 1}, {"name": "rst", "direction": "input", "bits": 1}]
    for name, member in top_ports(hw).items():
        direction = "output" if member.flow == Out else "input"
        ports.append({"name": name, "direction": direction, "bits": Shape.cast(member.shape).width})
    return ports


def _memories(hw: HwConfig) -> list[dict]:
    return [
        {
            "name": name,
            "banks": memory.banks,
            "depth": memory.words,
            "word_bits": memory.bits,
            "elements": memory.elements,
            "planes": memory.planes,
            "instances": [f"{name}.bank{bank}" for bank in range(memory.banks)],
            "array": "mem",
        }
        for name, memory in banked(hw).items()
    ]


def _counters(hw: HwConfig) -> list[dict]:
    return [
        {
            "name": name,
            "offset": isa.REG_COUNTERS + 8 * number,
            "bits": COUNTER_BITS,
            "instance": "counters",
            "signal": f"ctr_{name}",
        }
        for number, name in enumerate(counters(hw))
    ]


def manifest(hw: HwConfig, form: str = "asic") -> dict[str, Any]:
    """What the Verilog of ``generate`` contains, as data for JSON.

    form; verilog: the standard of the text, and of what is left of it where SYNTHESIS is defined; ports; registers (name -> byte
    offset) and counters (in order, with byte offset and register signal) of the AXI4-Lite slave; memories with the instances of their
    banks below the top (each holds the array ``mem`` of ``depth`` words); clock and reset; the configuration; units in the order of
    the bits of ``trace_start`` and ``trace_done``.
    """
    registers = {
        name.removeprefix("REG_").lower(): value for name, value in vars(isa).items() if name.startswith("REG_")
    }
    return {
        "top": TOP,
        "version": __version__,
        "form": form,
        "verilog": {"standard": "IEEE 1800-2012", "with SYNTHESIS defined": "IEEE 1364-2005"},
        "hardware": hw.asdict(),
        "clock": "clk",
        "reset": {"name": "rst", "active": "high", "synchronous": True},
        "ports": _ports(hw),
        "registers": registers,
        "counters": _counters(hw),
        "memories": _memories(hw),
        "units": [unit.name.lower() for unit in isa.Unit],
    }


def beside(hw: HwConfig, form: str = "asic") -> dict[str, str]:
    """Files that stand beside the Verilog: ``manifest.json``, and ``lint.vlt``, the waivers with which Verilator's lint is clean."""
    data = json.dumps(manifest(hw, form), indent=1, ensure_ascii=False) + "\n"
    return {"manifest.json": data, _WAIVERS.name: _WAIVERS.read_text(encoding="utf-8")}


def own_prefix(hw: HwConfig) -> str:
    """What names of modules and files begin with, so that other configurations can stand in the same design."""
    return f"{TOP}_{re.sub(r'[^A-Za-z0-9_]', '_', hw.name)}"


def package(hw: HwConfig, form: str = "asic", prefix: str | None = None) -> dict[str, str]:
    """All files for a larger design: Verilog and what stands beside it, names of modules and files beginning with ``prefix`` (default:
    ``own_prefix``), the top's name. Raises InputError for a prefix that no identifier of Verilog can begin with."""
    prefix = own_prefix(hw) if prefix is None else prefix
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
        raise InputError(f"prefix must be letters, digits and _, no digit first, not {prefix!r}")
    files = generate(hw, form) | beside(hw, form)
    return {
        name.replace(TOP, prefix): text if name.endswith(".json") else re.sub(rf"\b{TOP}(?=\b|_)", prefix, text)
        for name, text in files.items()
    } | {"manifest.json": files["manifest.json"].replace(f'"top": "{TOP}"', f'"top": "{prefix}"')}
