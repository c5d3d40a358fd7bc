"""Energy figures, each with range, tier and source: gate-level characterisation, SRAM and DRAM tables.

Tiers: ``measured`` (gate level or RTL counter), ``derived`` (computed here from cited or measured parts), ``table`` (cited), ``modelled``
(from a geometry or a factor that nothing here measures).
Gates at the node of the characterised library (the stored one: 45 nm), memories and adders at 45 nm; nothing is scaled to another node.
"""

import csv
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

from ternbin import formats
from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import ceil_div
from ternbin.errors import InputError
from ternbin.schema import DATA_BYTES, read_json, validated

HOROWITZ = "Horowitz, ISSCC 2014 (45 nm, 0.9 V)"
CACTI = "CACTI 7, 45 nm, itrs-lstp (ternbin/energy/cacti7_45nm.csv); high bound: Horowitz, ISSCC 2014"


@dataclass(frozen=True)
class Record:
    """What a figure was read from: ``name`` in one of the tables that ternbin/energy/provenance.py shows: ``records`` (gate level),
    ``cacti`` (rows of the SRAM table), ``dram`` and ``literature``."""

    table: str
    name: str


@dataclass(frozen=True)
class Figure:
    """Energy of one event in picojoules with its range; ``source`` says in words what ``record`` names. Figures of the same ``varies`` are
    too low or too high together."""

    pj: float
    low: float
    high: float
    tier: str
    source: str
    record: Record
    varies: str  # source of its uncertainty (ternbin/energy/uncertainty.py)

    def times(self, factor: float, note: str = "") -> "Figure":
        """The same figure for ``factor`` such events."""
        source = f"{self.source}; {note}" if note else self.source
        return replace(self, pj=self.pj * factor, low=self.low * factor, high=self.high * factor, source=source)


SCHEMA = formats.ENERGY
STORED = Path(__file__).with_name("characterisation.json")


def read_characterisation(path: str | Path) -> dict[str, Any]:
    """A file that ``ternbin energy --rebuild --store`` wrote. Raises InputError for anything else."""
    from ternbin.energy.records import Characterisation, missing

    found = read_json(path, DATA_BYTES)
    contents = cast(dict[str, Any], found) if isinstance(found, dict) else {"schema": found}
    formats.check(contents.get("schema"), SCHEMA, str(path))
    validated(Characterisation, contents, path, unknown=True)
    for lacking in missing(contents):
        raise InputError(f"{path}: blocks must hold {lacking}: measure it again (ternbin energy)")
    return contents


class _Chosen:
    """The characterisation that figures come from: the stored one, but within ``using``."""

    path: Path = STORED


@contextmanager
def using(path: str | Path | None) -> Generator[None, None, None]:
    """Figures come from the characterisation in ``path`` while it lasts; None: from what they came from before.

    Raises InputError for a file that is none.
    """
    before = _Chosen.path
    try:
        if path is not None:
            _choose(Path(path))
        yield
    finally:
        _choose(before)


def chosen() -> Path:
    """The file that figures come from."""
    return _Chosen.path


def _choose(path: Path) -> None:
    if path != _Chosen.path:
        read_characterisation(path)
        _Chosen.path = path
        characterisation.cache_clear()
        block.cache_clear()


@cache
def characterisation() -> dict[str, Any]:
    """The gate-level characterisation (docs/energy.md): the stored one, or that of ``using``."""
    return read_characterisation(_Chosen.path)


@cache
def block(kind: str, lanes: int | None = None) -> dict[str, Any]:
    """The record of a multiply-accumulate block: of its kind the one whose width is nearest to ``lanes`` (None: the widest)."""
    found = [b for b in characterisation()["blocks"] if b["kind"] == kind]
    if not found:
        raise InputError(f"kind must be one of the characterised blocks, not {kind!r}")
    return max(found, key=lambda b: b["lanes"]) if lanes is None else min(found, key=lambda b: abs(b["lanes"] - lanes))


