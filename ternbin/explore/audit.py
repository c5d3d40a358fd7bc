"""The audit of "16x more efficient": every precision on the same accelerator, each with its best mapping.

Programs are mapped and then counted and timed from their instructions (ternbin/counting), nothing is simulated: models of any
size take seconds. The reference precisions (ternbin.contract.hw.ReferenceConfig) have the same geometry, schedule, bus and memory
capacities in bits, wider codes and elements. docs/energy.md, "The audit", says what is compared and docs/result-schema.md lists the
fields.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache

from transformers import BartConfig

from ternbin.contract.hw import NAMED
from ternbin.contract.isa import INSTRUCTION_BYTES
from ternbin.energy.area import area_mm2, array_mm2
from ternbin.energy.lines import Line
from ternbin.energy.model import total_pj
from ternbin.energy.provenance import sources
from ternbin.energy.published import PUBLISHED
from ternbin.explore.place import CASES, MIB, Counted, Mapped, Subject, best, levels, same_area
from ternbin.explore.sweeps import kept_in_fp32, sweep_record, sweeps
from ternbin.models import prepare
from ternbin.models.bart.shape import BART_BASE, shape_model
from ternbin.models.task.paper import Parameters, count, on_meta, operation_factor, size_mib
from ternbin.models.task.paper import bart_base as paper_bart_base

# ---- one program ----------------------------------------------------------------------------------------------------


# ---- figures of a program -------------------------------------------------------------------------------------------


def energies(lines: list[Line]) -> dict[str, dict[str, float]]:
    """pj, low and high of each group and of the system."""
    return {group: total_pj(lines, group) for group in ("arithmetic", "on-chip", "external")} | {
        "system": total_pj(lines)
    }


def phase_record(mapped: Mapped, phase: Counted, dram: str) -> dict:
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
        "lines": [line.asdict() for line in lines],
    }


def program_mib(mapped: Mapped) -> dict[str, float]:
    """MiB of the program's image of external memory: weights with parameters and tables, instructions of all calls."""
    instructions = sum(call.count for call in mapped.program.calls) * INSTRUCTION_BYTES
    return {"model_mib": (len(mapped.program.image) - instructions) / MIB, "instructions_mib": instructions / MIB}


def sizes_mib(parameters: Parameters, bits: int) -> dict[str, float]:
    """By the paper's count, and with the row scales that it leaves out."""
    return {"paper_mib": size_mib(parameters, bits), "with_scales_mib": size_mib(parameters, bits, scales=bits < 8)}


def record(subject: Subject, mapped: Mapped, dram: str) -> dict:
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


def ratios(theirs: dict, ours: dict) -> dict:
    """Phase record of a reference over that of a case. Ranges: all figures of both at their low ends, and at their high ends."""
    result: dict[str, object] = {key: theirs[key] / ours[key] for key in ("cycles", "external_bits", "on_chip_bits")}
    for group, figure in ours["energy"].items():
        values = [theirs["energy"][group][end] / figure[end] for end in ("pj", "low", "high")]
        result[group] = {"value": values[0], "low": min(values), "high": max(values)}
    return result


def all_ratios(records: dict[str, dict]) -> dict:
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


# ---- what stays in full precision -----------------------------------------------------------------------------------


# ---- break-even -----------------------------------------------------------------------------------------------------


# ---- the whole ------------------------------------------------------------------------------------------------------


def audit_subject(subject: Subject, dram: str, step: Callable[[str], None] = lambda _: None) -> dict:
    """The audit of one model as data. ``step`` is told what comes next."""
    chosen, records = {}, {}
    for case in CASES:
        step(f"{subject.name} {case.name}")
        chosen[case.name] = best(subject, case, dram)
        records[case.name] = record(subject, chosen[case.name], dram)
    array = sum(array_mm2(chosen["W2A2"].hw).values())
    equal_area, area_records = dict(chosen), dict(records)
    for name, mapped in chosen.items():
        if mapped.case.reference:
            step(f"{subject.name} {name} in the area of the ternary array")
            equal_area[name] = same_area(mapped, array)
            area_records[name] = record(subject, equal_area[name], dram)
    ternary = chosen["W2A2"]
    level = 64 / (ternary.case.weight_bits * ternary.case.act_bits)
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
        "kept_in_fp32": [
            {
                "phase": phase.name,
                "reference_pj": fp32["energy"]["system"]["pj"],
                "steps": kept_in_fp32(ternary, phase, dram),
            }
            for phase, fp32 in zip(ternary.phases, area_records["FP32"]["phases"], strict=True)
        ],
        "break_even": [
            sweep_record(sweep, level, lambda what: step(f"{subject.name} {what}"))
            for sweep in sweeps(subject, equal_area, array, dram)
        ],
    }


def bundled() -> Subject:
    """The bundled model on its default text."""
    folder = prepare.bundled_dir()
    config = BartConfig.from_dict(json.loads((folder / "config.json").read_text()) | {"model_type": "bart"})
    ids = prepare.encode_text(prepare.load_tokenizer(folder), prepare.default_text(), config.max_position_embeddings)
    return Subject(
        "bundled model",
        cache(lambda bits: prepare.lowered_model(folder, bits)),
        NAMED["small"],
        len(ids),
        10,
        (16, len(ids), 64, 96),
        (0.5, 1, 2, 4),
        count(on_meta(config)),
    )


def bart_base() -> Subject:
    """A model of BART-base's shapes: no numbers are needed. FP32 weights of a row tile must fit half of WBUF."""
    hw = replace(NAMED["base"], name="base, twice the WBUF", wbuf_words=2 * NAMED["base"].wbuf_words)
    return Subject(
        "BART-base",
        cache(lambda bits: shape_model(bits, **BART_BASE)),
        hw,
        128,
        4,
        (32, 128, 512),
        (0.5, 1, 2),
        count(paper_bart_base()),
    )


SUBJECTS = {"bundled": bundled, "bart-base": bart_base}


def audit(names: Sequence[str], dram: str, step: Callable[[str], None] = lambda _: None) -> dict:
    """The audits of the named subjects, published accelerators, and the sources of all figures."""
    subjects = [audit_subject(SUBJECTS[name](), dram, step) for name in names]
    lines = [
        line
        for s in subjects
        for p in s["precisions"] + s["equal_area"]
        for phase in p["phases"]
        for line in phase["lines"]
    ]
    return {"subjects": subjects, "published": PUBLISHED, "sources": sources({line["source"] for line in lines})}
