"""One accelerator in a simulator of four states (Icarus Verilog): memories and registers start as X, and so does what the bus does not
carry. Far slower than the compiled simulation; what it adds is to see whether anything depends on a value that nothing wrote."""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from ternbin.contract import isa
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ErrorCode
from ternbin.contract.program import Probe
from ternbin.contract.registers import CLEAR, IRQ_ENABLE, START
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import CallRun
from ternbin.errors import CheckError, MissingToolError
from ternbin.sim.build import wrapper
from ternbin.sim.generated import generated
from ternbin.sim.simulator import CoreError

_HARNESS = Path(__file__).parent / "harness" / "four_state.sv"
_RESET_CYCLES = 4  # as the compiled simulation has
LIMIT = 1_000_000  # cycles of a call

# Outputs that must be known: name -> when, "1" for always after reset. Outputs of a channel count while it is valid, write data where it
# is written.
_ALWAYS = (
    *(f"m_axi_{name}" for name in ("arvalid", "awvalid", "wvalid", "bready")),
    *(f"s_axil_{name}" for name in ("awready", "wready", "bvalid", "arready", "rvalid")),
    *("irq", "trace_start", "trace_done"),
)
_WHEN_VALID = {
    "m_axi_arvalid": [f"m_axi_ar{name}" for name in ("id", "addr", "len", "size", "burst", "lock", "cache", "prot")],
    "m_axi_awvalid": [f"m_axi_aw{name}" for name in ("id", "addr", "len", "size", "burst", "lock", "cache", "prot")],
    "m_axi_wvalid": ["m_axi_wstrb", "m_axi_wlast"],
    "m_axi_rvalid": ["m_axi_rready"],
    "s_axil_bvalid": ["s_axil_bresp"],
    "s_axil_rvalid": ["s_axil_rresp", "s_axil_rdata"],
}


def _checks(axi_bytes: int) -> dict[str, str]:
    """Verilog expressions that are X where one of these outputs is unknown and should not be, by output."""
    strobes = ", ".join(f"{{8{{m_axi_wstrb[{byte}]}}}}" for byte in reversed(range(axi_bytes)))
    checks = {name: name for name in _ALWAYS}
    checks |= {name: f"({valid} === 1'b1 ? {name} : 1'b0)" for valid, names in _WHEN_VALID.items() for name in names}
    return checks | {"m_axi_wdata": f"(m_axi_wvalid === 1'b1 ? m_axi_wdata & {{{strobes}}} : 1'b0)"}


_COUNTED = re.compile(r"\$countones\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)")  # three levels of parentheses
_ONES = """
  function [31:0] ones_or_x(input [255:0] bits);
    ones_or_x = (^bits) === 1'bx ? 32'bx : $countones(bits);
  endfunction
"""


def _pessimistic(text: str) -> str:
    """Verilog in which a count of ones is unknown where one of the bits is: $countones takes an X for a zero."""
    modules = text.split("endmodule")
    counted = [_COUNTED.sub(r"ones_or_x({\1})", module) for module in modules]
    return "endmodule".join(
        module + _ONES * (module != before) for module, before in zip(counted, modules, strict=True)
    )


def _included(ports: Sequence[Mapping], checks: Mapping[str, str]) -> str:
    lines = []
    for port in ports:
        bits = "" if port["bits"] == 1 else f"[{port['bits'] - 1}:0] "
        lines.append(f"  {'reg' if port['direction'] == 'input' else 'wire'} {bits}{port['name']};")
    lines.append("  bench dut (" + ", ".join(f".{port['name']}({port['name']})" for port in ports) + ");")
    bits = ", ".join(f"(^{expression}) === 1'bx" for expression in reversed([*checks.values()]))
    return "\n".join([*lines, f"  wire [{len(checks) - 1}:0] unknown = {{{bits}}};", ""])


