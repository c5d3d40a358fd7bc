"""A reference precision as its designer would build it, not as a copy of the ternary accelerator.

Tried are array shapes of the same peak, arrays of fewer lanes, and a tiled FFN: slices of the hidden layer one after the other, so that
weights are loaded once where activations of all tokens do not fit; partial sums then wait in RBUF. The clock is not varied: without
voltage scaling a slower one only leaks longer, and elements that are slower than the clock are taken to be pipelined.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ternbin.contract.hw import HwConfig
from ternbin.counting.phases import Phase
from ternbin.energy.area import area_mm2
from ternbin.energy.lines import Line, value_pj
from ternbin.errors import InputError
from ternbin.explore.place import Case, Mapped, Subject, best, candidates, place

FEWER = (4, 16, 64)  # the array's lanes divided by
TILES = (1, 8)  # slices of the hidden layer
SLACK = 1.05  # of the fastest array, what equal latency allows
AREA_SLACK = 1.25  # of our chip, what equal area allows: memories hold the same bits, elements are larger


@dataclass(frozen=True)
class Choice:
    """A phase on the configuration that was chosen for it."""

    mapped: Mapped
    phase: Phase
    lines: list[Line]

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


def fewer_lanes(mapped: Mapped, times: float) -> Mapped:
    """The same program on an array of so many times fewer lanes, operand registers in proportion."""
    hw = replace(mapped.hw, step_cycles=float(times))
    return replace(mapped, hw=hw, program=replace(mapped.program, hw=hw))


def tiled(subject: Subject, case: Case, hw: HwConfig, tiles: int) -> Mapped:
    """``case`` on ``hw`` with its FFN in ``tiles`` slices: mapped with room for all of the hidden layer, priced as it is."""
    if tiles == 1:
        return place(subject, case, hw)
    mapped = place(subject, case, replace(hw, abuf_words=hw.abuf_words * tiles))
    own = replace(mapped.hw, abuf_words=hw.abuf_words)
    return replace(mapped, hw=own, program=replace(mapped.program, hw=own), slices=tiles)


def arrangements(subject: Subject, case: Case) -> list[Mapped]:
    """Every shape and number of slices that can run, each with the whole array."""
    (first, *_) = candidates(case, subject.hw)
    found: list[Mapped] = []
    for hw in shapes(first):
        for tiles in TILES:
            try:
                mapped = tiled(subject, case, hw, tiles)
            except InputError:
                continue
            loaded = [phase.traffic.weights for phase in mapped.phases]
            if tiles > 1 and found and loaded == [phase.traffic.weights for phase in found[-1].phases]:
                break  # nothing is loaded again as it is
            found.append(mapped)
    return found or [best(subject, case, "lpddr4")]


def chosen(whole: Sequence[Mapped], number: int, ours: Choice, dram: str) -> tuple[Choice, Choice, Choice]:
    """Phase ``number`` of a reference: the arrangement of least energy with the whole array, that with as many lanes as need least energy
    for the latency of the fastest, and that with as many as need least on a chip of the area of ``ours``, within AREA_SLACK."""
    full = min((_choice(mapped, number, dram) for mapped in whole), key=lambda choice: choice.pj)
    found = [full, *(_choice(fewer_lanes(full.mapped, times), number, dram) for times in FEWER)]
    limit = SLACK * min(choice.seconds for choice in found)
    latency = _least(found, lambda choice: choice.seconds <= limit)
    return full, latency, _least(found, lambda choice: choice.area_mm2 <= AREA_SLACK * ours.area_mm2)


def _choice(mapped: Mapped, number: int, dram: str) -> Choice:
    phase = mapped.phases[number]
    return Choice(mapped, phase, mapped.lines(phase, dram))


def _least(found: Sequence[Choice], allowed: Callable[[Choice], bool]) -> Choice:
    """The choice of least energy among those allowed, or the smallest chip where none is."""
    fits = [choice for choice in found if allowed(choice)]
    return min(fits, key=lambda choice: choice.pj) if fits else min(found, key=lambda choice: choice.area_mm2)
