"""From the phases of a simulated run to the numbers of result.json: phases, ops, counters, energy, claim, timeline."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ternbin.contract.hw import HwConfig
from ternbin.counting.events import add
from ternbin.counting.phases import Executed, Phase, transfers
from ternbin.counting.runs import RunResult
from ternbin.counting.traffic import traffic
from ternbin.counting.workload import Work
from ternbin.energy.accuracy import checked_share
from ternbin.energy.claim import REFERENCES, audit
from ternbin.energy.clock import clock
from ternbin.energy.lines import Line, Precision, total_pj
from ternbin.energy.model import Setting, account, charges, rates, setting
from ternbin.energy.provenance import sources

Fields = dict[str, Any]  # fields of result.json: docs/result-schema.md


@dataclass(frozen=True, kw_only=True)
class Tariff:
    """What events are charged by: hardware, bits of the model's weights and activations, external memory. ``head_bits``: of the LM
    head's weights, if not those of all others."""

    hw: HwConfig
    weight_bits: int
    act_bits: int
    dram: str = "lpddr4"
    head_bits: int | None = None

    @property
    def setting(self) -> Setting:
        return setting(self.hw, self.weight_bits, dram=self.dram)

    def lines(self, phase: Phase) -> list[Line]:
        return account(phase.counters, phase.traffic, self.hw, weight_bits=self.weight_bits, dram=self.dram)


def check(tariff: Tariff) -> None:
    """Looks up every figure of a run, so that one that is not there is found before it. Raises InputError."""
    for precision in (None, *map(Precision.reference, REFERENCES)):
        rates(setting(tariff.hw, tariff.weight_bits, precision, tariff.dram))


def accounted(tariff: Tariff, phases: Sequence[Phase], run: RunResult) -> Fields:
    """The fields of result.json that follow from the run alone; ``phases``: the run's."""
    ops = {phase.name: _ops(phase, tariff) for phase in phases}
    return {
        **_totals(tariff, phases, run),
        "phases": [_phase(phase, tariff.hw.peak_macs) for phase in phases],
        "call_cycles": [call.cycles for call in run.calls],
        "ops": [row for rows in ops.values() for row in rows],
        "counters": {phase.name: dict(phase.counters) for phase in phases},
        "traffic": {phase.name: asdict(phase.traffic) for phase in phases},
        "energy": _energy(phases, tariff, ops),
        "claim": audit(
            [phase for phase in phases if phase.calls],
            tariff.hw,
            weight_bits=tariff.weight_bits,
            act_bits=tariff.act_bits,
            dram=tariff.dram,
            head_bits=tariff.head_bits,
        ),
        "timeline": [
            {"call": item.call, "unit": item.unit, "op": item.op, "start": item.start, "end": item.end}
            for phase in phases
            for item in phase.instructions
        ],
    }


def _totals(tariff: Tariff, phases: Sequence[Phase], run: RunResult) -> Fields:
    macs = sum(phase.macs for phase in phases)
    return {
        "cycles": run.cycles,
        "macs": macs,
        "utilization": macs / (run.cycles * tariff.hw.peak_macs),
        "build_seconds": run.build_seconds,
        "sim_seconds": run.sim_seconds,
        "sim_macs_per_second": macs / run.sim_seconds,
        "sim_cycles_per_second": run.cycles_per_second,
    }


def _phase(phase: Phase, peak: int) -> Fields:
    return {
        "name": phase.name,
        "calls": phase.calls,
        "cycles": phase.cycles,
        "macs": phase.macs,
        "utilization": phase.macs / max(1, phase.cycles * peak),
    }


def _ops(phase: Phase, tariff: Tariff) -> list[Fields]:
    """The ops of a phase in the order of their first instruction."""
    groups: dict[str, list[Executed]] = {}
    for item in phase.instructions:
        groups.setdefault(item.op, []).append(item)
    return [_op(phase, name, items, tariff) for name, items in groups.items()]


def _op(phase: Phase, name: str, items: Sequence[Executed], tariff: Tariff) -> Fields:
    moved = traffic(tariff.hw, transfers(item.instruction for item in items), len(items))
    counters = dict.fromkeys(phase.counters, 0) | add(item.counters for item in items)
    cycles: Counter[str] = Counter()
    for item in items:
        cycles[item.unit] += item.end - item.start
    return {
        "phase": phase.name,
        "name": name,
        "macs": phase.work.get(name, Work()).macs,
        "bytes": moved.total - moved.program,
        "energy_pj": sum(rate.pj_of(counted) for rate, counted in charges(counters, moved, tariff.setting)),
        "cycles": dict(cycles),
    }


def _energy(phases: Sequence[Phase], tariff: Tariff, ops: dict[str, list[Fields]]) -> Fields:
    lines = {phase.name: tariff.lines(phase) for phase in phases}
    summaries = [_summary(phase, lines[phase.name], ops[phase.name]) for phase in phases]
    return {
        "dram": tariff.dram,
        "clock": {"mhz": tariff.hw.clock_mhz, **clock(tariff.hw).asdict()},
        **total_pj(line for own in lines.values() for line in own),
        "phases": summaries,
        "lines": [{"phase": name} | line.asdict() for name, own in lines.items() for line in own],
        "sources": sources(line.record for own in lines.values() for line in own),
    }


def _summary(phase: Phase, lines: Sequence[Line], ops: Sequence[Fields]) -> Fields:
    """Energy of a phase, in all, by unit and group; what no op has for itself: cycles of the whole core, leakage, fetch."""
    by_unit: defaultdict[str, float] = defaultdict(float)
    by_group: defaultdict[str, float] = defaultdict(float)
    for line in lines:
        by_unit[line.unit] += line.pj
        by_group[line.group] += line.pj
    total = total_pj(lines)
    return {
        "name": phase.name,
        **total,
        "by_unit": dict(by_unit),
        "by_group": dict(by_group),
        "not_by_op_pj": total["pj"] - sum(op["energy_pj"] for op in ops),
        "gate_level_share": checked_share(lines),
        "per_token_pj": total["pj"] / max(1, phase.tokens),
    }
