"""Cycles of a GEMM: array, drain and epilogue."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Epilogue
from ternbin.contract.pipeline import ENGINES, LOGITS
from ternbin.counting.cycles.ports import CODES, PARAMETERS, PORTS, READS, SCORES, WRITES, free_cycle, mark


@dataclass(frozen=True)
class Gemm:
    """What the time of a GEMM depends on. ``steps`` of a tile; valid columns of the last column tile; parameter words of a row tile;
    cycles of the look-ups of a column; whether it writes ABUF; whether its rows come from KBUF."""

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
    keys: bool


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
    used: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    row: int = 0
    period: int = 0
    repeats: int = 0

    def held(self, flags: np.ndarray, port: int, first: int) -> None:
        """Sets the flags, of cycles from ``first`` on, in which the GEMM uses ``port``."""
        once, again, cycles = self._of_port[port]
        begun = once[np.searchsorted(once, first) : np.searchsorted(once, first + len(flags))] - first
        if len(again):
            least = max(1, (first - self.used[-1][0]) // self.period)
            most = min(self.repeats, (first + len(flags) - self.used[self.row][0]) // self.period + 1)
            late = np.arange(least, most + 1) * self.period - first
            begun = np.concatenate([begun, np.add.outer(late, again).ravel()])
        mark(flags, begun, cycles)

    @cached_property
    def _of_port(self) -> list[tuple[np.ndarray, np.ndarray, int]]:
        """For each port: cycles in which an access begins; those that come again; cycles of each access."""
        result: list[tuple[np.ndarray, np.ndarray, int]] = []
        for port in range(PORTS):
            own = [(at, cycles) for at, used, cycles in self.used if used == port]
            once = np.array([at for at, _ in own], dtype=np.int64)
            late = sum(used == port for _, used, _ in self.used[self.row :]) if self.repeats else 0
            result.append((once, once[len(once) - late :], own[0][1] if own else 0))
        return result


def gemm(
    hw: HwConfig, g: Gemm, handed: int, freed: int, freed_before: int, columns: tuple[tuple[int, int], ...]
) -> GemmTimes:
    """``handed``: when the back takes it from the front. ``freed``, ``freed_before``: release of the last two tiles of earlier
    instructions. ``columns``: cycles in which it cannot read its operands. All count from its issue."""
    if g.epilogue == Epilogue.SCORES:
        end = free_cycle(columns, max(2, handed + 2), g.steps * g.row_tiles * g.col_tiles)
        tiles = g.row_tiles * g.col_tiles
        used = [(end + 4 - (tiles - 1) * g.steps, SCORES, 1)]
        return GemmTimes(end + 5, max(end, handed) + 2, freed, freed_before, used, 0, g.steps, tiles - 1)
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
    if g.epilogue == Epilogue.TOP:
        done = tiles.taken[-1] + hw.rows // LOGITS + 7 + g.last * (3 * tiles.tokens * (hw.top + 1) + 1)
    last, before_last = tiles.freed[1], tiles.freed[0]
    late = period * repeats
    return GemmTimes(
        done + late,
        max(tiles.end + late, handed) + 2,
        last + late,
        before_last + late,
        tiles.used,
        row,
        period,
        repeats,
    )


undisturbed = cache(gemm)
known_gemm = cache(Gemm)


class _Tiles:
    """The tiles of a GEMM on their way through array, drain and epilogue, in cycles from its issue."""

    def __init__(
        self, hw: HwConfig, g: Gemm, handed: int, freed: int, freed_before: int, columns: tuple[tuple[int, int], ...]
    ):
        self.hw, self.g, self.handed, self.columns = hw, g, handed, columns
        drains: dict[int, Callable[[int], int]] = {
            Epilogue.CODES: self._codes,
            Epilogue.CODES8: self._bytes,
            Epilogue.RESIDUAL: self._residual,
            Epilogue.TOP: self._top,
        }
        self.drain = drains.get(g.epilogue, self._logits)
        self.end = 1  # last step of the last tile
        self.freed = [freed_before, freed]  # last column drained, of the last two tiles
        self.popped = [-9, -9]  # the last two columns that the epilogue took
        self.accepted = [-9, -9, -9]  # the last columns that the writer of bytes took
        self.taken = [-99, -99]  # the last columns that were taken apart into logits
        self.worked = [-99] * ENGINES  # the last one of each engine
        self.beam, self.tokens = 0, (g.col_tiles - 1) * hw.cols + g.last_columns
        self.moved, self.written = -9, -9  # last column: to be written as bytes; written
        self.copied = 0  # parameters of this row tile stand ready
        self.used: list[tuple[int, int, int]] = []

    def state(self) -> list[int]:
        own = [self.end, *self.freed, *self.popped]
        own += [] if self.g.shared else [self.copied]
        own += (
            self.taken + self.worked
            if self.g.epilogue == Epilogue.TOP
            else []
            if self.g.epilogue == Epilogue.ARGMAX
            else [self.written]
        )
        return own + ([*self.accepted, self.moved] if self.g.epilogue == Epilogue.CODES8 else [])

    def row_tile(self, first: bool) -> None:
        g = self.g
        if first or not g.shared:
            begin = self.handed + 2 if first else self.copied + 1
            self.used.append((begin, PARAMETERS, g.words))
            self.copied = max(begin + g.words + 1, self.popped[-1])
        for tile in range(g.col_tiles):
            self.end = free_cycle(self.columns, max(self.end + 1, self.freed[0]), g.steps)
            push = max(self.end + 3, self.freed[1], self.handed + 1)
            for _ in range(self.hw.cols if tile < g.col_tiles - 1 else g.last_columns):
                push = max(push, self.popped[0]) + 1  # the buffer before the epilogue holds two
                pop = max(push, self.popped[1], self.copied) + 1
                self.popped = [self.popped[1], self.drain(pop)]
            self.freed = [self.freed[1], push]

    def _logits(self, pop: int) -> int:
        return pop

    def _top(self, pop: int) -> int:
        """Some logits of each engine's column a cycle."""
        engine = self.beam % ENGINES
        self.beam = (self.beam + 1) % self.tokens
        pop = max(pop, self.taken[0])
        self.worked[engine] = max(pop + 2, self.taken[1] + 1, self.worked[engine] + self.hw.rows // LOGITS)
        self.taken = [self.taken[1], self.worked[engine]]
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
