"""Phases of a run, simulated or predicted: its calls grouped into prefill and decoding, with events, traffic and work.

Every call is decoded once, into what was counted (:class:`Seen`) and what its transfers carry; a phase adds them up.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

from ternbin.contract.counters import ARRAY, SINGLE_PLANE
from ternbin.contract.effects.table import counts
from ternbin.contract.isa import UNIT_OF, Instruction, Op, Unit
from ternbin.contract.program import Program
from ternbin.counting.cycles import CallPrediction
from ternbin.counting.events import add, call_events
from ternbin.counting.runs import PHASES, CallRun, RunResult
from ternbin.counting.traffic import Traffic, traffic
from ternbin.counting.workload import Work, call_work, sum_work
from ternbin.errors import CheckError
from ternbin.graph.ir import Lowered


@dataclass(frozen=True)
class Executed:
    """One instruction as it ran in program call ``call``."""

    call: int
    unit: str
    op: str
    instruction: Instruction
    start: int
    end: int
    counters: dict[str, int]


@dataclass(frozen=True)
class Seen:
    """One call of a program: its cycles and counters; instructions as they ran, of a simulated call."""

    cycles: int
    counters: dict[str, int]
    executed: tuple[Executed, ...] = ()


See = Callable[[int, list[Instruction]], Seen]  # call number, its instructions -> what was seen of it


@dataclass(frozen=True)
class Phase:
    """Everything that one phase did. ``tokens``: of the texts in prefill; in decode the positions computed for each text until it was
    done. ``work`` is for these; ``computed`` counts every text in every call, for the array goes on with those that are done.
    ``instructions``: as they ran, of a simulated phase."""

    name: str
    tokens: int
    calls: int
    cycles: int
    instructions: tuple[Executed, ...]
    counters: dict[str, int]
    traffic: Traffic
    work: dict[str, Work]
    computed: dict[str, Work]

    @property
    def macs(self) -> int:
        return sum(item.macs for item in self.work.values())


def simulated_phases(program: Program, lowered: Lowered, run: RunResult) -> list[Phase]:
    """Prefill and, of a model that generates, decode of a run. Raises CheckError where the array's counters are not those of its
    instructions."""

    def see(number: int, instructions: list[Instruction]) -> Seen:
        call = run.calls[number]
        ran = executed(program, number, instructions, call)
        return Seen(call.cycles, _checked(number, call.counters, ran), tuple(ran))

    return [
        _phase(name, program, lowered, numbers, tokens, run.steps, see)
        for name, tokens, numbers in zip(
            PHASES, (program.source_len, sum(run.steps)), phase_calls(program, len(run.calls)), strict=False
        )
    ]


def predicted_phases(program: Program, lowered: Lowered, timing: Sequence[CallPrediction]) -> list[Phase]:
    """The same without a simulation: all calls that ``timing`` has, every text going on to the last."""
    return [
        predicted_phase(program, lowered, numbers, timing[numbers.start : numbers.stop])
        for numbers in phase_calls(program, len(timing))
    ]


def predicted_phase(program: Program, lowered: Lowered, numbers: range, timing: Sequence[CallPrediction]) -> Phase:
    """The calls ``numbers`` of one phase, ``timing`` of each, every text going on to the last of them."""
    decoding = numbers.start >= program.encoders
    known: dict[int, dict[str, int]] = {}

    def see(number: int, instructions: list[Instruction]) -> Seen:
        own = timing[number - numbers.start]
        return Seen(own.cycles, call_events(program, number, own, instructions, known))

    tokens = len(numbers) * program.encoders if decoding else program.source_len
    steps = [numbers.stop - program.encoders] * program.encoders
    return _phase(PHASES[decoding], program, lowered, numbers, tokens, steps, see)


def phase_calls(program: Program, calls: int) -> list[range]:
    """The first ``calls`` calls: those of prefill and, of a model that generates, those of decoding."""
    first = program.encoders
    return [range(first), range(first, calls)] if program.generates else [range(first)]


def _phase(
    name: str, program: Program, lowered: Lowered, numbers: range, tokens: int, steps: Sequence[int], see: See
) -> Phase:
    """Adds up the calls ``numbers``; ``steps`` as in :func:`call_work`."""
    seen: list[Seen] = []
    moved: list[Traffic] = []
    for number in numbers:
        instructions = program.instructions(number)
        seen.append(see(number, instructions))
        moved.append(traffic(program.hw, transfers(instructions), program.calls[number].count))
    computed = work = sum_work(call_work(lowered, program, number) for number in numbers)
    if any(own < numbers.stop - program.encoders for own in steps):  # a text is done before the last call
        work = sum_work(call_work(lowered, program, number, steps) for number in numbers)
    return Phase(
        name,
        tokens,
        len(numbers),
        sum(call.cycles for call in seen),
        tuple(item for call in seen for item in call.executed),
        add(call.counters for call in seen),
        _sum_traffic(moved),
        work,
        computed,
    )


def transfers(instructions: Iterable[Instruction]) -> list[Instruction]:
    """Those that move data between external memory and the chip."""
    return [i for i in instructions if i.op in (Op.LOAD, Op.STORE)]


def _sum_traffic(parts: Sequence[Traffic]) -> Traffic:
    return Traffic(**{f.name: sum(getattr(part, f.name) for part in parts) for f in fields(Traffic)})


def executed(program: Program, number: int, instructions: Sequence[Instruction], call: CallRun) -> list[Executed]:
    """The instructions of a call that a unit ran (END is no unit's), with the graph op each belongs to."""
    queues: dict[Unit, list[tuple[Instruction, str]]] = defaultdict(list)
    for instruction, op in zip(instructions, program.calls[number].ops, strict=True):
        if instruction.op != Op.END:
            queues[UNIT_OF[instruction.op]].append((instruction, program.names[op]))
    result: list[Executed] = []
    for record in call.records:
        instruction, op = queues[record.unit][record.index]
        own = counts(
            program.hw, instruction
        )  # the array runs ahead of the results that the record's counters are taken with
        counters = dict(record.counters) | {name: own[name] for name in ARRAY if name in own}
        result.append(Executed(number, record.unit.name.lower(), op, instruction, record.start, record.done, counters))
    return result


_FROM_INSTRUCTIONS = (*SINGLE_PLANE, "execute_array_active", "execute_array_columns")


def _checked(number: int, counters: dict[str, int], ran: Sequence[Executed]) -> dict[str, int]:
    """The counters with those of the array that only instructions tell; the others must be what the instructions say."""
    told = {name: sum(item.counters.get(name, 0) for item in ran) for name in _FROM_INSTRUCTIONS}
    for name, total in told.items():
        if counters.get(name, total) != total:
            raise CheckError(f"call {number}: {name} must be {total}, from the instructions, not {counters[name]}")
    return counters | told
