"""Compile the simulator of an accelerator: generated Verilog and the C++ bench of sim/harness, as one shared library."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ternbin.contract.hw import HwConfig
from ternbin.errors import InputError, MissingToolError
from ternbin.sim.generated import generated
from ternbin.sim.toolchain import NATIVE, ModelSpec, compile_model, has_fst

# Of waves: what Verilator is told, and the header that its files then include.
_TRACE = {
    None: ((), ()),
    "vcd": (("--trace-vcd",), ("verilated_vcd_c.h",)),
    "fst": (("--trace-fst",), ("verilated_fst_c.h",)),
}
WAVES = tuple(_TRACE)
_HARNESS = Path(__file__).parent / "harness"

# What the bench reads inside the model; everything else may be optimised away.
_VISIBLE = """`verilator_config
public_flat_rd -module "ternbin_ram" -var "mem"
public_flat_rd -module "ternbin_plane_ram" -var "mem"
public_flat_rd -module "*" -var "ctr_*"
"""


def wrapper(top: str, ports: Sequence[Mapping]) -> str:
    """Verilog of module ``bench``: ``top`` with a register at every input, so that no logic hangs on inputs of the model.

    Without it, all logic behind an input (reset alone reaches nearly everything) is evaluated three times a cycle.
    ports: those of a manifest, clk among them.
    """
    bits = {port["name"]: "" if port["bits"] == 1 else f"[{port['bits'] - 1}:0] " for port in ports}
    inputs = [port["name"] for port in ports if port["direction"] == "input" and port["name"] != "clk"]
    declared = [f"    {port['direction']} {bits[port['name']]}{port['name']}" for port in ports]
    lines = ["module bench (", ",\n".join(declared), ");", *[f"    reg {bits[name]}r_{name};" for name in inputs]]
    lines += ["    always @(posedge clk) begin", *[f"        r_{name} <= {name};" for name in inputs], "    end"]
    pins = [f".{name}({'r_' * (name in inputs)}{name})" for name in bits]
    return "\n".join([*lines, f"    {top} {top} ({', '.join(pins)});", "endmodule", ""])


# What Verilator's files and the bench include, that is the same for every model.
_HEADERS = ("algorithm", "chrono", "cstdio", "deque", "functional", "memory", "stdexcept", "string")
_HEADERS += ("verilated.h", "verilated_dpi.h", "verilated_save.h")
# Verilator would make `c ? x : 0` into `x & {n{c}}`, and so compute x always. As it stands, a unit's logic behind its enable is not
# evaluated without it.
_LAZY = tuple(f"-fno-dfg-peephole-replace-cond-with-{branch}-branch-zero" for branch in ("then", "else"))

# In functions of thousands of statements most of GCC's time goes into stores that may overwrite what is read; looking no further
# than this gives the same speed.
_FAST = (
    "-O2",
    "--param=sccvn-max-alias-queries-per-access=50",
    "--param=dse-max-alias-queries-per-store=16",
)

# The ports of the core, as the bench drives and sees them.
_PORTS = 'public_flat_rd -module "bench" -var "*"\n'


def model_spec(
    verilog: Mapping[str, str], manifest: Mapping, *, axi_bytes: int, waves: str | None = None, ports: bool = False
) -> ModelSpec:
    """The model of Verilog texts (file name -> text) that ``manifest`` describes (rtl/verilog/generate.py).

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
    trace, traced = _TRACE[waves]
    return ModelSpec(
        verilog={**verilog, "bench.v": wrapper(manifest["top"], manifest["ports"])},
        top="bench",
        control=_VISIBLE + _PORTS * ports,
        cpp={
            path.name: path.read_text(encoding="utf-8")
            for path in sorted(_HARNESS.iterdir())
            if path.suffix in (".cpp", ".h")
        }
        | {
            "axi_bytes.h": f"#define AXI_BYTES {axi_bytes}\n"
        },  # no flag: Verilator's run time is the same for every width
        output="simulator.so",
        headers=_HEADERS + traced,
        verilator_flags=(
            "-O3",
            "--x-assign",
            "fast",
            "--no-timing",
            "--no-assert",
            "--savable",
            "--compiler-include",
            "generated.h",
            *_LAZY,
            *trace,
        ),
        cxx_flags=(
            "-DVL_TIME_CONTEXT",
            "-fPIC",
            "-fvisibility=hidden",
            "-fno-gnu-unique",
            NATIVE,
        ),
        link_flags=("-shared", "-Wl,-Bsymbolic"),
        fast=" ".join(_FAST),
        slow="-O0",
    )


def build(
    hw: HwConfig, *, waves: str | None = None, ports: bool = False, progress: Callable[[str], None] | None = None
) -> Path:
    """Path of the compiled simulator of ``hw``: from the cache, or built now (under a minute for "small").

    ``waves``, ``ports``: as in :func:`model_spec`. ``progress`` is called with a line of text before a build. Raises InputError,
    MissingToolError, BuildError.
    """
    found = generated(hw)
    spec = model_spec(found.verilog, found.manifest, axi_bytes=hw.axi_bytes, waves=waves, ports=ports)
    return compile_model(spec, progress)
