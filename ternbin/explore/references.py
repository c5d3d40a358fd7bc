"""A reference precision as its designer would build it, not as a copy of the ternary accelerator.

Tried are array shapes of the same peak, arrays of fewer lanes, other numbers of rows, and a tiled FFN: slices of the hidden layer one
after the other, so that weights are loaded once where activations of all tokens do not fit; partial sums then wait in RBUF. The clock
is not varied: without voltage scaling a slower one only leaks longer, and elements that are slower than the clock are taken to be
pipelined.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ternbin.contract.hw import REFERENCE_BITS, HwConfig
from ternbin.counting.phases import Phase
from ternbin.energy.area import area_mm2
from ternbin.energy.lines import Line, value_pj
from ternbin.errors import InputError
from ternbin.explore.place import Case, Mapped, Subject, best, candidates, place

FEWER = (4, 16, 64)  # the array's lanes divided by
ROWS = (0.5, 2.0)  # times those of the array that is best otherwise, and again
TILES = (1, 8)  # slices of the hidden layer
SLACK = 1.05  # of the fastest array, what equal latency allows
AREA_SLACK = 1.25  # of our chip, what equal area allows: memories hold the same bits, elements are larger

Tried = tuple[HwConfig, int]  # configuration and slices


@dataclass(frozen=True)
class Choice:
    """A phase on the configuration that was chosen for it. ``plain``: on that of W2A2's rows, where other rows were chosen."""

    mapped: Mapped
    phase: Phase
    lines: list[Line]
    plain: "Choice | None" = None

    @property
    def options(self) -> list["Choice"]:
        """Itself, and what else may do better where something is changed."""
        return [self, *([self.plain] if self.plain else [])]

    @property
    def pj(self) -> float:
        return value_pj(self.lines)

    @property
    def seconds(self) -> float:
        return self.phase.cycles / self.mapped.hw.clock_mhz / 1e6

    @property
    def area_mm2(self) -> float:
        return sum(area_mm2(self.mapped.hw).values())


