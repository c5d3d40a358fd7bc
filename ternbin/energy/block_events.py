"""What happens in each part of a core, as multiples of the hardware's counters: shared by the calibration and the model of a run.

An energy that grows with the size of a part is counted a row, a bus bit or a stored bit, so that one calibration on small cores serves
other sizes; what does not grow is counted a cycle, a beat or a step.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ternbin.contract.counters import DRAINED, UNITS, VECTOR_WORDS
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES
from ternbin.contract.memories import made_of

Terms = Mapping[str, float]  # counter -> how often an event happens for each of its counts
Times = Callable[[HwConfig], float]


def _one(_: HwConfig) -> float:
    return 1


def _row(hw: HwConfig) -> float:
    return hw.rows


def _bus_bit(hw: HwConfig) -> float:
    return hw.axi_data_bits


def _instruction_beats(hw: HwConfig) -> float:
    """What the fetch buffer keeps of an instruction is clocked beat by beat."""
    return INSTRUCTION_BYTES / hw.axi_bytes


def _lane(hw: HwConfig) -> float:
    return hw.rows * hw.lanes


def _element(hw: HwConfig) -> float:
    return hw.rows * hw.cols * hw.lanes


def _each(*counters: str, times: Times = _one) -> Callable[[HwConfig], Terms]:
    """``times`` for each count of each of ``counters``."""
    return lambda hw: dict.fromkeys(counters, times(hw))


def _bits(kind: str) -> Callable[[HwConfig], Terms]:
    """Bits of the words that the memories give or take; ``kind``: reads, writes."""
    return lambda hw: {f"{name}_{kind}": memory.bits for name, memory in made_of(hw).items()}


CYCLES = "cycles"
BEATS = ("axi_load_beats", "axi_fetch_beats", "axi_write_beats")
BUSY = tuple(f"{unit}_busy" for unit in UNITS)
_DRAINED = tuple(f"execute_drained_{mode}" for mode in DRAINED)

# Part of the core -> event -> the counters it happens with. Those of the array are fitted and compared with the rest, but the model of
# a run has its blocks instead (ternbin/energy/model.py).
EVENTS: dict[str, dict[str, Callable[[HwConfig], Terms]]] = {
    "array": {
        "multiply-accumulate": _each("execute_array_columns", times=_lane),
        "row code at an element": _each("execute_array_active", times=_element),
        "row sum of a code": _each("execute_rowsum_active", times=_lane),
        "accumulator step": _each("execute_array_columns", times=_row),
        "drained accumulator": _each(*_DRAINED, times=_row),
    },
    "execute": {
        "cycle": _each(CYCLES),
        "busy cycle": _each("execute_busy"),
        "busy cycle, a row": _each("execute_busy", times=_row),
        "array step": _each("execute_array_active"),
        **{f"{mode} result": _each(f"execute_drained_{mode}", times=_row) for mode in DRAINED},
    },
    "vector": {
        "cycle": _each(CYCLES),
        "busy cycle": _each("vector_busy"),
        "busy cycle, a row": _each("vector_busy", times=_row),
        **{f"{kind} element": _each(f"vector_{kind}_words", times=_row) for kind in VECTOR_WORDS},
        "reciprocal root": _each("vector_ln_rsqrt"),
        "division": _each("vector_divides"),
        "plane written, a row": _each("vector_plane_writes", times=_row),
    },
    "load": {
        "cycle": _each(CYCLES),
        "cycle, a bus bit": _each(CYCLES, times=_bus_bit),
        "busy cycle": _each("load_busy"),
        "beat": _each("axi_load_beats"),
        "beat, a bus bit": _each("axi_load_beats", times=_bus_bit),
    },
    "store": {
        "cycle": _each(CYCLES),
        "cycle, a bus bit": _each(CYCLES, times=_bus_bit),
        "busy cycle": _each("store_busy"),
        "beat, a bus bit": _each("axi_write_beats", times=_bus_bit),
    },
    "bus": {
        "cycle": _each(CYCLES),
        "cycle, a bus bit": _each(CYCLES, times=_bus_bit),
        "beat": _each(*BEATS),
        "beat, a bus bit": _each(*BEATS, times=_bus_bit),
    },
    "control": {
        "cycle": _each(CYCLES),
        "cycle, a beat of an instruction": _each(CYCLES, times=_instruction_beats),
        "fetched beat": _each("axi_fetch_beats"),
        "instruction": _each(*(f"{unit}_instructions" for unit in UNITS)),
    },
    "counters": {
        "cycle": _each(CYCLES),
        **{f"busy cycle of {unit}": _each(f"{unit}_busy") for unit in UNITS},
        "beat": _each(*BEATS),
    },
    "memories": {"cycle": _each(CYCLES), "bit read": _bits("reads"), "bit written": _bits("writes")},
    "ports": {
        "cycle": _each(CYCLES),
        "bit read": _bits("reads"),
        "bit written": _bits("writes"),
        "loaded beat": _each("axi_load_beats"),
        "loaded beat, a bus bit": _each("axi_load_beats", times=_bus_bit),
        "fetched beat": _each("axi_fetch_beats"),
    },
}


def events(counters: Mapping[str, Any], hw: HwConfig) -> dict[str, dict[str, Any]]:
    """Part of the core -> event -> how often, from the hardware's counters (of any span of cycles; values may be arrays)."""
    return {
        part: {name: sum(counters[c] * factor for c, factor in terms(hw).items()) for name, terms in named.items()}
        for part, named in EVENTS.items()
    }


def size(part: str, hw: HwConfig) -> float:
    """What a part's area and leakage grow with, linearly."""
    return {
        "array": hw.rows * hw.cols * hw.lanes,
        "load": hw.axi_data_bits,
        "store": hw.axi_data_bits,
        "bus": hw.axi_data_bits,
        "control": 0,
        "counters": 0,
    }.get(part, hw.rows)
