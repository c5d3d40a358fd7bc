"""Cycles of a program without simulating it: when every instruction starts and is done. docs/cycle-model.md.

A call is a sequence of events - instructions fetched, dispatched, issued, done - whose times follow from each other by closed formulas
for what each unit does in between. Times are cycles of the call, as the simulation's records count them.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ternbin.contract.isa import Unit
from ternbin.contract.program import Program
from ternbin.counting.cycles.bus import Advances, known_transfer, transfer
from ternbin.counting.cycles.call import Call
from ternbin.counting.cycles.gemm import known_gemm, undisturbed
from ternbin.counting.cycles.instructions import Decoded, Key
from ternbin.counting.cycles.vector import held_up, known_vector
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import PHASES, CallRun, RunResult
from ternbin.errors import CheckError

Cycles = Counter[tuple[str, Unit]]  # of the name of an op, on a unit


@dataclass(frozen=True)
class CallPrediction:
    """``start[i]``, ``done[i]``: cycles of the call in which instruction i of the program is issued and done; of END its last.
    ``fetched``: instructions read from memory, some of them beyond END."""

    cycles: int
    fetched: int
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
        first = self.program.encoders
        for phase, numbers in zip(PHASES, (range(first), range(first, len(pairs))), strict=True):
            predicted: Cycles = Counter()
            actual: Cycles = Counter()
            for number in numbers:
                self._ops(number, *pairs[number], predicted, actual)
            least = sum(pairs[number][1].cycles for number in numbers) / 1000
            result += [
                Deviation(f"{phase} {name} {unit.name.lower()}", predicted[name, unit], actual[name, unit], least)
                for name, unit in actual
            ]
        return result

    def _ops(self, number: int, call: CallPrediction, run: CallRun, predicted: Cycles, actual: Cycles) -> None:
        units = Decoded(self.program, number).units
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


KEPT = 200_000  # times of instructions, a kilobyte each at most


def forget() -> None:
    """Gives up what is known of instructions once it is much: for processes that predict for many configurations."""
    caches = transfer, known_transfer, undisturbed, known_gemm, known_vector, held_up
    if sum(each.cache_info().currsize for each in caches) > KEPT:
        for each in caches:
            each.cache_clear()


def predict(program: Program, memory: MemoryModel, calls: int | None = None) -> Prediction:
    """Cycles of the first ``calls`` calls (default: all) with external memory of ``memory``, as if it never stalled at random.

    Raises InputError for a damaged instruction, CheckError for a program that waits for ever.
    """
    return Prediction(program, predict_calls(program, memory, range(len(program.calls) if calls is None else calls)))


def predict_calls(program: Program, memory: MemoryModel, numbers: range) -> list[CallPrediction]:
    """The same of the calls ``numbers`` alone."""
    known: dict[Key, CallPrediction] = {}  # calls for other positions often differ in nothing that takes time
    advances: Advances = {}
    result: list[CallPrediction] = []
    for number in numbers:
        decoded = Decoded(program, number)
        key = decoded.key()
        if key not in known:
            call = Call(program.hw, memory, decoded, advances)
            try:
                cycles = call.run()
            except CheckError as error:
                raise CheckError(f"call {number}: {error}") from None
            known[key] = CallPrediction(cycles, len(call.arrived), np.array(call.start), np.array(call.done))
        result.append(known[key])
    return result
