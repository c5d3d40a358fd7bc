"""The audit of "16x more efficient": every precision on the same accelerator, each with its best mapping.

Programs are mapped and then counted and timed from their instructions (ternbin/events.py, ternbin/cycles.py), nothing is simulated: models
of any size take seconds. The reference precisions (ternbin.hw.ReferenceConfig) have the same geometry, schedule, bus and memory capacities
in bits, wider codes and elements. docs/energy.md, "The audit", says what is compared and docs/result-schema.md lists the fields.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, cached_property

from transformers import BartConfig

from ternbin.accounting import HEAD, call_work
from ternbin.cycles import predict
from ternbin.energy import tables
from ternbin.energy.area import area_mm2, array_mm2
from ternbin.energy.core import memory_banks
from ternbin.energy.model import Line, Precision, Traffic, account, total_pj
from ternbin.energy.published import PUBLISHED
from ternbin.energy.sources import sources
from ternbin.errors import InputError
from ternbin.events import add, call_events
from ternbin.hw import NAMED, REFERENCE_BITS, HwConfig, ReferenceConfig
from ternbin.ir import Lowered, Node
from ternbin.isa import INSTRUCTION_BYTES, Op
from ternbin.mapper import map_model
from ternbin.models import prepare
from ternbin.models.paper import Parameters, count, on_meta, operation_factor, size_mib
from ternbin.models.paper import bart_base as paper_bart_base
from ternbin.models.shape import BART_BASE, shape_model
from ternbin.ops import typed
from ternbin.program import Program
from ternbin.sim.runner import MemoryModel
from ternbin.traffic import traffic
from ternbin.workload import PHASES, Work

MIB = 1 << 20
CODE_MEMORIES = ("abuf", "wbuf", "kbuf")


@dataclass(frozen=True)
class Case:
    """A precision: bits of weights and activations, and the model that is lowered for it."""

    name: str
    weight_bits: int
    act_bits: int
    model: str
    reference: str = ""


CASES = (
    Case("FP32", 32, 32, "2-2", "fp32"), Case("BF16", 16, 16, "2-2", "bf16"), Case("INT8", 8, 8, "2-2", "int8"),
    Case("W2A8", 2, 8, "2-8"), Case("W1A8", 1, 8, "1-8"), Case("W2A2", 2, 2, "2-2"), Case("W1A1", 1, 1, "1-1"),
)


@dataclass(frozen=True)
class Subject:
    """What is audited: a model by its bits, on ``hw``, ``source_len`` tokens in and ``new_tokens`` out. ``lengths`` and ``capacities``
    (times those of ``hw``) are the values of the break-even curves, ``parameters`` the paper's count."""

    name: str
    model: Callable[[str], Lowered]
    hw: HwConfig
    source_len: int
    new_tokens: int
    lengths: tuple[int, ...]
    capacities: tuple[float, ...]
    parameters: Parameters
    memory: MemoryModel = MemoryModel()


# ---- one program ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """What a program does in a phase: all calls of it added up. ``tokens``: read in prefill, generated in decoding."""

    name: str
    tokens: int
    cycles: int
    counters: dict[str, int]
    traffic: Traffic
    work: dict[str, Work]

    @property
    def macs(self) -> int:
        return sum(work.macs for work in self.work.values())


@dataclass(frozen=True)
class Mapped:
    """A case on a configuration: its program and what that does."""

    case: Case
    hw: HwConfig
    program: Program
    lowered: Lowered
    memory: MemoryModel

    @cached_property
    def phases(self) -> list[Counted]:
        program, timing = self.program, predict(self.program, self.memory).calls
        result = []
        for name, numbers in zip(PHASES, (range(1), range(1, len(program.calls))), strict=True):
            moves = [self._traffic(number) for number in numbers]
            done: dict[str, Work] = {}
            for number in numbers:
                for op, item in call_work(self.lowered, program, number).items():
                    before = done.get(op, Work())
                    done[op] = Work(before.macs + item.macs, before.weights + item.weights)
            result.append(Counted(
                name, len(numbers) if numbers.start else program.source_len, sum(timing[number].cycles for number in numbers),
                add(call_events(program, number, timing[number]) for number in numbers),
                Traffic(**{f.name: sum(getattr(move, f.name) for move in moves) for f in fields(Traffic)}), done,
            ))
        return result

    def _traffic(self, number: int) -> Traffic:
        moves = [i for i in self.program.instructions(number) if i.op in (Op.LOAD, Op.STORE)]
        return traffic(self.hw, moves, self.program.calls[number].count)

    def lines(self, phase: Counted, dram: str) -> list[Line]:
        return account(phase.counters, phase.traffic, self.hw, weight_bits=min(self.case.weight_bits, 2), dram=dram)

    def system_pj(self, dram: str) -> float:
        return sum(total_pj(self.lines(phase, dram))["pj"] for phase in self.phases)


