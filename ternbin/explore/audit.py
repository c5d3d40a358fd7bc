"""The audit of "16x more efficient": every precision on the same accelerator, each with its best mapping.

Programs are mapped and then counted and timed from their instructions (ternbin/counting), nothing is simulated: models of any
size take seconds. The reference precisions (ternbin.contract.hw.ReferenceConfig) have the same geometry, schedule, bus and memory
capacities in bits, wider codes and elements. docs/energy.md, "The claim", says what is compared and docs/result-schema.md lists the
fields.
"""

from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ternbin import processes
from ternbin.contract.isa import INSTRUCTION_BYTES
from ternbin.energy import figures, uncertainty
from ternbin.energy.area import area_mm2
from ternbin.energy.lines import Line, spreads, total_pj
from ternbin.energy.provenance import named, sources
from ternbin.energy.published import published
from ternbin.energy.uncertainty import Spread
from ternbin.errors import InputError
from ternbin.explore.equal_quality import equal_quality
from ternbin.explore.place import CASES, MIB, Case, Mapped, Subject, best, levels
from ternbin.explore.quality import Records, Scored, quality
from ternbin.explore.references import Choice, Reference, Tried
from ternbin.explore.subjects import SUBJECTS
from ternbin.explore.sweeps import Energy, Point, Sweeper, kept_in_fp32, mapped_anew, sweep_record
from ternbin.models.task.paper import Parameters, operation_factor, size_mib

Step = Callable[[str], None]  # is told what comes next
Anew = Callable[[Sequence[Point]], list[Energy]]


GROUPS = ("arithmetic", "on-chip", "external")
REFERENCES = tuple(case.name for case in CASES if case.reference)


def energies(lines: list[Line]) -> dict[str, dict[str, float]]:
    """pj, low and high of each group and of the system."""
    return {group: total_pj(lines, group) for group in GROUPS} | {"system": total_pj(lines)}


def phase_record(choice: Choice) -> dict[str, Any]:
    mapped, phase, lines = choice.mapped, choice.phase, choice.lines
    bits, area, energy = levels(mapped, phase), area_mm2(mapped.hw), energies(lines)
    return {
        "name": phase.name,
        "tokens": phase.tokens,
        "macs": phase.macs,
        "cycles": phase.cycles,
        "seconds": choice.seconds,
        "utilization": phase.macs * mapped.hw.step_cycles / (phase.cycles * mapped.hw.peak_macs),
        "hardware": hardware(mapped),
        "area_mm2": area,
        "area_mm2_total": sum(area.values()),
        "bits_moved": bits,
        "external_bits": sum(count for name, count in bits.items() if name.startswith("external")),
        "on_chip_bits": sum(count for name, count in bits.items() if not name.startswith("external")),
        "energy": energy,
        "by_source": {
            group: {source: asdict(own) for source, own in spreads(lines, None if group == "system" else group).items()}
            for group in energy
        },
        "per_token_pj": {key: energy["system"][key] / phase.tokens for key in ("pj", "low", "high")},
        "counters": phase.counters,
        "traffic": asdict(phase.traffic),
        "lines": [line.asdict() for line in lines],
    }


def hardware(mapped: Mapped) -> dict[str, Any]:
    """Of a phase: what was chosen for it."""
    hw = mapped.hw
    return {
        "kind": hw.kind,
        "rows": hw.rows,
        "cols": hw.cols,
        "lanes": hw.lanes,
        "weight_pack": hw.weight_pack,
        "kv_external": hw.kv_external,
        "peak_macs": hw.peak_macs,
        "step_cycles": hw.step_cycles,
        "ffn_slices": mapped.slices,
    }


def program_mib(mapped: Mapped) -> dict[str, float]:
    """MiB of the program's image of external memory: weights with parameters and tables, instructions of all calls."""
    instructions = sum(call.count for call in mapped.program.calls) * INSTRUCTION_BYTES
    return {"model_mib": (len(mapped.program.image) - instructions) / MIB, "instructions_mib": instructions / MIB}


def sizes_mib(parameters: Parameters, bits: int) -> dict[str, float]:
    """By the paper's count, and with the row scales that it leaves out."""
    return {"paper_mib": size_mib(parameters, bits), "with_scales_mib": size_mib(parameters, bits, scales=bits < 8)}


