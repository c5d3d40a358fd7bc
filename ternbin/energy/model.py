"""Energy of a run: the hardware's own event counts times energy per event, as one table of rates.

The same table serves the accelerator as simulated and the reference precisions (int8, bf16, fp32) on the same dataflow: same
array shape, schedule, events and memory system, with wider operands (code words, code memories and weight traffic scale with
the bits) and the other multiply-accumulate. Epilogue, vector unit, scores and residual stream are kept as they are, which favours
the references.

The array is its characterised blocks - elements, operand registers, clock - for every precision; the events that were fitted to the
array of whole cores are a cross-check (tests/ternbin/test_energy.py), all other parts are such events.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from ternbin.contract.counters import DRAINED
from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import banked
from ternbin.counting.traffic import Traffic
from ternbin.energy import figures as tables
from ternbin.energy.block_events import CYCLES, EVENTS, Terms, size
from ternbin.energy.figures import Figure
from ternbin.energy.lines import Basis, Group, Line, Precision, Rate

MULTIPLY = "multiply-accumulate"


@dataclass(frozen=True)
class Setting:
    """What rates depend on. ``scaled``: field of Traffic -> bits there over bits in the program's memory, where they are not one.
    ``characterised``: the file of gate-level figures."""

    hw: HwConfig
    precision: Precision
    dram: str
    scaled: tuple[tuple[str, float], ...] = ()
    characterised: Path = field(default_factory=tables.chosen)

    @property
    def columns(self) -> str:
        """Counter of the columns that are active in the array's steps. A wide element needs no bit planes: one step for each pair of
        codes."""
        return "columns_single_plane" if self.precision.whole else "execute_array_columns"

    @property
    def steps(self) -> str:
        """Counter of the array's steps, likewise."""
        return "steps_single_plane" if self.precision.whole else "execute_array_active"


@dataclass(frozen=True)
class Row:
    """A row of the table: an event, the counters it happens with, and its figure. Where ``terms`` is empty there is no such event."""

    unit: str
    event: str
    group: Group
    terms: Callable[[Setting], Terms]
    figure: Callable[[Setting], Figure]
    basis: Basis = "counters"

    def rates(self, setting: Setting) -> list[Rate]:
        terms = self.terms(setting)
        figure = self.figure(setting) if terms else None
        if figure is None or not figure.high:  # the fit gave the event no energy
            return []
        return [
            Rate(self.unit, self.event, self.group, self.basis, counter, factor, figure)
            for counter, factor in terms.items()
        ]


# ---- the array ------------------------------------------------------------------------------------------------------


def _operand_bits(s: Setting) -> dict[str, float]:
    """Bits of operand registers that take a value: of all rows in a step, of each active column."""
    hw, precision = s.hw, s.precision
    return {s.steps: hw.rows * hw.lanes * precision.weight_bits, s.columns: hw.lanes * precision.act_bits}


def _row_sums(s: Setting) -> Terms:
    return {} if s.precision.whole else {"execute_rowsum_active": s.hw.rows * s.hw.lanes}


def _clocked(s: Setting) -> Terms:
    """Flip-flops that take a value, for the others' clock is gated: operand registers, accumulators in every step, and where a sum is
    handed out."""
    hw, terms = s.hw, _operand_bits(s)
    if s.precision.whole:
        block = tables.block(s.precision.mac)
        terms[s.columns] += hw.rows * hw.lanes / block["lanes"] * block["flip_flops"]["element"]
        return terms
    sums = hw.rows * hw.acc_bits
    terms[s.columns] += sums
    return terms | dict.fromkeys((*(f"execute_drained_{mode}" for mode in DRAINED), "execute_rowsum_active"), sums)


def array_flops(hw: HwConfig, precision: Precision) -> dict[str, int]:
    """Flip-flops of the array: elements (with row sums), operand registers."""
    block = tables.block(precision.mac, hw.lanes)
    if precision.whole:
        elements = hw.rows * hw.cols * hw.lanes // block["lanes"] * block["flip_flops"]["element"]
    else:
        elements = hw.rows * (hw.cols + 1) * 2 * hw.acc_bits
    operands = hw.lanes * (hw.rows * precision.weight_bits + hw.cols * precision.act_bits)
    return {"elements": int(elements / hw.step_cycles), "operands": int(operands / hw.step_cycles)}


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
    """The events that were fitted to a part of whole cores, and its leakage."""

    def event(name: str, terms: Callable[[HwConfig], Terms]) -> Row:
        return Row(part, name, "on-chip", lambda s: terms(s.hw), lambda _: tables.core_event(part, name))

    def leakage(s: Setting) -> Figure:
        return tables.core_leakage(part, size(part, s.hw), s.hw.clock_mhz)

    return [
        *(event(name, terms) for name, terms in EVENTS[part].items()),
        Row(part, "leakage of a cycle", "on-chip", _cycle, leakage),
    ]


