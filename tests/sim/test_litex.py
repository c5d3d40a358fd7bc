"""The accelerator in a SoC of LiteX: the drivers, in Python and C, run a model through its bus, from its memory, in simulation."""

import contextlib
import ctypes
import io
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cocotb
import pytest
import torch
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, RisingEdge
from driven import READ, WRITE, Core, Io, compiled, generate_texts, imported, put

from ternbin import api
from ternbin.contract.hw import NAMED
from ternbin.contract.program import Program
from ternbin.decoding.greedy import reference_run
from ternbin.graph.ir import Lowered
from ternbin.integration.image import image as image_of
from ternbin.integration.litex import module
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.rtl.verilog.generate import TOP
from ternbin.sim.bench import run_bench
from ternbin.sim.generated import generated
from ternbin.sim.tb.drivers import get, inputs, parameters
from ternbin.sim.toolchain import verilator

pytest.importorskip("litex")
torch.set_num_threads(1)
HW = NAMED["tiny"]
MEMORY, REGISTERS = 0x4000_0000, 0x9000_0000


# ---- in the simulation ------------------------------------------------------------------------------------------------------


class Host:
    """AXI4-Lite master at the pins of the SoC; one access of a word at a time."""

    def __init__(self, dut):
        self.dut = dut

    def _set(self, **values: int) -> None:
        for name, value in values.items():
            getattr(self.dut, f"host_{name}").value = value

    async def _taken(self, name: str) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            if get(self.dut, f"host_{name}"):
                return

    async def write(self, address: int, data: bytes) -> None:
        self._set(awaddr=address, wdata=int.from_bytes(data, "little"), wstrb=15, awvalid=1, wvalid=1, bready=1)
        await self._taken("awready")
        self._set(awvalid=0)
        if not get(self.dut, "host_wready"):
            await self._taken("wready")
        self._set(wvalid=0)
        await self._taken("bvalid")
        assert get(self.dut, "host_bresp") == 0

    async def read(self, address: int) -> bytes:
        self._set(araddr=address, arvalid=1, rready=1)
        await self._taken("arready")
        self._set(arvalid=0)
        await self._taken("rvalid")
        assert get(self.dut, "host_rresp") == 0
        return get(self.dut, "host_rdata").to_bytes(4, "little")


class Buffer(bytearray):
    """The memory of the SoC from ``MEMORY`` on, as the driver wants it: what it changed goes there, tokens come back."""

    device_address = MEMORY

    def __init__(self, there: bytes, host: Host, tokens: tuple[int, int]):
        super().__init__(len(there))
        self.there, self.host, self.tokens = bytearray(there), host, tokens

    @resume
    async def flush(self) -> None:
        for at in range(0, len(self), 4):
            if self[at : at + 4] != self.there[at : at + 4]:
                await self.host.write(MEMORY + at, bytes(self[at : at + 4]))
        self.there[:] = self

    @resume
    async def invalidate(self) -> None:
        for at in range(*self.tokens, 4):
            memoryview(self)[at : at + 4] = self.there[at : at + 4] = await self.host.read(MEMORY + at)


class Mmio:
    def __init__(self, host: Host):
        self.host = host

    @resume
    async def read(self, offset: int) -> int:
        return int.from_bytes(await self.host.read(REGISTERS + offset), "little")

    @resume
    async def write(self, offset: int, value: int) -> None:
        await self.host.write(REGISTERS + offset, value.to_bytes(4, "little"))


async def begin(dut) -> Host:
    Clock(dut.clk, 10, unit="ns").start()
    for name in inputs():
        getattr(dut, name).value = 0
    dut.rst.value = 1
    await ClockCycles(dut.clk, 5)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 5)
    return Host(dut)


@cocotb.test()
async def bench_processor(dut):
    """Nothing but to wait until the processor has left its tokens in memory."""
    given, words = parameters(), []
    host = await begin(dut)

    async def word(number: int) -> int:
        return int.from_bytes(await host.read(given["at"] + 4 * number), "little")

    for _ in range(given["polls"]):
        await ClockCycles(dut.clk, 10_000)
        if count := await word(0):
            words = [await word(1 + number) for number in range(count)]
            break
    Path(given["result"]).write_text(json.dumps(words))


