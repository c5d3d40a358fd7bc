"""Sweeps of a model's energy: batch, bits, length; and what parts in FP32 cost."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ternbin.contract.hw import HwConfig
from ternbin.counting.phases import HEAD
from ternbin.counting.runs import PHASES
from ternbin.counting.workload import Work
from ternbin.energy import figures as tables
from ternbin.energy.model import total_pj
from ternbin.errors import InputError
from ternbin.explore.place import MIB, Counted, Mapped, Subject, place, same_area, with_code_bits


def kept_in_fp32(mapped: Mapped, phase: Counted, dram: str) -> list[dict]:
    """Amdahl: what the paper's code keeps in full precision, added one after the other to the quantized products. For each step
    ``operation_ratio``, the paper's count including these operations, all in FP32 over all as they are; ``system_pj``."""
    hw, counters, case = mapped.hw, phase.counters, mapped.case
    head = phase.work.get(HEAD, Work())
    elements = {
        name: counters[f"vector_{name}"] * hw.rows for name in ("ln_norm_words", "softmax_exp_words", "embed_words")
    }
    head_bits = head.weights * (32 - hw.memory_bits(case.weight_bits))
    embed_bits = 8 * phase.traffic.embedding * (32 / case.weight_bits - 1)
    lines = mapped.lines(phase, dram)

    def saved(*prefixes: str) -> float:
        return sum(line.pj for line in lines if line.unit == "vector" and line.event.startswith(prefixes))

    parts = [
        ("LM head", head.macs, head_bits, 0.0),
        ("embeddings", EMBED_OPS * elements["embed_words"], embed_bits, saved("embed")),
        ("LayerNorm", LAYERNORM_OPS * elements["ln_norm_words"], 0, saved("ln_", "reciprocal")),
        ("softmax", SOFTMAX_OPS * elements["softmax_exp_words"], 0, saved("softmax", "division")),
    ]
    products = phase.macs - head.macs
    everything = products + sum(ops for _, ops, _, _ in parts)
    factor = case.weight_bits * case.act_bits / 64
    full, system = 0.0, total_pj(lines)["pj"]
    result = [{"kept": "nothing", "operations": 0, "share": 0.0, "operation_ratio": 1 / factor, "system_pj": system}]
    for name, operations, bits, instead in parts:
        full += operations
        system += operations * tables.mac("fp32").pj + bits * tables.DRAM[dram].pj - instead
        waiting = head.macs if full == 0 else 0
        result.append(
            {
                "kept": name,
                "operations": operations,
                "share": operations / everything,
                "operation_ratio": (products + full) / (factor * (products + waiting) + full),
                "system_pj": system,
            }
        )
    return result


def crossing(points: list[tuple[float, float]], level: float) -> float | None:
    """Where the straight line through ``points`` (x rising) first meets ``level``; None where it does not."""
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if (y0 - level) * (y1 - level) <= 0 and y0 != y1:
            return x0 + (level - y0) * (x1 - x0) / (y1 - y0)
    return None


def batched(mapped: Mapped, phase: Counted, dram: str, batch: int) -> float:
    """Projected picojoules a token of decoding ``batch`` texts together: what is fetched for all (weights, parameters, program) is shared
    by all, a step of the array by as many as there are columns; keys and values, vector unit and results are each token's own.
    Beats go with the bytes on the bus, cycles with the longer of bus and array."""
    hw, counters, moved = mapped.hw, phase.counters, phase.traffic
    columns = min(batch, hw.cols)
    shared = moved.weights + moved.parameters + moved.program

    def beats(texts: int) -> float:
        return (shared / texts + moved.total - shared) / hw.axi_bytes

    def cycles(texts: int) -> float:
        return max(beats(texts), counters["execute_array_active"] / min(texts, hw.cols) * hw.step_cycles)

    time, bus = cycles(batch) / cycles(1), beats(batch) / beats(1)
    share = {("external", name): 1 / batch for name in ("weights bit", "parameters bit", "program bit")}
    share |= {("wbuf", "write"): 1 / batch, ("pbuf", "write"): 1 / batch, ("wbuf", "read"): 1 / columns}
    share |= {
        ("array", "operand register bit"): 1 / columns,
        ("execute", "array step"): 1 / columns,
        ("control", "instruction"): 1 / batch,
    }
    result = 0.0
    for line in mapped.lines(phase, dram):
        factor = (
            time if "cycle" in line.event else bus if "beat" in line.event else share.get((line.unit, line.event), 1.0)
        )
        result += line.pj * factor
    return result / phase.tokens


