"""Cycles of a program without simulating it: when every instruction starts and is done. docs/architecture.md, "Cycle model".

A call is a sequence of events - instructions fetched, dispatched, issued, done - whose times follow from each other by closed formulas
for what each unit does in between. Times are cycles of the call, as the simulation's records count them.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ternbin.accounting import PHASES
from ternbin.errors import CheckError, InputError
from ternbin.hw import HwConfig
from ternbin.isa import CHECK, INSTRUCTION_BYTES, UNIT_OF, Dest, Epilogue, Kind, Mem, Op, Unit, layout
from ternbin.layout import ceil_div, external_rows
from ternbin.program import Program
from ternbin.rtl.axi import PAGE_BYTES
from ternbin.rtl.control import IN_FLIGHT
from ternbin.rtl.dma import DESCRIPTORS
from ternbin.rtl.fetch import PREFETCH
from ternbin.sim.runner import CallRun, MemoryModel, RunResult

OPEN_BURSTS = 8  # that the external memory takes
FIRST_REQUEST = 1  # cycle of a call in which fetch asks for its first instruction
INTERRUPT = 2  # cycles from the last unit's being idle to the interrupt
EIGHT_BIT = (Kind.INT8, Kind.UINT8)
NEVER = 1 << 62


# ---- ports of memories ----------------------------------------------------------------------------------------------

Spans = list[tuple[int, int]]  # cycles first <= cycle < end, in order
CODES, READS, WRITES, PARAMETERS = range(4)  # ports for which others come before the vector unit: of ABUF, RBUF, RBUF, PBUF


@dataclass(frozen=True, eq=False)
class Busy:
    """Cycles from its issue in which a vector instruction that nothing holds up uses its ports; ``columns``: it reads ABUF, and
    comes before the array."""

    ports: tuple[Spans, Spans, Spans, Spans] = field(default_factory=lambda: ([], [], [], []))
    columns: Spans = field(default_factory=list)


def _take(spans: Spans, first: int, end: int) -> None:
    if spans and spans[-1][1] >= first:
        spans[-1] = spans[-1][0], end
    else:
        spans.append((first, end))


def _free(spans: Spans, cycle: int, number: int) -> int:
    """The ``number``-th free cycle from ``cycle`` on."""
    left, at = number, cycle
    for first, end in spans:
        if end > at:
            if at + left <= first:
                break
            left -= max(0, first - at)
            at = end
    return at + left - 1


# ---- array and epilogue ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gemm:
    """What the time of a GEMM depends on. ``steps`` of a tile; valid columns of the last column tile; parameter words of a row tile;
    cycles of the look-ups of a column; whether it writes ABUF."""

    epilogue: int
    steps: int
    row_tiles: int
    col_tiles: int
    last_columns: int
    words: int
    shared: bool
    lookups: int
    last: bool
    tokens: bool


@dataclass(frozen=True)
class GemmTimes:
    """Cycles from the issue of a GEMM to: its being done, the next issue, the release of its last tile and of the one before that.

    ``used``: (cycle, port, cycles) of its accesses; those of the last row tile in it, from ``row`` on, come ``repeats`` times more, each
    ``period`` later.
    """

    done: int
    free: int
    freed: int
    freed_before: int
    used: list[tuple[int, int, int]] = field(default_factory=list)
    row: int = 0
    period: int = 0
    repeats: int = 0

    def accesses(self, first: int, end: int) -> list[tuple[int, int, int]]:
        """Accesses from about cycle ``first`` to about ``end``."""
        result = [access for access in self.used if first <= access[0] < end]
        if self.repeats and self.row < len(self.used):
            start, last = self.used[self.row][0], self.used[-1][0]
            numbers = range(max(1, (first - last) // self.period), min(self.repeats, (end - start) // self.period + 1) + 1)
            result += [(at + number * self.period, port, cycles) for number in numbers for at, port, cycles in self.used[self.row :]]
        return result


def gemm(hw: HwConfig, g: Gemm, handed: int, freed: int, freed_before: int, columns: tuple[tuple[int, int], ...]) -> GemmTimes:
    """``handed``: when the back takes it from the front. ``freed``, ``freed_before``: release of the last two tiles of earlier
    instructions. ``columns``: cycles in which it cannot read ABUF. All count from its issue."""
    if g.epilogue == Epilogue.SCORES:
        end = _free(columns, max(2, handed + 2), g.steps * g.row_tiles * g.col_tiles)
        return GemmTimes(end + 5, max(end, handed) + 2, freed, freed_before)
    tiles = _Tiles(hw, g, handed, freed, freed_before, columns)
    before, change, row, repeats, period = None, None, 0, 0, 0
    for number in range(g.row_tiles):
        row = len(tiles.used)
        tiles.row_tile(number == 0)
        state = tiles.state()
        now = None
        if before is not None and not (columns and columns[-1][1] > min(before)):
            now = [a - b for a, b in zip(state, before, strict=True)]
        if now is not None and now == change and min(now) == max(now):
            period, repeats = now[0], g.row_tiles - 1 - number
            break
        before, change = state, now
    stages = hw.rows.bit_length() // 2  # of the arg-max: two levels of comparison each
    done = tiles.popped[-1] + 3 + stages + g.last if g.epilogue == Epilogue.ARGMAX else tiles.written + 1
    last, before_last = tiles.freed[1], tiles.freed[0]
    late = period * repeats
    return GemmTimes(done + late, max(tiles.end + late, handed) + 2, last + late, before_last + late, tiles.used, row, period, repeats)


_undisturbed = cache(gemm)
_gemm = cache(Gemm)


class _Tiles:
    """The tiles of a GEMM on their way through array, drain and epilogue, in cycles from its issue."""

    def __init__(self, hw: HwConfig, g: Gemm, handed: int, freed: int, freed_before: int, columns: tuple[tuple[int, int], ...]):
        self.hw, self.g, self.handed, self.columns = hw, g, handed, columns
        self.drain = {Epilogue.CODES: self._codes, Epilogue.CODES8: self._bytes, Epilogue.RESIDUAL: self._residual}.get(
            g.epilogue, self._logits)
        self.end = 1  # last step of the last tile
        self.freed = [freed_before, freed]  # last column drained, of the last two tiles
        self.popped = [-9, -9]  # the last two columns that the epilogue took
        self.accepted = [-9, -9, -9]  # the last columns that the writer of bytes took
        self.moved, self.written = -9, -9  # last column: to be written as bytes; written
        self.copied = 0  # parameters of this row tile stand ready
        self.used: list[tuple[int, int, int]] = []

    def state(self) -> list[int]:
        own = [self.end, *self.freed, *self.popped]
        own += [] if self.g.shared else [self.copied]
        own += [] if self.g.epilogue == Epilogue.ARGMAX else [self.written]
        return own + ([*self.accepted, self.moved] if self.g.epilogue == Epilogue.CODES8 else [])

    def row_tile(self, first: bool) -> None:
        g = self.g
        if first or not g.shared:
            begin = self.handed + 2 if first else self.copied + 1
            self.used.append((begin, PARAMETERS, g.words))
            self.copied = max(begin + g.words + 1, self.popped[-1])
        for tile in range(g.col_tiles):
            self.end = _free(self.columns, max(self.end + 1, self.freed[0]), g.steps)
            push = max(self.end + 3, self.freed[1], self.handed + 1)
            for _ in range(self.hw.cols if tile < g.col_tiles - 1 else g.last_columns):
                push = max(push, self.popped[0]) + 1  # the buffer before the epilogue holds two
                pop = max(push, self.popped[1], self.copied) + 1
                self.popped = [self.popped[1], self.drain(pop)]
            self.freed = [self.freed[1], push]

    def _logits(self, pop: int) -> int:
        return pop

    def _codes(self, pop: int) -> int:
        self.written = pop + 1
        if self.g.tokens:
            self.used.append((self.written, CODES, 1))
        return pop

    def _residual(self, pop: int) -> int:
        """Product, sum with the read of the old word, shift, write."""
        self.written = pop + 4
        self.used += [(pop + 2, READS, 1), (pop + 4, WRITES, 1)]
        return pop

    def _bytes(self, pop: int) -> int:
        """Three stages, look-ups, then eight writes a column."""
        pop = max(pop, self.accepted[0])
        accepted = max(pop + 3, self.moved)
        self.accepted = [*self.accepted[1:], accepted]
        self.moved = max(accepted + 1 + self.g.lookups, self.written)
        self.written = self.moved + 8
        if self.g.tokens:
            self.used.append((self.moved + 1, CODES, 8))
        return pop


# ---- vector unit: cycles from issue to done, ports it uses -------------------------------------------------------------

Held = tuple[frozenset[int], ...]  # for each port: cycles in which others have it


def _next(held: frozenset[int], cycle: int) -> int:
    """The first cycle from ``cycle`` on that is not in ``held``."""
    while cycle in held:
        cycle += 1
    return cycle


class _Reads:
    """Words through a read buffer: requested a cycle after each other, two ahead of the last one taken; taken the cycle after at
    the earliest."""

    def __init__(self, spans: Spans, held: frozenset[int] = frozenset()):
        self.spans, self.held = spans, held
        self.asked, self.taken = 1, deque([0, 0], maxlen=2)

    def ask(self) -> int:
        """Asks for the next word. Returns the first cycle in which it can be taken."""
        self.asked = _next(self.held, max(self.asked, self.taken[0]) + 1)
        _take(self.spans, self.asked, self.asked + 1)
        return max(self.asked, self.taken[1]) + 1

    def take(self, ready: int) -> int:
        """The cycle in which the next word is taken: ``ready`` or later."""
        self.taken.append(max(self.ask(), ready))
        return self.taken[1]

    def skip(self) -> None:
        self.asked += 1


def quant(words: int, eight_bit: bool, held: Held) -> tuple[int, Busy]:
    """A word a cycle, or a word in eight."""
    busy = Busy()
    reads = _Reads(busy.ports[READS], held[READS])
    accepted = written = -9
    for _ in range(words):
        accepted = max(reads.take(accepted) + 1, written)  # by the writer
        for _ in range(8 if eight_bit else 1):
            written = _next(held[CODES], max(accepted, written) + 1)
            _take(busy.ports[CODES], written, written + 1)
    return written + 1, busy


def embed(tokens: int, words: int, code_words: int, held: Held) -> tuple[int, Busy]:
    """A word a cycle; ``code_words`` a token, of which two are read ahead."""
    every = ceil_div(words, code_words)
    codes = [2 + max(i, (i - 2) * every + 2) for i in range(tokens * code_words)]
    busy = Busy(columns=[(at, at + 1) for at in codes])
    reads, written = _Reads(busy.ports[READS], held[READS]), -9
    for _ in range(tokens * words):
        written = _next(held[WRITES], reads.take(written) + 1)
        _take(busy.ports[WRITES], written, written + 1)
    return written + 1, busy


def _past(stops: deque[tuple[int, int]], cycle: int) -> int:
    """The first cycle from ``cycle`` on that lies in none of ``stops``, which are in order."""
    for first, end in stops:
        if first <= cycle < end:
            cycle = end
    return cycle


def layernorm(tokens: int, words: int, held: Held) -> tuple[int, Busy]:
    """Sums of up to 8 tokens, then groups of 4 in turn with the sums of 4 more; see rtl/layernorm.py."""
    busy = Busy()
    reads, parameters = (_Reads(busy.ports[port], held[port]) for port in (READS, PARAMETERS))
    blocks: deque[tuple[int, int]] = deque([(-9, -9)], maxlen=5)  # the variance stages wait for the root
    loaded = divided = -99  # root and reciprocal of the last token began
    ready: list[int] = []  # cycle from which a token can be normalised
    moved = freed = -99  # the last set of parameters came into use; was released
    # The five stages of the normalisation step together. They stop while a write, or the fourth stage for parameters, has to wait.
    stops: deque[tuple[int, int]] = deque([(-9, -9)], maxlen=5)
    one = two = three = -9  # cycles in which the last word leaves the second to fourth of them
    done = -9  # last write

    def sums(count: int) -> None:
        nonlocal loaded, divided
        for _ in range(count):
            for _ in range(words):
                at = _past(blocks, reads.ask())
                reads.taken.append(at)
            out = at + 5
            for first, end in blocks:
                out += end - first if at < first else 0
            accepted = max(out, loaded)
            blocks.append((out, accepted))
            loaded = max(accepted, divided) + 1
            divided = max(loaded + 13, divided + 15)
            ready.append(divided + 15)

    def write(cycle: int) -> None:
        """A word leaves the last stage but one in ``cycle``."""
        nonlocal done
        done = _next(held[WRITES], cycle + 1)
        _take(busy.ports[WRITES], done, done + 1)
        if done > cycle + 1:
            stops.append((cycle + 1, done))

    summed = min(tokens, 8)
    sums(summed)
    for first in range(0, tokens, 4):
        for word in range(words):
            moved = max(max(parameters.take(moved) for _ in range(4)) + 1, freed)
            for token in range(first, min(first + 4, tokens)):
                at = _past(stops, max(reads.ask(), ready[token] if word == 0 else 0))
                behind = at <= one  # directly behind the word before
                if not behind and token + word:
                    write(_past(stops, three + 1))
                at = one if behind else _past(stops, at)
                reads.taken.append(at)
                last = three
                one = two if behind else _past(stops, at + 1)
                two = last if behind else _past(stops, one + 1)
                three = _past(stops, max(two, moved) + 1)
                if moved > two:
                    stops.append((two + 1, three))
                if behind:
                    write(three)
            freed = three
        more = min(tokens - summed, 4)
        sums(more)
        summed += more
    write(_past(stops, three + 1))
    return done + 1, busy


def softmax(rows: int, queries: int, keys: int, causal: bool, granules: int, kind: int, held: Held) -> tuple[int, Busy]:
    """Passes in the order maximum of t+1, sum of t, codes of t-1; see rtl/softmax.py."""
    cost = 8 if kind in EIGHT_BIT else 1
    reads, busy = _Reads([]), Busy()
    through: deque[int] = deque([0] * 5, maxlen=5)  # last words at the end of the five stages
    written, divided = -99, -99
    maximum: dict[int, int] = {}
    total: dict[int, int] = {}

    def words(query: int) -> range:
        return range(ceil_div(keys + (query if causal else 0), rows))

    for turn in range(queries + 2):
        new, old, oldest = turn, turn - 1, turn - 2
        if new < queries:
            for _ in words(new):
                maximum[new] = reads.take(0) + 2
        else:
            reads.skip()
        if 0 <= old < queries:
            for _ in words(old):
                at = reads.take(max(maximum[old], through[0]))
                through.append(max(at + 5, through[-1] + 1))
            divided = max(through[-1] + 1, divided + 26)
            total[old] = divided + 26 if kind == Kind.UINT8 else through[-1] + 2
        else:
            reads.skip()
        if oldest >= 0:
            for _ in range(granules):
                at = reads.take(max(total[oldest], through[0]))
                through.append(max(at + 5, through[-1] + 1, written))
                written = through[-1]
                for _ in range(cost):
                    written = _next(held[CODES], written + 1)
                    _take(busy.ports[CODES], written, written + 1)
        else:
            reads.skip()
    return written + 1, busy


@dataclass(frozen=True, eq=False)
class Vector:
    """An instruction of the vector unit: cycles and ports if nothing holds it up, and the function that says so with ``held``."""

    function: Callable[..., tuple[int, Busy]]
    values: tuple
    cycles: int
    busy: Busy


@cache
def _vector(function: Callable[..., tuple[int, Busy]], *values: int) -> Vector:
    return Vector(function, values, *function(*values, (frozenset(),) * 4))


# ---- transfers ------------------------------------------------------------------------------------------------------


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


_transfer = cache(Transfer)


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
    return _transfer(tuple(bursts), spacing, late, max(1, last), 3 if indirect else 0, port, inner * outer, rows * beats / (inner * outer))


class _ReadChannel:
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
            _take(self.spans, first, end + 1)

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


def _store(memory: MemoryModel, t: Transfer) -> int:
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


# ---- instructions ---------------------------------------------------------------------------------------------------


class _Decoded:
    """Instructions of a call: unit (None of END), wait and signal bits by number, and what each takes (see ``_work``)."""

    def __init__(self, program: Program, number: int):
        call, hw = program.calls[number], program.hw
        image = np.frombuffer(program.image, np.uint8)[call.address : call.address + call.count * INSTRUCTION_BYTES]
        self.words = np.ascontiguousarray(image).view("<u8").reshape(call.count, 8)
        halves = np.bitwise_xor.reduce(self.words.view("<u2").reshape(call.count, 32), axis=1)
        codes = (self.words[:, 0] & np.uint64(0xFF)).astype(np.int64)
        bad = np.flatnonzero((halves != CHECK) | ~np.isin(codes, [int(op) for op in Op]))
        if len(bad):
            raise InputError(f"call {number}, instruction {bad[0]}: must have a known opcode and a correct check")
        units = np.full(max(Op) + 1, -1)
        units[list(UNIT_OF)] = list(UNIT_OF.values())
        self.units = units[codes].tolist()
        everything = np.arange(call.count)
        self.wait, self.signal = (self._field(everything, Op.END, name).tolist() for name in ("wait", "signal"))
        self.work: list = [None] * call.count
        for op in UNIT_OF:
            rows = np.flatnonzero(codes == op)
            for row, work in zip(rows.tolist(), _work(hw, op, lambda name, rows=rows, op=op: self._field(rows, op, name)), strict=True):
                self.work[row] = work

    def key(self) -> tuple:
        """Equal for calls that take the same time: what an instruction takes is one object, however often it comes."""
        return tuple(self.units), tuple(self.wait), tuple(self.signal), tuple(map(id, self.work))

    def _field(self, rows: np.ndarray, op: Op, name: str) -> np.ndarray:
        low, bits, _ = layout(op)[name]
        word, shift = divmod(low, 64)
        value = self.words[rows, word] >> np.uint64(shift)
        if shift + bits > 64:
            value = value | self.words[rows, word + 1] << np.uint64(64 - shift)
        return (value & np.uint64((1 << bits) - 1)).astype(np.int64)


def _lists(*columns: np.ndarray) -> list[tuple]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _work(hw: HwConfig, op: Op, field) -> list:
    """For each instruction of ``op``: a Transfer, a Gemm or a Vector. ``field(name)``: its values."""
    if op in (Op.LOAD, Op.STORE):
        columns = [field(name) for name in ("mem", "inner", "outer")] + [field("dram") % PAGE_BYTES]
        columns += [field("stride"), field("indirect") > 0, field("expand") > 0]
        return [transfer(hw, *values) for values in _lists(*columns)]
    if op == Op.GEMM:
        epilogue, tiles, tokens = field("epilogue"), field("col_tiles"), field("tokens")
        words = np.where(epilogue == Epilogue.CODES, field("thresholds"), np.where(epilogue == Epilogue.SCORES, 0, 4))
        lookups = field("lut") * (hw.rows // max(1, hw.rows // 8))
        columns = [
            epilogue, field("chunks") * field("row_planes") * field("col_planes"), field("row_tiles"), tiles,
            tokens - (tiles - 1) * hw.cols, words, field("param_stride") == 0, lookups, field("last") > 0,
            field("dest") == Dest.TOKENS,
        ]
        return [_gemm(*values) for values in _lists(*columns)]
    if op == Op.SOFTMAX:
        causal, keys = (field("causal") > 0) & (field("queries") > 1), field("keys")
        keys = np.where(causal, keys, -(-keys // hw.rows) * hw.rows)  # whole words, so that calls differ in less
        columns = [field("queries"), keys, causal, field("granules"), field("kind")]
        return [_vector(softmax, hw.rows, *values) for values in _lists(*columns)]
    tokens, words = field("tokens"), field("words")
    if op == Op.LAYERNORM:
        return [_vector(layernorm, *values) for values in _lists(tokens, words)]
    if op == Op.QUANT:
        return [_vector(quant, *values) for values in _lists(tokens * words, field("kind") >= Kind.INT8)]
    return [_vector(embed, *values) for values in _lists(tokens, words, -(-words * hw.rows // hw.lanes))]


# ---- a call ---------------------------------------------------------------------------------------------------------

_OTHERS = [[unit for unit in Unit if mask >> unit & 1] for mask in range(1 << len(Unit))]
_FETCHED, _DISPATCH, _QUEUED, _DONE, _READY, _ASKED = range(6)


class _Call:
    """The events of a call. An event is (cycle from which its effect is seen, kind, unit or version)."""

    def __init__(self, hw: HwConfig, memory: MemoryModel, decoded: _Decoded):
        self.hw, self.memory, self.d = hw, memory, decoded
        count = len(decoded.units)
        self.start, self.done = [0] * count, [0] * count
        self.events: list[tuple[int, int, int]] = []
        self.channel = _ReadChannel(memory)
        self.waiting = [deque() for _ in Unit]  # queues
        self.queued = [0] * len(Unit)
        self.left = [-1] * len(Unit)  # cycle in which the queue was last left
        self.flying = [deque() for _ in Unit]
        self.ready = [0] * len(Unit)
        self.room = 0  # cycle from which one more load can wait for its data
        self.tokens = [[0] * len(Unit) for _ in Unit]  # [taker][giver]
        self.back = self.back_before = (-9, -9, -9)  # of execute: see _multiply; before the instructions in flight
        self.states: dict[int, tuple[int, int, int]] = {}
        self.due: dict[int, int] = {}  # when instructions of execute and vector unit will be done
        self.columns: Spans = []  # cycles in which the array cannot read ABUF
        self.gemms: list[tuple[int, GemmTimes]] = []  # issue and times
        self.loads: list[tuple[Transfer, Spans]] = []  # that write memories of the vector unit, and when their beats came
        self.loading: list[tuple[Transfer, Spans]] = []  # the same of the one under way
        self.beats = ceil_div(INSTRUCTION_BYTES, hw.axi_bytes)
        self.arrived: list[int] = []
        self.version, self.state = 0, None
        self.next, self.blocked = 0, -1
        self.last = self.ended = 0  # when the last unit was done; when END came

    def run(self) -> int:
        """All of it. Returns the cycles of the call."""
        for number in range(PREFETCH):
            self._ask(FIRST_REQUEST + number)
        self._assemble(FIRST_REQUEST)
        handlers = (self._on_fetched, self._dispatch, self._on_queued, self._on_done, self._issue, self._on_asked)
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
        if unit == Unit.LOAD:
            self.ready[unit] = NEVER
            self.channel.begin(cycle, work)
            self.state = self.channel.keep()
            self._foresee(cycle)
        elif unit == Unit.EXECUTE:
            self._multiply(number, self.back)
            if self.flying[Unit.VECTOR]:
                self._vector(cycle)
        elif unit == Unit.VECTOR:
            if work.busy.columns:
                self.columns = [(first + cycle, end + cycle) for first, end in work.busy.columns]
                state = self.back_before
                for earlier in self.flying[Unit.EXECUTE]:  # what they were expected to do may be held up now
                    state = self._multiply(earlier, state)
            self._vector(cycle)
        else:
            self._finish(cycle + _store(self.memory, work), unit, cycle + 4)

    def _vector(self, cycle: int) -> None:
        """When the instruction on the vector unit is done: what loads and results of the array write and read takes cycles from it."""
        number = self.flying[Unit.VECTOR][0]
        start, work = self.start[number], self.d.work[number]
        cycles, seen = work.cycles, 0
        while seen < cycles:
            seen = 3 * cycles
            held = self._held(start, work.busy.ports, seen)
            if any(at in own for own, spans in zip(held, work.busy.ports, strict=True) if own
                   for first, end in spans for at in range(first, end)):
                cycles, _ = work.function(*work.values, held)
        done = max(start + cycles, cycle)
        if self.due.get(number) != done:
            self.due[number] = done
            self._finish(done, Unit.VECTOR, done + 1)

    def _held(self, start: int, ports: tuple[Spans, ...], cycles: int) -> Held:
        """In which of the ``cycles`` from ``start`` on others have the ports that a vector instruction uses."""
        self.loads = [load for load in self.loads if load[1][-1][1] > start]
        taken = []
        for load, spans in [*self.loads, *self.loading]:
            pitch = load.beats * max(self.channel.gap, load.spacing)
            for first, end in spans if ports[load.port] else ():
                taken += [(first + word * pitch, load.port, 1) for word in range(1, int((end - first) / pitch) + 1)]
        self.gemms = [item for item in self.gemms if item[0] + item[1].done > start]
        for begin, times in self.gemms:
            taken += [(at + begin, port, count) for at, port, count in times.accesses(start - begin, start + cycles - begin)
                      if ports[port]]
        return tuple(frozenset(int(at) - start + i for at, own, count in taken if own == port for i in range(count)) for port in range(4))

    def _multiply(self, number: int, back: tuple[int, int, int]) -> tuple[int, int, int]:
        """When a GEMM is done. ``back``: when the one before it is, and the release of the last two tiles before it; returns the same
        for the next one."""
        cycle, work = self.start[number], self.d.work[number]
        handed, freed = max(cycle + 1, back[0]) - cycle, [max(at - cycle, 0) for at in back[1:]]
        columns = ()
        if self.columns and self.columns[-1][1] > cycle:
            columns = tuple((first - cycle, end - cycle) for first, end in self.columns)
        times = (gemm if columns else _undisturbed)(self.hw, work, handed, *freed, columns)
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
            self.loading = [(channel.load, channel.spans)]
            if self.flying[Unit.VECTOR]:
                self._vector(cycle)

    def _on_asked(self, cycle: int, version: int) -> None:
        if version == self.version and self.state is not None:
            self.state = None
            self._commit(cycle - 1)

    def _commit(self, asked: int) -> None:
        if self.channel.load.port >= 0:
            self.loads.append((self.channel.load, self.channel.spans))
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


# ---- predictions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CallPrediction:
    """``start[i]``, ``done[i]``: cycles of the call in which instruction i of the program is issued and done; of END its last."""

    cycles: int
    start: np.ndarray = field(repr=False)
    done: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Deviation:
    """A prediction beside what a run took: of the run, a call, or an op in a phase on a unit. ``least``: see ``relative``."""

    what: str
    predicted: int
    actual: int
    least: float

    @property
    def relative(self) -> float:
        """Difference over the actual cycles, or over ``least`` where they are fewer: of an op, 0.1% of the cycles of its phase."""
        return abs(self.predicted - self.actual) / max(self.actual, self.least)

    def __str__(self) -> str:
        return f"{self.what:<44} {self.actual:>12,} {self.predicted:>12,} {100 * self.relative:8.3f} %"


@dataclass(frozen=True)
class Prediction:
    """What :func:`predict` says of the first calls of a program."""

    program: Program = field(repr=False)
    calls: list[CallPrediction]

    @property
    def cycles(self) -> int:
        return sum(call.cycles for call in self.calls)

    def deviations(self, run: RunResult) -> list[Deviation]:
        """The run as far as it was predicted, each call, and each op's cycles by phase and unit (from start to done, summed over its
        instructions, as reports show them)."""
        pairs = list(zip(self.calls, run.calls, strict=False))
        result = [Deviation("run", sum(p.cycles for p, _ in pairs), sum(c.cycles for _, c in pairs), 1)]
        result += [Deviation(f"call {number}", p.cycles, c.cycles, 1) for number, (p, c) in enumerate(pairs)]
        for phase, numbers in zip(PHASES, (range(1), range(1, len(pairs))), strict=True):
            predicted, actual = Counter(), Counter()
            for number in numbers:
                self._ops(number, *pairs[number], predicted, actual)
            least = sum(pairs[number][1].cycles for number in numbers) / 1000
            result += [
                Deviation(f"{phase} {name} {unit.name.lower()}", predicted[name, unit], actual[name, unit], least) for name, unit in actual
            ]
        return result

    def _ops(self, number: int, call: CallPrediction, run: CallRun, predicted: Counter, actual: Counter) -> None:
        units = _Decoded(self.program, number).units
        queues = {unit: [i for i, own in enumerate(units) if own == unit] for unit in Unit}
        for record in run.records:
            i = queues[record.unit][record.index]
            key = self.program.names[self.program.calls[number].ops[i]], record.unit
            predicted[key] += int(call.done[i] - call.start[i])
            actual[key] += record.done - record.start

    def worst(self, run: RunResult) -> float:
        """The largest relative error of all deviations; ops of few cycles count as in ``Deviation.relative``."""
        return max(deviation.relative for deviation in self.deviations(run))

    def report(self, run: RunResult, most: int = 10) -> str:
        """The run and the ``most`` worst deviations as a table."""
        whole, *others = self.deviations(run)
        others.sort(key=lambda deviation: -deviation.relative)
        title = f"{'':<44} {'cycles':>12} {'predicted':>12} {'error':>10}"
        return "\n".join([title, *(str(deviation) for deviation in (whole, *others[:most]))])


def predict(program: Program, memory: MemoryModel, calls: int | None = None) -> Prediction:
    """Cycles of the first ``calls`` calls (default: all) with external memory of ``memory``, as if it never stalled at random.

    Raises InputError for a damaged instruction, CheckError for a program that waits for ever.
    """
    known: dict[tuple, CallPrediction] = {}  # calls for other positions often differ in nothing that takes time
    result = []
    for number in range(len(program.calls) if calls is None else calls):
        decoded = _Decoded(program, number)
        key = decoded.key()
        if key not in known:
            call = _Call(program.hw, memory, decoded)
            try:
                cycles = call.run()
            except CheckError as error:
                raise CheckError(f"call {number}: {error}") from None
            known[key] = CallPrediction(cycles, np.array(call.start), np.array(call.done))
        result.append(known[key])
    return Prediction(program, result)
