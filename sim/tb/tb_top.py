"""Bench of the whole accelerator over its buses: runs the calls of a program file and reports what came out.

``drivers.parameters()``: ``program`` (file), ``ids``, ``start`` (token), ``calls`` (how many), ``latency``, ``bandwidth``,
``stall_seed`` of the external memory, ``result`` (JSON file to write: tokens, cycles of each call, counters of each call), ``memory``
(file to write: external memory at the end). ``bench_driver`` takes ``image`` and ``driver`` (files), ``base``, ``ids`` and ``result``.
"""

import importlib.util
import json
import logging
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.simtime import get_sim_time
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from ternbin.contract import isa
from ternbin.contract.program import Program, load
from ternbin.contract.registers import CLEAR, IRQ_ENABLE, START
from ternbin.counting.external import MemoryModel
from ternbin.errors import CheckError
from ternbin.rtl.verilog.generate import manifest
from ternbin.sim.tb import drivers
from ternbin.sim.tb.axi_model import CycleMemory


class Registers:
    """Register access with the very timing of the compiled simulation."""

    def __init__(self, dut):
        self.dut = dut

    def _set(self, **values: int) -> None:
        for name, value in values.items():
            getattr(self.dut, f"s_axil_{name}").value = value

    def _get(self, name: str) -> int:
        return drivers.get(self.dut, f"s_axil_{name}")

    async def write(self, address: int, value: int) -> None:
        self._set(awaddr=address, wdata=value, wstrb=0xF, awvalid=1, wvalid=1, bready=1)
        while True:
            await RisingEdge(self.dut.clk)
            aw, w, b = self._get("awready"), self._get("wready"), self._get("bvalid")
            if aw:
                self._set(awvalid=0)
            if w:
                self._set(wvalid=0)
            if b:
                _okay(address, self._get("bresp"))
                self._set(bready=0)
                return

    async def read(self, address: int) -> int:
        self._set(araddr=address, arvalid=1, rready=1)
        while True:
            await RisingEdge(self.dut.clk)
            if self._get("arready"):
                self._set(arvalid=0)
            if self._get("rvalid"):
                _okay(address, self._get("rresp"))
                self._set(rready=0)
                return self._get("rdata")


def _okay(address: int, response: int) -> None:
    if response != 0:
        raise CheckError(f"register {address:#x}: response must be OKAY, not {response}")


async def reset(dut) -> None:
    """Clock and reset as the compiled simulation has them; returns in the last cycle of reset."""
    for name in drivers.inputs():
        getattr(dut, name).value = 0
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, 5)
    dut.rst.value = 0


async def run_calls(dut, program: Program, memory, registers, calls: int) -> dict:
    """Start each call, wait for its interrupt, read error and counters, take the token. ``memory`` has read and write."""
    tokens, cycles, counters = [], [], []
    for number in range(calls):
        call = program.calls[number]
        await registers.write(isa.REG_PROGRAM, call.address & 0xFFFFFFFF)
        await registers.write(isa.REG_PROGRAM_HI, call.address >> 32)
        begin = get_sim_time("ns")
        await registers.write(isa.REG_CTRL, START | IRQ_ENABLE | CLEAR)
        while not drivers.get(dut, "irq"):
            await RisingEdge(dut.clk)
        cycles.append(round((get_sim_time("ns") - begin) / 10) - 1)
        error = await registers.read(isa.REG_ERROR)
        if error:
            raise CheckError(f"call {number}: error must be 0, not {error}")
        await registers.read(isa.REG_ERROR_ADDR)
        await registers.read(isa.REG_ERROR_ADDR_HI)
        await registers.write(isa.REG_STATUS, 1)
        values = {}
        for entry in manifest(program.hw)["counters"]:
            low = await registers.read(entry["offset"])
            values[entry["name"]] = low | await registers.read(entry["offset"] + 4) << 32
        counters.append(values)
        if number:
            tokens.append(int.from_bytes(memory.read(program.slot_addr(number), 4), "little"))
    return {"tokens": tokens, "cycles": cycles, "counters": counters}


def _report(result: dict, data: bytes) -> None:
    parameters = drivers.parameters()
    Path(parameters["result"]).write_text(json.dumps(result), encoding="utf-8")
    Path(parameters["memory"]).write_bytes(data)


