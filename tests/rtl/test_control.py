"""Control: order, tokens, errors and registers, with units played by the bench."""

import random
from collections import Counter, deque
from typing import Any

import cocotb
import pytest
from benches.control import ControlBench
from cocotb.triggers import RisingEdge

from ternbin.contract import isa
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ErrorCode, Instruction, Mem, Op, Unit, encode
from ternbin.rtl.control.control import Control
from ternbin.sim.bench import run_bench
from ternbin.sim.tb import drivers
from ternbin.sim.tb.host import Host

WATCHDOG = 400
SIZE = 1 << 16
CONFIGS = {
    "narrow": HwConfig(rows=4, cols=2, lanes=16, axi_data_bits=32, axi_addr_bits=24, queue_depth=2),
    "wide": HwConfig(rows=16, cols=4, lanes=64, axi_data_bits=128, axi_addr_bits=40, burst_beats=2),
}
OPS = {Unit.LOAD: Op.LOAD, Unit.EXECUTE: Op.GEMM, Unit.VECTOR: Op.QUANT, Unit.STORE: Op.STORE}
TRANSFER = {"mem": Mem.RBUF, "inner": 1, "outer": 1, "dram": 0x100}
GOOD = Instruction(Op.LOAD, TRANSFER)
END = Instruction(Op.END)


class Player:
    """Plays one unit: takes instructions at random, finishes them in order after random times, up to ``overlap`` at once."""

    def __init__(self, dut, unit, overlap=3):
        self.dut, self.unit, self.overlap, self.name = dut, unit, overlap, f"unit_{unit.name.lower()}"
        self.flight, self.taken, self.dead = deque(), [], False
        self.times: list[int] | None = None  # of the next instructions, instead of random ones
        cocotb.start_soon(self._run())

    def port(self, signal):
        return getattr(self.dut, f"{self.name}__{signal}")

    async def _run(self):
        while True:
            ready = len(self.flight) < self.overlap and random.random() < 0.5 and not self.dead
            done = bool(self.flight) and self.flight[0] <= 0
            self.port("instruction__ready").value = int(ready)
            self.port("done").value = int(done)
            self.port("busy").value = int(bool(self.flight))
            await RisingEdge(self.dut.clk)
            if drivers.get(self.dut, "abort"):
                self.flight.clear()
                continue
            if done:
                self.flight.popleft()
            self.flight = deque(time - 1 for time in self.flight)
            if ready and drivers.get(self.dut, f"{self.name}__instruction__valid"):
                self.taken.append(drivers.get(self.dut, f"{self.name}__instruction__payload"))
                self.flight.append(self.times.pop(0) if self.times else random.choice([0, 1, 3, 30]))


class Order:
    """Watches the trace: no instruction may start before its tokens are there; in order within a unit."""

    def __init__(self, dut):
        self.dut = dut
        self.expect({unit: [] for unit in Unit})
        cocotb.start_soon(self._run())

    def expect(self, program):
        """program: unit -> its instructions, in order."""
        self.program, self.started, self.finished = program, Counter(), Counter()
        self.tokens = Counter()
        self.most_in_flight = 0

    async def _run(self):
        while True:
            await RisingEdge(self.dut.clk)
            start, done = drivers.get(self.dut, "trace_start"), drivers.get(self.dut, "trace_done")
            for unit in Unit:  # a token given in this cycle can be taken in the next at the earliest
                if start >> unit & 1:
                    self._start(unit)
            for unit in Unit:
                if done >> unit & 1:
                    item = self.program[unit][self.finished[unit]]
                    self.finished[unit] += 1
                    self.tokens.update((unit, to) for to in item.signal if to != unit)

    def _start(self, unit):
        item = self.program[unit][self.started[unit]]
        for giver in item.wait - {unit}:
            self.tokens[giver, unit] -= 1
            assert self.tokens[giver, unit] >= 0, (
                f"{unit.name} {self.started[unit]} started without a token of {giver.name}"
            )
        if unit in item.wait:
            assert self.started[unit] == self.finished[unit], f"{unit.name} {self.started[unit]} started too early"
        self.started[unit] += 1
        self.most_in_flight = max(self.most_in_flight, self.started[unit] - self.finished[unit])


def random_program(length):
    """Instructions that cannot deadlock: every wait is for a token of an instruction that comes earlier."""
    program, available = [], Counter()
    for number in range(length):
        unit = random.choice(list(Unit))
        wait = {v for v in Unit if v != unit and available[v, unit] and random.random() < 0.7}
        available.subtract((v, unit) for v in wait)
        wait |= {unit} if random.random() < 0.3 else set()
        signal = {to for to in Unit if random.random() < 0.4}
        available.update((unit, to) for to in signal)
        fields = TRANSFER | {"stride": 16 * number} if unit in (Unit.LOAD, Unit.STORE) else {"tokens": number}
        program.append(Instruction(OPS[unit], fields, frozenset(wait), frozenset(signal)))
    return program


async def started(dut):
    await drivers.start(dut)
    host = Host(dut, SIZE)
    dut.quiet.value = 1
    await host.reset()
    players = {unit: Player(dut, unit) for unit in Unit}
    return host, players, Order(dut)


