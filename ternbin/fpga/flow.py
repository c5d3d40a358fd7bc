"""A design through synthesis, placement and routing to a bitstream; what it takes and how fast it is."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ternbin import formats
from ternbin.contract.hw import HwConfig
from ternbin.errors import CheckError
from ternbin.fpga import tools
from ternbin.fpga.design import CONSTRAINTS_FILE, sources
from ternbin.fpga.devices import BOARD_TOP, CLOCK_MHZ, Device
from ternbin.progress import passing, stage
from ternbin.storage import write_text
from ternbin.version import __version__

BITSTREAM = "design.bit"
# Names of nextpnr's report: cells of a kind.
CELLS = {"lut4": "TRELLIS_COMB", "flip_flops": "TRELLIS_FF", "block_rams": "DP16KD", "multipliers": "MULT18X18D"}


def implement(
    hw: HwConfig, device: Device, folder: Path, *, memory_kb: int | None = None, seed: int = 1
) -> dict[str, Any]:
    """``hw`` on ``device``; writes Verilog, logs of the tools, bitstream and ``result.json`` to ``folder`` and returns the result.

    Raises InputError, MissingToolError (before anything is written) and ToolError, for a design that does not fit among others.
    """
    for tool in (tools.YOSYS, tools.NEXTPNR, tools.ECPPACK):
        tools.find(tool)
    with stage("Verilog"):
        texts = sources(hw, device, memory_kb)
        for name, text in texts.items():
            write_text(folder / name, text)
    result = route(sorted(name for name in texts if name.endswith(".v")), BOARD_TOP, device, folder, seed)
    result = {
        "schema": formats.FPGA,
        "version": __version__,
        "hardware": hw.asdict(),
        "device": {"name": device.name, "package": device.package},
        "tier": "placed and routed",
        "memory_kb": memory_kb or device.memory_kb,
        **result,
    }
    write_text(folder / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def route(verilog: list[str], top: str, device: Device, folder: Path, seed: int) -> dict[str, Any]:
    """Resources, clock and critical path of ``top`` in the Verilog files ``verilog`` of ``folder``, and its bitstream there."""
    # Flat: modules that are mapped one by one take over a third more look-up tables, and a longer synthesis.
    script = f"read_verilog -sv -DSYNTHESIS {' '.join(verilog)}; synth_ecp5 -top {top}; opt_clean -purge; write_json design.json"
    with stage("synthesis"):
        tools.run(tools.YOSYS, ["-p", script], folder, _steps(r"^\d+(?:\.\d+)?\. (Executing .*)\."))
    # Exponent: thousands of paths are nearly as long as the longest, and a placer that heeds all of them serves none (docs/fpga.md).
    place = [
        f"--{device.size}", "--package", device.package, "--json", "design.json", "--lpf", CONSTRAINTS_FILE, "--freq",
        str(CLOCK_MHZ), "--seed", str(seed), "--timing-allow-fail", "--placer-heap-critexp", "4", "--report", "report.json",
        "--textcfg", "design.config",
    ]  # fmt: skip
    with stage("placement and routing"):
        tools.run(tools.NEXTPNR, place, folder, _steps(r"^Info: +(.*(?:at iteration|Routing|Packing|placed|arcs).*)"))
    with stage("bitstream"):
        tools.run(tools.ECPPACK, ["--compress", "design.config", "--bit", BITSTREAM], folder, passing)
    return summary(json.loads((folder / "report.json").read_text(encoding="utf-8"))) | {"bitstream": BITSTREAM}


def _steps(pattern: str):
    """Names the steps that lines of a tool tell, on a terminal."""

    def heard(line: str) -> None:
        if found := re.match(pattern, line):
            passing(found[1][:100])

    return heard


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of nextpnr's report: cells used and there, the clock (MHz) that is asked and reached, the path that limits it (ns)."""
    cells = {
        name: {key: report["utilization"].get(kind, {}).get(key, 0) for key in ("used", "available")}
        for name, kind in CELLS.items()
    }
    clocks = {name: each for name, each in report["fmax"].items() if each["constraint"] >= CLOCK_MHZ - 1}
    if not clocks:
        raise CheckError(f"nextpnr must report a clock of {CLOCK_MHZ} MHz, not {', '.join(report['fmax']) or 'none'}")
    name, clock = min(clocks.items(), key=lambda item: item[1]["achieved"])
    paths = [path for path in report["critical_paths"] if path["from"].split()[-1] == path["to"].split()[-1] == name]
    path = max(paths, key=lambda each: sum(step["delay"] for step in each["path"]), default={"path": []})
    return {
        "resources": cells,
        "clock": {
            "asked_mhz": CLOCK_MHZ,
            "reached_mhz": round(clock["achieved"], 2),
            "met": clock["achieved"] >= CLOCK_MHZ,
        },
        "critical_path": [
            {"kind": step["type"], "cell": step["to"]["cell"], "delay_ns": round(step["delay"], 3)}
            for step in path["path"]
        ],
    }
