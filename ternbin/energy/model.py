"""Energy of a run: the hardware's own event counts times energy per event, as one table of rates.

The same table serves the accelerator as simulated and the reference precisions on the same dataflow: same
array shape, schedule, events and memory system, with wider operands (code words, code memories and weight traffic scale with
the bits) and the other multiply-accumulate. Epilogue, vector unit, scores and residual stream are kept as they are, which favours
the references.

The array is its characterised blocks - elements, operand registers, clock - for every precision; the events that were fitted to the
array of whole cores are a cross-check (tests/ternbin/test_energy.py), all other parts are such events.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from ternbin.contract.counters import CODE_WORDS, COLUMNS, DRAINED, FURTHER_PLANES, STEPS, single_plane
from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import made_of
from ternbin.contract.pipeline import ENGINES
from ternbin.counting.traffic import Traffic
from ternbin.energy import figures as tables
from ternbin.energy.area import array_mm2, memories_mm2
from ternbin.energy.block_events import CYCLES, EVENTS, Terms, size
from ternbin.energy.figures import Figure
from ternbin.energy.flops import array_flops
from ternbin.energy.lines import Basis, Group, Line, Precision, Rate

MULTIPLY = "multiply-accumulate"


@dataclass(frozen=True)
class Setting:
    """What rates depend on. ``weight_bits``: of a weight code. ``scaled``: field of Traffic -> bits there over bits in the program's
    memory, where they are not one. ``characterised``: the file of gate-level figures."""

    hw: HwConfig
    precision: Precision
    dram: str
    weight_bits: int
    scaled: tuple[tuple[str, float], ...] = ()
    characterised: Path = field(default_factory=tables.chosen)

    @property
    def columns(self) -> str:
        """Counter of the columns that are active in the array's steps. A wide element needs no bit planes: one step for each pair of
        codes."""
        return COLUMNS if self.precision.whole else "execute_array_columns"

    @property
    def steps(self) -> str:
        """Counter of the array's steps, likewise."""
        return STEPS if self.precision.whole else "execute_array_active"

    def words(self, counter: str) -> str:
        """Counter of the words of a memory that are read or written, likewise."""
        return single_plane(counter) if self.precision.whole and counter in CODE_WORDS else counter


@dataclass(frozen=True)
class Row:
    """A row of the table: an event, the counters or external bytes it happens with, and its figure. Where there are no terms or there is no
    figure there is no such event."""

    unit: str
    event: str
    group: Group
    terms: Callable[[Setting], Terms]
    figure: Callable[[Setting], Figure | None]

    def rates(self, setting: Setting) -> list[Rate]:
        terms = self.terms(setting)
        figure = self.figure(setting) if terms else None
        if figure is None or not figure.high:  # the fit gave the event no energy
            return []
        return [
            Rate(self.unit, self.event, self.group, _basis(counter), counter, factor, figure)
            for counter, factor in terms.items()
        ]


def _basis(counter: str) -> Basis:
    return "traffic" if counter in Traffic.__dataclass_fields__ else "counters"


# ---- the array ------------------------------------------------------------------------------------------------------


def _operand_bits(s: Setting) -> dict[str, float]:
    """Bits of operand registers that take a value: of all rows in a step, of each active column."""
    hw, precision = s.hw, s.precision
    return {s.steps: hw.rows * hw.lanes * precision.weight_bits, s.columns: hw.lanes * precision.column_bits}


def _row_sums(s: Setting) -> Terms:
    return {} if s.precision.whole else {"execute_rowsum_active": s.hw.rows * s.hw.lanes}


def _clocked(s: Setting) -> Terms:
    """Flip-flops that take a value, for the others' clock is gated: operand registers, accumulators in every step, and where a sum is
    handed out."""
    hw, terms = s.hw, _operand_bits(s)
    if s.precision.whole:
        block = tables.block(s.precision.mac, hw.lanes)
        terms[s.columns] += hw.rows * hw.lanes / block["lanes"] * block["flip_flops"]["element"]
        return terms
    sums = hw.rows * hw.acc_bits
    terms[s.columns] += sums
    return terms | dict.fromkeys((*(f"execute_drained_{mode}" for mode in DRAINED), "execute_rowsum_active"), sums)


def _cycle(_: Setting) -> Terms:
    return {CYCLES: 1}