def _spread(record: dict[str, Any], part: str, varies: str) -> Figure:
    """Real operands, glitches counted; low: settled values only, high: twice the figure (placement, corner of the process)."""
    event = record["fj_per_event"]["real"]
    pj, low = event["glitch"][part] / 1e3, event["zero_delay"][part] / 1e3
    where = characterisation()["provenance"]
    source = f"gate level: {record['name']} on {where['library']}, {where['volt']:g} V, {where['celsius']:g} C, real operands"
    return Figure(pj, min(pj, low), 2 * pj, "measured", source, gates(record), varies)


def gates(record: dict[str, Any]) -> Record:
    """The name of a gate-level record."""
    return Record("records", record["name"])


def mac(kind: str, lanes: int | None = None) -> Figure:
    """One multiply-accumulate, without operand registers and clock."""
    return _spread(block(kind, lanes), "element", f"element {kind}")


def operand_bit(kind: str, lanes: int | None = None) -> Figure:
    """One bit of an operand register that takes a new value, without the clock and without what it drives."""
    return _spread(block(kind, lanes), "operand_bit", "operand registers")


def trit_decoder() -> Figure:
    """A byte of packed trits decoded: datapath, and the clock pins of the registers that hold the trits."""
    record = block("trits")
    held = record["fj_per_event"]["operand held"]
    clock = record["clock_fj_per_flop"] * record["flip_flops"]["element"] / record["lanes"]
    pj, low = ((held[mode]["element"] + clock) / 1e3 for mode in ("glitch", "zero_delay"))
    source = f"gate level: {record['name']} of {record['lanes']} bytes a beat, each of five random trits"
    return Figure(pj, min(pj, low), 2 * pj, "measured", source, gates(record), "parts of the core")


COLUMN_LOGITS = 32  # of the columns that the characterised lists of best tokens work through


def best_token_lists(top: int, figure: Callable[[dict[str, Any]], float]) -> float:
    """What ``figure`` gives for a list of ``top`` places: on the line through the shortest and the longest that are characterised."""
    found = [b for b in characterisation()["blocks"] if b["kind"] == "top"]
    short, long = (pick(found, key=lambda b: b["entries"]) for pick in (min, max))
    share = (top - short["entries"]) / (long["entries"] - short["entries"])
    return figure(short) + share * (figure(long) - figure(short))


def best_tokens(top: int) -> Figure:
    """A logit of a beam in a list of ``top`` places and a sum of exponentials: datapath and clock pins; those of the column that is
    worked through once for all of its logits."""

    def spent(mode: str) -> Callable[[dict[str, Any]], float]:
        def of(record: dict[str, Any]) -> float:
            flops = record["flip_flops"]
            clocked = (flops["element"] - flops["operands"]) / record["lanes"] + flops["operands"] / COLUMN_LOGITS
            return record["fj_per_event"]["operand held"][mode]["element"] + record["clock_fj_per_flop"] * clocked

        return of

    pj, low = (best_token_lists(top, spent(mode)) / 1e3 for mode in ("glitch", "zero_delay"))
    source = f"gate level: engines of best tokens, list of {top} on a line through two; columns of {COLUMN_LOGITS} logits of 2.5 nats"
    return Figure(pj, min(pj, low), 2 * pj, "measured", source, gates(block("top")), "parts of the core")


def best_tokens_leakage(top: int, engines: int, clock_mhz: float) -> Figure:
    """Leakage of ``engines`` of them in one cycle."""
    nanowatts = engines * best_token_lists(top, lambda record: record["element_leakage_nw"])
    pj = nanowatts * 1e-3 / clock_mhz
    source = f"gate level: {engines} engines of best tokens; {nanowatts / 1e6:.3g} mW at {clock_mhz:g} MHz"
    return Figure(pj, pj / 2, pj * 2, "derived", source, gates(block("top")), LEAKAGE)


CLOCK = "clock"


def clock_flop() -> Figure:
    """Clock pin of one flip-flop, a cycle."""
    record = characterisation()["blocks"][0]  # of the library: the same in every record
    pj = record["clock_fj_per_flop"] / 1e3
    source = f"gate level: {characterisation()['provenance']['library']} flip-flop, clock pin"
    return Figure(pj, pj * 0.9, pj * 1.1, "measured", source, gates(record), CLOCK)