def shapes(hw: HwConfig) -> Iterator[HwConfig]:
    """Arrays of the same peak: more columns share what is read of a weight, fewer lanes of each."""
    yield hw
    if hw.lanes // 2 >= max(16, hw.rows):
        words = {name: getattr(hw, name) * 2 for name in ("wbuf_words", "kbuf_words")}
        yield replace(hw, cols=hw.cols * 2, lanes=hw.lanes // 2, **words)


def of_rows(hw: HwConfig, times: float) -> HwConfig:
    """An array of the same peak with so many times the rows, a power of two, and lanes, or else columns, in turn. The code memories hold
    the same bits, RBUF, PBUF and each column's bank of SBUF as many values. Raises InputError where there is none."""
    rows, lanes, cols = int(hw.rows * times), int(hw.lanes / times), hw.cols
    if rows > lanes:
        lanes, cols = hw.lanes, int(hw.cols / times)
    stored, read = hw.rows * hw.lanes / (rows * lanes), hw.cols * hw.lanes / (cols * lanes) if cols else 1.0
    factors = {"wbuf": stored, "kbuf": stored, "abuf": read, **dict.fromkeys(("rbuf", "pbuf", "sbuf"), 1 / times)}
    words = {f"{name}_words": int(getattr(hw, f"{name}_words") * factor) for name, factor in factors.items()}
    return replace(hw, rows=rows, cols=cols, lanes=lanes, **words)


def fewer_lanes(mapped: Mapped, times: float) -> Mapped:
    """The same program on an array of so many times fewer lanes, operand registers in proportion."""
    hw = of_lanes(mapped.hw, times)
    return mapped if hw == mapped.hw else _on(mapped, hw)


def of_lanes(hw: HwConfig, times: float) -> HwConfig:
    """An array with so many times fewer lanes than ``hw`` says, which only a reference can have."""
    return hw if hw.step_cycles == times else replace(hw, step_cycles=float(times))


def _on(mapped: Mapped, hw: HwConfig) -> Mapped:
    """The same program on ``hw``."""
    return replace(mapped, hw=hw, program=replace(mapped.program, hw=hw))


def tiled(subject: Subject, case: Case, hw: HwConfig, tiles: int) -> Mapped:
    """``case`` on ``hw`` with its FFN in ``tiles`` slices: mapped with room for all of the hidden layer, priced as it is. Raises
    InputError as :func:`place` does, without sizes that would do."""
    if tiles == 1:
        return place(subject, case, hw, sizes=False)
    mapped = place(subject, case, replace(hw, abuf_words=hw.abuf_words * tiles), sizes=False)
    return replace(_on(mapped, replace(mapped.hw, abuf_words=hw.abuf_words)), slices=tiles)


@dataclass(frozen=True)
class Reference:
    """A reference precision of a subject on what is tried for it, each mapped once. ``known``: what was mapped by configuration and
    slices, or why it cannot be, for all precisions of as many bits: their programs are the same."""

    subject: Subject
    case: Case
    dram: str
    known: dict[Tried, Mapped | InputError] = field(default_factory=dict[Tried, Mapped | InputError])

    def on(self, hw: HwConfig, tiles: int) -> Mapped:
        """Raises InputError where it cannot run."""
        key = replace(hw, kind=_SAME[REFERENCE_BITS[hw.kind]], kv_external=False), tiles
        if key not in self.known:
            try:
                self.known[key] = tiled(self.subject, self.case, replace(hw, kv_external=False), tiles)
            except InputError as error:
                self.known[key] = error
        found = self.known[key]
        if isinstance(found, InputError):
            raise found
        own = replace(found.hw, kind=self.case.reference)
        return replace(_on(found, own), case=self.case)

    @cached_property
    def arrangements(self) -> list[Mapped]:
        """Every shape and number of slices that can run, each with the whole array."""
        (first, *_) = candidates(self.case, self.subject.hw)
        found: list[Mapped] = []
        for hw in shapes(first):
            for tiles in TILES:
                try:
                    mapped = self.on(hw, tiles)
                except InputError:
                    continue
                loaded = [phase.traffic.weights for phase in mapped.phases]
                if tiles > 1 and found and loaded == [phase.traffic.weights for phase in found[-1].phases]:
                    break  # nothing is loaded again as it is
                found.append(mapped)
        return found or [best(self.subject, self.case, self.dram)]

    def chosen(self, number: int, ours: Choice) -> tuple[Choice, Choice, Choice]:
        """Phase ``number``: the arrangement of least energy with the whole array, that with as many lanes and rows as need least energy
        for the latency of the fastest, and that with as many as need least on a chip of the area of ``ours``, within AREA_SLACK."""
        full = min((self._choice(mapped, number) for mapped in self.arrangements), key=lambda choice: choice.pj)
        found = [full, *(self._choice(fewer_lanes(full.mapped, times), number) for times in FEWER)]
        limit = SLACK * min(choice.seconds for choice in found)

        def fast(choice: Choice) -> bool:
            return choice.seconds <= limit

        def small(choice: Choice) -> bool:
            return choice.area_mm2 <= AREA_SLACK * ours.area_mm2

        latency, area = (self._best_rows(_least(found, allowed), number, allowed) for allowed in (fast, small))
        return full, latency, area

    def _best_rows(self, choice: Choice, number: int, allowed: Callable[[Choice], bool]) -> Choice:
        """``choice`` with half or twice the rows as long as that needs less energy and is allowed."""
        least = choice
        for times in ROWS:
            at = choice
            while (other := self._with_rows(at, number, times)) and allowed(other) and other.pj < at.pj:
                at = other
            least = min(least, at, key=lambda one: one.pj)
        return least if least is choice else replace(least, plain=choice)

    def _with_rows(self, choice: Choice, number: int, times: float) -> Choice | None:
        own = choice.mapped
        try:
            mapped = self.on(of_rows(of_lanes(own.hw, 1), times), own.slices)
        except InputError:
            return None
        return self._choice(fewer_lanes(mapped, own.hw.step_cycles), number)

    def _choice(self, mapped: Mapped, number: int) -> Choice:
        phase = mapped.phase(number)
        return Choice(mapped, phase, mapped.lines(phase, self.dram))


_SAME = {bits: kind for kind, bits in REFERENCE_BITS.items()}  # of the kinds of as many bits, one


def _least(found: Sequence[Choice], allowed: Callable[[Choice], bool]) -> Choice:
    """The choice of least energy among those allowed, or the smallest chip where none is."""
    fits = [choice for choice in found if allowed(choice)]
    return min(fits, key=lambda choice: choice.pj) if fits else min(found, key=lambda choice: choice.area_mm2)