def record(subject: Subject, chosen: Sequence[Choice]) -> dict[str, Any]:
    """A precision on what was chosen for each phase."""
    case, mapped = chosen[0].mapped.case, chosen[0].mapped
    defined = case.name in ("FP32", "INT8") or not case.reference  # the paper has no other
    return {
        "name": case.name,
        "weight_bits": case.weight_bits,
        "act_bits": case.act_bits,
        "sizes": sizes_mib(subject.parameters, case.weight_bits),
        "operation_factor": operation_factor(case.weight_bits, case.act_bits) if defined else None,
        "image": program_mib(mapped),
        "phases": [phase_record(choice) for choice in chosen],
    }


def _spreads(phase: dict[str, Any], group: str) -> dict[str, Spread]:
    return {source: Spread(**own) for source, own in phase["by_source"][group].items()}


def ratios(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Phase record of a reference over that of a case; intervals by source of uncertainty."""
    result: dict[str, Any] = {
        key: theirs[key] / ours[key] for key in ("cycles", "seconds", "external_bits", "on_chip_bits", "area_mm2_total")
    }
    for group in ours["energy"]:
        result[group] = uncertainty.ratio(_spreads(theirs, group), _spreads(ours, group))
    return result


def all_ratios(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Reference -> case -> phase -> ratios."""
    return {
        reference: {
            name: {
                p["name"]: ratios(theirs, p)
                for theirs, p in zip(records[reference]["phases"], own["phases"], strict=True)
            }
            for name, own in records.items()
        }
        for reference in REFERENCES
    }


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class Chosen:
    """Each precision three times, a choice for each phase: on arrays of the same throughput, and each reference as it needs least energy
    for its latency, and on a chip of about the area of W2A2's."""

    throughput: dict[str, list[Choice]]
    latency: dict[str, list[Choice]]
    area: dict[str, list[Choice]]


def choose(subject: Subject, dram: str, step: Step) -> Chosen:
    found: dict[str, list[list[Choice]]] = {}  # the choices for each phase, as each field of Chosen has them
    for case in CASES:
        if not case.reference:
            step(f"{subject.name} {case.name}")
            found[case.name] = [own_choices(best(subject, case, dram), dram)] * 3
    ours = found["W2A2"][0]
    tried: dict[tuple[int, int], dict[Tried, Mapped | InputError]] = {}  # by bits
    for case in CASES:
        if case.reference:
            step(f"{subject.name} {case.name}")
            reference = Reference(subject, case, dram, tried.setdefault((case.weight_bits, case.act_bits), {}))
            phases = [reference.chosen(number, own) for number, own in enumerate(ours)]
            found[case.name] = [list(picked) for picked in zip(*phases, strict=True)]
    return Chosen(*({case.name: found[case.name][number] for case in CASES} for number in range(3)))


def scored(subject: Subject, ours: Sequence[Choice], dram: str, step: Step) -> Records:
    """A model at the precisions that it is scored at, each as it needs least energy, a reference for its latency; ``ours``: the
    accelerator beside which that stands, a choice for each phase."""
    found: Records = {}
    names = {score.precision for score in subject.scores}
    for case in CASES:
        if case.name in names:
            step(f"{subject.name} {case.name}")
            found[case.name] = record(subject, _choices(subject, case, ours, dram))
    return found


def _choices(subject: Subject, case: Case, ours: Sequence[Choice], dram: str) -> list[Choice]:
    if case.reference:
        reference = Reference(subject, case, dram)
        return [reference.chosen(number, own)[1] for number, own in enumerate(ours)]
    return own_choices(best(subject, case, dram), dram)


def own_choices(mapped: Mapped, dram: str) -> list[Choice]:
    """One for each phase."""
    return [Choice(mapped, phase, mapped.lines(phase, dram)) for phase in mapped.phases]


def audit_subject(subject: Subject, dram: str, step: Step = _silent, anew: Anew | None = None) -> dict[str, Any]:
    """The audit of one model as data. ``anew``: does the points of its sweeps; without it they are done here."""

    def here(points: Sequence[Point]) -> list[Energy]:
        return [_told(subject, point, step) for point in points]

    chosen = choose(subject, dram, step)
    tables = {name: {case: record(subject, own) for case, own in table.items()} for name, table in vars(chosen).items()}
    found = {name: all_ratios(table) for name, table in tables.items()}
    models: list[Scored] = [(subject.scores, tables["latency"])]
    models += [(one.scores, scored(one, chosen.latency["W2A2"], dram, step)) for one in subject.others]
    return {
        "name": subject.name,
        "source_len": subject.source_len,
        "new_tokens": subject.new_tokens,
        "dram": dram,
        "hardware": subject.hw.asdict(),
        "memory": asdict(subject.memory),
        "precisions": list(tables["throughput"].values()),
        "equal_latency": list(tables["latency"].values()),
        "equal_area": list(tables["area"].values()),
        "ratios": found["throughput"],
        "ratios_equal_latency": found["latency"],
        "ratios_equal_area": found["area"],
        "headline": headline(tables["latency"]),
        "quality": quality(models),
        "equal_quality": equal_quality(models),
        "kept_in_fp32": _kept(chosen.latency["W2A2"], tables["latency"]["FP32"], dram),
        "break_even": _break_even(Sweeper(subject, chosen.latency, dram, anew or here)),
    }


HEADLINE = (("FP32", "W2A2"), ("BF16", "W2A2"), ("INT8", "W2A2"), ("W4A8", "W2A2"))


def headline(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What becomes of "16x", each reference at its least energy: a ratio with its interval for each phase, and what moves it, widest
    first."""
    result: list[dict[str, Any]] = []
    for reference, case in HEADLINE:
        for theirs, ours in zip(records[reference]["phases"], records[case]["phases"], strict=True):
            sides = _spreads(theirs, "system"), _spreads(ours, "system")
            moved = uncertainty.leading(*sides)
            widest = sorted(moved, key=lambda source: moved[source]["low"] - moved[source]["high"])
            result.append(
                {"reference": reference, "case": case, "phase": ours["name"]}
                | uncertainty.ratio(*sides)
                | {"sources": {source: moved[source] for source in widest}}
            )
    return result


def _kept(ternary: list[Choice], reference: dict[str, Any], dram: str) -> list[dict[str, Any]]:
    return [
        {
            "phase": own.phase.name,
            "reference_pj": theirs["energy"]["system"]["pj"],
            "steps": kept_in_fp32(own.mapped, own.phase, dram),
        }
        for own, theirs in zip(ternary, reference["phases"], strict=True)
    ]


def _break_even(sweeper: Sweeper) -> list[dict[str, Any]]:
    ternary = sweeper.chosen["W2A2"][0].mapped.case
    level = 64 / (ternary.weight_bits * ternary.act_bits)
    return [sweep_record(sweep, level) for sweep in sweeper.sweeps()]


def _told(subject: Subject, point: Point, step: Step) -> Energy:
    step(f"{subject.name} {point.sweep} {point.value:g} {point.case.name}")
    return mapped_anew(subject, point)


def audit(names: Sequence[str], dram: str, step: Step = _silent) -> dict[str, Any]:
    """The audits of the named subjects, published accelerators, and the sources of all figures. Those before the last are made in
    processes of their own, which then help with the last: ``step`` is told of what is done here."""
    subjects: list[dict[str, Any]] = []
    if names:
        *others, last = (SUBJECTS[name] for name in names)
        with processes.started(max(1, len(others)), __name__) as pool:
            running = [pool.submit(_made, subject, dram, figures.chosen()) for subject in others]
            subject = _built(last)

            def anew(points: Sequence[Point]) -> list[Energy]:
                there = partial(_elsewhere, last, figures.chosen())
                return processes.shared(pool, there, lambda point: _told(subject, point, step), points)

            try:
                own = audit_subject(subject, dram, step, anew)
                step(" and ".join(names))
                subjects = [*(future.result() for future in running), own]
            except BrokenProcessPool:
                what = f"processes that audit {' and '.join(names[:-1] or names)}"
                raise InputError(f"{what} must not die, and one did (out of memory?): one model at a time") from None
    return {"subjects": subjects, "published": published(), "sources": audit_sources(subjects)}


@cache
def _built(subject: Callable[[], Subject]) -> Subject:
    return subject()


def _elsewhere(subject: Callable[[], Subject], characterisation: Path, point: Point) -> Energy:
    with figures.using(characterisation):
        return mapped_anew(_built(subject), point)


def _made(subject: Callable[[], Subject], dram: str, characterisation: Path) -> dict[str, Any]:
    with figures.using(characterisation):
        return audit_subject(subject(), dram)


def audit_sources(subjects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sources of all lines of these audits."""
    records = [
        record
        for subject in subjects
        for record in subject["precisions"] + subject["equal_latency"] + subject["equal_area"]
    ]
    return sources(named([line for record in records for phase in record["phases"] for line in phase["lines"]]))
