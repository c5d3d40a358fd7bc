"""The event counters: their names and widths, said once for the RTL that counts, the model that predicts and the energies.

A counter's name is that of the part and that of its event, ``vector_divides``; of control the event alone, ``load_busy``. Every table
is event -> bits that the counter may grow by in a cycle.
"""

from functools import cache

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Unit
from ternbin.contract.memories import PLANES, Memory, made_of

UNITS = tuple(unit.name.lower() for unit in Unit)
_COLUMNS = 7  # bits of a number of columns or lanes: up to 64

CONTROL_EVENTS = {"cycles": 1} | {
    f"{unit}_{kind}": 1 for unit in UNITS for kind in ("busy", "wait_token", "instructions")
}
AXI_EVENTS = {
    "load_beats": 1,
    "fetch_beats": 1,
    "write_beats": 1,
    "read_bursts": 1,
    "write_bursts": 1,
    "read_stalls": 1,
    "write_stalls": 1,
}
SEQUENCER_EVENTS = {"array_active": 1, "array_columns": _COLUMNS, "rowsum_active": 1, "stall_read": 1, "stall_drain": 1}
DRAIN_EVENTS = {"drained_scores": _COLUMNS}
EPILOGUE_EVENTS = {
    "stall_write": 1,
    "drained_codes": 1,
    "drained_codes8": 1,
    "drained_residual": 1,
    "drained_argmax": 1,
    "saturations": _COLUMNS,
}
EXECUTE_EVENTS = SEQUENCER_EVENTS | DRAIN_EVENTS | EPILOGUE_EVENTS
VECTOR_EVENTS = {
    "ln_sum_words": 1,
    "ln_norm_words": 1,
    "ln_rsqrt": 1,
    "softmax_max_words": 1,
    "softmax_exp_words": 1,
    "softmax_code_words": 1,
    "divides": 1,
    "quant_words": 1,
    "embed_words": 1,
    "plane_writes": 1,
    "stall_read": 1,
    "stall_write": 1,
    "saturations": _COLUMNS,
}
MEMORY_EVENTS = ("reads", "writes")
PARTS = {"control": CONTROL_EVENTS, "axi": AXI_EVENTS, "execute": EXECUTE_EVENTS, "vector": VECTOR_EVENTS}

DRAINED = tuple(name.removeprefix("drained_") for name in EXECUTE_EVENTS if name.startswith("drained_"))
VECTOR_WORDS = tuple(name.removesuffix("_words") for name in VECTOR_EVENTS if name.endswith("_words"))


def counter(part: str, event: str) -> str:
    """Name of the counter of an event."""
    return event if part == "control" else f"{part}_{event}"


def memory_events(memory: Memory) -> dict[str, int]:
    """Events of a memory: banks accessed."""
    return dict.fromkeys(MEMORY_EVENTS, memory.banks.bit_length())


def events(hw: HwConfig) -> dict[str, dict[str, int]]:
    """Part -> its events, in the order of the counter registers."""
    parts = dict(PARTS)
    for name, memory in made_of(hw).items():
        part, *rest = name.split("_", 1)  # "abuf_planes" is a part of ABUF
        own = {"_".join([*rest, event]): bits for event, bits in memory_events(memory).items()}
        parts[part] = parts.get(part, {}) | own
    return parts


def counters(hw: HwConfig) -> dict[str, int]:
    """Counter -> bits, in the order of the counter registers."""
    return {counter(part, event): bits for part, own in events(hw).items() for event, bits in own.items()}


# ---- what can be said of them without simulation ----------------------------------------------------------------------

CODE_WORDS = (
    "wbuf_reads",
    "kbuf_reads",
    "kbuf_writes",
    "abuf_reads",
    "abuf_writes",
)  # a word for each bit plane of codes

# Words that codes without bit planes do not have.
FURTHER_PLANES = tuple(f"{PLANES}_{event}" for event in MEMORY_EVENTS)


def single_plane(name: str) -> str:
    """Name of what a counter would say if codes had no bit planes."""
    return f"{name}_single_plane"


STEPS, COLUMNS = single_plane("steps"), single_plane("columns")  # of the array: array_active and array_columns
SINGLE_PLANE = (STEPS, COLUMNS, *map(single_plane, CODE_WORDS))  # no registers
ARRAY = (*SINGLE_PLANE, "execute_array_active", "execute_array_columns", "execute_rowsum_active")
TIMED = ("cycles", *(f"{unit}_busy" for unit in UNITS), "axi_fetch_beats")  # as exact as the cycle model
MEASURED = (
    "wait_token",
    "_bursts",
    "_stalls",
    "stall_read",
    "stall_write",
    "stall_drain",
    "saturations",
)  # only: their endings


@cache
def countable(hw: HwConfig) -> tuple[str, ...]:
    """The counters that follow from instructions alone."""
    return (*SINGLE_PLANE, *(name for name in counters(hw) if name not in TIMED and not name.endswith(MEASURED)))
