"""Sweeps of a model's energy: batch, bits, length; and what parts in FP32 cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from ternbin.contract.hw import HwConfig
from ternbin.counting.phases import Phase
from ternbin.counting.runs import PHASES
from ternbin.counting.workload import Work
from ternbin.energy import figures as tables
from ternbin.energy.block_events import BEATS, BUSY, CYCLES
from ternbin.energy.lines import Line, value_pj
from ternbin.errors import InputError
from ternbin.explore.place import MIB, Mapped, Subject, with_code_bits
from ternbin.explore.references import Choice, fewer_lanes, of_lanes, tiled
from ternbin.graph.ir import HEAD

# FP32 multiply-accumulates an element, or what takes as much: sum, square and sum, subtract and scale, gamma and beta; maximum,
# subtract, exponential by six of them, sum, scale.
LAYERNORM_OPS, SOFTMAX_OPS, EMBED_OPS = 4, 10, 1


@dataclass(frozen=True)
class Kept:
    """What stays in full precision: FP32 multiply-accumulates, bits more on the bus, and picojoules that are then not spent."""

    name: str
    operations: int
    bits: float
    instead_pj: float


def kept_parts(mapped: Mapped, phase: Phase, lines: Sequence[Line]) -> list[Kept]:
    """What the paper's code keeps in full precision, in the order in which :func:`kept_in_fp32` adds it. ``lines``: the phase's."""
    hw, counters = mapped.hw, phase.counters
    head, weight_bits = phase.work.get(HEAD, Work()), mapped.case.weight_bits

    def elements(words: str) -> int:
        return counters[words] * hw.rows

    def spent(*names: str) -> float:
        return sum(line.pj for line in lines if line.unit == "vector" and line.counter in names)

    embed, norm, exponential = "vector_embed_words", "vector_ln_norm_words", "vector_softmax_exp_words"
    softmax = ("vector_softmax_max_words", exponential, "vector_softmax_code_words", "vector_divides")
    embed_bits = 8 * phase.traffic.embedding * (32 / weight_bits - 1)
    return [
        Kept("LM head", head.macs, head.weights * (32 - hw.memory_bits(weight_bits)), 0.0),
        Kept("embeddings", EMBED_OPS * elements(embed), embed_bits, spent(embed)),
        Kept("LayerNorm", LAYERNORM_OPS * elements(norm), 0, spent("vector_ln_sum_words", norm, "vector_ln_rsqrt")),
        Kept("softmax", SOFTMAX_OPS * elements(exponential), 0, spent(*softmax)),
    ]


def kept_in_fp32(mapped: Mapped, phase: Phase, dram: str) -> list[dict[str, Any]]:
    """Amdahl: what the paper's code keeps in full precision, added one after the other to the quantized products. For each step
    ``operation_ratio``, the paper's count including these operations, all in FP32 over all as they are; ``system_pj``."""
    lines, head = mapped.lines(phase, dram), phase.work.get(HEAD, Work())
    parts = kept_parts(mapped, phase, lines)
    products = phase.macs - head.macs
    everything = products + sum(part.operations for part in parts)
    factor = mapped.case.weight_bits * mapped.case.act_bits / 64
    full, system = 0, value_pj(lines)
    result: list[dict[str, Any]] = [
        {"kept": "nothing", "operations": 0, "share": 0.0, "operation_ratio": 1 / factor, "system_pj": system}
    ]
    idle = sum(line.pj for line in lines if line.counter == CYCLES) / phase.cycles
    for part in parts:
        full += part.operations
        system += part.operations * tables.mac("fp32").pj + part.bits * tables.DRAM[dram].pj - part.instead_pj
        system += part.bits / mapped.hw.axi_data_bits * idle  # nothing else goes on while decoding waits for them
        waiting = head.macs if full == 0 else 0
        result.append(
            {
                "kept": part.name,
                "operations": part.operations,
                "share": part.operations / everything,
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


# Unit and event of what texts that are decoded together share: what is fetched and dispatched once for all of them, and what is done
# once for as many as the array has columns.
FETCHED = {
    ("external", "weights bit"),
    ("external", "parameters bit"),
    ("external", "program bit"),
    ("wbuf", "write"),
    ("pbuf", "write"),
    ("control", "instruction"),
}
STEPPED = {("wbuf", "read"), ("array", "operand register bit"), ("execute", "array step")}


def batched(mapped: Mapped, phase: Phase, dram: str, batch: int) -> float:
    """Projected picojoules a token of decoding ``batch`` texts together: what is fetched for all (weights, parameters, program) is shared
    by all, a step of the array by as many as there are columns; keys and values, vector unit and results are each token's own.
    Beats go with the bytes on the bus, cycles with the longer of bus and array."""
    hw, moved = mapped.hw, phase.traffic
    shared = moved.weights + moved.parameters + moved.program

    def beats(texts: int) -> float:
        return (shared / texts + moved.total - shared) / hw.axi_bytes

    def cycles(texts: int) -> float:
        return max(beats(texts), phase.counters["execute_array_active"] / min(texts, hw.cols) * hw.step_cycles)

    time, bus = cycles(batch) / cycles(1), beats(batch) / beats(1)

    def share(line: Line) -> float:
        if line.counter == CYCLES or line.counter in BUSY:
            return time
        if line.counter in BEATS:
            return bus
        if (line.unit, line.event) in FETCHED:
            return 1 / batch
        return 1 / min(batch, hw.cols) if (line.unit, line.event) in STEPPED else 1.0

    return sum(line.pj * share(line) for line in mapped.lines(phase, dram)) / phase.tokens


RESIDENT_PBUF = 8  # times the parameters' words, so that what the weights of a decoder need beside them stays as well


def resident(hw: HwConfig, capacity_mib: float) -> HwConfig:
    """``hw`` with a WBUF of at least ``capacity_mib``, where the weights of decoding stay."""
    words = ceil(capacity_mib * MIB * 8 / (hw.rows * hw.lanes * hw.weight_planes))
    return replace(
        hw, resident="decoder", wbuf_words=max(words, hw.wbuf_words), pbuf_words=RESIDENT_PBUF * hw.pbuf_words
    )


@dataclass(frozen=True)
class Sweep:
    """A parameter, its values, and what it does to energy: ``energy(value)`` gives case -> phase -> picojoules a token, or case -> the
    reason for which it cannot run."""

    name: str
    unit: str
    tier: str
    values: tuple[float, ...]
    energy: Callable[[float], Mapping[str, dict[str, float] | str]]


def sweep_record(sweep: Sweep, level: float, step: Callable[[str], None]) -> dict[str, Any]:
    """The sweep's points, ratios to W2A2, and where these meet the paper's ``level``."""
    points: list[dict[str, Any]] = []
    for value in sweep.values:
        step(f"{sweep.name} {value:g}")
        found = sweep.energy(value)
        fits = {name: energy for name, energy in found.items() if not isinstance(energy, str)}
        impossible = {name: found[name] for name in found if name not in fits}
        points.append({"value": value, "per_token_pj": fits, "impossible": impossible})
    curves = [
        {"reference": reference, "phase": phase, "points": curve, "level": level, "break_even": crossing(curve, level)}
        for reference in ("FP32", "INT8")
        for phase in PHASES
        if (curve := _curve(points, reference, phase))
    ]
    return {"name": sweep.name, "unit": sweep.unit, "tier": sweep.tier, "points": points, "curves": curves}


def _curve(points: Sequence[dict[str, Any]], reference: str, phase: str) -> list[tuple[float, float]]:
    """Value -> reference over W2A2, of the points that have both."""
    return [
        (p["value"], p["per_token_pj"][reference][phase] / p["per_token_pj"]["W2A2"][phase])
        for p in points
        if all(phase in p["per_token_pj"].get(name, {}) for name in (reference, "W2A2"))
    ]


SWEPT = ("FP32", "INT8", "W2A2")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
RESIDENT_MIB = tuple(4.0**n for n in range(-1, 5))


@dataclass(frozen=True)
class Sweeper:
    """The swept cases of a subject, each phase as ``chosen``, or with W2A2's rows where that alone can be mapped, or where nothing is
    mapped anew and it needs less."""

    subject: Subject
    chosen: Mapping[str, Sequence[Choice]]
    dram: str

    def lengths(self, length: float) -> dict[str, dict[str, float] | str]:
        subject = replace(self.subject, source_len=int(length))
        return {name: self._anew(name, subject, lambda hw: hw) for name in SWEPT}

    def capacities(self, factor: float) -> dict[str, dict[str, float] | str]:
        def resized(hw: HwConfig) -> HwConfig:
            return replace(hw, **with_code_bits(hw, 1 / factor, 1 / factor))

        return {name: self._anew(name, self.subject, resized) for name in SWEPT}

    def _anew(self, name: str, subject: Subject, changed: Callable[[HwConfig], HwConfig]) -> dict[str, float] | str:
        """Mapped anew where that changes anything; why it cannot be where it cannot."""
        result: dict[str, float] = {}
        known: dict[tuple[HwConfig, int], Mapped] = {}

        def mapped(own: Mapped) -> Mapped:
            hw = changed(own.hw)
            if (subject.source_len, hw) == (self.subject.source_len, own.hw):
                return own
            key = (of_lanes(replace(hw, kv_external=False), 1), own.slices)
            if key not in known:
                known[key] = tiled(subject, own.case, *key)
            return fewer_lanes(known[key], hw.step_cycles)

        for number, choice in enumerate(self.chosen[name]):
            own = _first(mapped, choice)
            if isinstance(own, str):
                return own
            phase = own.phase(number)
            result[phase.name] = value_pj(own.lines(phase, self.dram)) / phase.tokens
        return result

    def memories(self, pj: float) -> dict[str, dict[str, float]]:
        kind = KINDS[pj]
        return {
            name: {
                one.phase.name: min(
                    value_pj(own.mapped.lines(own.phase, kind)) / own.phase.tokens for own in one.options
                )
                for one in self.chosen[name]
            }
            for name in SWEPT
        }

    def batches(self, texts: float) -> dict[str, dict[str, float]]:
        decoding = {name: self.chosen[name][1] for name in SWEPT}
        return {
            name: {PHASES[1]: min(batched(own.mapped, own.phase, self.dram, int(texts)) for own in one.options)}
            for name, one in decoding.items()
        }

    def residents(self, mib: float) -> dict[str, dict[str, float] | str]:
        """Of a token after the first, which loads what stays."""
        found: dict[str, dict[str, float] | str] = {}

        def mapped(own: Mapped) -> Mapped:
            return tiled(self.subject, own.case, replace(resident(own.hw, mib), kv_external=False), own.slices)

        for name in SWEPT:
            own = _first(mapped, self.chosen[name][1])
            if isinstance(own, str):
                found[name] = own
            else:
                found[name] = {PHASES[1]: value_pj(own.lines(own.last, self.dram)) / own.last.tokens}
        return found


def _first(mapped: Callable[[Mapped], Mapped], choice: Choice) -> Mapped | str:
    """The first option of ``choice`` that can be mapped, or why the first cannot."""
    reasons: list[str] = []
    for option in choice.options:
        try:
            return mapped(option.mapped)
        except InputError as error:
            reasons.append(str(error))
    return reasons[0]


KINDS = {figure.pj: name for name, figure in sorted(tables.DRAM.items(), key=lambda item: item[1].pj)}


def sweeps(subject: Subject, chosen: Mapping[str, Sequence[Choice]], dram: str) -> Iterator[Sweep]:
    """Source length, capacity of the code memories and weights that stay (mapped anew), external memory and batch (from ``chosen``)."""
    by = Sweeper(subject, chosen, dram)
    yield Sweep("source length", "tokens", "derived", subject.lengths, by.lengths)
    yield Sweep("capacity of the code memories", "times", "derived", subject.capacities, by.capacities)
    yield Sweep(f"external memory: {', '.join(KINDS.values())}", "pJ a bit", "derived", tuple(KINDS), by.memories)
    yield Sweep("batch", "texts", "projected", BATCHES, by.batches)
    yield Sweep("weights kept on chip", "MiB", "derived", RESIDENT_MIB, by.residents)
