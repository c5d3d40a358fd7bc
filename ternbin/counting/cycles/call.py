"""The events of a call: instructions fetched, dispatched, issued, done."""

import heapq
from collections import deque

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES, Unit
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import DESCRIPTORS, IN_FLIGHT, PREFETCH
from ternbin.counting.cycles.bus import NEVER, Advances, ReadChannel, State, Transfer, WriteChannel
from ternbin.counting.cycles.gemm import Gemm, GemmTimes, gemm, undisturbed
from ternbin.counting.cycles.instructions import Decoded
from ternbin.counting.cycles.ports import NOBODY, Held, Spans
from ternbin.counting.cycles.vector import Vector, held_up
from ternbin.counting.external import MemoryModel
from ternbin.errors import CheckError

FIRST_REQUEST = 1  # cycle of a call in which fetch asks for its first instruction
INTERRUPT = 2  # cycles from the last unit's being idle to the interrupt

_OTHERS = [[unit for unit in Unit if mask >> unit & 1] for mask in range(1 << len(Unit))]
_FETCHED, _DISPATCH, _QUEUED, _DONE, _READY, _ASKED, _ENDING = range(7)  # in a cycle, in this order


class Call:
    """The events of a call. An event is (cycle from which its effect is seen, kind, unit or version)."""

    def __init__(self, hw: HwConfig, memory: MemoryModel, decoded: Decoded, known: Advances):
        self.hw, self.d = hw, decoded
        count = len(decoded.units)
        self.start, self.done = [0] * count, [0] * count
        self.events: list[tuple[int, int, int]] = []
        self.channel, self.writes = ReadChannel(memory, known), WriteChannel(memory)
        self.waiting = [deque[int]() for _ in Unit]  # queues
        self.queued = [0] * len(Unit)
        self.left = [-1] * len(Unit)  # cycle in which the queue was last left
        self.flying = [deque[int]() for _ in Unit]
        self.ready = [0] * len(Unit)
        self.room = 0  # cycle from which one more load can wait for its data
        self.tokens = [[0] * len(Unit) for _ in Unit]  # [taker][giver]
        self.back = self.back_before = (-9, -9, -9)  # of execute: see _multiply; before the instructions in flight
        self.states: dict[int, tuple[int, int, int]] = {}
        self.due: dict[int, int] = {}  # when instructions of execute and vector unit will be done
        self.columns: Spans = []  # cycles in which the array cannot read ABUF
        self.rows: Spans = []  # and KBUF
        self.gemms: list[tuple[int, GemmTimes]] = []  # issue and times
        self.loads: list[
            tuple[Transfer, list[int]]
        ] = []  # that write memories of the vector unit, and when their beats came
        self.loading: list[tuple[Transfer, list[int]]] = []  # the same of the one under way
        self.beats = ceil_div(INSTRUCTION_BYTES, hw.axi_bytes)
        self.arrived: list[int] = []
        self.version = 0
        self.state: State | None = None  # of the channel before it was advanced beyond what is sure
        self.next, self.blocked = 0, -1
        self.last = self.ended = 0  # when the last unit was done; when END came

    def run(self) -> int:
        """All of it. Returns the cycles of the call."""
        for number in range(PREFETCH):
            self._ask(FIRST_REQUEST + number)
        self._assemble(FIRST_REQUEST)
        handlers = (
            self._on_fetched,
            self._dispatch,
            self._on_queued,
            self._on_done,
            self._issue,
            self._on_asked,
            self._vector,
        )
        events = self.events
        while events:
            cycle, kind, argument = heapq.heappop(events)
            handlers[kind](cycle, argument)
        if self.ended == 0 or any(self.waiting):
            raise CheckError("instructions must not wait for tokens that nobody gives")
        cycles = max(self.ended, self.last, int(self.channel.ends[-1])) + 1 + INTERRUPT
        self.start[-1], self.done[-1] = self.ended, cycles
        return cycles

    def _push(self, cycle: int, kind: int, argument: int) -> None:
        heapq.heappush(self.events, (cycle, kind, argument))

    # fetch and dispatch

    def _ask(self, cycle: int, last: bool = False) -> None:
        """Fetch asks for one more instruction; ``last``: in this cycle or never."""
        channel = self.channel
        if self.state is not None:
            channel.back(self.state)
            asked = channel.advance(cycle)
            if asked:
                self.state = None
                self._commit(asked)
        if not last or channel.accepted <= cycle:
            self.arrived.append(channel.fetch(cycle, self.beats))
        if self.state is not None:
            self._foresee(cycle)

    def _assemble(self, free: int) -> None:
        """The next instruction is put together from cycle ``free`` on."""
        self._push(max(free + self.beats, self.arrived[self.next] + 2), _FETCHED, 0)

    def _on_fetched(self, cycle: int, _: int) -> None:
        self._ask(cycle, self.d.units[self.next] < 0)
        self._dispatch(cycle, 0)

    def _dispatch(self, cycle: int, _: int) -> None:
        unit = self.d.units[self.next]
        if unit < 0:
            self.ended = cycle
            return
        if self.queued[unit] + (self.left[unit] == cycle) >= self.hw.queue_depth:
            self.blocked = unit
            return
        self.blocked = -1
        self.queued[unit] += 1
        self._push(cycle + 1, _QUEUED, self.next)
        self.next += 1
        self._assemble(cycle + 1)

    def _on_queued(self, cycle: int, number: int) -> None:
        unit = self.d.units[number]
        self.waiting[unit].append(number)
        self._issue(cycle, unit)

    # issue

    def _issue(self, cycle: int, unit: int) -> None:
        """Issues the next instruction of ``unit`` if all that it waits for is there."""
        queue, flying, tokens = self.waiting[unit], self.flying[unit], self.tokens[unit]
        if not queue or self.ready[unit] > cycle or len(flying) >= IN_FLIGHT:
            return
        if unit == Unit.LOAD and (len(flying) > DESCRIPTORS or self.room > cycle):
            return
        number = queue[0]
        wait = self.d.wait[number]
        if wait:
            if wait >> unit & 1 and flying:
                return
            others = _OTHERS[wait & ~(1 << unit)]
            for other in others:
                if not tokens[other]:
                    return
            for other in others:
                tokens[other] -= 1
        queue.popleft()
        self.queued[unit] -= 1
        self.left[unit] = cycle
        if self.blocked == unit:
            self._push(cycle + 1, _DISPATCH, 0)
        flying.append(number)
        self.start[number] = cycle
        work = self.d.work[number]
        if isinstance(work, Transfer) and unit == Unit.LOAD:
            self.ready[unit] = NEVER
            self.channel.begin(cycle, work)
            self.state = self.channel.keep()
            self._foresee(cycle)
        elif isinstance(work, Gemm):
            self._multiply(number, self.back)
            self._vector(cycle)
        elif isinstance(work, Vector):
            if work.columns:
                self.columns = [(first + cycle, end + cycle) for first, end in work.columns]
                self._again()
            self.ready[unit] = NEVER
            self._push(cycle + work.least, _ENDING, 0)
        elif isinstance(work, Transfer):
            done, asked, read = self.writes.store(cycle, work)
            if work.keys:
                self.rows = [span for span in self.rows if span[1] > cycle] + read
                self._again()
                self._vector(cycle)
            self._finish(done, unit, asked + 1)

    def _again(self) -> None:
        """What the GEMMs in flight were expected to do may be held up now."""
        state = self.back_before
        for number in self.flying[Unit.EXECUTE]:
            state = self._multiply(number, state)

    def _vector(self, cycle: int, _: int = 0) -> None:
        """When the instruction on the vector unit is done: what loads and results of the array write and read takes cycles from it."""
        number = self.flying[Unit.VECTOR][-1] if self.flying[Unit.VECTOR] else -1
        start, work = self.start[number], self.d.work[number]
        if not isinstance(work, Vector) or cycle < start + work.least or self.due.get(number) == cycle - 1:
            return  # there is none, it is too early to say, or it is over
        cycles, seen = work.least, 0
        while seen < cycles:
            seen = cycles
            cycles = held_up(work, self._held(start, work, seen))
        done = max(start + cycles, cycle)
        if self.due.get(number) != done:
            self.due[number] = done
            self._finish(done, Unit.VECTOR, done + 1)

    def _held(self, start: int, work: Vector, cycles: int) -> Held:
        """In which of the ``cycles`` from ``start`` on others have the ports that a vector instruction uses."""
        self.loads = [load for load in self.loads if load[1][-1] + load[0].tail >= start]
        self.gemms = [item for item in self.gemms if item[0] + item[1].done > start]
        held = list(NOBODY)
        for port in work.ports:
            flags = np.zeros(cycles, np.uint8)
            for load, came in (*self.loads, *self.loading):
                if load.port == port:
                    load.held(flags, came, start)
            for begin, times in self.gemms:
                times.held(flags, port, start - begin)
            held[port] = flags.tobytes().rstrip(b"\0")
        return tuple(held)

    def _multiply(self, number: int, back: tuple[int, int, int]) -> tuple[int, int, int]:
        """When a GEMM is done. ``back``: when the one before it is, and the release of the last two tiles before it; returns the same
        for the next one."""
        cycle, work = self.start[number], self.d.work[number]
        if not isinstance(work, Gemm):
            raise TypeError(f"instruction {number} must be a GEMM, not {work}")
        handed, freed, before = max(cycle + 1, back[0]) - cycle, max(back[1] - cycle, 0), max(back[2] - cycle, 0)
        held = sorted(self.columns + self.rows) if work.keys and self.rows else self.columns
        columns = ()
        if held and held[-1][1] > cycle:
            columns = tuple((first - cycle, end - cycle) for first, end in held)
        times = (gemm if columns else undisturbed)(self.hw, work, handed, freed, before, columns)
        self.gemms = [item for item in self.gemms if item[0] != cycle] + [(cycle, times)]
        done, free = cycle + times.done, cycle + times.free
        if self.due.get(number) != done:
            self.due[number] = done
            self._push(done + 1, _DONE, Unit.EXECUTE)
        if number == self.flying[Unit.EXECUTE][-1]:
            self.ready[Unit.EXECUTE] = free
            self._push(free, _READY, Unit.EXECUTE)
        self.back = self.states[number] = (done, cycle + times.freed, cycle + times.freed_before)
        return self.back

    def _finish(self, done: int, unit: int, ready: int) -> None:
        self._push(done + 1, _DONE, unit)
        self.ready[unit] = ready
        self._push(ready, _READY, unit)

    def _foresee(self, cycle: int) -> None:
        """When the load under way will have asked for its last burst, if fetch does not come between."""
        channel = self.channel
        self.state = channel.keep()
        self.version += 1
        asked = channel.advance(NEVER)
        self._push(asked + 1, _ASKED, self.version)
        if channel.load.port >= 0:
            self.loading = [(channel.load, channel.came)]
            self._vector(cycle)

    def _on_asked(self, cycle: int, version: int) -> None:
        if version == self.version and self.state is not None:
            self.state = None
            self._commit(cycle - 1)

    def _commit(self, asked: int) -> None:
        if self.channel.load.port >= 0:
            self.loads.append((self.channel.load, self.channel.came))
            self.loading = []
        self._finish(self.channel.load_done, Unit.LOAD, asked + 1)

    def _on_done(self, cycle: int, unit: int) -> None:
        number = self.flying[unit][0] if self.flying[unit] else -1
        if unit in (Unit.EXECUTE, Unit.VECTOR) and self.due.get(number) != cycle - 1:
            return  # held up since this was expected
        if unit == Unit.EXECUTE:
            self.back_before = self.states[number]
        if unit == Unit.LOAD and len(self.flying[unit]) > DESCRIPTORS:
            self.room = cycle + 1
            self._push(self.room, _READY, unit)
        self.flying[unit].popleft()
        self.done[number] = cycle - 1
        self.last = cycle - 1
        for other in _OTHERS[self.d.signal[number] & ~(1 << unit)]:
            self.tokens[other][unit] += 1
            self._issue(cycle, other)
        self._issue(cycle, unit)