def clock_tree(pins: Figure) -> Figure:
    """Buffers and wires that bring a clock to ``pins``: about as much again."""
    low, high = 0.5, 1.5
    source = f"{pins.source}; buffers and wires of its tree: x 1 ({low} to {high}), no placement"
    return replace(pins, low=pins.pj * low, high=pins.pj * high, tier="modelled", source=source, varies="clock tree")


LEAKAGE = "leakage of logic"


def array_leakage(kind: str, hw: HwConfig, flops: int) -> Figure:
    """Leakage of the array's logic in one cycle: the characterised element as often as it takes, and ``flops`` registers."""
    record = block(kind, hw.lanes)
    operands = record["flip_flops"]["operands"]
    per_flop = (record["leakage_nw"] - record["element_leakage_nw"]) / operands  # with its load multiplexer
    lanes = hw.peak_macs / hw.step_cycles
    outside = flops - lanes / record["lanes"] * record["flip_flops"]["element"]
    nanowatts = lanes / record["lanes"] * record["element_leakage_nw"] + max(0.0, outside) * per_flop
    pj = nanowatts * 1e-3 / hw.clock_mhz  # nW / MHz = fJ a cycle
    source = f"gate level: leakage of {record['name']}, mean over input states; {nanowatts / 1e6:.3g} mW at {hw.clock_mhz:g} MHz"
    return Figure(pj, pj / 2, pj * 2, "derived", source, gates(record), LEAKAGE)


def core_event(part: str, event: str) -> Figure:
    """One event of a part of the core (ternbin/energy/block_events.py): datapath, control and clock; the high end is twice the figure."""
    record = block(f"core {part}")
    if event not in record["fj_per_event"]:
        raise InputError(
            f"characterisation: {record['name']} must have the event {event!r}; measure it again (ternbin energy)"
        )
    fitted = record["fj_per_event"][event]
    pj, low = (fitted[mode]["total"] / 1e3 for mode in ("glitch", "zero_delay"))
    source = f"gate level: {record['name']}, {record['provenance']}"
    return Figure(pj, min(pj, low), 2 * pj, "measured", source, gates(record), "parts of the core")


def core_clock(part: str, event: str) -> Figure:
    """The clock's part of it: pins of flip-flops and clock gates."""
    record = block(f"core {part}")
    pj = record["fj_per_event"][event].get("clock", 0.0) / 1e3
    return Figure(pj, pj, pj, "measured", f"gate level: {record['name']}, clock pins", gates(record), CLOCK)


def core_size(part: str, size: float, field: str) -> float:
    """``area_um2`` or ``leakage_nw`` of a part of the given size: the line through the characterised cores."""
    small, large = block(f"core {part}")["sizes"]
    slope = (large[field] - small[field]) / (large["size"] - small["size"]) if large["size"] != small["size"] else 0.0
    return large[field] + slope * (size - large["size"])


def core_leakage(part: str, size: float, clock_mhz: float) -> Figure:
    """Leakage of a part in one cycle."""
    nanowatts = core_size(part, size, "leakage_nw")
    pj = nanowatts * 1e-3 / clock_mhz
    source = f"gate level: core {part}, linear in its size; {nanowatts / 1e6:.3g} mW at {clock_mhz:g} MHz"
    return Figure(pj, pj / 2, pj * 2, "derived", source, gates(block(f"core {part}")), LEAKAGE)


# Elements of the reference precisions: bits of a weight operand, of an activation.
MAC_BITS = {"fp32": (32, 32), "bf16": (16, 16), "fp8": (8, 8), "int8": (8, 8), "int4x8": (4, 8)}
# Reference precisions whose element has another name: weights become BF16 on their way into the array.
ELEMENT = {"w8a16": "bf16", "w4a16": "bf16", "w4a8": "int4x8"}

