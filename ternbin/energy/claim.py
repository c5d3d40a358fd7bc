"""The audit of "16x more efficient": the paper's operation count beside what a run really does."""

from collections.abc import Sequence
from typing import Any

from ternbin.contract.hw import HwConfig
from ternbin.counting.phases import Phase
from ternbin.counting.workload import Work
from ternbin.energy import figures as tables
from ternbin.energy.lines import Precision, total_pj
from ternbin.energy.model import MULTIPLY, account
from ternbin.graph.ir import HEAD

REFERENCES = ("fp32", "int8")


def operation_factor(weight_bits: int, act_bits: int) -> float:
    """The paper's count: an operation costs ``w*a/64`` of a full-precision one (facts of arXiv 2306.01841)."""
    return weight_bits * act_bits / 64


def _operation_count(bits: int) -> float:
    """The reference by the same count: full precision is 1 by definition, 8 x 8 bits is 1 as well (64/64)."""
    return 1.0 if bits == 32 else operation_factor(bits, bits)


def _energies(phase: Phase, hw: HwConfig, weight_bits: int, precision: Precision | None, dram: str) -> dict[str, float]:
    lines = account(phase.counters, phase.traffic, hw, weight_bits=weight_bits, precision=precision, dram=dram)
    arithmetic, onchip = total_pj(lines, "arithmetic"), total_pj(lines, "on-chip")
    system = total_pj(lines)
    mac_pj = sum(line.pj for line in lines if line.event == MULTIPLY)
    bits = sum(line.count for line in lines if line.group == "external")
    return {
        "mac": mac_pj,
        "arithmetic": arithmetic["pj"],
        "chip": arithmetic["pj"] + onchip["pj"],
        "system": system["pj"],
        "system_low": system["low"],
        "system_high": system["high"],
        "external_bits": bits,
    }


def _with_full_precision_head(
    ours: dict[str, float], phase: Phase, hw: HwConfig, weight_bits: int, act_bits: int, dram: str
) -> dict[str, float]:
    """The same phase with the LM head kept in FP32, as the paper's released code keeps it."""
    factor, macs, head = operation_factor(weight_bits, act_bits), _macs(phase), _head(phase)
    operations = head.macs + (macs - head.macs) * factor
    extra_bits = head.weights * (32 - hw.memory_bits(weight_bits))
    extra = head.macs * tables.mac("fp32").pj + extra_bits * tables.DRAM[dram].pj
    return {"operation_ratio": macs / operations, "system_pj": ours["system"] + extra}


def _macs(phase: Phase) -> int:
    """Those of texts that are done included, as in the counters."""
    return sum(item.macs for item in phase.computed.values())


def _head(phase: Phase) -> Work:
    return phase.computed.get(HEAD, Work())


def audit_phase(phase: Phase, hw: HwConfig, weight_bits: int, act_bits: int, dram: str) -> dict[str, Any]:
    """Ratios reference / this run, one by one, for one phase."""
    ours = _energies(phase, hw, weight_bits, None, dram)
    references: dict[str, dict[str, Any]] = {}
    for name in REFERENCES:
        theirs = _energies(phase, hw, weight_bits, Precision.reference(name), dram)
        bits = tables.MAC_BITS[name]
        references[name] = {
            "operation_count": _operation_count(bits) / operation_factor(weight_bits, act_bits),
            "energy_pj": theirs,
            "arithmetic": theirs["mac"] / ours["mac"],
            "arithmetic_with_registers": theirs["arithmetic"] / ours["arithmetic"],
            "bits_moved": theirs["external_bits"] / ours["external_bits"],
            "chip": theirs["chip"] / ours["chip"],
            "system": theirs["system"] / ours["system"],
        }
    head = _with_full_precision_head(ours, phase, hw, weight_bits, act_bits, dram)
    return {
        "name": phase.name,
        "macs": _macs(phase),
        "head_macs": _head(phase).macs,
        "ours_pj": ours,
        "references": references,
        "full_precision_head": head | {"system_ratio": references["fp32"]["energy_pj"]["system"] / head["system_pj"]},
    }


def audit(
    phases: Sequence[Phase], hw: HwConfig, *, weight_bits: int, act_bits: int, dram: str = "lpddr4"
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
        "phases": [audit_phase(phase, hw, weight_bits, act_bits, dram) for phase in phases],
    }


def _part(kind: str, part: str, mode: str) -> float:
    return tables.block(kind)["fj_per_event"]["real"][mode][part]


def element_ratios() -> dict[str, dict[str, dict[str, float]]]:
    """Reference / quantized multiply-accumulate at gate level, the widest block of each kind, real operands.

    reference -> kind -> ``arithmetic`` (element alone) and ``with_registers`` (operand registers and clock too), each glitch-aware
    and zero-delay, and the ratio of areas.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for reference in ("fp32", "bf16", "int8"):
        result[reference] = {}
        for kind in ("ternary", "binary"):
            area = [tables.block(k)["area_um2"] / tables.block(k)["lanes"] for k in (reference, kind)]
            ratios = {"area": area[0] / area[1]}
            for mode in ("glitch", "zero_delay"):
                ratios[f"arithmetic_{mode}"] = _part(reference, "element", mode) / _part(kind, "element", mode)
                ratios[f"with_registers_{mode}"] = _part(reference, "total", mode) / _part(kind, "total", mode)
            result[reference][kind] = ratios
    return result


def break_even(dram: str = "lpddr4") -> dict[str, float]:
    """How often a weight must be used per fetch from external memory until its multiply-accumulates cost as much as the fetch."""
    bits = tables.MAC_BITS | {"ternary": 2, "binary": 1}
    return {kind: width * tables.DRAM[dram].pj * 1e3 / _part(kind, "total", "glitch") for kind, width in bits.items()}


def claim_report(paper: dict[str, dict[str, float]], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The claim beside the measurements. ``paper``: bits -> sizes and factors (models.paper.paper_table); ``results``: results of
    runs, whose audits give the ratios of whole systems."""
    error = tables.characterisation().get("core")
    return {
        "paper_sizes_mib": {bits: round(row["size_mib"], 1) for bits, row in paper.items()},
        "paper_sizes_with_scales_mib": {bits: round(row["size_with_scales_mib"], 1) for bits, row in paper.items()},
        "paper_flops_factors": {bits: round(row["flops_factor"], 4) for bits, row in paper.items()},
        "ratios": {
            "multiply_accumulate": element_ratios(),
            "runs": [{"name": r["name"], "bits": r["bits"], "phases": r["claim"]["phases"]} for r in results],
        },
        "break_even_uses_of_a_weight": break_even(),
        "gate_level_error": None if error is None else error["gate_level_error"],
    }
