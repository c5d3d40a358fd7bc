"""Cycles of transfers: bursts of loads, stores and fetch on their way to external memory and back."""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Mem
from ternbin.contract.pipeline import PAGE_BYTES, READ_AHEAD
from ternbin.contract.transfers import beat_words, external_rows
from ternbin.counting.cycles.ports import CODES, WRITES, Spans, mark, take
from ternbin.counting.external import OPEN_BURSTS, MemoryModel

NEVER = 1 << 62
_BEAT = 64  # credit for a beat: memory gains `MemoryModel.beats` a cycle


@dataclass(frozen=True)
class Transfer:
    """Bursts of a LOAD or STORE: (number, beats) in order; of ``rows`` rows each, where they do not lie end to end.

    ``spacing``: cycles that the unit needs for a beat. ``tail``: from the last beat to done. ``lookup``: cycles before the first burst
    of a row. ``port``: the port by which the words of a load, of ``beats`` each, hold up the vector unit (-1: none). ``keys``: of KBUF.
    """

    bursts: tuple[tuple[int, int], ...]
    spacing: float
    tail: int
    lookup: int
    port: int
    beats: float
    keys: bool

    def held(self, flags: np.ndarray, came: list[int], first: int) -> None:
        """Sets the flags, of cycles from ``first`` on, in which the words of a load are written whose beats were taken in ``came``."""
        every = max(1, int(self.beats))
        mark(flags, np.array(came[every - 1 :: every], dtype=np.int64) + (1 - first), max(1, round(1 / self.beats)))


known_transfer = cache(Transfer)


