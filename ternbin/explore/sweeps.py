"""Sweeps of a model's energy: batch, bits, length; and what parts in FP32 cost."""

from collections.abc import Callable, Mapping, Sequence
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
from ternbin.explore.place import MIB, Case, Mapped, Subject, with_code_bits
from ternbin.explore.references import Choice, Tried, fewer_lanes, of_lanes, tiled
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


Energy = dict[str, float] | str
"""Phase -> picojoules a token, or why a case cannot run."""


@dataclass(frozen=True)
class Sweep:
    """A parameter and what it does to energy: value -> case -> energy."""

    name: str
    unit: str
    tier: str
    energies: Mapping[float, Mapping[str, Energy]]


def sweep_record(sweep: Sweep, level: float) -> dict[str, Any]:
    """The sweep's points, ratios to W2A2, and where these meet the paper's ``level``."""
    points: list[dict[str, Any]] = []
    for value, found in sweep.energies.items():
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


Change = Callable[[Subject, HwConfig, float], tuple[Subject, HwConfig]]


@dataclass(frozen=True)
class Remap:
    """A sweep that maps anew. ``change``: model and configuration at a value; ``chosen``: the value at which nothing changes, if any;
    ``later``: of decoding alone, a token after the first."""

    name: str
    unit: str
    values: Callable[[Subject], tuple[float, ...]]
    change: Change
    chosen: Callable[[Subject], float | None]
    later: bool = False


def _longer(subject: Subject, hw: HwConfig, length: float) -> tuple[Subject, HwConfig]:
    return replace(subject, source_len=int(length)), hw


def _larger(subject: Subject, hw: HwConfig, factor: float) -> tuple[Subject, HwConfig]:
    return subject, replace(hw, **with_code_bits(hw, 1 / factor, 1 / factor))


def _staying(subject: Subject, hw: HwConfig, mib: float) -> tuple[Subject, HwConfig]:
    return subject, resident(hw, mib)


LENGTH = Remap("source length", "tokens", lambda subject: subject.lengths, _longer, lambda subject: subject.source_len)
CAPACITY = Remap("capacity of the code memories", "times", lambda subject: subject.capacities, _larger, lambda _: 1)
RESIDENT = Remap("weights kept on chip", "MiB", lambda _: RESIDENT_MIB, _staying, lambda _: None, later=True)
REMAPS = {remap.name: remap for remap in (LENGTH, CAPACITY, RESIDENT)}


@dataclass(frozen=True)
class Point:
    """A case at a value of a sweep that maps it anew: small, so that any process can work it out. ``tried``: for each phase what it is
    mapped on there, first its choice, then what may do where that cannot."""

    sweep: str
    value: float
    case: Case
    tried: tuple[tuple[Tried, ...], ...]
    dram: str


def mapped_anew(subject: Subject, point: Point) -> Energy:
    remap = REMAPS[point.sweep]
    known: dict[Tried, Mapped] = {}

    def mapped(hw: HwConfig, slices: int) -> Mapped:
        other, changed = remap.change(subject, hw, point.value)
        key = of_lanes(replace(changed, kv_external=False), 1), slices
        if key not in known:
            known[key] = tiled(other, point.case, *key)
        return fewer_lanes(known[key], hw.step_cycles)

    result: dict[str, float] = {}
    for number, tried in enumerate(point.tried):
        if number == 0 and remap.later:
            continue
        own = _first(mapped, tried)
        if isinstance(own, str):
            return own
        phase = own.last if remap.later else own.phase(number)
        result[PHASES[number]] = value_pj(own.lines(phase, point.dram)) / phase.tokens
    return result


def _first(mapped: Callable[[HwConfig, int], Mapped], tried: Sequence[Tried]) -> Mapped | str:
    """The first that can be mapped, or why the first cannot."""
    reasons: list[str] = []
    for hw, slices in tried:
        try:
            return mapped(hw, slices)
        except InputError as error:
            reasons.append(str(error))
    return reasons[0]


KINDS = {figure.pj: name for name, figure in sorted(tables.DRAM.items(), key=lambda item: item[1].pj)}


@dataclass(frozen=True)
class Sweeper:
    """The swept cases of a subject, each phase as ``chosen``, or with W2A2's rows where that alone can be mapped, or where nothing is
    mapped anew and it needs less. ``anew``: :func:`mapped_anew` of many points, wherever that is done."""

    subject: Subject
    chosen: Mapping[str, Sequence[Choice]]
    dram: str
    anew: Callable[[Sequence[Point]], Sequence[Energy]]

    def remapped(self) -> dict[str, dict[float, dict[str, Energy]]]:
        """Sweep -> value -> case -> energy of all :data:`REMAPS`."""
        found: dict[str, dict[float, dict[str, Energy]]] = {}
        points: list[Point] = []
        for remap in REMAPS.values():
            found[remap.name] = {value: {} for value in remap.values(self.subject)}
            for value, energies in found[remap.name].items():
                for name in SWEPT:
                    if value == remap.chosen(self.subject):
                        energies[name] = {one.phase.name: one.pj / one.phase.tokens for one in self.chosen[name]}
                    else:
                        points.append(self._point(remap, value, name))
        for point, energy in zip(points, self.anew(points), strict=True):
            found[point.sweep][point.value][point.case.name] = energy
        return found

    def _point(self, remap: Remap, value: float, name: str) -> Point:
        tried = tuple(
            tuple((option.mapped.hw, option.mapped.slices) for option in one.options) for one in self.chosen[name]
        )
        return Point(remap.name, value, self.chosen[name][0].mapped.case, tried, self.dram)

    def memories(self, kind: str) -> dict[str, Energy]:
        return {
            name: {
                one.phase.name: min(
                    value_pj(own.mapped.lines(own.phase, kind)) / own.phase.tokens for own in one.options
                )
                for one in self.chosen[name]
            }
            for name in SWEPT
        }

    def batches(self, texts: int) -> dict[str, Energy]:
        decoding = {name: self.chosen[name][1] for name in SWEPT}
        return {
            name: {PHASES[1]: min(batched(own.mapped, own.phase, self.dram, texts) for own in one.options)}
            for name, one in decoding.items()
        }

    def sweeps(self) -> list[Sweep]:
        """Source length, capacity of the code memories and weights that stay (mapped anew), external memory and batch (as chosen)."""
        remapped = self.remapped()
        length, capacity, stays = (
            Sweep(each.name, each.unit, "derived", remapped[each.name]) for each in REMAPS.values()
        )
        memories = {pj: self.memories(kind) for pj, kind in KINDS.items()}
        batches: dict[float, dict[str, Energy]] = {texts: self.batches(texts) for texts in BATCHES}
        return [
            length,
            capacity,
            Sweep(f"external memory: {', '.join(KINDS.values())}", "pJ a bit", "derived", memories),
            Sweep("batch", "texts", "projected", batches),
            stays,
        ]
