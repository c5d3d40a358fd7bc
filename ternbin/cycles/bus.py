"""Cycles of transfers: bursts of loads, stores and fetch on their way to external memory and back."""

from collections import deque
from dataclasses import dataclass
from functools import cache

from ternbin.cycles.ports import CODES, WRITES, Spans, take
from ternbin.hw import HwConfig
from ternbin.isa import Mem
from ternbin.layout import external_rows
from ternbin.rtl.axi import PAGE_BYTES
from ternbin.sim.runner import MemoryModel

OPEN_BURSTS = 8  # that the external memory takes
NEVER = 1 << 62


@dataclass(frozen=True)
class Transfer:
    """Bursts of a LOAD or STORE: (number, beats) in order; of ``rows`` rows each, where they do not lie end to end.

    ``spacing``: cycles that the unit needs for a beat. ``late``: cycles from a beat's coming to its being taken. ``tail``: from the
    last beat to done. ``lookup``: cycles before the first burst of a row. ``port``: the port by which the words of a load hold up
    the vector unit (-1: none), ``words`` of ``beats`` each.
    """

    bursts: tuple[tuple[int, int], ...]
    spacing: float
    late: int
    tail: int
    lookup: int
    port: int
    words: int
    beats: float


_known = cache(Transfer)


def _bursts(hw: HwConfig, page_offset: int, beats: int) -> list[tuple[int, int]]:
    """Runs of equal bursts of a region. Pages hold whole bursts: only the first page may end with a shorter one."""
    cap = min(hw.burst_beats, PAGE_BYTES // hw.axi_bytes)
    room = (PAGE_BYTES - page_offset) // hw.axi_bytes
    first = min(room, beats) if room % cap else 0
    runs = ((first // cap, cap), (1, first % cap), ((beats - first) // cap, cap), (1, (beats - first) % cap))
    return [run for run in runs if run[0] * run[1]]


@cache
def transfer(hw: HwConfig, mem: int, inner: int, outer: int, page_offset: int, stride: int, indirect: bool, expand: bool) -> Transfer:
    rows, size = external_rows(hw, Mem(mem), inner, outer, expand)
    beats = size // hw.axi_bytes
    if not indirect and (rows == 1 or stride == size):
        bursts = _bursts(hw, page_offset, rows * beats)
    elif stride % PAGE_BYTES == 0 and not indirect:
        bursts = _bursts(hw, page_offset, beats) * rows
    else:
        at = 0 if indirect else page_offset
        bursts = [run for row in range(rows) for run in _bursts(hw, (at + row * stride) % PAGE_BYTES, beats)]
    words = inner * outer if Mem(mem) in (Mem.ABUF, Mem.KBUF) else 0  # of a beat that holds several, one a cycle
    spacing = max(2 if expand else 1, words / (rows * beats)) if hw.beat_words > 1 else 2 if expand else 1
    last = words and hw.beat_words > 1 and (inner - 1) % hw.beat_words + 1
    port = {Mem.ABUF: CODES, Mem.RBUF: WRITES}.get(Mem(mem), -1)
    late = int(expand) * (hw.beat_words if words else 1)
    return _known(tuple(bursts), spacing, late, max(1, last), 3 if indirect else 0, port, inner * outer, rows * beats / (inner * outer))


class ReadChannel:
    """The bursts of loads and fetch on their way to external memory and back, in order.

    Loads are advanced no further than what is sure: a request of fetch goes before all bursts not yet asked for.
    """

    def __init__(self, memory: MemoryModel):
        self.latency, self.gap = memory.latency, -(-64 // memory.beats)
        self.ends = deque([-NEVER] * OPEN_BURSTS, maxlen=OPEN_BURSTS)  # last beats of the last bursts
        self.accepted = -1  # address of the last burst
        self.offered = -NEVER  # last beat
        self.load_done = -9
        self.runs: tuple[tuple[int, int], ...] = ()  # of the load under way: bursts to come

    def begin(self, cycle: int, load: Transfer) -> None:
        """A load was issued in ``cycle``."""
        self.load, self.runs, self.position = load, load.bursts, 0
        self.left, self.length = self.runs[0]
        self.wanted = cycle + 3 + load.lookup
        self.taken = self.load_done + 2 - load.spacing  # last beat of this load
        self.spans: Spans = []  # when its beats came, if it writes a memory of the vector unit
        self.change, self.same = 0, 0

    def advance(self, limit: int) -> int:
        """Ask for bursts of the load under way before cycle ``limit``. Returns the cycle of the last one if that was its last."""
        while True:
            asked = max(self.wanted, self.accepted)
            if asked >= limit:
                return 0
            asked = self._many(asked, limit) or self._one(asked)
            self.wanted = asked + 1
            if not self.left:
                self.position += 1
                if self.position == len(self.runs):
                    self.load_done = int(self.taken + self.load.tail)
                    self.runs = ()
                    return int(asked)
                self.left, self.length = self.runs[self.position]
                self.wanted += self.load.lookup
                self.same = 0
            elif self.same > OPEN_BURSTS and self.accepted >= self.wanted:
                self._repeat(limit)

    def _first(self) -> int:
        """When the first beat of the next burst can be offered, if memory has it."""
        return max(self.offered + self.gap, self.ends[-1] + 1, self.taken + self.load.spacing - self.load.late)

    def _last(self, first: int) -> int:
        """When the last beat is taken of a burst whose first one is offered in ``first``."""
        load = self.load
        if self.length == 1:
            return first + load.late
        second = max(max(first + self.gap, first + load.late + 1) + load.late, first + load.late + load.spacing)
        return second + (self.length - 2) * max(self.gap, load.spacing)

    def _took(self, first: int, end: int) -> None:
        self.taken, self.offered = end, end - self.load.late
        if self.load.port >= 0:
            take(self.spans, first, end + 1)

    def _one(self, asked: int) -> int:
        """The next burst, asked for in ``asked``."""
        self.accepted = max(asked, self.ends[0]) + 1
        first = max(self.accepted + self.latency, self._first())
        self._took(first, self._last(first))
        change = self.taken - self.ends[0]
        self.same = self.same + 1 if change == self.change else 0
        self.change = change
        self.ends.append(self.taken)
        self.left -= 1
        return asked

    def _many(self, asked: int, limit: int) -> int:
        """The next equal bursts before ``limit``, if memory always has the next beat when the last one was taken; the cycle in which
        the last one was asked for. Else 0."""
        ends = self.ends
        if self.left == 1 or asked > ends[0]:
            return 0
        ready, whole = self._first(), self.length * max(self.gap, self.load.spacing)
        end = self._last(ready)
        latest = end - OPEN_BURSTS * whole  # each burst is accepted after the end of the eighth before it
        for number, earlier in enumerate(ends):
            latest = max(latest, earlier - number * whole)
        if latest + 1 + self.latency > ready:
            return 0
        count = self.left
        if limit < NEVER:
            before = sum(earlier < limit - 1 for earlier in ends)
            if before == OPEN_BURSTS:
                before += max(0, int(-(-(limit - 1 - end) // whole)))
            count = min(count, 1 + before)
        all_ends = [*ends, *(end + i * whole for i in range(max(0, count - OPEN_BURSTS - 2), count))]
        self.accepted = all_ends[-1 - OPEN_BURSTS] + 1
        self._took(ready, all_ends[-1])
        self.ends = deque(all_ends, maxlen=OPEN_BURSTS)
        self.left, self.same = self.left - count, 0
        return all_ends[-2 - OPEN_BURSTS] + 1 if count > 1 else asked

    def _repeat(self, limit: int) -> None:
        """Eight bursts took as long as the eight before them, each: so will the next."""
        groups = (self.left - 1) // OPEN_BURSTS
        if limit < NEVER:
            groups = min(groups, int((limit - self.accepted - 1) // self.change))
        if groups > 0:
            shift = groups * self.change
            self.left -= groups * OPEN_BURSTS
            self.ends = deque([end + shift for end in self.ends], maxlen=OPEN_BURSTS)
            self.accepted, self.wanted, self.offered, self.taken = (
                at + shift for at in (self.accepted, self.wanted, self.offered, self.taken))

    def keep(self) -> tuple:
        return (self.ends.copy(), self.accepted, self.load_done, self.runs, self.position, self.left, self.length, self.wanted,
                self.offered, self.taken, self.change, self.same, self.spans.copy())

    def back(self, state: tuple) -> None:
        (ends, self.accepted, self.load_done, self.runs, self.position, self.left, self.length, self.wanted, self.offered, self.taken,
         self.change, self.same, spans) = state
        self.spans = spans.copy()
        self.ends = ends.copy()

    def fetch(self, cycle: int, beats: int) -> int:
        """Fetch asks in ``cycle``. Returns the cycle of its last beat."""
        asked = max(cycle, self.accepted)
        self.accepted = max(asked, self.ends[0]) + 1
        self.offered = max(self.accepted + self.latency, self.offered + self.gap, self.ends[-1] + 1) + (beats - 1) * self.gap
        self.ends.append(self.offered)
        if self.runs:
            self.wanted, self.same = max(self.wanted, asked + 1), 0
        return int(self.offered)


def store(memory: MemoryModel, t: Transfer) -> int:
    """Cycles from the issue of a STORE to its last answer."""
    gap = max(-(-64 // memory.beats) + 1, t.spacing)  # the credit of a beat is counted after it
    replies = deque([-9] * OPEN_BURSTS, maxlen=OPEN_BURSTS)
    asked, sent = 2, 4
    for count, beats in t.bursts:
        for _ in range(count):
            asked = max(asked + 1, replies[0])
            sent = max(sent, asked + 1) + 1 + (beats - 1) * gap
            replies.append(sent + memory.latency)
    return int(replies[-1])
