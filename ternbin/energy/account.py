"""From a simulated run to the numbers of result.json: phases, ops, counters, energy, claim, timeline."""

from collections import Counter

from ternbin.contract.program import Program
from ternbin.counting.events import add
from ternbin.counting.phases import HEAD, Executed, PhaseRun, phase_runs
from ternbin.counting.runs import RunResult
from ternbin.counting.traffic import traffic
from ternbin.counting.workload import Work
from ternbin.energy.claim import Phase, audit
from ternbin.energy.model import account, total_pj
from ternbin.energy.provenance import sources
from ternbin.graph.ir import Lowered


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
        rows.append(
            {
                "phase": phase.name,
                "name": name,
                "macs": macs,
                "bytes": moved.total - moved.program,
                "energy_pj": total_pj(lines)["pj"],
                "cycles": dict(cycles),
            }
        )
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
        summaries.append(
            {
                "name": phase.name,
                **total,
                "by_unit": dict(by_unit),
                "by_group": dict(by_group),
                "per_token_pj": total["pj"] / max(1, phase.tokens),
            }
        )
        lines += [{"phase": phase.name} | line.asdict() for line in own]
    totals = {key: sum(summary[key] for summary in summaries) for key in ("pj", "low", "high")}
    return (
        {"dram": dram}
        | totals
        | {"phases": summaries, "lines": lines, "sources": sources({line["source"] for line in lines})}
    )


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
            {
                "name": p.name,
                "calls": len(p.calls),
                "cycles": p.cycles,
                "macs": p.macs,
                "utilization": p.macs / max(1, p.cycles * peak),
            }
            for p in phases
        ],
        "call_cycles": [call.cycles for call in run.calls],
        "ops": [row for phase in phases for row in _ops(phase, program, weight_bits, dram)],
        "counters": {phase.name: dict(phase.counters) for phase in phases},
        "energy": _energy(phases, program, weight_bits, dram),
        "claim": audit(
            [claim_phase(p) for p in phases if p.calls],
            program.hw,
            weight_bits=weight_bits,
            act_bits=act_bits,
            dram=dram,
        ),
        "timeline": [
            {"call": item.call, "unit": item.unit, "op": item.op, "start": item.start, "end": item.end}
            for phase in phases
            for item in phase.instructions
        ],
    }