def by_unit(program):
    return {unit: [i for i in program if isa.UNIT_OF[i.op] == unit] for unit in Unit}


@cocotb.test()
async def bench_order(dut):
    host, players, order = await started(dut)
    names = list(Control.EVENTS)
    for run in range(4):
        host.stall(0.3 if run % 2 else 0)
        program = random_program(60)
        order.expect(by_unit(program))
        for player in players.values():
            player.taken.clear()
        await host.write(isa.REG_CTRL, 4)  # clear counters
        start = SIZE - (len(program) + 1) * 64 if run == 3 else 0x1000 * run  # the last one ends where memory ends
        assert (await host.run(start, [*program, END]))[0] == ErrorCode.NONE
        for unit, items in by_unit(program).items():
            assert players[unit].taken == [encode(item) for item in items]
            assert order.finished[unit] == len(items)
            assert await host.counter(names.index(f"{unit.name.lower()}_instructions")) == len(items)
        cycles = await host.counter(names.index("cycles"))
        assert await host.counter(names.index("execute_busy")) <= cycles and cycles > 60
    assert order.most_in_flight > 1


def flipped(instruction, bit):
    return encode(instruction) ^ 1 << bit


def refit(word):
    """``word`` with the check field that makes its XOR right."""
    low, bits, _ = isa.layout(Op.END)["check"]
    word &= ~((1 << bits) - 1 << low)
    return word | (isa._fold(word) ^ isa.CHECK) << low


def bad_transfers():
    """Fields that no unit can execute, one broken thing each."""
    load, store = Op.LOAD, Op.STORE
    return [
        (load, {"mem": Mem.SBUF}),
        (store, {"mem": Mem.SBUF}),
        (store, {"mem": Mem.LUTX}),
        (load, {"mem": 9}),
        (load, {"bank": 1}),
        (load, {"mem": Mem.ABUF, "bank": 63}),
        (load, {"inner": 0}),
        (store, {"outer": 0}),
        (load, {"dram": 0x101}),
        (store, {"stride": 2}),
        (load, {"expand": 1}),
        (store, {"mem": Mem.KBUF, "expand": 1}),
        (store, {"mem": Mem.WBUF}),
        (store, {"indirect": 1}),
    ]


@cocotb.test()
async def bench_malformed(dut):
    """Each broken instruction stops the core with its code and address, and a good program runs afterwards."""
    host, players, order = await started(dut)
    cases = [(flipped(GOOD, bit), ErrorCode.CHECK) for bit in (0, 9, 200, 511, random.randrange(512))]
    cases += [(refit(opcode), ErrorCode.OPCODE) for opcode in (0, 9, 255)]
    cases += [(Instruction(op, TRANSFER | fields), ErrorCode.FIELD) for op, fields in bad_transfers()]
    order.expect({unit: [GOOD] * 100 for unit in Unit})
    for number, (bad, code) in enumerate(cases):
        before = [GOOD] * (number % 3)
        for player in players.values():
            player.taken.clear()
        address = 64 * number
        error = await host.run(address, [*before, bad, GOOD, END])
        assert error == (code, address + 64 * len(before)), f"case {number}: {error}"
        assert len(players[Unit.LOAD].taken) <= len(before)  # nothing after the broken one
        order.expect({unit: [GOOD] * 100 for unit in Unit})
        assert (await host.run(0x2000, [GOOD, GOOD, END]))[0] == ErrorCode.NONE, f"after case {number}"
        order.expect({unit: [GOOD] * 100 for unit in Unit})


@cocotb.test()
async def bench_bad_start(dut):
    """A program address that is not aligned, or beyond the bus, and one where memory answers with errors."""
    host, _, order = await started(dut)
    order.expect({unit: [GOOD] * 100 for unit in Unit})
    assert await host.run(0x40, [END]) == (ErrorCode.NONE, 0)
    await host.start(0x48)
    assert await host.finish() == (ErrorCode.FIELD, 0x48)
    await host.start(1 << 41)
    assert await host.finish() == (ErrorCode.FIELD, 1 << 41)
    await host.start(SIZE)
    assert await host.finish() == (ErrorCode.BUS_READ, SIZE)
    host.put(SIZE - 64, [GOOD])  # runs off the end of memory
    await host.start(SIZE - 64)
    assert await host.finish() == (ErrorCode.BUS_READ, SIZE)
    await host.write(isa.REG_STATUS, 1)
    assert await host.read(isa.REG_STATUS) == 0 and await host.read(isa.REG_ERROR) == 0
    await drivers.cycles(dut, 2)
    assert drivers.get(dut, "irq") == 0


