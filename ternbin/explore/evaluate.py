"""One point of a design space, evaluated: mapped without contents, timed by the cycle model, charged by the event model.

:func:`evaluate` is a pure function of its point, whatever engine calls it. What it worked out for earlier points (models, programs,
cycles) is kept, a little of it, so that a point costs less than its like before it: order points by :func:`program_key`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from time import perf_counter
from typing import Any

from ternbin.contract.hw import HwConfig
from ternbin.contract.program import Program
from ternbin.counting.cycles import forget, predict
from ternbin.counting.external import MemoryModel
from ternbin.counting.phases import Phase, predicted_phases
from ternbin.decoding.beam import check_vocabulary
from ternbin.energy import figures as tables
from ternbin.energy.area import array_mm2, core_mm2, memories_mm2
from ternbin.energy.clock import clock
from ternbin.energy.lines import Line, total_pj, value_pj
from ternbin.energy.model import account
from ternbin.errors import CheckError, InputError
from ternbin.explore.models import lowered_model
from ternbin.explore.point import Point, Task
from ternbin.mapping.mapper import map_model

Record = dict[str, Any]  # docs/explore.md, "Records"
MIB = 1 << 20

# Fields of HwConfig that no program depends on, and those that no cycle does.
FREE_OF_PROGRAM: dict[str, Any] = {"name": "any", "clock_mhz": 350.0, "burst_beats": 16}
FREE_OF_CYCLES: dict[str, Any] = {"name": "any", "clock_mhz": 350.0}


def evaluate(point: Point) -> Record:
    """``id`` and ``point``; ``figures``, ``busy`` and ``kv_external``, or the ``reason`` for which it cannot be built, mapped or run;
    ``took``: seconds."""
    begun = perf_counter()
    record: Record = {"id": point.id, "point": point.values()}
    try:
        with tables.using(point.characterisation):
            record |= _evaluated(point)
    except (InputError, CheckError) as error:
        record["reason"] = str(error)
    return record | {"took": round(perf_counter() - begun, 4)}


def program_key(point: Point) -> tuple[object, ...]:
    """Equal for points that run the same program."""
    return point.task, tuple(item for item in point.hardware if item[0] not in FREE_OF_PROGRAM)


def _evaluated(point: Point) -> Record:
    hw, memory = point.config, point.memory
    phases = _phases(point.task, replace(hw, **FREE_OF_CYCLES), memory)
    hw = replace(hw, kv_external=_program(point.task, replace(hw, **FREE_OF_PROGRAM)).hw.kv_external)
    weight_bits = int(point.bits[0])
    lines = [account(phase.counters, phase.traffic, hw, weight_bits=weight_bits, dram=point.dram) for phase in phases]
    return {
        "figures": figures(hw, phases, lines),
        "busy": {phase.name: busy(hw, memory, phase) for phase in phases},
        "kv_external": hw.kv_external,
    }


# ---- what points share ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _phases(task: Task, hw: HwConfig, memory: MemoryModel) -> list[Phase]:
    """What the program does on ``hw``. Raises InputError where there is none."""
    program = _timed(task, hw)
    forget()
    lowered = lowered_model(task.model, task.bits, hw.res_bits)
    return predicted_phases(program, lowered, predict(program, memory).calls)


@lru_cache(maxsize=2)
def _timed(task: Task, hw: HwConfig) -> Program:
    """The program with what its cycles depend on; it keeps its decoded instructions."""
    program = _program(task, replace(hw, **FREE_OF_PROGRAM))
    return replace(program, hw=replace(hw, kv_external=program.hw.kv_external))


def _program(task: Task, hw: HwConfig) -> Program:
    found = _tried(task, hw)
    if isinstance(found, str):
        raise InputError(found)
    return found


@lru_cache(maxsize=2)
def _tried(task: Task, hw: HwConfig) -> Program | str:
    """The program, or why there is none."""
    try:
        return map_task(task, hw)
    except InputError as error:
        return str(error)


def map_task(task: Task, hw: HwConfig, *, contents: bool = False) -> Program:
    """The program on ``hw``, or on ``hw`` with keys and values in external memory. Raises InputError where neither can be."""
    lowered = lowered_model(task.model, task.bits, hw.res_bits)
    if hw.beams > 1:
        check_vocabulary(lowered.meta, hw.beams)
    asked = task.lengths, task.new_tokens, task.beams
    program = map_model(lowered, hw, *asked, anywhere=task.anywhere, contents=contents)
    if len(program.image) > 1 << hw.axi_addr_bits:
        need = (len(program.image) - 1).bit_length()
        raise InputError(f"axi_addr_bits must be at least {need} for the program's memory, not {hw.axi_addr_bits}")
    return program


# ---- figures --------------------------------------------------------------------------------------------------------

# Name -> what it is, with its unit. Of these less is better.
FIGURES = {
    "cycles": "cycles of all calls",
    "ms": "milliseconds of all calls",
    "prefill_ms": "milliseconds of the encoder calls",
    "token_ms": "milliseconds of a decoder call",
    "energy_uj": "energy of all calls, microjoules",
    "prefill_uj": "energy of the encoder calls, microjoules",
    "token_uj": "energy of a generated token, microjoules",
    "external_uj": "of external memory, microjoules",
    "energy_low_uj": "energy at the low end of all figures, microjoules",
    "energy_high_uj": "energy at the high end of all figures, microjoules",
    "energy_delay": "energy times time, nanojoule seconds",
    "mw": "mean power, milliwatts",
    "external_mib": "MiB moved from and to external memory",
    "area_mm2": "area, square millimetres",
    "array_mm2": "of the array, square millimetres",
    "core_mm2": "of the other logic, square millimetres",
    "memories_mm2": "of the memories on chip, square millimetres",
}
MORE = {
    "utilization": "of the array",
    "clock_margin": "the clock that static timing foretells over the one asked for; below 1 that is too fast",
}  # of these more is


def figures(hw: HwConfig, phases: Sequence[Phase], lines: Sequence[Sequence[Line]]) -> dict[str, float]:
    """``FIGURES`` and ``MORE`` of prefill and decode."""
    prefill, decode = phases
    totals = [value_pj(own) for own in lines]
    energy = {end: own / 1e6 for end, own in total_pj(line for own in lines for line in own).items()}
    cycles = sum(phase.cycles for phase in phases)
    ms = 1e-3 / hw.clock_mhz
    area = {
        name: sum(part(hw).values())
        for name, part in (("array", array_mm2), ("core", core_mm2), ("memories", memories_mm2))
    }
    return {
        "cycles": cycles,
        "ms": cycles * ms,
        "prefill_ms": prefill.cycles * ms,
        "token_ms": decode.cycles / decode.calls * ms,
        "energy_uj": energy["pj"],
        "prefill_uj": totals[0] / 1e6,
        "token_uj": totals[1] / decode.tokens / 1e6,
        "external_uj": sum(value_pj(own, "external") for own in lines) / 1e6,
        "energy_low_uj": energy["low"],
        "energy_high_uj": energy["high"],
        "energy_delay": energy["pj"] * cycles * ms,
        "mw": energy["pj"] / (cycles * ms),
        "external_mib": sum(phase.traffic.total for phase in phases) / MIB,
        "area_mm2": sum(area.values()),
        **{f"{name}_mm2": own for name, own in area.items()},
        "utilization": sum(phase.macs for phase in phases) / (cycles * hw.peak_macs),
        "clock_margin": clock(hw).meets_mhz / hw.clock_mhz,
    }


def busy(hw: HwConfig, memory: MemoryModel, phase: Phase) -> dict[str, float]:
    """Share of a phase's cycles in which each part is busy. ``memory``: beats as a share of those that external memory can give; where
    it gives one a cycle, that is the bus's own. ``vector``: it has an instruction."""
    counted, cycles = phase.counters, phase.cycles
    words = sum(counted[f"execute_drained_{kind}"] for kind in ("codes", "codes8", "residual", "argmax"))
    beats = max(counted["axi_load_beats"] + counted["axi_fetch_beats"], counted["axi_write_beats"])
    shares = {
        "bus": beats,
        "array": counted["execute_array_active"] * hw.step_cycles,
        "epilogue": words + counted["execute_drained_scores"] / hw.cols,
        "vector": counted["vector_busy"],
    }
    if memory.beats < 64:
        shares["memory"] = beats * 64 / memory.beats
    return {name: round(share / cycles, 4) for name, share in shares.items()}