DRAM_SOURCES = {
    "lpddr4": "device 5.4 pJ a bit from the currents of LPDDR3-1600 x32 (DRAMsim3, IDD4R less IDD3N at 1.2 V; LPDDR4 has 1.1 V), "
    "activating a row for 32 kbit 0.04, the rest PHY and controller (assumed); standby and refresh apart",
    "hbm2": "3.9: O'Connor et al., Fine-Grained DRAM, MICRO 2017; 3.9 to 7.0: Jouppi et al., Ten Lessons, ISCA 2021, 250 to 450 pJ for 64 "
    "bits; all in",
    "ddr3": "20 to 40: Horowitz, ISSCC 2014, 1.3 to 2.6 nJ for 64 bits; 70: Malladi et al., ISCA 2012; all in",
}


def _dram(name: str, pj: float, low: float, high: float) -> Figure:
    source = f"{name.upper()}, {low:g} to {high:g} pJ/bit: {DRAM_SOURCES[name]}"
    return Figure(pj, low, high, "table", source, Record("dram", name), "external memory")


# External memory, picojoules a bit: value, low, high.
DRAM = {
    name: _dram(name, *figures)
    for name, figures in {"lpddr4": (8, 4, 20), "hbm2": (5, 3.9, 7), "ddr3": (30, 20, 70)}.items()
}

# A device of LPDDR3-1600 x32 (DRAMsim3): 25 mW of standby with a row open (IDD3N), 8 mW of refresh (IDD5AB in 168 of 3,120 cycles), and
# powered down between bursts the low end; 51.2 Gbit/s.
_STANDBY_MW, _STANDBY_LOW, _STANDBY_HIGH, _DEVICE_GBIT = 33.0, 16.0, 66.0, 51.2


def dram_standby(name: str, bus_bits: int, clock_mhz: float) -> Figure | None:
    """Standby and refresh of the devices that keep up with the bus, a cycle; None where the figure of a bit has it."""
    if name != "lpddr4":
        return None
    devices = bus_bits * clock_mhz / 1e3 / _DEVICE_GBIT
    pj, low, high = (devices * mw * 1e3 / clock_mhz for mw in (_STANDBY_MW, _STANDBY_LOW, _STANDBY_HIGH))
    each = f"{_STANDBY_MW:g} mW ({_STANDBY_LOW:g} to {_STANDBY_HIGH:g})"
    source = f"{devices:.3g} devices of {each}: DRAMsim3, LPDDR3-1600 x32, IDD3N and IDD5AB"
    return Figure(pj, low, high, "derived", source, Record("dram", name), "standby of external memory")


# A millimetre of wire: 0.2 pF (Ho, Mai, Horowitz, The Future of Wires, Proc. IEEE 2001, semi-global), repeaters 0.4 of that, every
# second bit of random data toggles, and half of C V^2 is spent in a toggle.
_WIRE_PF, _REPEATERS, _TOGGLES = 0.2, 1.4, 0.5


def wire(millimetres: float) -> Figure:
    """One bit over so far."""
    volt = characterisation()["provenance"]["volt"]
    pj = millimetres * _WIRE_PF * _REPEATERS * _TOGGLES * 0.5 * volt**2
    wires = "0.2 pF/mm (Ho, Mai, Horowitz 2001), repeaters x 1.4, half of the bits toggle"
    source = f"{millimetres:.3g} mm of {wires}, {volt:g} V; no floorplan"
    return Figure(
        pj, pj / 2, pj * 2, "modelled", source, Record("literature", WIRE), "wires between memories and units"
    )


WIRE = "wire, a bit and millimetre"


def wire_figure() -> Figure:
    """The literature's entry."""
    return wire(1.0)


# Horowitz: 64-bit SRAM reads by capacity in bytes.
_HOROWITZ_SRAM = ((8192, 10.0), (32768, 20.0), (1 << 20, 100.0))


# The table is of banks with one port for both; the accelerator reads and writes in the same cycle. CACTI 7 with a read and a write port
# instead: reads take 1.29 to 1.79 times as much, the bank 2.0 to 2.3 times the area. Writes and leakage are taken to grow likewise.
SECOND_PORT = (0.54, 0.29, 0.79)
SECOND_PORT_AREA = 2.15