def _bursts(hw: HwConfig, page_offset: int, beats: int) -> list[tuple[int, int]]:
    """Runs of equal bursts of a region. Pages hold whole bursts: only the first page may end with a shorter one."""
    cap = min(hw.burst_beats, PAGE_BYTES // hw.axi_bytes)
    room = (PAGE_BYTES - page_offset) // hw.axi_bytes
    first = min(room, beats) if room % cap else 0
    runs = ((first // cap, cap), (1, first % cap), ((beats - first) // cap, cap), (1, (beats - first) % cap))
    return [run for run in runs if run[0] * run[1]]


@cache
def transfer(
    hw: HwConfig, mem: int, inner: int, outer: int, page_offset: int, stride: int, indirect: bool, expand: bool
) -> Transfer:
    rows, size = external_rows(hw, Mem(mem), inner, outer, expand)
    beats = size // hw.axi_bytes
    if not indirect and (rows == 1 or stride == size):
        bursts = _bursts(hw, page_offset, rows * beats)
    elif stride % PAGE_BYTES == 0 and not indirect:
        bursts = _bursts(hw, page_offset, beats) * rows
    else:
        at = 0 if indirect else page_offset
        bursts = [run for row in range(rows) for run in _bursts(hw, (at + row * stride) % PAGE_BYTES, beats)]
    several = beat_words(hw, Mem(mem), expand)
    spacing = max(1, inner * outer / (rows * beats)) if several > 1 else 1  # words of a beat are written one a cycle
    last = (inner - 1) % several + 1
    port = {Mem.ABUF: CODES, Mem.RBUF: WRITES}.get(Mem(mem), -1)
    each, lookup = rows * beats / (inner * outer), 3 if indirect else 0
    return known_transfer(tuple(bursts), spacing, last, lookup, port, each, Mem(mem) == Mem.KBUF)


class Beats:
    """Beats of one direction that follow each other, each as soon as memory has credit for it and the unit takes it.

    The first is offered in ``first`` and taken in ``taken`` at the earliest; from ``due`` / ``memory.beats`` on there is credit for it.
    Each is taken ``spacing`` after the one before at the earliest, and is offered after the one before was taken.
    """

    def __init__(self, memory: MemoryModel, due: float, first: float, taken: float, spacing: float):
        self.rate, self.first, self.spacing = memory.beats, first, spacing
        self.start = max(first, taken)
        self.after = max(due, self.rate * (first - 1) + 1) + _BEAT  # memory keeps credit of less than a beat
        self.second = max(self.after, self.rate * self.start + 1)

    def _credit(self, number: int) -> float:
        return -(-(self.second + _BEAT * (number - 2)) // self.rate)

    def taken(self, number: int) -> float:
        """The cycle in which beat ``number`` (from 1 on) is taken."""
        return self.start if number == 1 else max(self.start + (number - 1) * self.spacing, self._credit(number))

    def offered(self, number: int) -> float:
        return self.first if number == 1 else max(self.taken(number - 1) + 1, self._credit(number))

    def left(self, number: int) -> float:
        """``due`` of the beat after the first ``number``."""
        if number == 1:
            return self.after
        return max(self.second + _BEAT * (number - 2), self.rate * (self.offered(number) - 1) + 1) + _BEAT


# What a ReadChannel keeps to go back to.
State = tuple[
    deque[float],  # ends
    deque[float],  # dues
    float,  # accepted
    int,  # load_done
    tuple[tuple[int, int], ...],  # runs
    int,  # position
    int,  # left
    int,  # length
    float,  # wanted
    float,  # taken
    float,  # change
    int,  # same
    list[int],  # came
]


# State of a ReadChannel -> what an advance makes of it, both from a cycle on.
Advances = dict[tuple[float, ...], tuple[float, ...]]


class ReadChannel:
    """The bursts of loads and fetch on their way to external memory and back, in order.

    Loads are advanced no further than what is sure: a request of fetch goes before all bursts not yet asked for. ``known``: advances
    that were computed; the same from another cycle on is the same later.
    """

    def __init__(self, memory: MemoryModel, known: Advances):
        self.memory, self.known = memory, known
        self.ends: deque[float] = deque([-NEVER] * OPEN_BURSTS, maxlen=OPEN_BURSTS)  # last beats of the last bursts
        self.dues: deque[float] = deque(
            [-NEVER] * OPEN_BURSTS, maxlen=OPEN_BURSTS
        )  # credit for beats after them: see Beats
        self.accepted: float = -1  # address of the last burst
        self.load_done = -9
        self.runs: tuple[tuple[int, int], ...] = ()  # of the load under way: bursts to come

    def begin(self, cycle: int, load: Transfer) -> None:
        """A load was issued in ``cycle``."""
        self.load, self.runs, self.position = load, load.bursts, 0
        self.left, self.length = self.runs[0]
        self.wanted = cycle + 3 + load.lookup
        self.taken = self.load_done + 2 - load.spacing  # last beat of this load
        self.came: list[int] = []  # when its beats were taken, if it writes a memory of the vector unit
        self.change, self.same = 0, 0

    def advance(self, limit: int) -> int:
        """Ask for bursts of the load under way before cycle ``limit``. Returns the cycle of the last one if that was its last, else 0."""
        load, at = self.load, self.accepted
        if load.port >= 0 or load.spacing % 1:  # its beats are listed; sums of fractions are not the same later
            return self._advance(limit)
        # `known_transfer` keeps the load as long as these advances live, so no other has its id.
        key = (id(load), limit if limit == NEVER else limit - at, *self._relative(at))
        if key not in self.known:
            asked = self._advance(limit)
            self.known[key] = (asked and asked - at, asked > 0, *self._relative(at))
            return asked
        asked, over, *state = self.known[key]
        self._restore(at, state)
        if not over:
            return 0
        self.load_done = int(self.taken + load.tail)
        self.runs = ()
        return int(asked + at)

    def _relative(self, at: float) -> tuple[float, ...]:
        """All that advancing depends on and changes, as seen from cycle ``at`` on."""
        due = at * self.memory.beats
        return (
            self.position,
            self.left,
            self.length,
            self.same,
            self.change,
            self.accepted - at,
            self.wanted - at,
            self.taken - at,
            *[end - at for end in self.ends],
            *[each - due for each in self.dues],
        )

    def _restore(self, at: float, state: Sequence[float]) -> None:
        position, left, length, same, self.change, accepted, wanted, taken, *others = state
        self.position, self.left, self.length, self.same = int(position), int(left), int(length), int(same)
        self.accepted, self.wanted, self.taken = accepted + at, wanted + at, taken + at
        due = at * self.memory.beats
        self.ends = deque([end + at for end in others[:OPEN_BURSTS]], maxlen=OPEN_BURSTS)
        self.dues = deque([each + due for each in others[OPEN_BURSTS:]], maxlen=OPEN_BURSTS)

    def _advance(self, limit: int) -> int:
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
            elif self.same > OPEN_BURSTS and self.load.port < 0 and self.accepted >= self.wanted:
                self._repeat(limit)

    def _beats(self, first: float) -> Beats:
        """The next beats of the load, the first one offered in ``first`` at the earliest."""
        load = self.load
        first = max(first, -(-self.dues[-1] // self.memory.beats), self.ends[-1] + 1)
        return Beats(self.memory, self.dues[-1], first, self.taken + load.spacing, load.spacing)

    def _took(self, beats: Beats, number: int) -> None:
        self.taken = self.ends[-1]
        if self.load.port >= 0:
            self.came += [int(beats.taken(beat)) for beat in range(1, number + 1)]

    def _one(self, asked: float) -> float:
        """The next burst, asked for in ``asked``."""
        self.accepted = max(asked, self.ends[0]) + 1
        beats = self._beats(self.accepted + self.memory.latency)
        end, due = beats.taken(self.length), beats.left(self.length)
        change = end - self.ends[0]
        periodic = change == self.change and due - self.dues[0] == change * self.memory.beats
        self.same = self.same + 1 if periodic else 0
        self.change = change
        self.ends.append(end)
        self.dues.append(due)
        self._took(beats, self.length)
        self.left -= 1
        return asked

    def _many(self, asked: float, limit: int) -> float:
        """The next equal bursts before ``limit``, if memory always has the next beat when the last one was taken; the cycle in which
        the last one was asked for. Else 0."""
        if self.left == 1 or asked > self.ends[0]:
            return 0
        ends, length, beats = list(self.ends), self.length, self._beats(0)

        def end(number: int) -> float:  # each burst is accepted after the end of the eighth before it
            return ends[number] if number < OPEN_BURSTS else beats.taken((number - OPEN_BURSTS + 1) * length)

        if any(
            end(number) + 1 + self.memory.latency
            > beats.offered(number * length + 1) - number // OPEN_BURSTS  # later: one less
            for number in range(OPEN_BURSTS + 1)
        ):
            return 0
        count = min(self.left, 1 + bisect_left(range(self.left), limit - 1, key=end))
        self.ends.extend(end(number) for number in range(count, count + OPEN_BURSTS))
        self.dues.extend(beats.left(number * length) for number in range(max(1, count - OPEN_BURSTS + 1), count + 1))
        self.accepted = end(count - 1) + 1
        self._took(beats, count * length)
        self.left, self.same = self.left - count, 0
        return end(count - 2) + 1 if count > 1 else asked

    def _repeat(self, limit: int) -> None:
        """Eight bursts took as long as the eight before them, each: so will the next."""
        groups = (self.left - 1) // OPEN_BURSTS
        if limit < NEVER:
            groups = min(groups, int((limit - self.accepted - 1) // self.change))
        if groups > 0:
            shift = groups * self.change
            self.left -= groups * OPEN_BURSTS
            self.ends = deque([end + shift for end in self.ends], maxlen=OPEN_BURSTS)
            self.dues = deque([due + shift * self.memory.beats for due in self.dues], maxlen=OPEN_BURSTS)
            self.accepted, self.wanted, self.taken = (at + shift for at in (self.accepted, self.wanted, self.taken))

    def keep(self) -> State:
        return (
            self.ends.copy(),
            self.dues.copy(),
            self.accepted,
            self.load_done,
            self.runs,
            self.position,
            self.left,
            self.length,
            self.wanted,
            self.taken,
            self.change,
            self.same,
            self.came.copy(),
        )

    def back(self, state: State) -> None:
        (
            ends,
            dues,
            self.accepted,
            self.load_done,
            self.runs,
            self.position,
            self.left,
            self.length,
            self.wanted,
            self.taken,
            self.change,
            self.same,
            came,
        ) = state
        self.ends, self.dues, self.came = ends.copy(), dues.copy(), came.copy()

    def fetch(self, cycle: int, beats: int) -> int:
        """Fetch asks in ``cycle``. Returns the cycle of its last beat."""
        asked = max(cycle, self.accepted)
        self.accepted = max(asked, self.ends[0]) + 1
        ready = max(self.accepted + self.memory.latency, -(-self.dues[-1] // self.memory.beats), self.ends[-1] + 1)
        run = Beats(self.memory, self.dues[-1], ready, ready, 1)
        self.ends.append(run.taken(beats))
        self.dues.append(run.left(beats))
        if self.runs:
            self.wanted, self.same = max(self.wanted, asked + 1), 0
        return int(self.ends[-1])


class WriteChannel:
    """The bursts of stores on their way to external memory, in order."""

    def __init__(self, memory: MemoryModel):
        self.memory = memory
        self.replies: deque[float] = deque([-NEVER] * OPEN_BURSTS, maxlen=OPEN_BURSTS)
        self.gone: deque[float] = deque(
            [-NEVER] * READ_AHEAD, maxlen=READ_AHEAD
        )  # the last beats that left the store unit
        self.read = self.sent = -9  # last word; last beat
        self.due = -NEVER  # see Beats

    def store(self, cycle: int, t: Transfer) -> tuple[int, int, Spans]:
        """A STORE is issued in ``cycle``. Returns the cycles of its last answer, of its last request, and those in which it reads."""
        reads: Spans = []
        rate, asked, read, sent, due = self.memory.beats, cycle + 2, max(self.read, cycle) + 1, self.sent, self.due
        number = 0
        for count, beats in t.bursts:
            for _ in range(count):
                asked = max(asked + 1, self.replies[0])
                for _ in range(beats):
                    if number % max(1, t.beats) == 0:  # a word, or the words of a beat
                        first = max(read, self.gone[0])
                        read = first + t.spacing
                        take(reads, int(first) + 1, int(read) + 1)
                    number += 1
                    self.gone.append(max(read + 2, asked + 1, sent))
                    sent = max(self.gone[-1] + 1, asked + 2, -(-due // rate))
                    due = max(due, rate * (sent - 1) + 1) + _BEAT
                self.replies.append(sent + self.memory.latency)
        self.read, self.sent, self.due = read, sent, due
        return int(self.replies[-1]), int(asked), reads