@cocotb.test()
async def bench_soc(dut):
    given = parameters()
    driver, image = imported(Path(given["driver"])), Path(given["image"]).read_bytes()
    host = await begin(dut)

    @resume
    async def interrupt() -> None:
        if not get(dut, "irq"):
            await RisingEdge(dut.irq)
        await RisingEdge(dut.clk)

    def work() -> list[list[int]]:
        buffer = Buffer(Path(given["memory"]).read_bytes(), host, tuple(given["tokens"]))
        python = driver.Accelerator(Mmio(host), buffer, image, interrupt).generate(given["ids"])
        return [python, c_driver(Path(given["driver"]).parent, host, buffer, image, interrupt, given)]

    Path(given["result"]).write_text(json.dumps(await bridge(work)()))


def c_driver(
    folder: Path, host: Host, buffer: Buffer, image: bytes, interrupt: Any, given: dict[str, Any]
) -> list[int]:
    """Tokens by the driver in C, a program on the host of the SoC."""
    hook, mmio, library = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p), Mmio(host), compiled(folder)
    hooks = [hook(lambda _, call=call: call() or 0) for call in (interrupt, buffer.flush, buffer.invalidate)]
    registers = READ(lambda _, offset: mmio.read(offset)), WRITE(lambda _, *what: mmio.write(*what))
    memory = ctypes.addressof((ctypes.c_ubyte * len(buffer)).from_buffer(buffer))
    called = [ctypes.cast(each, ctypes.c_void_p).value for each in hooks]
    own, io_own = Core(), Io(None, *registers, *called, memory, MEMORY, len(buffer))
    assert library.ternbin_open(ctypes.byref(own), ctypes.byref(io_own), image, len(image)) == 0
    status, (tokens,) = generate_texts(library, own, [given["ids"]], given["new"])
    assert library.ternbin_text(status) == b"good"
    return tokens


# ---- outside ----------------------------------------------------------------------------------------------------------------


def soc(folder: Path, memory: bytes, firmware: bytes = b"") -> dict[str, str]:
    """Verilog of a SoC: a host at its pins, a RAM that begins with ``memory``, the accelerator of the package in ``folder``; and, where
    there is ``firmware``, a RISC-V processor (VexRiscv, without a cache of data) that runs it from a ROM."""
    from litex.build.generic_platform import Pins
    from litex.build.io import CRG
    from litex.build.sim import SimPlatform
    from litex.soc.integration.soc_core import SoCMini
    from litex.soc.interconnect import axi

    words = struct.unpack(f"<{len(memory) // 4}I", memory)
    size = 1 << (len(memory) - 1).bit_length()
    platform: Any = SimPlatform("SIM", [(name, 0, Pins(1)) for name in ("clk", "rst", "irq")])
    with contextlib.redirect_stderr(io.StringIO()):
        ram = {"integrated_main_ram_size": size, "integrated_main_ram_init": list(words)}
        design: Any = SoCMini(platform, 100e6, **ram, **(_processor(firmware) if firmware else {}))
        design.crg = CRG(platform.request("clk"), platform.request("rst"))
        host = axi.AXILiteInterface(32, 32)
        platform.add_extension(host.get_ios("host"))
        design.comb += host.connect_to_pads(platform.request("host"), mode="slave")
        design.bus.add_master("host", host)
        design.accelerator = imported(folder / "ternbin_litex.py").Accelerator(platform)
        design.accelerator.add_to(design, REGISTERS)
        design.comb += platform.request("irq").eq(design.accelerator.irq)
        design.finalize()
        fragment = design.get_fragment()
        platform.finalize(fragment)
        output = platform.get_verilog(fragment, name="soc")
    assert design.bus.regions["main_ram"].origin == MEMORY
    text = output.main_source
    for name, contents in output.data_files.items():
        (folder / name).write_text(contents)
        text = text.replace(f'"{name}"', f'"{folder / name}"')
    return {"soc.v": text} | {Path(source[0]).name: Path(source[0]).read_text() for source in platform.sources}


def _processor(firmware: bytes) -> dict[str, Any]:
    words = struct.unpack(f"<{len(firmware) // 4}I", firmware)
    rom = {"integrated_rom_size": len(firmware), "integrated_rom_init": list(words), "integrated_sram_size": 0x2000}
    return {"cpu_type": "vexriscv", "cpu_variant": "lite", **rom}


def put_package(folder: Path) -> None:
    found = generated(HW)
    put(folder)
    files = found.verilog | found.beside | {"ternbin_litex.py": module(found.manifest, found.verilog, TOP)}
    for name, text in files.items():
        (folder / name).write_text(text)


