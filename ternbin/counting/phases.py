"""Phases of a run: its calls grouped into prefill and decoding, with work, traffic and counters."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from ternbin.contract.counters import ARRAY
from ternbin.contract.effects.table import counts
from ternbin.contract.isa import UNIT_OF, Instruction, Op, Unit
from ternbin.contract.program import Program
from ternbin.counting.events import add
from ternbin.counting.runs import PHASES, CallRun, RunResult
from ternbin.counting.traffic import Traffic, traffic
from ternbin.counting.workload import Work, work
from ternbin.errors import CheckError
from ternbin.graph.ir import Lowered

HEAD = "lm_head"


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


def executed(program: Program, number: int, call: CallRun) -> list[Executed]:
    """The instructions of a call that a unit ran (END is no unit's), with the graph op each belongs to."""
    queues: dict[Unit, list[tuple[Instruction, str]]] = defaultdict(list)
    for instruction, op in zip(program.instructions(number), program.calls[number].ops, strict=True):
        if instruction.op != Op.END:
            queues[UNIT_OF[instruction.op]].append((instruction, program.names[op]))
    result = []
    for record in call.records:
        instruction, op = queues[record.unit][record.index]
        counters = dict(record.counters)
        if instruction.op == Op.GEMM:  # the array runs ahead of the results that the record's counters are taken with
            own = counts(program.hw, instruction)
            counters |= {name: own[name] for name in ARRAY}
        result.append(Executed(number, record.unit.name.lower(), op, instruction, record.start, record.done, counters))
    return result


def call_work(lowered: Lowered, program: Program, number: int, steps: Sequence[int] = ()) -> dict[str, Work]:
    """Work by op of one program call: the encoder on a text, or the decoder at a position: each beam with its own keys. ``steps``: decoder
    calls of each text until it was done, beyond which its beams count as no work (default: all calls)."""
    if number < program.encoders:
        return work(lowered.encoder, lowered.weights, {"S": program.lengths[number]})
    past = number - program.encoders
    total: dict[str, Work] = {}
    for length in [own for text, own in enumerate(program.lengths) if not steps or past < steps[text]]:
        dims = {"S": length, "T": program.beams // program.encoders, "P": past, "N": past + 1}
        for name, own in work(lowered.decoder, lowered.weights, dims).items():
            total[name] = Work(own.macs + total.get(name, Work()).macs, own.weights)
    return total


def _sum_work(parts: Iterable[dict[str, Work]]) -> dict[str, Work]:
    total: dict[str, Work] = {}
    for part in parts:
        for op, item in part.items():
            before = total.get(op, Work())
            total[op] = Work(before.macs + item.macs, before.weights + item.weights)
    return total


def _sum_traffic(parts: Iterable[Traffic]) -> Traffic:
    parts = list(parts)
    return Traffic(**{f.name: sum(getattr(part, f.name) for part in parts) for f in fields(Traffic)})


@dataclass(frozen=True)
class PhaseRun:
    """Everything that one phase did. ``tokens``: of the texts in prefill; in decode the positions computed for each text until it was
    done. ``work`` is for these; ``computed`` counts every text in every call, for the array goes on with those that are done."""

    name: str
    tokens: int
    calls: list[CallRun]
    instructions: list[Executed]
    counters: dict[str, int]
    traffic: Traffic
    work: dict[str, Work]
    computed: dict[str, Work]

    @property
    def cycles(self) -> int:
        return sum(call.cycles for call in self.calls)

    @property
    def macs(self) -> int:
        return sum(item.macs for item in self.work.values())


def phase_run(
    name: str, program: Program, lowered: Lowered, calls: dict[int, CallRun], tokens: int, steps: Sequence[int]
) -> PhaseRun:
    """Adds up the calls of one phase (program call number -> what it did); ``steps`` as in :func:`call_work`."""
    instructions = [item for number, call in calls.items() for item in executed(program, number, call)]
    counters = add(call.counters for call in calls.values())
    for key in ("steps_single_plane", "columns_single_plane", "execute_array_active", "execute_array_columns"):
        total = sum(item.counters.get(key, 0) for item in instructions)
        if counters.setdefault(key, total) != total:
            raise CheckError(f"{name}: {key} must be {total}, from the instructions, not {counters[key]}")
    moved = _sum_traffic(
        traffic(
            program.hw,
            [i for i in program.instructions(number) if i.op in (Op.LOAD, Op.STORE)],
            program.calls[number].count,
        )
        for number in calls
    )
    work, computed = (_sum_work(call_work(lowered, program, number, own) for number in calls) for own in (steps, ()))
    return PhaseRun(name, tokens, list(calls.values()), instructions, counters, moved, work, computed)


def phase_runs(program: Program, lowered: Lowered, run: RunResult) -> list[PhaseRun]:
    """Prefill (the encoder calls) and decode (all decoder calls)."""
    numbered = list(enumerate(run.calls))
    groups = (
        (dict(numbered[: program.encoders]), program.source_len),
        (dict(numbered[program.encoders :]), sum(run.steps)),
    )
    return [phase_run(name, program, lowered, *group, run.steps) for name, group in zip(PHASES, groups, strict=True)]