ARRAY = (
    Row(
        "array",
        MULTIPLY,
        "arithmetic",
        lambda s: {s.columns: s.hw.rows * s.hw.lanes},
        lambda s: tables.mac(s.precision.mac, s.hw.lanes),
    ),
    Row(
        "array",
        "operand register bit",
        "arithmetic",
        _operand_bits,
        lambda s: tables.operand_bit(s.precision.mac, s.hw.lanes),
    ),
    Row("array", "row sum of one code", "arithmetic", _row_sums, lambda s: tables.mac("binary", s.hw.lanes)),
    Row("array", "flip-flop clocked", "on-chip", _clocked, lambda _: tables.clock_flop()),
    Row("array", "clock tree, a flip-flop", "on-chip", _clocked, lambda _: tables.clock_tree(tables.clock_flop())),
    Row(
        "array",
        "leakage of a cycle",
        "on-chip",
        _cycle,
        lambda s: tables.array_leakage(s.precision.mac, s.hw, sum(array_flops(s.hw, s.precision).values())),
    ),
)

# ---- everything else in the core ------------------------------------------------------------------------------------


def _part(part: str) -> list[Row]:
    """The events that were fitted to a part of whole cores, the tree of its clock, and its leakage."""

    def event(name: str, terms: Callable[[HwConfig], Terms]) -> Row:
        return Row(part, name, "on-chip", lambda s: terms(s.hw), lambda _: tables.core_event(part, name))

    def tree(name: str, terms: Callable[[HwConfig], Terms]) -> Row:
        def figure(_: Setting) -> Figure:
            return tables.clock_tree(tables.core_clock(part, name))

        return Row(part, f"{name}, clock tree", "on-chip", lambda s: terms(s.hw), figure)

    def leakage(s: Setting) -> Figure:
        return tables.core_leakage(part, size(part, s.hw), s.hw.clock_mhz)

    return [
        *(event(name, terms) for name, terms in EVENTS[part].items()),
        *(tree(name, terms) for name, terms in EVENTS[part].items()),
        Row(part, "leakage of a cycle", "on-chip", _cycle, leakage),
    ]


CORE = tuple(row for part in EVENTS if part != "array" for row in _part(part))


def _logits(s: Setting) -> Terms:
    """Logits of beams, where lists of the best tokens are kept."""
    return {"execute_drained_argmax": s.hw.rows} if s.hw.beams > 1 else {}


# What a logit costs there beyond the arg-max, and what lists it, while it leaks.
BEAMS = (
    Row("execute", "logit of a beam listed", "on-chip", _logits, lambda s: tables.best_tokens(s.hw.top)),
    Row(
        "execute",
        "leakage of lists of the best tokens",
        "on-chip",
        lambda s: _cycle(s) if s.hw.beams > 1 else {},
        lambda s: tables.best_tokens_leakage(s.hw.top, min(ENGINES, s.hw.beams), s.hw.clock_mhz),
    ),
)


def _decoded(s: Setting) -> Terms:
    """Bytes of weights that are packed trits; those of an LM head of 8 bits count as such too."""
    packed = s.hw.weight_pack == "5trit" and s.weight_bits == 2 and not s.precision.whole
    return {"weights": 1} if packed else {}


DECODER = Row("load", "byte of packed trits decoded", "on-chip", _decoded, lambda _: tables.trit_decoder())

# ---- memories -------------------------------------------------------------------------------------------------------


def _wider(name: str, s: Setting) -> float:
    """Bits of a word of a memory over those of the hardware's own."""
    precision, hw = s.precision, s.hw
    wider = {
        "wbuf": precision.weight_bits / hw.weight_planes,
        "kbuf": precision.act_bits / hw.planes,
        "abuf": precision.act_bits / hw.planes,
    }
    return wider.get(name, 1.0)


def reach_mm(name: str, hw: HwConfig) -> float:
    """How far a bit goes between a memory and the unit that uses it: half the side of a square of the memory's area and the array's, for
    banks stand around what reads them. Modelled: nothing is placed."""
    return 0.5 * math.sqrt(memories_mm2(hw)[name] + sum(array_mm2(hw).values()))


