"""The audit of "16x more efficient": the paper's operation count beside what a run really does."""

from dataclasses import dataclass

from ternbin.energy import tables
from ternbin.energy.model import Precision, Traffic, account, total_pj
from ternbin.hw import HwConfig

REFERENCES = ("fp32", "int8")


@dataclass(frozen=True)
class Phase:
    """Prefill (the encoder call) or decode (all decoder calls together) of one run."""

    name: str
    counters: dict
    traffic: Traffic
    macs: int
    head_macs: int
    head_weights: int  # weights of the LM head read from external memory in this phase


def operation_factor(weight_bits: int, act_bits: int) -> float:
    """The paper's count: an operation costs ``w*a/64`` of a full-precision one (facts of arXiv 2306.01841)."""
    return weight_bits * act_bits / 64


def _operation_count(bits: int) -> float:
    """The reference by the same count: full precision is 1 by definition, 8 x 8 bits is 1 as well (64/64)."""
    return 1.0 if bits == 32 else operation_factor(bits, bits)


def _energies(phase: Phase, hw: HwConfig, weight_bits: int, precision: Precision | None, dram: str) -> dict:
    lines = account(phase.counters, phase.traffic, hw, weight_bits=weight_bits, precision=precision, dram=dram)
    arithmetic, onchip = total_pj(lines, "arithmetic"), total_pj(lines, "on-chip")
    system = total_pj(lines)
    mac_pj = sum(line.pj for line in lines if line.unit == "array" and "multiply" in line.event)
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


def _with_full_precision_head(ours: dict, phase: Phase, weight_bits: int, act_bits: int, dram: str) -> dict:
    """The same phase with the LM head kept in FP32, as the paper's released code keeps it."""
    factor = operation_factor(weight_bits, act_bits)
    operations = phase.head_macs + (phase.macs - phase.head_macs) * factor
    extra_bits = phase.head_weights * (32 - weight_bits)
    extra = phase.head_macs * tables.mac("fp32").pj + extra_bits * tables.DRAM[dram].pj
    return {"operation_ratio": phase.macs / operations, "system_pj": ours["system"] + extra}


def audit_phase(phase: Phase, hw: HwConfig, weight_bits: int, act_bits: int, dram: str) -> dict:
    """Ratios reference / this run, one by one, for one phase."""
    ours = _energies(phase, hw, weight_bits, None, dram)
    result = {"name": phase.name, "macs": phase.macs, "head_macs": phase.head_macs, "ours_pj": ours, "references": {}}
    for name in REFERENCES:
        theirs = _energies(phase, hw, weight_bits, Precision.reference(name), dram)
        bits = tables.MAC_BITS[name]
        result["references"][name] = {
            "operation_count": _operation_count(bits) / operation_factor(weight_bits, act_bits),
            "energy_pj": theirs,
            "arithmetic": theirs["mac"] / ours["mac"],
            "arithmetic_with_registers": theirs["arithmetic"] / ours["arithmetic"],
            "bits_moved": theirs["external_bits"] / ours["external_bits"],
            "chip": theirs["chip"] / ours["chip"],
            "system": theirs["system"] / ours["system"],
        }
    head = _with_full_precision_head(ours, phase, weight_bits, act_bits, dram)
    reference = result["references"]["fp32"]["energy_pj"]["system"]
    result["full_precision_head"] = head | {"system_ratio": reference / head["system_pj"]}
    return result


def audit(phases: list[Phase], hw: HwConfig, *, weight_bits: int, act_bits: int, dram: str = "lpddr4") -> dict:
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
