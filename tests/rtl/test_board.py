"""The design for a board: memory and registers through the serial line, and a program that the host loads, starts and reads back."""

import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, RisingEdge, with_timeout

from ternbin.contract import isa
from ternbin.contract.hw import NAMED
from ternbin.contract.isa import INSTRUCTION_BYTES, Instruction, Mem, Op, Unit, encode
from ternbin.rtl.board.board import BOARD, READ, REGISTERS, WRITE, Board
from ternbin.rtl.verilog.convert import convert
from ternbin.rtl.verilog.generate import generate
from ternbin.sim.bench import run_bench
from ternbin.sim.tb import drivers

DIVISOR, WORDS = 4, 1024
SOURCE, TARGET = 1024, 2048  # byte addresses of what the program moves


class Line:
    """The host's end of the serial line."""

    def __init__(self, dut):
        self.dut = dut

    async def _send(self, byte: int) -> None:
        for bit in (0, *(byte >> i & 1 for i in range(8)), 1):
            self.dut.rx.value = bit
            await drivers.cycles(self.dut, DIVISOR)

    async def _receive(self) -> int:
        await with_timeout(FallingEdge(self.dut.tx), 20, "us")
        await drivers.cycles(self.dut, DIVISOR + DIVISOR // 2)
        byte = 0
        for i in range(8):
            byte |= drivers.get(self.dut, "tx") << i
            await drivers.cycles(self.dut, DIVISOR)
        assert drivers.get(self.dut, "tx") == 1
        return byte

    async def write(self, address: int, value: int) -> int:
        """The response."""
        answer = cocotb.start_soon(self._receive())
        for byte in (WRITE, *address.to_bytes(4, "little"), *value.to_bytes(4, "little")):
            await self._send(byte)
        return await answer

    async def read(self, address: int) -> tuple[int, int]:
        """Response and value."""

        async def receive() -> bytes:
            return bytes([await self._receive() for _ in range(5)])

        answer = cocotb.start_soon(receive())
        for byte in (READ, *address.to_bytes(4, "little")):
            await self._send(byte)
        raw = await answer
        return raw[0], int.from_bytes(raw[1:], "little")


@cocotb.test()
async def bench_program(dut):
    await drivers.start(dut)
    dut.rx.value = 1
    await drivers.cycles(dut, 15 * DIVISOR)  # a line that was low when reset ended may look like a byte
    line, values = Line(dut), [random.getrandbits(32) for _ in range(4)]
    assert await line.read(REGISTERS | isa.REG_ID) == (0, isa.ID_VALUE)
    assert (await line.read(REGISTERS | 0xFFC))[0] == 2  # beyond the registers: SLVERR
    await line._send(0xFF)  # not a request
    words = 2  # of RBUF: 64 bits each
    move = {"mem": Mem.RBUF, "inner": words, "outer": 1}
    load = Instruction(Op.LOAD, move | {"dram": SOURCE}, signal=frozenset({Unit.STORE}))
    store = Instruction(Op.STORE, move | {"dram": TARGET}, wait=frozenset({Unit.LOAD}))
    image = b"".join(encode(each).to_bytes(INSTRUCTION_BYTES, "little") for each in (load, store, Instruction(Op.END)))
    for at in range(0, len(image), 4):
        assert await line.write(at, int.from_bytes(image[at : at + 4], "little")) == 0
    for number, value in enumerate(values):
        assert await line.write(SOURCE + 4 * number, value) == 0
    assert await line.read(SOURCE + 4) == (0, values[1])
    assert await line.write(REGISTERS | isa.REG_PROGRAM, 0) == 0
    assert await line.write(REGISTERS | isa.REG_CTRL, 3) == 0
    for _ in range(2000):
        if drivers.get(dut, "led"):
            break
        await RisingEdge(dut.clk)
    assert await line.read(REGISTERS | isa.REG_STATUS) == (0, 2)  # done, without an error
    assert [await line.read(TARGET + 4 * number) for number in range(4)] == [(0, value) for value in values]


@pytest.mark.build
def test_board():
    hw = NAMED["micro"]
    verilog = {**generate(hw, "fpga"), f"{BOARD}.v": convert({BOARD: Board(hw, WORDS, DIVISOR)})}
    run_bench(verilog, __name__, name=BOARD, testcase="bench_program", fast="-O0")