class _Bytes:
    """External memory of CycleMemory with the interface of AxiRam."""

    def __init__(self, data: bytearray):
        self.data = data

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.data[address : address + length])


@cocotb.test()
async def bench_cycles(dut):
    """With the memory model of the compiled simulation: cycle counts must be the same."""
    parameters = drivers.parameters()
    program = load(parameters["program"])
    data = program.with_ids(parameters["ids"], parameters["start"])
    model = MemoryModel(**{name: parameters[name] for name in ("latency", "bandwidth", "stall_seed")})
    await reset(dut)
    CycleMemory(dut, data, model, program.hw.axi_bytes)
    await RisingEdge(dut.clk)
    result = await run_calls(dut, program, _Bytes(data), Registers(dut), parameters["calls"])
    _report(result, bytes(data))


def _pauses(probability: float):
    while True:
        yield random.random() < probability


class _LiteRegisters:
    """Registers through cocotbext-axi's AXI4-Lite master."""

    def __init__(self, dut):
        self.master: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)

    async def write(self, address: int, value: int) -> None:
        response = await self.master.write(address, value.to_bytes(4, "little"))
        _okay(address, int(response.resp))

    async def read(self, address: int) -> int:
        response = await self.master.read(address, 4)
        _okay(address, int(response.resp))
        return int.from_bytes(response.data, "little")


@cocotb.test()
async def bench_axi(dut):
    """With cocotbext-axi's memory and master, every channel pausing at random."""
    parameters = drivers.parameters()
    program = load(parameters["program"])
    data = program.with_ids(parameters["ids"], parameters["start"])
    await reset(dut)
    size = 1 << max(12, (len(data) - 1).bit_length())
    ram: Any = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=size)
    ram.write(0, bytes(data))
    for part in (ram.write_if, ram.read_if):
        part.log.setLevel(logging.WARNING)  # a line for every burst otherwise
    for channel in (
        ram.write_if.aw_channel,
        ram.write_if.w_channel,
        ram.write_if.b_channel,
        ram.read_if.ar_channel,
        ram.read_if.r_channel,
    ):
        channel.set_pause_generator(_pauses(0.3))
    await ClockCycles(dut.clk, 5)
    result = await run_calls(dut, program, ram, _LiteRegisters(dut), parameters["calls"])
    _report(result, ram.read(0, len(data)))


class _Buffer(bytearray):
    """What is after ``device_address`` in external memory, for a driver; goes there and back when the driver says so."""

    device_address: int
    ram: Any

    def flush(self) -> None:
        self.ram.write(self.device_address, bytes(self))

    def invalidate(self) -> None:
        memoryview(self)[:] = self.ram.read(self.device_address, len(self))


class _Mmio:
    """Registers as a driver wants them, which knows nothing of simulated time."""

    def __init__(self, registers: _LiteRegisters):
        self.read, self.write = resume(registers.read), resume(registers.write)


@cocotb.test()
async def bench_driver(dut):
    """The driver in Python, through cocotbext-axi's memory and master, woken by the interrupt."""
    parameters = drivers.parameters()
    image = Path(parameters["image"]).read_bytes()
    spec = importlib.util.spec_from_file_location("ternbin_driver", parameters["driver"])
    if spec is None or spec.loader is None:
        raise CheckError(f"{parameters['driver']} must be a module")
    driver = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(driver)
    await reset(dut)
    buffer = _Buffer(driver.memory_bytes(image))
    buffer.device_address = parameters["base"]
    size = 1 << (buffer.device_address + len(buffer) - 1).bit_length()
    buffer.ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=size)
    for part in (buffer.ram.write_if, buffer.ram.read_if):
        part.log.setLevel(logging.WARNING)
    interrupts = []

    async def interrupt() -> None:
        while not drivers.get(dut, "irq"):
            await RisingEdge(dut.clk)
        interrupts.append(get_sim_time("ns"))

    await ClockCycles(dut.clk, 5)
    mmio = _Mmio(_LiteRegisters(dut))

    def work() -> list[int]:
        return driver.Accelerator(mmio, buffer, image, resume(interrupt)).generate(parameters["ids"])

    tokens = await bridge(work)()
    await ClockCycles(dut.clk, 5)
    result = {"tokens": tokens, "interrupts": len(interrupts), "irq": drivers.get(dut, "irq")}
    Path(parameters["result"]).write_text(json.dumps(result), encoding="utf-8")