def whole_codes(lowered: Lowered) -> Lowered:
    """The model as reference arrays run it: no bit planes, and one operand tensor for all that read a hidden state."""
    table = dict(lowered.weights)

    def visit(node: Node, src: tuple[Node, ...]) -> Node:
        attrs = dict(node.attrs)
        if node.op == "quant":
            attrs |= {"name": f"{src[0].name}.operand", "kind": "ternary", "thresholds": (0, 1), "mul": 0, "shift": 0}
        return typed(table, node.op, src, attrs)

    return replace(lowered, encoder=lowered.encoder.rebuild(visit), decoder=lowered.decoder.rebuild(visit), weights=table)


def with_code_bits(hw: HwConfig, factor: float) -> dict[str, int]:
    """Words of the code memories of the same capacity in bits when a code takes ``factor`` times as many."""
    return {f"{name}_words": int(getattr(hw, f"{name}_words") / factor) for name in CODE_MEMORIES}


def reference_config(hw: HwConfig, kind: str) -> ReferenceConfig:
    values = hw.asdict() | {"kind": kind, "weight_pack": "2bit"} | with_code_bits(hw, REFERENCE_BITS[kind] / hw.planes)
    return ReferenceConfig(**values)


def candidates(case: Case, hw: HwConfig) -> list[HwConfig]:
    """Configurations on which ``case`` might do best, all with the room and the peak of the ternary ``hw``."""
    if case.reference:
        return [reference_config(hw, case.reference)]
    if case.weight_bits == 2:
        return [replace(hw, weight_pack=pack) for pack in ("2bit", "5trit")]
    return [replace(hw, weight_pack="2bit"), replace(hw, kind="binary", weight_pack="2bit", **with_code_bits(hw, 1 / hw.planes))]


def place(subject: Subject, case: Case, hw: HwConfig) -> Mapped:
    """``case`` on ``hw``, keys and values of decoding in external memory if they do not fit. Raises InputError where it cannot run."""
    lowered = subject.model(case.model)
    lowered = whole_codes(lowered) if case.reference else lowered
    try:
        program = map_model(lowered, hw, subject.source_len, subject.new_tokens, contents=False)
    except InputError:
        hw = replace(hw, kv_external=True)
        program = map_model(lowered, hw, subject.source_len, subject.new_tokens, contents=False)
    return Mapped(case, hw, program, lowered, subject.memory)


def best(subject: Subject, case: Case, dram: str) -> Mapped:
    """The candidate that needs the least energy in all. Raises InputError where none can run."""
    found, reasons = [], []
    for hw in candidates(case, subject.hw):
        try:
            found.append(place(subject, case, hw))
        except InputError as error:
            reasons.append(str(error))
    if not found:
        raise InputError(f"{subject.name} {case.name}: {reasons[0]}")
    return min(found, key=lambda mapped: mapped.system_pj(dram))


# ---- figures of a program -------------------------------------------------------------------------------------------


def levels(mapped: Mapped, phase: Counted) -> dict[str, float]:
    """Bits moved by where: external memory by what they carry, each memory read and written, operand registers."""
    hw, counters = mapped.hw, phase.counters
    bits = {f"external {f.name}": 8 * getattr(phase.traffic, f.name) for f in fields(Traffic)}
    for name, (_, _, width) in memory_banks(hw).items():
        bits |= {f"{name} {kind}": counters.get(f"{name}_{kind}", 0) * width for kind in ("reads", "writes")}
    precision = Precision.of(hw)
    steps, columns = counters["execute_array_active"], counters["execute_array_columns"]
    bits["operand registers"] = hw.lanes * (steps * hw.rows * precision.weight_bits + columns * precision.act_bits)
    return bits