def _memory(name: str) -> list[Row]:
    """Reads and writes of the banks of a memory, what their second port adds, the wires to them, and the leakage of all of them."""

    def bits(s: Setting) -> float:
        return made_of(s.hw)[name].bits * _wider(name, s)

    def words(kind: str, s: Setting) -> Terms:
        if (name, kind) == (
            "wbuf",
            "write",
        ) and s.precision.whole:  # a weight that comes is written once, of whatever planes
            return {"weights": 8 * dict(s.scaled).get("weights", 1.0) / bits(s)}
        counter = f"{name}_{kind}s"
        return {} if s.precision.whole and counter in FURTHER_PLANES else {s.words(counter): 1}

    def access(kind: str, event: str, port: str) -> Row:
        def figure(s: Setting) -> Figure:
            memory, factor = made_of(s.hw)[name], _wider(name, s)
            figure: Figure = getattr(tables.sram(memory.words, memory.bits), port)
            return figure if factor == 1 else figure.times(factor, f"x {factor:g} for wider codes")

        return Row(name, event, "on-chip", lambda s: words(kind, s), figure)

    def moved(s: Setting) -> Terms:
        accesses = {**words("read", s), **words("write", s)}
        return {counter: times * bits(s) for counter, times in accesses.items()}

    def leakage(s: Setting) -> Figure:
        memory = made_of(s.hw)[name]
        return tables.memory_leakage(memory.words, memory.bits, memory.banks, s.hw.clock_mhz)

    return [
        access("read", "read", "read"),
        access("write", "write", "write"),
        access("read", "read, second port", "second_read"),
        access("write", "write, second port", "second_write"),
        Row(name, "bit moved to or from it", "on-chip", moved, lambda s: tables.wire(reach_mm(name, s.hw))),
        Row("memories", f"leakage of {name}, a cycle", "on-chip", _cycle, leakage),
    ]


def _external(name: str) -> Row:
    """Bits on the bus that carry one thing."""
    return Row(
        "external",
        f"{name} bit",
        "external",
        lambda s: {name: 8 * dict(s.scaled).get(name, 1.0)},
        lambda s: tables.DRAM[s.dram],
    )


def _fetched(s: Setting) -> Terms:
    """Bits of beats that bring the program: what is fetched past its end comes too."""
    return {"axi_fetch_beats": s.hw.axi_data_bits}


def _standby(s: Setting) -> Figure | None:
    return tables.dram_standby(s.dram, s.hw.axi_data_bits, s.hw.clock_mhz)


EXTERNAL = (
    *(_external(name) for name in Traffic.__dataclass_fields__ if name != "program"),
    Row("external", "program bit", "external", _fetched, lambda s: tables.DRAM[s.dram]),
    Row("external", "standby and refresh of a cycle", "external", _cycle, _standby),
)

# ---- accounts -------------------------------------------------------------------------------------------------------


def _rows(hw: HwConfig) -> Iterator[Row]:
    yield from ARRAY
    yield from CORE
    yield from BEAMS
    yield DECODER
    for name in made_of(hw):
        yield from _memory(name)
    yield from EXTERNAL


@lru_cache(maxsize=64)
def rates(setting: Setting) -> tuple[Rate, ...]:
    """The whole table for a setting."""
    return tuple(rate for row in _rows(setting.hw) for rate in row.rates(setting))


def setting(
    hw: HwConfig,
    weight_bits: int,
    precision: Precision | None = None,
    dram: str = "lpddr4",
    stored_bits: float | None = None,
) -> Setting:
    """As :func:`account` has it."""
    if precision is None:
        return Setting(hw, Precision.of(hw), dram, weight_bits)
    stored = hw.memory_bits(weight_bits) if stored_bits is None else stored_bits
    weights, embedding = precision.weight_bits / stored, precision.weight_bits / weight_bits
    return Setting(hw, precision, dram, weight_bits, (("weights", weights), ("embedding", embedding)))


def charges(counters: Mapping[str, float], traffic: Traffic, setting: Setting) -> Iterator[tuple[Rate, float]]:
    """Every kind of event of a setting, and what its counter counted: arguments as of :func:`account`."""
    counted: dict[Basis, Mapping[str, float]] = {"counters": counters, "traffic": asdict(traffic)}
    for rate in rates(setting):
        yield rate, counted[rate.basis][rate.counter]


def account(
    counters: Mapping[str, float],
    traffic: Traffic,
    hw: HwConfig,
    *,
    weight_bits: int,
    precision: Precision | None = None,
    dram: str = "lpddr4",
    stored_bits: float | None = None,
) -> list[Line]:
    """Energy lines of one call (or of several, counters and traffic added up).

    ``counters``: the hardware counters by name, plus those of ``SINGLE_PLANE`` (what the array's steps and columns and the words of code
    memories would be without bit planes; equal to them for 1- and 2-bit codes). ``weight_bits``: bits of a weight code (in external memory
    ``hw.memory_bits``; embedding rows have ``weight_bits`` there). ``precision``: of the array, if not the hardware's. ``stored_bits``:
    what the weights that were loaded take in external memory, if not all of them ``hw.memory_bits``.
    """
    charged = charges(counters, traffic, setting(hw, weight_bits, precision, dram, stored_bits))
    return [rate.line(counted) for rate, counted in charged]
