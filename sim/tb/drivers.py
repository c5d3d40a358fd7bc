"""Drivers for cocotb benches of blocks: ready/valid streams, memory ports and memories, all with random stalls.

Everything samples just before a rising edge of the clock and drives just after it. ``stall`` is the probability, each cycle,
that a driver is not ready (or offers nothing); randomness comes from the ``random`` module, which cocotb seeds.
A failed assertion in a driver fails the test. Call ``start`` before creating drivers.
"""

import json
import os
import random
from collections import deque
from collections.abc import Callable, Iterable

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from ternbin.errors import CheckError


def _bench() -> dict:
    return json.loads(os.environ["TERNBIN_BENCH"])


def parameters() -> dict:
    """What the caller of ``run_bench`` passed as ``parameters``."""
    return _bench()["parameters"]


def inputs() -> list[str]:
    """Names of the input ports."""
    return _bench()["inputs"]


async def start(dut) -> None:
    """Start the clock (10 ns) with all inputs at 0, and hold reset (if there is one) for two cycles."""
    for name in inputs():
        getattr(dut, name).value = 0
    Clock(dut.clk, 10, unit="ns").start()
    if "rst" in inputs():
        dut.rst.value = 1
        await cycles(dut, 2)
        dut.rst.value = 0
    await cycles(dut, 1)


async def cycles(dut, count: int) -> None:
    """Wait for ``count`` rising edges."""
    for _ in range(count):
        await RisingEdge(dut.clk)


async def until(dut, condition: Callable[[], bool], limit: int = 10000) -> int:
    """Wait for the first rising edge at which ``condition()`` holds; returns how many edges that took."""
    for count in range(1, limit + 1):
        await RisingEdge(dut.clk)
        if condition():
            return count
    raise AssertionError(f"condition must hold within {limit} cycles")


def get(dut, name: str) -> int:
    """Value of a port as an unsigned integer."""
    return int(getattr(dut, name).value)


