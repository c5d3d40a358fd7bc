"""The audit of "16x more efficient": every precision on the same accelerator, each with its best mapping.

Programs are mapped and then counted and timed from their instructions (ternbin/counting), nothing is simulated: models of any
size take seconds. The reference precisions (ternbin.contract.hw.ReferenceConfig) have the same geometry, schedule, bus and memory
capacities in bits, wider codes and elements. docs/energy.md, "The claim", says what is compared and docs/result-schema.md lists the
fields.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ternbin.contract.isa import INSTRUCTION_BYTES
from ternbin.counting.phases import Phase
from ternbin.energy.area import area_mm2, array_mm2
from ternbin.energy.lines import Line, total_pj
from ternbin.energy.provenance import named, sources
from ternbin.energy.published import PUBLISHED
from ternbin.explore.place import CASES, MIB, Mapped, Subject, best, levels, same_area
from ternbin.explore.subjects import SUBJECTS
from ternbin.explore.sweeps import kept_in_fp32, sweep_record, sweeps
from ternbin.models.task.paper import Parameters, operation_factor, size_mib

Step = Callable[[str], None]  # is told what comes next


def energies(lines: list[Line]) -> dict[str, dict[str, float]]:
    """pj, low and high of each group and of the system."""
    groups = {group: total_pj(lines, group) for group in ("arithmetic", "on-chip", "external")}
    return groups | {"system": total_pj(lines)}


def phase_record(mapped: Mapped, phase: Phase, dram: str) -> dict[str, Any]:
    lines, bits = mapped.lines(phase, dram), levels(mapped, phase)
    energy = energies(lines)
    return {
        "name": phase.name,
        "tokens": phase.tokens,
        "macs": phase.macs,
        "cycles": phase.cycles,
        "seconds": phase.cycles / mapped.hw.clock_mhz / 1e6,
        "utilization": phase.macs * mapped.hw.step_cycles / (phase.cycles * mapped.hw.peak_macs),
        "bits_moved": bits,
        "external_bits": sum(count for name, count in bits.items() if name.startswith("external")),
        "on_chip_bits": sum(count for name, count in bits.items() if not name.startswith("external")),
        "energy": energy,
        "per_token_pj": {key: energy["system"][key] / phase.tokens for key in ("pj", "low", "high")},
        "counters": phase.counters,
        "traffic": asdict(phase.traffic),
        "lines": [line.asdict() for line in lines],
    }


def program_mib(mapped: Mapped) -> dict[str, float]:
    """MiB of the program's image of external memory: weights with parameters and tables, instructions of all calls."""
    instructions = sum(call.count for call in mapped.program.calls) * INSTRUCTION_BYTES
    return {"model_mib": (len(mapped.program.image) - instructions) / MIB, "instructions_mib": instructions / MIB}


def sizes_mib(parameters: Parameters, bits: int) -> dict[str, float]:
    """By the paper's count, and with the row scales that it leaves out."""
    return {"paper_mib": size_mib(parameters, bits), "with_scales_mib": size_mib(parameters, bits, scales=bits < 8)}


def record(subject: Subject, mapped: Mapped, dram: str) -> dict[str, Any]:
    hw, area, case = mapped.hw, area_mm2(mapped.hw), mapped.case
    return {
        "name": case.name,
        "weight_bits": case.weight_bits,
        "act_bits": case.act_bits,
        "sizes": sizes_mib(subject.parameters, case.weight_bits),
        "operation_factor": operation_factor(case.weight_bits, case.act_bits)
        if case.name != "BF16"
        else None,  # the paper has none
        "hardware": {
            "kind": hw.kind,
            "weight_pack": hw.weight_pack,
            "kv_external": hw.kv_external,
            "peak_macs": hw.peak_macs,
            "step_cycles": hw.step_cycles,
        },
        "image": program_mib(mapped),
        "area_mm2": area,
        "area_mm2_total": sum(area.values()),
        "phases": [phase_record(mapped, phase, dram) for phase in mapped.phases],
    }


def ratios(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Phase record of a reference over that of a case. Ranges: all figures of both at their low ends, and at their high ends."""
    result: dict[str, Any] = {key: theirs[key] / ours[key] for key in ("cycles", "external_bits", "on_chip_bits")}
    for group, figure in ours["energy"].items():
        values = [theirs["energy"][group][end] / figure[end] for end in ("pj", "low", "high")]
        result[group] = {"value": values[0], "low": min(values), "high": max(values)}
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
        for reference in ("FP32", "BF16", "INT8")
    }


def _silent(_: str) -> None:
    pass


def audit_subject(subject: Subject, dram: str, step: Step = _silent) -> dict[str, Any]:
    """The audit of one model as data."""
    chosen: dict[str, Mapped] = {}
    for case in CASES:
        step(f"{subject.name} {case.name}")
        chosen[case.name] = best(subject, case, dram)
    array = sum(array_mm2(chosen["W2A2"].hw).values())
    equal_area = {
        name: same_area(mapped, array) if mapped.case.reference else mapped for name, mapped in chosen.items()
    }
    records = {name: record(subject, mapped, dram) for name, mapped in chosen.items()}
    area_records = records | {
        name: record(subject, mapped, dram) for name, mapped in equal_area.items() if mapped is not chosen[name]
    }
    return {
        "name": subject.name,
        "source_len": subject.source_len,
        "new_tokens": subject.new_tokens,
        "dram": dram,
        "hardware": subject.hw.asdict(),
        "memory": asdict(subject.memory),
        "precisions": list(records.values()),
        "equal_area": list(area_records.values()),
        "ratios": all_ratios(records),
        "ratios_equal_area": all_ratios(area_records),
        "kept_in_fp32": _kept(chosen["W2A2"], area_records["FP32"], dram),
        "break_even": _break_even(subject, equal_area, array, dram, step),
    }


def _kept(ternary: Mapped, reference: dict[str, Any], dram: str) -> list[dict[str, Any]]:
    return [
        {
            "phase": phase.name,
            "reference_pj": theirs["energy"]["system"]["pj"],
            "steps": kept_in_fp32(ternary, phase, dram),
        }
        for phase, theirs in zip(ternary.phases, reference["phases"], strict=True)
    ]


def _break_even(
    subject: Subject, chosen: dict[str, Mapped], array: float, dram: str, step: Step
) -> list[dict[str, Any]]:
    ternary = chosen["W2A2"].case
    level = 64 / (ternary.weight_bits * ternary.act_bits)
    return [
        sweep_record(sweep, level, lambda what: step(f"{subject.name} {what}"))
        for sweep in sweeps(subject, chosen, array, dram)
    ]


def audit(names: Sequence[str], dram: str, step: Step = _silent) -> dict[str, Any]:
    """The audits of the named subjects, published accelerators, and the sources of all figures."""
    subjects = [audit_subject(SUBJECTS[name](), dram, step) for name in names]
    return {"subjects": subjects, "published": PUBLISHED, "sources": audit_sources(subjects)}


def audit_sources(subjects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sources of all lines of these audits."""
    records = [record for subject in subjects for record in subject["precisions"] + subject["equal_area"]]
    return sources(named([line for record in records for phase in record["phases"] for line in phase["lines"]]))
