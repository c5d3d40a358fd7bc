"""The audit of "16x more efficient": the paper's operation count beside what a run really does."""

from collections.abc import Callable, Sequence
from typing import Any

from ternbin.contract.hw import KINDS, HwConfig
from ternbin.counting.phases import Phase
from ternbin.counting.workload import Work
from ternbin.energy import figures as tables
from ternbin.energy.accuracy import gate_level_error
from ternbin.energy.lines import Line, Precision, spreads, total_pj, value_pj
from ternbin.energy.model import MULTIPLY, account
from ternbin.energy.uncertainty import ratio
from ternbin.graph.ir import HEAD

REFERENCES = ("fp32", "int8")


def operation_factor(weight_bits: int, act_bits: int) -> float:
    """The paper's count: an operation costs ``w*a/64`` of a full-precision one (facts of arXiv 2306.01841)."""
    return weight_bits * act_bits / 64


def _operation_count(bits: int) -> float:
    """The reference by the same count: full precision is 1 by definition, 8 x 8 bits is 1 as well (64/64)."""
    return 1.0 if bits == 32 else operation_factor(bits, bits)


def external_bits(lines: Sequence[Line]) -> float:
    """Bits on the bus."""
    return sum(line.count for line in lines if line.group == "external" and line.event.endswith(" bit"))


def _energies(lines: Sequence[Line]) -> dict[str, float]:
    arithmetic, onchip = value_pj(lines, "arithmetic"), value_pj(lines, "on-chip")
    system = total_pj(lines)
    return {
        "mac": value_pj(line for line in lines if line.event == MULTIPLY),
        "arithmetic": arithmetic,
        "chip": arithmetic + onchip,
        "system": system["pj"],
        "system_low": system["low"],
        "system_high": system["high"],
        "external_bits": external_bits(lines),
    }


SPANS: dict[str, Callable[[Line], bool]] = {  # ratio -> the lines that it is of
    "arithmetic": lambda line: line.event == MULTIPLY,
    "arithmetic_with_registers": lambda line: line.group == "arithmetic",
    "chip": lambda line: line.group != "external",
    "system": lambda _: True,
}


def _intervals(theirs: Sequence[Line], ours: Sequence[Line]) -> dict[str, dict[str, float]]:
    found = {
        name: [spreads(line for line in lines if of(line)) for lines in (theirs, ours)] for name, of in SPANS.items()
    }
    return {name: {end: ratio(*sides)[end] for end in ("low", "high")} for name, sides in found.items()}


def _with_full_precision_head(
    ours: dict[str, float], phase: Phase, hw: HwConfig, weight_bits: int, act_bits: int, dram: str, head_bits: int
) -> dict[str, float]:
    """The same phase with the LM head kept in FP32, as the paper's released code keeps it."""
    factor, macs, head = operation_factor(weight_bits, act_bits), _macs(phase), _head(phase)
    operations = head.macs + (macs - head.macs) * factor
    extra_bits = head.weights * (32 - hw.memory_bits(head_bits))
    extra = head.macs * tables.mac("fp32").pj + extra_bits * tables.DRAM[dram].pj
    return {"operation_ratio": macs / operations, "system_pj": ours["system"] + extra}


def _macs(phase: Phase) -> int:
    """Those of texts that are done included, as in the counters."""
    return sum(item.macs for item in phase.computed.values())


def _head(phase: Phase) -> Work:
    return phase.computed.get(HEAD, Work())


def stored_bits(phase: Phase, hw: HwConfig, weight_bits: int, head_bits: int) -> float:
    """Of a weight in external memory, the mean of those that the phase reads; what stays on chip counts as the rest does."""
    head, everything = _head(phase).weights, sum(item.weights for item in phase.computed.values())
    own, heads = hw.memory_bits(weight_bits), hw.memory_bits(head_bits)
    return own + (heads - own) * head / everything if everything else own


def audit_phase(
    phase: Phase, hw: HwConfig, weight_bits: int, act_bits: int, dram: str, head_bits: int | None = None
) -> dict[str, Any]:
    """Ratios reference / this run, one by one, for one phase."""
    head_bits = head_bits or weight_bits
    stored = stored_bits(phase, hw, weight_bits, head_bits)
    lines = account(phase.counters, phase.traffic, hw, weight_bits=weight_bits, dram=dram)
    ours = _energies(lines)
    references: dict[str, dict[str, Any]] = {}
    for name in REFERENCES:
        precision = Precision.reference(name)
        own: dict[str, Any] = {"weight_bits": weight_bits, "precision": precision, "dram": dram, "stored_bits": stored}
        other = account(phase.counters, phase.traffic, hw, **own)
        theirs = _energies(other)
        bits, _ = tables.MAC_BITS[name]
        references[name] = {
            "operation_count": _operation_count(bits) / operation_factor(weight_bits, act_bits),
            "energy_pj": theirs,
            "arithmetic": theirs["mac"] / ours["mac"],
            "arithmetic_with_registers": theirs["arithmetic"] / ours["arithmetic"],
            "bits_moved": theirs["external_bits"] / ours["external_bits"],
            "chip": theirs["chip"] / ours["chip"],
            "system": theirs["system"] / ours["system"],
            "intervals": _intervals(other, lines),
        }
    head = _with_full_precision_head(ours, phase, hw, weight_bits, act_bits, dram, head_bits)
    return {
        "name": phase.name,
        "macs": _macs(phase),
        "head_macs": _head(phase).macs,
        "ours_pj": ours,
        "references": references,
        "full_precision_head": head | {"system_ratio": references["fp32"]["energy_pj"]["system"] / head["system_pj"]},
    }


