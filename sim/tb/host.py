"""The host's side of the accelerator in cocotb: registers over AXI4-Lite, external memory over AXI4."""

import random
from typing import Any

from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave, MemoryRegion

from ternbin.contract import isa
from ternbin.contract.isa import ErrorCode, Instruction, encode
from ternbin.errors import CheckError
from ternbin.sim.tb import drivers


class Host:
    """External memory of ``size`` bytes (beyond it the bus answers with errors) and access to the registers."""

    def __init__(self, dut, size: int):
        self.dut, self.region = dut, MemoryRegion(size)
        # Any: cocotbext-axi has no types, and what a checker infers of it is wrong.
        self.slave: Any = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=self.region)
        self.registers: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)

    async def reset(self) -> None:
        """Two cycles of reset; the bus models start at its end."""
        self.dut.rst.value = 1
        await drivers.cycles(self.dut, 2)
        self.dut.rst.value = 0
        await drivers.cycles(self.dut, 2)

    def stall(self, probability: float) -> None:
        """Random pauses of every channel of the memory."""

        def pauses():
            while True:
                yield random.random() < probability

        read, write = self.slave.read_if, self.slave.write_if
        for channel in (read.ar_channel, read.r_channel, write.aw_channel, write.w_channel, write.b_channel):
            channel.set_pause_generator(pauses())

    def put(self, address: int, program: list[Instruction | int]) -> None:
        """Write instructions (or raw words) one after the other."""
        for number, item in enumerate(program):
            word = item if isinstance(item, int) else encode(item)
            at = address + number * isa.INSTRUCTION_BYTES
            self.region[at : at + isa.INSTRUCTION_BYTES] = word.to_bytes(isa.INSTRUCTION_BYTES, "little")

    async def read(self, offset: int) -> int:
        """A 32-bit register; the answer must be OKAY."""
        answer = await self.registers.read(offset, 4)
        if answer.resp != 0:
            raise CheckError(f"register {offset:#x}: answer must be OKAY, not {answer.resp}")
        return int.from_bytes(answer.data, "little")

    async def write(self, offset: int, value: int) -> None:
        answer = await self.registers.write(offset, value.to_bytes(4, "little"))
        if answer.resp != 0:
            raise CheckError(f"register {offset:#x}: answer must be OKAY, not {answer.resp}")

    async def counter(self, number: int) -> int:
        at = isa.REG_COUNTERS + 8 * number
        return await self.read(at) | await self.read(at + 4) << 32

    async def start(self, address: int, interrupt: bool = True) -> None:
        await self.write(isa.REG_PROGRAM, address & 0xFFFFFFFF)
        await self.write(isa.REG_PROGRAM_HI, address >> 32)
        await self.write(isa.REG_CTRL, 1 | int(interrupt) << 1)

    async def finish(self, limit: int = 100000) -> tuple[ErrorCode, int]:
        """Wait for the interrupt, then until the core is not busy; returns the error and its address."""
        await drivers.until(self.dut, lambda: drivers.get(self.dut, "irq") == 1, limit)
        status = 1
        for _ in range(1000):
            status = await self.read(isa.REG_STATUS)
            if not status & 1:
                break
        error = ErrorCode(await self.read(isa.REG_ERROR))
        if status != (4 if error else 2):
            raise CheckError(f"status must be {4 if error else 2:#x} with error {error.name}, not {status:#x}")
        address = await self.read(isa.REG_ERROR_ADDR) | await self.read(isa.REG_ERROR_ADDR_HI) << 32
        return error, address

    async def run(self, address: int, program: list[Instruction | int], limit: int = 100000) -> tuple[ErrorCode, int]:
        """Write a program, start it, wait for its end."""
        self.put(address, program)
        await self.start(address)
        return await self.finish(limit)