def resident(mapped: Mapped, phase: Counted, dram: str, capacity_mib: float) -> float:
    """Projected picojoules a token of decoding where ``capacity_mib`` of weights stay on chip, in banks of 64 KiB beside what is there."""
    bank = tables.sram(4096, 128)
    weights = 8 * phase.traffic.weights / phase.tokens
    kept = min(weights, capacity_mib * MIB * 8)
    saved = kept * (tables.DRAM[dram].pj - bank.read.pj / 128)
    return total_pj(mapped.lines(phase, dram))["pj"] / phase.tokens - saved


@dataclass(frozen=True)
class Sweep:
    """A parameter, its values, and what it does to energy: ``energy(value)`` gives case -> phase -> picojoules a token, or case -> the
    reason for which it cannot run."""

    name: str
    unit: str
    tier: str
    values: tuple[float, ...]
    energy: Callable[[float], dict[str, dict[str, float] | str]]


def sweep_record(sweep: Sweep, level: float, step: Callable[[str], None]) -> dict:
    """The sweep's points, ratios to W2A2, and where these meet the paper's ``level``."""
    points = []
    for value in sweep.values:
        step(f"{sweep.name} {value:g}")
        found = sweep.energy(value)
        fits = {name: energy for name, energy in found.items() if not isinstance(energy, str)}
        points.append(
            {
                "value": value,
                "per_token_pj": fits,
                "impossible": {name: found[name] for name in found if name not in fits},
            }
        )
    curves = []
    for reference in ("FP32", "INT8"):
        for phase in PHASES:
            curve = [
                (p["value"], p["per_token_pj"][reference][phase] / p["per_token_pj"]["W2A2"][phase])
                for p in points
                if all(phase in p["per_token_pj"].get(name, {}) for name in (reference, "W2A2"))
            ]
            if curve:
                even = crossing(curve, level)
                curves.append(
                    {"reference": reference, "phase": phase, "points": curve, "level": level, "break_even": even}
                )
    return {"name": sweep.name, "unit": sweep.unit, "tier": sweep.tier, "points": points, "curves": curves}


SWEPT = ("FP32", "INT8", "W2A2")


def sweeps(subject: Subject, chosen: dict[str, Mapped], array: float, dram: str) -> Iterator[Sweep]:
    """Source length and capacity of the code memories (mapped anew), external memory, batch and resident weights (from ``chosen``);
    references on arrays of ``array`` mm2."""
    decode = {name: chosen[name].phases[1] for name in SWEPT}

    def mapped_anew(changed: Callable[[HwConfig], HwConfig], length: int) -> dict[str, dict[str, float] | str]:
        result: dict[str, dict[str, float] | str] = {}
        for name in SWEPT:
            mapped = chosen[name]
            try:
                hw = changed(mapped.hw)
                if length != subject.source_len or hw != mapped.hw:
                    mapped = place(replace(subject, source_len=length), mapped.case, replace(hw, kv_external=False))
                    mapped = same_area(mapped, array) if mapped.case.reference else mapped
            except InputError as error:
                result[name] = str(error)
            else:
                result[name] = {p.name: total_pj(mapped.lines(p, dram))["pj"] / p.tokens for p in mapped.phases}
        return result

    def scaled(factor: float) -> dict[str, dict[str, float] | str]:
        return mapped_anew(lambda hw: replace(hw, **with_code_bits(hw, 1 / factor)), subject.source_len)

    kinds = {tables.DRAM[kind].pj: kind for kind in sorted(tables.DRAM, key=lambda kind: tables.DRAM[kind].pj)}

    def by_dram(pj: float) -> dict[str, dict[str, float]]:
        kind = kinds[pj]
        return {
            name: {p.name: total_pj(chosen[name].lines(p, kind))["pj"] / p.tokens for p in chosen[name].phases}
            for name in SWEPT
        }

    def decoding(energy: Callable) -> Callable[[float], dict[str, dict[str, float]]]:
        return lambda value: {name: {PHASES[1]: energy(chosen[name], decode[name], dram, value)} for name in SWEPT}

    yield Sweep(
        "source length", "tokens", "derived", subject.lengths, lambda length: mapped_anew(lambda hw: hw, int(length))
    )
    yield Sweep("capacity of the code memories", "times", "derived", subject.capacities, scaled)
    yield Sweep(f"external memory: {', '.join(kinds.values())}", "pJ a bit", "derived", tuple(kinds), by_dram)
    yield Sweep(
        "batch",
        "texts",
        "projected",
        (1, 2, 4, 8, 16, 32, 64, 128),
        decoding(lambda m, p, d, value: batched(m, p, d, int(value))),
    )
    yield Sweep("weights kept on chip", "MiB", "projected", tuple(2.0**n for n in range(-2, 11)), decoding(resident))


# FP32 multiply-accumulates an element, or what takes as much: sum, square and sum, subtract and scale, gamma and beta; maximum,
# subtract, exponential by six of them, sum, scale.
LAYERNORM_OPS, SOFTMAX_OPS, EMBED_OPS = 4, 10, 1