def run(folder: Path, lowered: Lowered, program: Program, ids: list[int], new: int) -> None:
    put_package(folder)
    (folder / "program.img").write_bytes(image_of(program))
    (folder / "memory").write_bytes(program.image)
    given = {
        "driver": str(folder / "ternbin_driver.py"),
        "image": str(folder / "program.img"),
        "memory": str(folder / "memory"),
        "ids": ids,
        "new": new,
        "tokens": [program.slot_addr(0), program.slot_addr(new + 1)],
        "result": str(folder / "result.json"),
    }
    run_bench(soc(folder, bytes(program.image)), __name__, name="soc", parameters=given, testcase="bench_soc")
    tokens = reference_run(lowered, ids, new)[0]
    assert json.loads((folder / "result.json").read_text()) == [tokens, tokens]


def test_soc_is_clean(tmp_path):
    """LiteX takes the module, and Verilator the whole design: every port of the accelerator is there, as wide as what is at it."""
    put_package(tmp_path)
    sources = soc(tmp_path, bytes(64))
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [verilator().executable, "--lint-only", "-Wno-fatal", "--top-module", "soc", "lint.vlt", *sources],
        cwd=tmp_path,
        env={"VERILATOR_ROOT": str(verilator().root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    warnings = [line for line in done.stderr.splitlines() if line.startswith("%Warning")]
    about = [line for line in warnings if "PIN" in line or "port connection" in line]
    assert [line for line in about if "trace_" not in line] == []  # for a bench, left open


@pytest.mark.soak
def test_a_model_in_a_soc(tmp_path):
    """Compiling the SoC takes a minute."""
    lowered, ids = fold(lower(random_quant_bart("2-2"))), [3, 7, 9]
    run(tmp_path, lowered, map_model(lowered, HW, len(ids), 2), ids, 2)


@pytest.mark.soak
def test_the_bundled_translation_in_a_soc(tmp_path):
    ids, new = [5, 17, 9, 2], 3
    made = api.lower(len(ids), model="translation", hw=HW, max_new_tokens=new)
    run(tmp_path, made.model, made.program, ids, new)


# ---- with a processor -------------------------------------------------------------------------------------------------------

FIRMWARE = Path(__file__).parent / "firmware"
TARGET = ["-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m", "-std=c11", "-Os", "-ffreestanding"]


def firmware(folder: Path, program: Program, ids: list[int], new: int, result: int) -> bytes:
    """The driver in C, an image and what to run, for a RISC-V processor without a system."""
    zig = [sys.executable, "-m", "ziglang"]
    given = {
        "IDS": "{" + ", ".join(map(str, ids)) + "}",
        "NEW": new,
        "REGISTERS": f"{REGISTERS:#x}u",
        "MEMORY": f"{MEMORY:#x}u",
        "BYTES": f"{len(program.image)}u",
        "RESULT": f"{result:#x}u",
    }
    (folder / "given.h").write_text("".join(f"#define {name} {value}\n" for name, value in given.items()))
    (folder / "program.img").write_bytes(image_of(program))
    sources = [str(FIRMWARE / "start.S"), str(FIRMWARE / "main.c"), "ternbin.c"]
    options = ["-fno-builtin", "-fno-sanitize=undefined", f"-I{FIRMWARE}", "-I.", "-T", str(FIRMWARE / "link.ld")]
    for command in (
        [*zig, "cc", *TARGET, *options, *sources, "-o", "firmware.elf"],
        [*zig, "objcopy", "-O", "binary", "firmware.elf", "firmware.bin"],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    data = (folder / "firmware.bin").read_bytes()
    return data + bytes(-len(data) % 4)


@pytest.mark.soak
def test_a_processor_runs_the_driver(tmp_path):
    """Seven minutes, most for the checksum of the image."""
    for name, what in {"pythondata_cpu_vexriscv": "a processor", "ziglang": "a compiler for it"}.items():
        pytest.importorskip(name, reason=f"{name} is {what}: pip install 'ternbin[processor]'")
    lowered, ids, new = fold(lower(random_quant_bart("2-2"))), [3, 7, 9], 2
    program = map_model(lowered, HW, len(ids), new)
    put_package(tmp_path)
    room = len(program.image) + -len(program.image) % 64
    code = firmware(tmp_path, program, ids, new, MEMORY + room)
    given = {"at": MEMORY + room, "polls": 3000, "result": str(tmp_path / "result.json")}
    run_bench(soc(tmp_path, bytes(room + 64), code), __name__, name="soc", parameters=given, testcase="bench_processor")
    assert json.loads((tmp_path / "result.json").read_text()) == [0, *reference_run(lowered, ids, new)[0]]
