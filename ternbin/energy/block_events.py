"""What happens in each part of a core, as multiples of calibrated energies: shared by the calibration and the model of a run.

An energy that grows with the size of a part is counted a row, a bus bit or a stored bit, so that one calibration on small cores serves
other sizes; what does not grow is counted a cycle, a beat or a step.
"""

from collections.abc import Mapping

from ternbin.contract.counters import DRAINED, UNITS, VECTOR_WORDS
from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import banked


def events(counters: Mapping[str, float], hw: HwConfig) -> dict[str, dict[str, float]]:
    """Part of the core -> event -> how often, from the hardware's counters (of any span of cycles; values may be arrays)."""
    c, rows, bus = counters, hw.rows, hw.axi_data_bits
    cycles = c["cycles"]
    steps, columns = c["execute_array_active"], c["execute_array_columns"]
    memories = banked(hw)
    read = sum(c[f"{name}_reads"] * memory.bits for name, memory in memories.items())
    written = sum(c[f"{name}_writes"] * memory.bits for name, memory in memories.items())
    beats = c["axi_load_beats"] + c["axi_fetch_beats"] + c["axi_write_beats"]
    return {
        "array": {
            "multiply-accumulate": columns * rows * hw.lanes,
            "row code at an element": steps * rows * hw.cols * hw.lanes,
            "row sum of a code": c["execute_rowsum_active"] * rows * hw.lanes,
            "accumulator step": columns * rows,
            "drained accumulator": sum(c[f"execute_drained_{mode}"] for mode in DRAINED) * rows,
        },
        "execute": {
            "cycle": cycles,
            "busy cycle": c["execute_busy"],
            "busy cycle, a row": c["execute_busy"] * rows,
            "array step": steps,
            **{f"{mode} result": c[f"execute_drained_{mode}"] * rows for mode in DRAINED},
        },
        "vector": {
            "cycle": cycles,
            "busy cycle": c["vector_busy"],
            "busy cycle, a row": c["vector_busy"] * rows,
            **{f"{kind} element": c[f"vector_{kind}_words"] * rows for kind in VECTOR_WORDS},
            "reciprocal root": c["vector_ln_rsqrt"],
            "division": c["vector_divides"],
            "plane written, a row": c["vector_plane_writes"] * rows,
        },
        "load": {
            "cycle": cycles,
            "cycle, a bus bit": cycles * bus,
            "busy cycle": c["load_busy"],
            "beat": c["axi_load_beats"],
            "beat, a bus bit": c["axi_load_beats"] * bus,
        },
        "store": {
            "cycle": cycles,
            "cycle, a bus bit": cycles * bus,
            "busy cycle": c["store_busy"],
            "beat, a bus bit": c["axi_write_beats"] * bus,
        },
        "bus": {"cycle": cycles, "cycle, a bus bit": cycles * bus, "beat": beats, "beat, a bus bit": beats * bus},
        "control": {
            "cycle": cycles,
            "fetched beat, a bus bit": c["axi_fetch_beats"] * bus,
            "instruction": sum(c[f"{unit}_instructions"] for unit in UNITS),
        },
        "counters": {"cycle": cycles, "busy cycle of a unit": sum(c[f"{unit}_busy"] for unit in UNITS), "beat": beats},
        "memories": {"cycle": cycles, "bit read": read, "bit written": written},
        "ports": {"cycle": cycles, "bit read": read, "bit written": written, "beat, a bus bit": beats * bus},
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