def compile_four_state(
    hw: HwConfig, folder: Path, words: int, model: MemoryModel, verilog: Mapping[str, str] | None = None
) -> Path:
    """The program for ``vvp``. ``words`` of external memory, of the bus's width. Raises MissingToolError, CheckError."""
    if shutil.which("iverilog") is None:
        raise MissingToolError("iverilog must be on PATH: install it, for example with: apt-get install iverilog")
    ports = generated(hw).manifest["ports"]
    checks = _checks(hw.axi_bytes)
    texts = {name: _pessimistic(text) for name, text in (verilog or generated(hw).verilog).items()}
    texts |= {"bench.v": wrapper(generated(hw).manifest["top"], ports), "ports.vh": _included(ports, checks)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    defines = {
        "DATA_BITS": hw.axi_data_bits,
        "WORDS": words,
        "LATENCY": model.latency,
        "BEATS": model.beats,
        "STALLS": f"64'd{model.stall_state}",
        "CHECKED": len(checks),
    }
    sources = [name for name in texts if name.endswith(".v")]
    command = ["iverilog", "-g2012", "-s", "four_state", "-I", ".", "-o", "four_state.vvp"]
    command += [f"-D{name}={value}" for name, value in defines.items()]
    done = subprocess.run(
        [*command, str(_HARNESS), *sources], cwd=folder, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise CheckError(f"Icarus Verilog must take the Verilog: {done.stderr.strip()[-500:]}")
    return folder / "four_state.vvp"


class FourState:
    """What ``Simulator`` is for the compiled simulation, to the extent that a driver needs: ``memory`` is brought up to date by ``call``.

    Use as a context manager; ``folder`` holds what it writes. ``verilog``: other than that which is generated for ``hw``.
    """

    def __init__(
        self,
        hw: HwConfig,
        folder: Path,
        memory: bytearray,
        model: MemoryModel,
        verilog: Mapping[str, str] | None = None,
    ):
        self.hw, self.memory, self._folder = hw, memory, folder
        self._known = b""
        program = compile_four_state(hw, folder, len(memory) // hw.axi_bytes, model, verilog)
        self._process = subprocess.Popen(
            ["vvp", "-n", program.name], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._stdin, self._stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self._checked = list(_checks(hw.axi_bytes))
        self.unknown_words = 0  # words of external memory that hold an X
        self._put_memory()
        self.reset(_RESET_CYCLES)

    def __enter__(self) -> "FourState":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: str, *arguments: int, answer: str, lines: int = 1) -> list[list[str]]:
        values = [*arguments, 0, 0][:2]
        self._stdin.write(f"{command} {values[0]} {values[1]}\n")
        self._stdin.flush()
        answers = []
        while len(answers) < lines:
            line = self._stdout.readline()
            if not line:
                raise CheckError(f"Icarus Verilog must answer {command!r}, not end")
            words = line.split()
            if not answer or words[:1] == [answer]:
                answers.append(words)
        return answers

    def _put_memory(self) -> None:
        """What the driver has changed since the simulation last saw it."""
        step, memory, known = self.hw.axi_bytes, self.memory, self._known
        lines = [
            f"@{at // step:x} {memory[at : at + step][::-1].hex()}\n"
            for at in range(0, len(memory), step)
            if memory[at : at + step] != known[at : at + step]
        ]
        (self._folder / "memory.hex").write_text("".join(lines), encoding="utf-8")
        self._ask("load", answer="loaded")

    def _get_memory(self) -> None:
        self._ask("dump", answer="dumped")
        text = (self._folder / "memory.hex").read_text(encoding="utf-8")
        words = [word for line in text.splitlines() if not line.startswith("//") for word in line.split()]
        self.unknown_words = sum("x" in word for word in words)
        step = self.hw.axi_bytes
        for number, word in enumerate(words):
            self.memory[number * step : number * step + step] = bytes.fromhex(word.replace("x", "0"))[::-1]
        self._known = bytes(self.memory)

    def reset(self, cycles: int) -> None:
        """Reset for ``cycles`` cycles; external memory keeps its contents, its bursts in flight are forgotten."""
        self._ask("reset", cycles, answer="reset")

    @property
    def cycle(self) -> int:
        return int(self._ask("now", answer="now")[0][1])

    def unknown(self) -> dict[str, tuple[int, int]]:
        """Outputs that were X when they should not be: in how many cycles, and the first of them."""
        counts = self._ask("unknown", answer="", lines=len(self._checked))
        found = {name: (int(count), int(first)) for name, (count, first) in zip(self._checked, counts, strict=True)}
        return {name: where for name, where in found.items() if where[0]}

    def write(self, register: int, value: int) -> None:
        """As ``Simulator.write``."""
        answer = self._ask("write", register, value, answer="written")[0][1]
        if answer != "00":
            raise CheckError(f"write of register {register:#x} must be answered with OKAY, not {answer}")

    def read(self, register: int) -> int:
        """As ``Simulator.read``."""
        _, answer, value = self._ask("read", register, answer="read")[0]
        if answer != "00" or set(value) - set("01"):
            raise CheckError(
                f"read of register {register:#x} must be answered with OKAY and a number, not {answer} {value}"
            )
        return int(value, 2)

    def counters(self) -> dict[str, int]:
        """As ``Simulator.counters``."""
        return {
            entry["name"]: self.read(entry["offset"]) | self.read(entry["offset"] + 4) << 32
            for entry in generated(self.hw).manifest["counters"]
        }

    def call(
        self,
        address: int,
        instructions: int,
        probes: Sequence[Probe] = (),
        *,
        where: str = "call",
        progress: Callable[[int, int], None] | None = None,
        limit: int = LIMIT,
    ) -> CallRun:
        """As ``Simulator.call``, without probes, records and progress. Raises CoreError, CheckError."""
        self._put_memory()
        self.write(isa.REG_PROGRAM, address & 0xFFFFFFFF)
        self.write(isa.REG_PROGRAM_HI, address >> 32)
        begun = self.cycle + 1
        self.write(isa.REG_CTRL, START | IRQ_ENABLE | CLEAR)
        _, done, now = self._ask("run", limit, answer="ran")[0]
        if done != "1":
            raise CheckError(f"{where}: the core must finish within {limit} cycles; unknown outputs: {self.unknown()}")
        cycles = int(now) - begun
        code = ErrorCode(self.read(isa.REG_ERROR))
        failed_at = self.read(isa.REG_ERROR_ADDR) | self.read(isa.REG_ERROR_ADDR_HI) << 32
        self.write(isa.REG_STATUS, 1)
        if code:
            raise CoreError(code, failed_at, where)
        self._get_memory()
        return CallRun(cycles, self.counters(), (), ())
