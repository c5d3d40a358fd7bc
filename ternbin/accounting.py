"""From a simulated run to the numbers of result.json: phases, ops, counters, energy, claim, timeline."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from ternbin.energy.claim import Phase, audit
from ternbin.energy.model import Traffic, account, total_pj
from ternbin.energy.sources import sources
from ternbin.errors import CheckError
from ternbin.events import ARRAY, add, instruction_events
from ternbin.ir import Lowered
from ternbin.isa import UNIT_OF, Instruction, Op, Unit
from ternbin.program import Program
from ternbin.sim.runner import CallRun, RunResult
from ternbin.traffic import traffic
from ternbin.workload import PHASES, Work, work

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
            own = instruction_events(program.hw, instruction)
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


def phase_run(name: str, program: Program, lowered: Lowered, calls: dict[int, CallRun], tokens: int, steps: Sequence[int]) -> PhaseRun:
    """Adds up the calls of one phase (program call number -> what it did); ``steps`` as in :func:`call_work`."""
    instructions = [item for number, call in calls.items() for item in executed(program, number, call)]
    counters = add(call.counters for call in calls.values())
    for key in ("steps_single_plane", "columns_single_plane", "execute_array_active", "execute_array_columns"):
        total = sum(item.counters.get(key, 0) for item in instructions)
        if counters.setdefault(key, total) != total:
            raise CheckError(f"{name}: {key} must be {total}, from the instructions, not {counters[key]}")
    moved = _sum_traffic(
        traffic(program.hw, [i for i in program.instructions(number) if i.op in (Op.LOAD, Op.STORE)], program.calls[number].count)
        for number in calls
    )
    work, computed = (_sum_work(call_work(lowered, program, number, own) for number in calls) for own in (steps, ()))
    return PhaseRun(name, tokens, list(calls.values()), instructions, counters, moved, work, computed)


def phase_runs(program: Program, lowered: Lowered, run: RunResult) -> list[PhaseRun]:
    """Prefill (the encoder calls) and decode (all decoder calls)."""
    numbered = list(enumerate(run.calls))
    groups = (dict(numbered[: program.encoders]), program.source_len), (dict(numbered[program.encoders :]), sum(run.steps))
    return [phase_run(name, program, lowered, *group, run.steps) for name, group in zip(PHASES, groups, strict=True)]


def _ops(phase: PhaseRun, program: Program, weight_bits: int, dram: str) -> list[dict]:
    groups: dict[str, list[Executed]] = {}
    for item in phase.instructions:
        groups.setdefault(item.op, []).append(item)
    rows = []
    for name, items in groups.items():
        moved = traffic(program.hw, [i.instruction for i in items if i.unit in ("load", "store")], len(items))
        counters = dict.fromkeys(phase.counters, 0) | add(item.counters for item in items)
        cycles: Counter[str] = Counter()
        for item in items:
            cycles[item.unit] += item.end - item.start
        lines = account(counters, moved, program.hw, weight_bits=weight_bits, dram=dram)
        macs = phase.work.get(name, Work()).macs
        rows.append({"phase": phase.name, "name": name, "macs": macs, "bytes": moved.total - moved.program,
                     "energy_pj": total_pj(lines)["pj"], "cycles": dict(cycles)})
    return rows


def _energy(phases: list[PhaseRun], program: Program, weight_bits: int, dram: str) -> dict:
    lines, summaries = [], []
    for phase in phases:
        own = account(phase.counters, phase.traffic, program.hw, weight_bits=weight_bits, dram=dram)
        by_unit: Counter[str] = Counter()
        by_group: Counter[str] = Counter()
        for line in own:
            by_unit[line.unit] += line.pj
            by_group[line.group] += line.pj
        total = total_pj(own)
        summaries.append({
            "name": phase.name, **total, "by_unit": dict(by_unit), "by_group": dict(by_group),
            "per_token_pj": total["pj"] / max(1, phase.tokens),
        })
        lines += [{"phase": phase.name} | line.asdict() for line in own]
    totals = {key: sum(summary[key] for summary in summaries) for key in ("pj", "low", "high")}
    return {"dram": dram} | totals | {"phases": summaries, "lines": lines, "sources": sources({line["source"] for line in lines})}


def summarize(program: Program, lowered: Lowered, run: RunResult, *, dram: str = "lpddr4") -> dict:
    """The fields of result.json that follow from the run alone."""
    phases = phase_runs(program, lowered, run)
    weight_bits, act_bits = lowered.meta["weight_bits"], lowered.meta["act_bits"]
    peak = program.hw.peak_macs
    macs, cycles = sum(phase.macs for phase in phases), run.cycles

    def claim_phase(phase: PhaseRun) -> Phase:
        head = phase.computed.get(HEAD, Work())
        macs = sum(item.macs for item in phase.computed.values())
        return Phase(phase.name, phase.counters, phase.traffic, macs, head.macs, head.weights)

    return {
        "cycles": cycles,
        "macs": macs,
        "utilization": macs / (cycles * peak),
        "build_seconds": run.build_seconds,
        "sim_seconds": run.sim_seconds,
        "sim_macs_per_second": macs / run.sim_seconds,
        "sim_cycles_per_second": run.cycles_per_second,
        "phases": [
            {"name": p.name, "calls": len(p.calls), "cycles": p.cycles, "macs": p.macs,
             "utilization": p.macs / max(1, p.cycles * peak)}
            for p in phases
        ],
        "call_cycles": [call.cycles for call in run.calls],
        "ops": [row for phase in phases for row in _ops(phase, program, weight_bits, dram)],
        "counters": {phase.name: dict(phase.counters) for phase in phases},
        "energy": _energy(phases, program, weight_bits, dram),
        "claim": audit([claim_phase(p) for p in phases if p.calls], program.hw, weight_bits=weight_bits, act_bits=act_bits, dram=dram),
        "timeline": [
            {"call": item.call, "unit": item.unit, "op": item.op, "start": item.start, "end": item.end}
            for phase in phases for item in phase.instructions
        ],
    }