def signed(value: int, bits: int) -> int:
    """The low ``bits`` of ``value`` as two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


class Source:
    """Offers the values given to ``send`` on the stream port ``name``, in order.

    payload: name of the payload member; "" for a port that has several (then values are dicts member -> int).
    """

    def __init__(self, dut, name: str, *, stall: float = 0.3, payload: str = "payload"):
        self.dut, self.name, self.stall, self.payload = dut, name, stall, payload
        self._queue: deque = deque()
        self._busy = False
        cocotb.start_soon(self._run())

    def send(self, values: Iterable) -> None:
        """Queue values; returns at once."""
        self._queue.extend(values)

    async def drained(self, limit: int = 10000) -> None:
        """Wait until every queued value was taken."""
        await until(self.dut, lambda: not self._queue and not self._busy, limit)

    def _drive(self, value) -> None:
        members = value if isinstance(value, dict) else {self.payload: value}
        for member, number in members.items():
            getattr(self.dut, f"{self.name}__{member}").value = number

    async def _run(self) -> None:
        valid = getattr(self.dut, f"{self.name}__valid")
        while True:
            if self._queue and random.random() >= self.stall:
                self._busy = True
                self._drive(self._queue.popleft())
                valid.value = 1
                await until(self.dut, lambda: get(self.dut, f"{self.name}__ready") == 1)
                valid.value = 0
                self._busy = False
            else:
                await RisingEdge(self.dut.clk)


class Sink:
    """Takes values from the stream port ``name`` into ``received`` (ints, or dicts when ``members`` are named)."""

    def __init__(self, dut, name: str, *, stall: float = 0.3, members: tuple[str, ...] = ()):
        self.dut, self.name, self.stall, self.members = dut, name, stall, members
        self.received: list = []
        cocotb.start_soon(self._run())

    async def count(self, number: int, limit: int = 10000) -> list:
        """Wait until ``number`` values have come; returns the values."""
        await until(self.dut, lambda: len(self.received) >= number, limit)
        return self.received

    async def _run(self) -> None:
        ready = getattr(self.dut, f"{self.name}__ready")
        while True:
            offered = random.random() >= self.stall
            ready.value = int(offered)
            await RisingEdge(self.dut.clk)
            if offered and get(self.dut, f"{self.name}__valid"):
                self.received.append(self._value())

    def _value(self):
        if self.members:
            return {member: get(self.dut, f"{self.name}__{member}") for member in self.members}
        return get(self.dut, f"{self.name}__payload")


class MemoryModel:
    """An on-chip memory that serves ReadPort, WritePort and TransposedWritePort members of the component under test.

    ``words[bank][addr]`` holds the contents as integers; it starts with ``fill`` (an int, or None for random words).
    elements: of a word, as the write port's lane mask selects them; a code word of two ``planes`` has them as
    [elements bits nz][elements bits neg]. Read data is random outside of the one cycle in which it is valid, and in banks
    that were not selected. Reads see the writes of earlier cycles only.
    """

    def __init__(
        self,
        dut,
        *,
        banks: int,
        depth: int,
        word_bits: int,
        elements: int,
        planes: int = 1,
        stall: float = 0.3,
        fill: int | None = 0,
    ):
        self.dut, self.depth, self.word_bits = dut, depth, word_bits
        self.elements, self.planes, self.stall = elements, planes, stall
        self.words = [
            [random.getrandbits(word_bits) if fill is None else fill for _ in range(depth)] for _ in range(banks)
        ]
        self.reads = self.writes = 0  # requests taken
        self._ports: list[tuple[str, Callable[[str], None]]] = []
        cocotb.start_soon(self._run())

    def read_port(self, name: str) -> None:
        """Serve the ReadPort member ``name``."""
        self._ports.insert(0, (name, self._read))  # reads come before the writes of the same cycle

    def write_port(self, name: str) -> None:
        """Serve the WritePort member ``name``."""
        self._ports.append((name, self._write))

    def transposed_port(self, name: str) -> None:
        """Serve the TransposedWritePort member ``name``."""
        self._ports.append((name, self._write_transposed))

    async def _run(self) -> None:
        while True:
            offered = {name: random.random() >= self.stall for name, _ in self._ports}
            for name, is_ready in offered.items():
                getattr(self.dut, f"{name}__ready").value = int(is_ready)
            await RisingEdge(self.dut.clk)
            for name, serve in self._ports:
                taken = offered.get(name, False) and get(self.dut, f"{name}__valid")
                if taken:
                    serve(name)
                elif serve == self._read:
                    self._answer(name, 0, 0)

    def _address(self, name: str) -> int:
        addr = get(self.dut, f"{name}__addr")
        if addr >= self.depth:
            raise CheckError(f"{name}: address must be below {self.depth}, not {addr}")
        return addr

    def _read(self, name: str) -> None:
        self.reads += 1
        self._answer(name, self._address(name), get(self.dut, f"{name}__mask"))

    def _answer(self, name: str, addr: int, mask: int) -> None:
        data = 0
        for bank, words in enumerate(self.words):
            word = words[addr] if mask >> bank & 1 else random.getrandbits(self.word_bits)
            data |= word << bank * self.word_bits
        getattr(self.dut, f"{name}__data").value = data

    def _element_mask(self, lane_mask: int) -> int:
        """Bits of a word that the elements of ``lane_mask`` take."""
        width = self.word_bits // self.planes // self.elements
        plane = sum(((1 << width) - 1) << lane * width for lane in range(self.elements) if lane_mask >> lane & 1)
        return sum(plane << p * self.elements * width for p in range(self.planes))

    def _write(self, name: str) -> None:
        self.writes += 1
        addr, mask = self._address(name), get(self.dut, f"{name}__mask")
        bits, data = self._element_mask(get(self.dut, f"{name}__lane_mask")), get(self.dut, f"{name}__data")
        brought = len(getattr(self.dut, f"{name}__data")) // self.word_bits  # words of a write, for banks in turn
        for bank, words in enumerate(self.words):
            if mask >> bank & 1:
                words[addr] = words[addr] & ~bits | data >> bank % brought * self.word_bits & bits

    def _write_transposed(self, name: str) -> None:
        self.writes += 1
        addr, mask = self._address(name), get(self.dut, f"{name}__mask")
        lane, codes, rows = get(self.dut, f"{name}__lane"), get(self.dut, f"{name}__codes"), len(self.words)
        for bank, words in enumerate(self.words):
            if mask >> bank & 1:
                bits = sum((codes >> p * rows + bank & 1) << p * self.elements + lane for p in range(self.planes))
                written = self._element_mask(
                    1 << lane if lane else (1 << self.elements) - 1
                )  # lane 0 clears the others
                words[addr] = words[addr] & ~written | bits


class PortMaster:
    """Requester on a ReadPort, WritePort or TransposedWritePort of a memory under test.

    ``stall``: probability of waiting a cycle before a request is raised.
    """

    def __init__(self, dut, name: str, *, stall: float = 0.0):
        self.dut, self.name, self.stall = dut, name, stall

    async def request(self, **members: int) -> None:
        """Raise a request (``addr=..., mask=...``) and return just after the edge at which it was taken."""
        while random.random() < self.stall:
            await RisingEdge(self.dut.clk)
        for member, value in members.items():
            getattr(self.dut, f"{self.name}__{member}").value = value
        valid = getattr(self.dut, f"{self.name}__valid")
        valid.value = 1
        await until(self.dut, lambda: get(self.dut, f"{self.name}__ready") == 1)
        valid.value = 0

    async def read(self, addr: int, mask: int) -> int:
        """The data of all banks, as one integer, of one read request."""
        await self.request(addr=addr, mask=mask)
        await RisingEdge(self.dut.clk)
        return get(self.dut, f"{self.name}__data")