def energies(lines: list[Line]) -> dict[str, dict[str, float]]:
    """pj, low and high of each group and of the system."""
    return {group: total_pj(lines, group) for group in ("arithmetic", "on-chip", "external")} | {"system": total_pj(lines)}


def phase_record(mapped: Mapped, phase: Counted, dram: str) -> dict:
    lines, bits = mapped.lines(phase, dram), levels(mapped, phase)
    energy = energies(lines)
    return {
        "name": phase.name, "tokens": phase.tokens, "macs": phase.macs, "cycles": phase.cycles,
        "seconds": phase.cycles / mapped.hw.clock_mhz / 1e6,
        "utilization": phase.macs * mapped.hw.step_cycles / (phase.cycles * mapped.hw.peak_macs),
        "bits_moved": bits, "external_bits": sum(count for name, count in bits.items() if name.startswith("external")),
        "on_chip_bits": sum(count for name, count in bits.items() if not name.startswith("external")),
        "energy": energy, "per_token_pj": {key: energy["system"][key] / phase.tokens for key in ("pj", "low", "high")},
        "counters": phase.counters, "lines": [line.asdict() for line in lines],
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
        "name": case.name, "weight_bits": case.weight_bits, "act_bits": case.act_bits,
        "sizes": sizes_mib(subject.parameters, case.weight_bits),
        "operation_factor": operation_factor(case.weight_bits, case.act_bits) if case.name != "BF16" else None,  # the paper has none
        "hardware": {"kind": hw.kind, "weight_pack": hw.weight_pack, "kv_external": hw.kv_external, "peak_macs": hw.peak_macs,
                     "step_cycles": hw.step_cycles},
        "image": program_mib(mapped), "area_mm2": area, "area_mm2_total": sum(area.values()),
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
            name: {p["name"]: ratios(theirs, p) for theirs, p in zip(records[reference]["phases"], own["phases"], strict=True)}
            for name, own in records.items()
        }
        for reference in ("FP32", "BF16", "INT8")
    }


def same_area(mapped: Mapped, array: float) -> Mapped:
    """The same program on an array of as many lanes as fit ``array`` mm2, operand registers in proportion."""
    whole = replace(mapped.hw, step_cycles=1.0)
    hw = replace(whole, step_cycles=max(1.0, sum(array_mm2(whole).values()) / array))
    return replace(mapped, hw=hw, program=replace(mapped.program, hw=hw))


# ---- what stays in full precision -----------------------------------------------------------------------------------

# FP32 multiply-accumulates an element, or what takes as much: sum, square and sum, subtract and scale, gamma and beta; maximum,
# subtract, exponential by six of them, sum, scale.
LAYERNORM_OPS, SOFTMAX_OPS, EMBED_OPS = 4, 10, 1


