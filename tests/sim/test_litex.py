"""The accelerator in a SoC of LiteX: the driver in Python runs a model through LiteX's bus, from LiteX's memory, in simulation."""

import contextlib
import importlib.util
import io
import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import cocotb
import pytest
import torch
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, RisingEdge

from ternbin import api
from ternbin.contract.hw import NAMED
from ternbin.contract.program import Program
from ternbin.decoding.greedy import reference_run
from ternbin.graph.ir import Lowered
from ternbin.integration.image import image as image_of
from ternbin.integration.litex import module
from ternbin.integration.software import drivers
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


def imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


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


@cocotb.test()
async def bench_soc(dut):
    given = parameters()
    driver, image = imported(Path(given["driver"])), Path(given["image"]).read_bytes()
    Clock(dut.clk, 10, unit="ns").start()
    for name in inputs():
        getattr(dut, name).value = 0
    dut.rst.value = 1
    await ClockCycles(dut.clk, 5)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 5)
    host = Host(dut)

    @resume
    async def interrupt() -> None:
        if not get(dut, "irq"):
            await RisingEdge(dut.irq)
        await RisingEdge(dut.clk)

    def work() -> list[int]:
        buffer = Buffer(Path(given["memory"]).read_bytes(), host, tuple(given["tokens"]))
        return driver.Accelerator(Mmio(host), buffer, image, interrupt).generate(given["ids"])

    Path(given["result"]).write_text(json.dumps(await bridge(work)()))


# ---- outside ----------------------------------------------------------------------------------------------------------------


def soc(folder: Path, memory: bytes) -> dict[str, str]:
    """Verilog of a SoC: no CPU but a host at its pins, a RAM that begins with ``memory``, the accelerator of the package in ``folder``."""
    from litex.build.generic_platform import Pins
    from litex.build.io import CRG
    from litex.build.sim import SimPlatform
    from litex.soc.integration.soc_core import SoCMini
    from litex.soc.interconnect import axi

    words = struct.unpack(f"<{len(memory) // 4}I", memory)
    size = 1 << (len(memory) - 1).bit_length()
    platform: Any = SimPlatform("SIM", [(name, 0, Pins(1)) for name in ("clk", "rst", "irq")])
    with contextlib.redirect_stderr(io.StringIO()):
        design: Any = SoCMini(platform, 100e6, integrated_main_ram_size=size, integrated_main_ram_init=list(words))
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


def put_package(folder: Path) -> None:
    found = generated(HW)
    files = found.verilog | found.beside | drivers() | {"ternbin_litex.py": module(found.manifest, found.verilog, TOP)}
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
        "tokens": [program.slot_addr(0), program.slot_addr(new + 1)],
        "result": str(folder / "result.json"),
    }
    run_bench(soc(folder, program.image), __name__, name="soc", parameters=given)
    assert json.loads((folder / "result.json").read_text()) == reference_run(lowered, ids, new)[0]


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