@dataclass(frozen=True)
class Sram:
    """One bank with a port to read and one to write: energy of a read and of a write by the table, of single-ported banks; what the second
    port adds to them; leakage in milliwatts, area in mm2, nanoseconds of an access; all from the row ``record``."""

    read: Figure
    write: Figure
    second_read: Figure
    second_write: Figure
    leakage_mw: float
    area_mm2: float
    access_ns: float
    record: Record


@cache
def cacti_rows() -> tuple[dict[str, Any], ...]:
    text = resources.files("ternbin.energy").joinpath("cacti7_45nm.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if row["cell"] == "itrs-lstp"]
    return tuple({key: value if key == "cell" else float(value) for key, value in row.items()} for row in rows)


def row_name(row: dict[str, Any]) -> str:
    """Word bits x bytes of a row of the SRAM table."""
    return f"{row['word_bits']:.0f}x{row['capacity_bytes']:.0f}"


def memory_leakage(words: int, word_bits: int, banks: int, clock_mhz: float) -> Figure:
    """Leakage of ``banks`` banks in one cycle."""
    bank = sram(words, word_bits)
    milliwatts = banks * bank.leakage_mw
    pj = milliwatts * 1e3 / clock_mhz  # mW / MHz = nJ a cycle
    source = f"{bank.read.source}, {banks} banks; {milliwatts:.3g} mW at {clock_mhz:g} MHz"
    return Figure(pj, pj / 2, pj * 1.5, "table", source, bank.record, "leakage of SRAM")


@cache
def sram(words: int, word_bits: int) -> Sram:
    """A bank of ``words`` x ``word_bits``: the table's next larger capacity; words wider than the table are split over macros.

    The word width that needs the least energy among the table's is used (a 48-bit word is read as 64 bits).
    """
    if words < 1 or word_bits < 1:
        raise InputError(f"a memory bank must have at least one word of one bit, not {words} x {word_bits}")
    return min((_macros(words, word_bits, width) for width in _widths()), key=lambda bank: bank.read.pj)


@cache
def _widths() -> tuple[int, ...]:
    return tuple(sorted({int(row["word_bits"]) for row in cacti_rows()}))


def _macros(words: int, word_bits: int, width: int) -> Sram:
    """``word_bits`` made of side-by-side macros ``width`` bits wide."""
    copies = ceil_div(word_bits, width)
    capacity = words * width // 8
    rows = sorted((r for r in cacti_rows() if r["word_bits"] == width), key=lambda r: r["capacity_bytes"])
    row = next((r for r in rows if r["capacity_bytes"] >= capacity), rows[-1])
    # deeper than the table: several macros, one accessed
    stacked = max(1, ceil_div(capacity, int(row["capacity_bytes"])))
    horowitz = next((pj for size, pj in _HOROWITZ_SRAM if capacity * copies <= size), _HOROWITZ_SRAM[-1][1])
    note = f"{CACTI}; {copies} x {width} bits of {int(row['capacity_bytes'])} bytes"

    record = Record("cacti", row_name(row))

    def figure(pj: float) -> Figure:
        pj *= copies
        return Figure(pj, pj / 2, max(pj * 1.5, horowitz * word_bits / 64), "table", note, record, "SRAM accesses")

    def second(figure: Figure) -> Figure:
        pj, low, high = (figure.pj * share for share in SECOND_PORT)
        source = f"{note}; a second port: x {1 + SECOND_PORT[0]:g} ({1 + SECOND_PORT[1]:g} to {1 + SECOND_PORT[2]:g}) in all, CACTI 7"
        return Figure(pj, low, high, "table", source, record, "second port of SRAM")

    read, write = figure(row["read_pJ"]), figure(row["write_pJ"])
    return Sram(
        read,
        write,
        second(read),
        second(write),
        row["leakage_mW"] * copies * stacked * SECOND_PORT_AREA,
        row["area_mm2"] * copies * stacked * SECOND_PORT_AREA,
        row["access_ns"],
        record,
    )
