"""Compile the simulator of an accelerator: generated Verilog and the C++ bench of sim/harness, as one shared library."""

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ternbin.contract import hw as hw_module
from ternbin.contract import isa
from ternbin.contract.hw import HwConfig
from ternbin.errors import InputError, MissingToolError
from ternbin.sim.toolchain import ModelSpec, cache_dir, compile_model, has_fst, top_ports

WAVES = (None, "vcd", "fst")
_HARNESS = Path(__file__).parent / "harness"
_RTL = Path(__file__).parent.parent / "rtl"

# What the bench reads inside the model; everything else may be optimised away.
_VISIBLE = """`verilator_config
public_flat_rd -module "ternbin_ram" -var "mem"
public_flat_rd -module "*" -var "ctr_*"
"""


def wrapper(top: str, ports: Mapping[str, str]) -> str:
    """Verilog of module ``bench``: ``top`` with a register at every input, so that no logic hangs on inputs of the model.

    Without it, all logic behind an input (reset alone reaches nearly everything) is evaluated three times a cycle.
    ports: declaration ("input [3:0]", "output") by name, clk among them.
    """
    inputs = [name for name, kind in ports.items() if kind.startswith("input") and name != "clk"]
    lines = ["module bench (", ",\n".join(f"    {kind} {name}" for name, kind in ports.items()), ");"]
    lines += [f"    {ports[name].replace('input', 'reg')} r_{name};" for name in inputs]
    lines += ["    always @(posedge clk) begin", *[f"        r_{name} <= {name};" for name in inputs], "    end"]
    pins = [f".{name}({'r_' * (name in inputs)}{name})" for name in ports]
    return "\n".join([*lines, f"    {top} {top} ({', '.join(pins)});", "endmodule", ""])


# The ports of the core, as the bench drives and sees them.
_PORTS = """public_flat_rd -module "bench" -var "*"
"""


def model_spec(
    verilog: Mapping[str, str], *, axi_bytes: int, top: str = "ternbin", waves: str | None = None, ports: bool = False
) -> ModelSpec:
    """The model of Verilog texts (file name -> text) whose module ``top`` has the ports of rtl/top.py.

    waves: None, "vcd" or "fst" (needs the headers of zlib and lz4): a slower model that can write waves. ports: the core's ports can be
    recorded.
    Raises InputError for another value, MissingToolError for "fst" where it cannot be built.
    """
    if waves not in WAVES:
        raise InputError(f"waves must be one of vcd, fst, not {waves!r}")
    if waves == "fst" and not has_fst():
        raise MissingToolError(
            "fst waves need the headers of zlib and lz4: apt-get install zlib1g-dev liblz4-dev, or write vcd"
        )
    trace = {None: (), "vcd": ("--trace-vcd",), "fst": ("--trace-fst",)}[waves]
    return ModelSpec(
        verilog={**verilog, "bench.v": wrapper(top, top_ports("\n".join(verilog.values()), top))},
        top="bench",
        control=_VISIBLE + _PORTS * ports,
        cpp={path.name: path.read_text() for path in sorted(_HARNESS.iterdir()) if path.suffix in (".cpp", ".h")}
        | {
            "axi_bytes.h": f"#define AXI_BYTES {axi_bytes}\n"
        },  # no flag: Verilator's run time is the same for every width
        output="simulator.so",
        verilator_flags=(
            "-O3",
            "--x-assign",
            "fast",
            "--no-timing",
            "--no-assert",
            "--savable",
            "--compiler-include",
            "popcount.h",
            *trace,
        ),
        cxx_flags=(
            "-DVL_TIME_CONTEXT",
            "-fPIC",
            "-fvisibility=hidden",
            "-fno-gnu-unique",
            "-march=native",
        ),
        link_flags=("-shared", "-Wl,-Bsymbolic"),
        fast="-O2",
        slow="-O0",
    )


def build(
    hw: HwConfig, *, waves: str | None = None, ports: bool = False, progress: Callable[[str], None] | None = None
) -> Path:
    """Path of the compiled simulator of ``hw``: from the cache, or built now (under a minute for "small").

    ``waves``, ``ports``: as in :func:`model_spec`. ``progress`` is called with a line of text before a build. Raises InputError,
    MissingToolError, BuildError.
    """
    return compile_model(model_spec(verilog(hw), axi_bytes=hw.axi_bytes, waves=waves, ports=ports), progress)


def verilog(hw: HwConfig) -> dict[str, str]:
    """What rtl.generate gives, kept between runs: elaboration takes longer than a short simulation.

    The key is everything that decides it: configuration, sources of the generator, version of Amaranth.
    """
    sources = [
        *sorted(_RTL.rglob("*.py")),
        *sorted(_RTL.rglob("*.v")),
        *(Path(module.__file__) for module in (hw_module, isa)),
    ]
    parts = [
        repr(hw),
        importlib.metadata.version("amaranth"),
        *(f"{path.name}\0{path.read_text()}" for path in sources),
    ]
    key = hashlib.sha256("\1".join(parts).encode()).hexdigest()[:24]
    path = cache_dir() / f"verilog-{key}.json"
    if not path.exists():
        from ternbin.rtl.verilog.generate import generate

        handle, temporary = tempfile.mkstemp(dir=cache_dir())
        with open(handle, "w") as file:
            json.dump(generate(hw), file)
        Path(temporary).replace(path)
    return json.loads(path.read_text())