CORE = tuple(row for part in EVENTS if part != "array" for row in _part(part))


def _logits(s: Setting) -> Terms:
    """Logits of beams, where lists of the best tokens are kept."""
    return {"execute_drained_argmax": s.hw.rows} if s.hw.beams > 1 else {}


# What a logit costs there beyond the arg-max: a comparison more for each place of the list, and an exponential that is added up.
BEAMS = (
    Row(
        "execute",
        "comparisons of a beam's logit",
        "on-chip",
        _logits,
        lambda s: tables.add(49).times(s.hw.top, f"{s.hw.top} comparisons"),
    ),
    Row("execute", "exponential of a beam's logit", "on-chip", _logits, lambda _: tables.lane("exp")),
    Row("execute", "sum of a beam's exponentials", "on-chip", _logits, lambda _: tables.add(56)),
)

# ---- memories -------------------------------------------------------------------------------------------------------


def _wider(name: str, s: Setting) -> float:
    """Bits of a word of a memory over those of the hardware's own."""
    bits = {"wbuf": s.precision.weight_bits, "kbuf": s.precision.act_bits, "abuf": s.precision.act_bits}
    return bits.get(name, s.hw.planes) / s.hw.planes


def _memory(name: str) -> list[Row]:
    """Reads and writes of the banks of a memory, and the leakage of all of them."""

    def access(kind: str) -> Row:
        def figure(s: Setting) -> Figure:
            memory, factor = banked(s.hw)[name], _wider(name, s)
            bank = tables.sram(memory.words, memory.bits)
            access = bank.read if kind == "read" else bank.write
            figure = tables.routed(access, memory.bits, memory.banks * bank.area_mm2)
            return figure if factor == 1 else figure.times(factor, f"x {factor:g} for wider codes")

        return Row(name, kind, "on-chip", lambda _: {f"{name}_{kind}s": 1}, figure)

    def leakage(s: Setting) -> Figure:
        memory = banked(s.hw)[name]
        return tables.memory_leakage(memory.words, memory.bits, memory.banks, s.hw.clock_mhz)

    return [access("read"), access("write"), Row("memories", f"leakage of {name}, a cycle", "on-chip", _cycle, leakage)]


def _external(name: str) -> Row:
    """Bits on the bus that carry one thing."""
    return Row(
        "external",
        f"{name} bit",
        "external",
        lambda s: {name: 8 * dict(s.scaled).get(name, 1.0)},
        lambda s: tables.DRAM[s.dram],
        "traffic",
    )


EXTERNAL = tuple(_external(name) for name in Traffic.__dataclass_fields__)

# ---- accounts -------------------------------------------------------------------------------------------------------


def _rows(hw: HwConfig) -> Iterator[Row]:
    yield from ARRAY
    yield from CORE
    yield from BEAMS
    for name in banked(hw):
        yield from _memory(name)
    yield from EXTERNAL


@lru_cache(maxsize=64)
def rates(setting: Setting) -> tuple[Rate, ...]:
    """The whole table for a setting."""
    return tuple(rate for row in _rows(setting.hw) for rate in row.rates(setting))


def setting(hw: HwConfig, weight_bits: int, precision: Precision | None = None, dram: str = "lpddr4") -> Setting:
    """As :func:`account` has it."""
    if precision is None:
        return Setting(hw, Precision.of(hw), dram)
    weights, embedding = precision.weight_bits / hw.memory_bits(weight_bits), precision.weight_bits / weight_bits
    return Setting(hw, precision, dram, (("weights", weights), ("embedding", embedding)))


def account(
    counters: Mapping[str, float],
    traffic: Traffic,
    hw: HwConfig,
    *,
    weight_bits: int,
    precision: Precision | None = None,
    dram: str = "lpddr4",
) -> list[Line]:
    """Energy lines of one call (or of several, counters and traffic added up).

    ``counters``: the hardware counters by name, plus ``steps_single_plane`` and ``columns_single_plane`` (what array_active and
    array_columns would be without bit planes; equal to them for 1- and 2-bit activations). ``weight_bits``: bits of a weight code (in
    external memory ``hw.memory_bits``; embedding rows have ``weight_bits`` there). ``precision``: of the array, if not the hardware's.
    """
    counted: dict[Basis, Mapping[str, float]] = {"counters": counters, "traffic": asdict(traffic)}
    table = rates(setting(hw, weight_bits, precision, dram))
    return [rate.line(counted[rate.basis][rate.counter]) for rate in table]