@cocotb.test()
async def bench_standstill(dut):
    """A wait for a token that never comes, and a unit that never takes its instruction, end with TIMEOUT."""
    host, players, order = await started(dut)
    order.expect({unit: [GOOD] * 100 for unit in Unit})
    waiting = Instruction(Op.GEMM, {}, frozenset({Unit.LOAD}))
    assert await host.run(0, [GOOD, waiting, END]) == (ErrorCode.TIMEOUT, 64)
    cycle = [
        Instruction(Op.LOAD, TRANSFER, frozenset({Unit.STORE}), frozenset({Unit.STORE})),
        Instruction(Op.STORE, TRANSFER, frozenset({Unit.LOAD}), frozenset({Unit.LOAD})),
    ]
    assert await host.run(0x400, [GOOD, *cycle, END]) == (ErrorCode.TIMEOUT, 0x440)
    full = [Instruction(Op.GEMM, {}, frozenset({Unit.LOAD}))] * 20  # fills the queue: dispatch stands still too
    assert await host.run(0x800, [GOOD, *full, END]) == (ErrorCode.TIMEOUT, 0x840)
    players[Unit.LOAD].dead = True
    assert await host.run(0x800, [GOOD, END]) == (ErrorCode.TIMEOUT, 0x800)
    players[Unit.LOAD].dead = False
    order.expect({unit: [GOOD] * 100 for unit in Unit})
    assert (await host.run(0, [GOOD, END]))[0] == ErrorCode.NONE


@cocotb.test()
async def bench_tokens_overflow(dut):
    host, _, order = await started(dut)
    giving = Instruction(Op.LOAD, TRANSFER, frozenset(), frozenset({Unit.STORE}))
    order.expect(by_unit([giving] * 300))
    assert (await host.run(0, [*[giving] * 255, END]))[0] == ErrorCode.NONE
    order.expect(by_unit([giving] * 300))
    error, address = await host.run(0, [*[giving] * 300, END])
    assert (error, address) == (ErrorCode.TOKEN, 255 * 64)


@cocotb.test()
async def bench_unit_faults(dut):
    """Faults of units: the address is that of the oldest unfinished instruction."""
    host, players, order = await started(dut)
    for unit in Unit:
        for code in (ErrorCode.FIELD, ErrorCode.ADDRESS):
            order.expect({u: [GOOD] * 100 for u in Unit})
            fields = TRANSFER if unit in (Unit.LOAD, Unit.STORE) else {}
            item = Instruction(OPS[unit], fields, frozenset({unit}))
            host.put(0x1000, [item, item, item, END])
            player = players[unit]
            player.times = [2, 1 << 20]  # the first is done soon, the second stays
            await host.start(0x1000)
            await drivers.until(dut, lambda unit=unit: order.started[unit] == 2)
            await drivers.cycles(dut, 3)
            fault = player.port("fault") if code == ErrorCode.FIELD else dut.address_fault
            fault.value = 1 if code == ErrorCode.FIELD else 1 << unit
            await RisingEdge(dut.clk)
            fault.value = 0
            assert await host.finish() == (code, 0x1040), unit.name


@cocotb.test()
async def bench_abort_waits(dut):
    """After an error the core stays busy, and aborts, until the bus is quiet; a start in between counts for nothing."""
    host, _, order = await started(dut)
    order.expect({unit: [GOOD] * 100 for unit in Unit})
    dut.quiet.value = 0
    host.put(0, [flipped(GOOD, 3), END])
    await host.start(0)
    await drivers.until(dut, lambda: drivers.get(dut, "irq") == 1)
    await host.start(0x40)
    assert await host.read(isa.REG_STATUS) == 5 and drivers.get(dut, "abort") == 1
    await drivers.cycles(dut, 200)  # enough for what was fetched ahead
    assert await host.read(isa.REG_STATUS) == 5
    dut.quiet.value = 1
    await drivers.cycles(dut, 3)
    assert await host.read(isa.REG_STATUS) == 4 and drivers.get(dut, "abort") == 0
    assert await host.finish() == (ErrorCode.CHECK, 0)


@cocotb.test()
async def bench_registers(dut):
    host, _, _ = await started(dut)
    assert await host.read(isa.REG_ID) == isa.ID_VALUE
    await host.write(isa.REG_PROGRAM, 0x12345678)
    await host.write(isa.REG_PROGRAM_HI, 0x9A)
    assert (await host.read(isa.REG_PROGRAM), await host.read(isa.REG_PROGRAM_HI)) == (0x12345678, 0x9A)
    await host.write(isa.REG_CTRL, 2)
    assert await host.read(isa.REG_CTRL) == 2
    end = isa.REG_COUNTERS + 8 * len(Control.EVENTS)
    registers: Any = host.registers  # cocotbext-axi does not say what its coroutines return
    for offset in (0x004, 0x100, end):
        assert (await registers.read(offset, 4)).resp == 2, f"{offset:#x}"
    for offset in (isa.REG_ID, isa.REG_ERROR, isa.REG_COUNTERS):
        assert (await registers.write(offset, bytes(4))).resp == 2, f"{offset:#x}"
    assert (await registers.write(isa.REG_PROGRAM, b"\xff")).resp == 2  # a part of a word
    assert await host.read(isa.REG_PROGRAM) == 0x12345678


@pytest.mark.parametrize("config", ["wide", pytest.param("narrow", marks=pytest.mark.soak)])
def test_control(config):
    run_bench(ControlBench(CONFIGS[config], WATCHDOG), __name__, name="control_bench", parameters={"config": config})
