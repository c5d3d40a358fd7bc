"""Run a cocotb bench of one block: Verilog of an Amaranth component, compiled with Verilator, under cocotb's runner.

A bench is an ordinary Python module with ``@cocotb.test()`` coroutines; the pytest file itself may be that module:

    from ternbin.sim.bench import run_bench

    @cocotb.test()
    async def bench_order(dut):          # named bench_* so that pytest does not collect it
        await drivers.start(dut)         # clock, reset
        ...

    def test_fifo():
        run_bench(Fifo(depth=4), __name__, name="fifo", parameters={"depth": 4})

In the bench, ``drivers.parameters()`` returns ``parameters``, and the ``random`` module is seeded with ``seed``. Ports have the
names that Amaranth gives: member ``port.valid`` is ``dut.port__valid``. Only the ports of the top are visible: that keeps the
simulation fast. The compiled model is cached under a fingerprint of everything that went into it, so a second run of an
unchanged block starts at once; concurrent runs are safe.
"""

import json
import os
import re
import shlex
import shutil
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import cocotb_tools.config
from amaranth.back import verilog
from amaranth.hdl import Elaboratable
from cocotb_tools.runner import get_runner

from ternbin.rtl.parts.primitives import primitives
from ternbin.sim.toolchain import ModelSpec, compile_model

SEED = 1


def to_verilog(component: Elaboratable, name: str) -> dict[str, str]:
    """Verilog texts of a component as module ``name``, with the primitives."""
    return {f"{name}.v": verilog.convert(component, name=name, emit_src=False)} | primitives()


def top_ports(text: str, top: str) -> dict[str, str]:
    """Ports of module ``top`` in the Verilog ``text``: name -> "input" or "output", with the range of a vector ("input [7:0]").

    Read from the text, for a bench may be given texts alone, and whether a component has a clock and a reset is not in its signature.
    """
    module = re.search(rf"^\s*module\s+{re.escape(top)}\b(.*?)^\s*endmodule\b", text, re.S | re.M)
    if module is None:
        raise ValueError(f"Verilog must contain module {top!r}")
    found = re.findall(r"\b(input|output)\s+(?:(?:wire|reg|logic|signed)\s+)*(\[[^]]*\])?\s*(\w+)", module[1])
    return {name: f"{direction} {bits}".strip() for direction, bits, name in found}


def _spec(texts: Mapping[str, str], top: str, ports: Mapping[str, str], waves: bool, fast: str) -> ModelSpec:
    visible = [
        f'public_flat_r{"w" if kind.startswith("input") else "d"} -module "{top}" -var "{port}"'
        for port, kind in ports.items()
    ]
    main = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp"
    libs = shlex.quote(str(cocotb_tools.config.libs_dir))
    return ModelSpec(
        verilog=texts,
        top=top,
        control="\n".join(["`verilator_config", *visible, ""]),
        cpp={"cocotb_main.cpp": main.read_text(encoding="utf-8")},
        output=top,
        headers=("memory", "string", "verilated.h", "verilated_dpi.h", "verilated_vpi.h"),
        verilator_flags=("--vpi", "--timescale", "1ns/1ps", *(("--trace",) if waves else ())),
        link_flags=(f"-Wl,-rpath,{libs}", f"-L{libs}", "-lcocotbvpi_verilator"),
        fast=fast,
    )


def _failures(results: Path) -> tuple[int, list[str]]:
    """Number of test cases in cocotb's result file, and a message for each that failed."""
    if not results.is_file():
        return 0, ["the simulation ended without results"]
    cases = list(ElementTree.parse(results).getroot().iter("testcase"))
    failed = []
    for case in cases:
        for problem in [*case.findall("failure"), *case.findall("error")]:
            message = problem.get("message") or problem.get("error_msg") or ""
            failed.append(f"{case.get('name')}: {message}\n{problem.text or ''}")
    return len(cases), failed


def run_bench(
    component: Elaboratable | Mapping[str, str],
    test_module: str,
    *,
    name: str,
    parameters: Mapping | None = None,
    env: Mapping[str, str] | None = None,
    testcase: str | Sequence[str] | None = None,
    seed: int | None = None,
    waves: str | Path | None = None,
    fast: str = "-O1",
) -> None:
    """Run the cocotb tests of ``test_module`` on ``component``; returns when all passed.

    component: an Amaranth component, or Verilog texts (file name -> text) that contain module ``name``.
    test_module: importable name of the bench (``__name__`` for the calling file). testcase: only this one, or these.
    name: of the top module; lower case, not a Verilog keyword. parameters: JSON-able values for ``drivers.parameters()``.
    seed: of ``random`` in the bench; default $TERNBIN_SEED, else SEED. waves: path for a VCD file (slower, built separately).
    fast: compiler optimisation of the model; "-O0" pays for large blocks that run for a few thousand cycles.

    Raises AssertionError with the messages of the failed tests, the end of the log and the seed; BuildError.
    """
    texts = dict(component) if isinstance(component, Mapping) else to_verilog(component, name)
    ports = top_ports("\n".join(texts.values()), name)
    executable = compile_model(_spec(texts, name, ports, waves is not None, fast))
    seed = int(os.environ.get("TERNBIN_SEED", SEED)) if seed is None else seed
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        results, log = Path(folder) / "results.xml", Path(folder) / "log.txt"
        crash = ""
        bench = {
            "parameters": dict(parameters or {}),
            "inputs": [port for port, kind in ports.items() if kind.startswith("input")],
        }
        try:
            get_runner("verilator").test(
                test_module=test_module,
                hdl_toplevel=name,
                hdl_toplevel_lang="verilog",
                testcase=testcase,
                seed=seed,
                build_dir=executable.parent,
                test_dir=folder,
                results_xml=str(results),
                log_file=log,
                waves=waves is not None,
                extra_env={"TERNBIN_BENCH": json.dumps(bench), "COCOTB_ANSI_OUTPUT": "0", **(env or {})},
            )
        except (RuntimeError, SystemExit) as error:
            crash = str(error)
        count, failed = _failures(results)
        if waves is not None and (Path(folder) / "dump.vcd").exists():
            shutil.copy(Path(folder) / "dump.vcd", waves)
        wanted = [testcase] if isinstance(testcase, str) else testcase
        if count == 0:
            failed.append(f"{test_module} must contain a cocotb test")
        elif wanted is not None and count != len(wanted):
            failed.append(f"{test_module} must contain {', '.join(wanted)}")
        if failed or crash:
            tail = log.read_text(encoding="utf-8", errors="replace")[-4000:] if log.exists() else ""
            raise AssertionError("\n".join([*failed, crash, f"seed {seed}", "end of the log:", tail]))