def audit(
    phases: Sequence[Phase],
    hw: HwConfig,
    *,
    weight_bits: int,
    act_bits: int,
    dram: str = "lpddr4",
    head_bits: int | None = None,
) -> dict[str, Any]:
    """The audit table as data; docs/result-schema.md describes it (``claim``)."""
    return {
        "paper": {
            "weight_bits": weight_bits,
            "act_bits": act_bits,
            "operation_factor": operation_factor(weight_bits, act_bits),
            "claimed_ratio": 1 / operation_factor(weight_bits, act_bits),
            "source": "Liu et al., ACL 2023 (arXiv 2306.01841): FLOPs factor = weight bits x activation bits / 64",
        },
        "dram": dram,
        "phases": [audit_phase(phase, hw, weight_bits, act_bits, dram, head_bits) for phase in phases],
    }


def _part(kind: str, part: str, mode: str) -> float:
    return tables.block(kind)["fj_per_event"]["real"][mode][part]


def element_ratios() -> dict[str, dict[str, dict[str, float]]]:
    """Reference / quantized multiply-accumulate at gate level, the widest block of each kind, real operands.

    reference -> kind -> ``arithmetic`` (element alone) and ``with_registers`` (operand registers and clock too), each glitch-aware
    and zero-delay, and the ratio of areas.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for reference in tables.MAC_BITS:
        result[reference] = {}
        for kind in ("ternary", "binary"):
            area = [tables.block(k)["area_um2"] / tables.block(k)["lanes"] for k in (reference, kind)]
            ratios = {"area": area[0] / area[1]}
            for mode in ("glitch", "zero_delay"):
                ratios[f"arithmetic_{mode}"] = _part(reference, "element", mode) / _part(kind, "element", mode)
                ratios[f"with_registers_{mode}"] = _part(reference, "total", mode) / _part(kind, "total", mode)
            result[reference][kind] = ratios
    return result


# Horowitz, ISSCC 2014, 45 nm, 0.9 V: multiply and add in FP32; multiply in FP16, add in FP32; multiply of 8 bits, add of 32.
ANCHORS_FJ = {"fp32": 3700 + 900, "bf16": 1100 + 900, "int8": 200 + 100}
_ANCHOR_VOLT = 0.9


def elements() -> list[dict[str, Any]]:
    """Each element with operand registers and clock, real operands, beside the published energy of its operations: as it is, and with the
    square of the voltage."""
    volt = tables.characterisation()["provenance"]["volt"]
    result: list[dict[str, Any]] = []
    for kind in (*tables.MAC_BITS, *KINDS):
        record, anchor = tables.block(kind), ANCHORS_FJ.get(kind)
        fj = _part(kind, "total", "glitch")
        result.append(
            {
                "name": record["name"],
                "fj": fj,
                "um2": record["area_um2"] / record["lanes"],
                "anchor_fj": anchor,
                "over": fj / anchor if anchor else None,
                "over_at_volt": fj / anchor / (volt / _ANCHOR_VOLT) ** 2 if anchor else None,
            }
        )
    return result


def break_even(dram: str = "lpddr4") -> dict[str, float]:
    """How often a weight must be used per fetch from external memory until its multiply-accumulates cost as much as the fetch."""
    bits = {kind: weight_bits for kind, (weight_bits, _) in tables.MAC_BITS.items()} | {"ternary": 2, "binary": 1}
    return {kind: width * tables.DRAM[dram].pj * 1e3 / _part(kind, "total", "glitch") for kind, width in bits.items()}


def claim_report(paper: dict[str, dict[str, float]], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The claim beside the measurements. ``paper``: bits -> sizes and factors (models.paper.paper_table); ``results``: results of
    runs, whose audits give the ratios of whole systems."""
    return {
        "paper_sizes_mib": {bits: round(row["size_mib"], 1) for bits, row in paper.items()},
        "paper_sizes_with_scales_mib": {bits: round(row["size_with_scales_mib"], 1) for bits, row in paper.items()},
        "paper_flops_factors": {bits: round(row["flops_factor"], 4) for bits, row in paper.items()},
        "ratios": {
            "multiply_accumulate": element_ratios(),
            "runs": [{"name": r["name"], "bits": r["bits"], "phases": r["claim"]["phases"]} for r in results],
        },
        "break_even_uses_of_a_weight": break_even(),
        "elements": elements(),
        "gate_level_error": gate_level_error(),
    }