def kept_in_fp32(mapped: Mapped, phase: Counted, dram: str) -> list[dict]:
    """Amdahl: what the paper's code keeps in full precision, added one after the other to the quantized products. For each step
    ``operation_ratio``, the paper's count including these operations, all in FP32 over all as they are; ``system_pj``."""
    hw, counters, case = mapped.hw, phase.counters, mapped.case
    head = phase.work.get(HEAD, Work())
    elements = {name: counters[f"vector_{name}"] * hw.rows for name in ("ln_norm_words", "softmax_exp_words", "embed_words")}
    head_bits = head.weights * (32 - hw.memory_bits(case.weight_bits))
    embed_bits = 8 * phase.traffic.embedding * (32 / case.weight_bits - 1)
    lines = mapped.lines(phase, dram)

    def saved(*prefixes: str) -> float:
        return sum(line.pj for line in lines if line.unit == "vector" and line.event.startswith(prefixes))

    parts = [
        ("LM head", head.macs, head_bits, 0.0), ("embeddings", EMBED_OPS * elements["embed_words"], embed_bits, saved("embed")),
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
        result.append({
            "kept": name, "operations": operations, "share": operations / everything,
            "operation_ratio": (products + full) / (factor * (products + waiting) + full), "system_pj": system,
        })
    return result


# ---- break-even -----------------------------------------------------------------------------------------------------


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
    share |= {("array", "operand register bit"): 1 / columns, ("execute", "array step"): 1 / columns, ("control", "instruction"): 1 / batch}
    result = 0.0
    for line in mapped.lines(phase, dram):
        factor = time if "cycle" in line.event else bus if "beat" in line.event else share.get((line.unit, line.event), 1.0)
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
        points.append({"value": value, "per_token_pj": fits, "impossible": {name: found[name] for name in found if name not in fits}})
    curves = []
    for reference in ("FP32", "INT8"):
        for phase in PHASES:
            curve = [(p["value"], p["per_token_pj"][reference][phase] / p["per_token_pj"]["W2A2"][phase]) for p in points
                     if all(phase in p["per_token_pj"].get(name, {}) for name in (reference, "W2A2"))]
            if curve:
                even = crossing(curve, level)
                curves.append({"reference": reference, "phase": phase, "points": curve, "level": level, "break_even": even})
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
        return {name: {p.name: total_pj(chosen[name].lines(p, kind))["pj"] / p.tokens for p in chosen[name].phases} for name in SWEPT}

    def decoding(energy: Callable) -> Callable[[float], dict[str, dict[str, float]]]:
        return lambda value: {name: {PHASES[1]: energy(chosen[name], decode[name], dram, value)} for name in SWEPT}

    yield Sweep("source length", "tokens", "derived", subject.lengths, lambda length: mapped_anew(lambda hw: hw, int(length)))
    yield Sweep("capacity of the code memories", "times", "derived", subject.capacities, scaled)
    yield Sweep(f"external memory: {', '.join(kinds.values())}", "pJ a bit", "derived", tuple(kinds), by_dram)
    yield Sweep("batch", "texts", "projected", (1, 2, 4, 8, 16, 32, 64, 128), decoding(lambda m, p, d, value: batched(m, p, d, int(value))))
    yield Sweep("weights kept on chip", "MiB", "projected", tuple(2.0**n for n in range(-2, 11)), decoding(resident))


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
        "name": subject.name, "source_len": subject.source_len, "new_tokens": subject.new_tokens, "dram": dram,
        "hardware": subject.hw.asdict(), "memory": asdict(subject.memory),
        "precisions": list(records.values()), "equal_area": list(area_records.values()),
        "ratios": all_ratios(records), "ratios_equal_area": all_ratios(area_records),
        "kept_in_fp32": [
            {"phase": phase.name, "reference_pj": fp32["energy"]["system"]["pj"], "steps": kept_in_fp32(ternary, phase, dram)}
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
        "bundled model", cache(lambda bits: prepare.lowered_model(folder, bits)), NAMED["small"], len(ids), 10, (16, len(ids), 64, 96),
        (0.5, 1, 2, 4), count(on_meta(config)),
    )


def bart_base() -> Subject:
    """A model of BART-base's shapes: no numbers are needed. FP32 weights of a row tile must fit half of WBUF."""
    hw = replace(NAMED["base"], name="base, twice the WBUF", wbuf_words=2 * NAMED["base"].wbuf_words)
    return Subject(
        "BART-base", cache(lambda bits: shape_model(bits, **BART_BASE)), hw, 128, 4, (32, 128, 512), (0.5, 1, 2),
        count(paper_bart_base()),
    )


SUBJECTS = {"bundled": bundled, "bart-base": bart_base}


def audit(names: Sequence[str], dram: str, step: Callable[[str], None] = lambda _: None) -> dict:
    """The audits of the named subjects, published accelerators, and the sources of all figures."""
    subjects = [audit_subject(SUBJECTS[name](), dram, step) for name in names]
    lines = [line for s in subjects for p in s["precisions"] + s["equal_area"] for phase in p["phases"] for line in phase["lines"]]
    return {"subjects": subjects, "published": PUBLISHED, "sources": sources({line["source"] for line in lines})}
