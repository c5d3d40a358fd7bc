"""Energy figures of the first version: each with unit, range, tier and source.

Tiers: ``measured`` (gate level or RTL counter), ``derived`` (computed here from cited or measured parts), ``table`` (cited).
All at 45 nm; nothing is scaled to another node.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ternbin.errors import InputError

PROTOTYPE = (
    "gate-level prototype of this project: Nangate 45 nm, typical, 1.1 V, 25 C, random operands, glitches counted, "
    "accumulator, clock pins and leakage included, no clock tree or placement; low end: zero-delay simulation"
)
HOROWITZ = "Horowitz, ISSCC 2014 (45 nm, 0.9 V)"
CACTI = "CACTI 7, 45 nm, itrs-lstp (ternbin/energy/cacti7_45nm.csv); high bound: Horowitz, ISSCC 2014"
OPERAND_REGISTERS = "flip-flop energy per operand bit, solved from the prototype's FP32/ternary ratio with operand registers (129 to 175)"


@dataclass(frozen=True)
class Figure:
    """Energy of one event in picojoules with its range."""

    pj: float
    low: float
    high: float
    tier: str
    source: str

    def times(self, factor: float, note: str = "") -> "Figure":
        """The same figure for ``factor`` such events."""
        source = f"{self.source}; {note}" if note else self.source
        return Figure(self.pj * factor, self.low * factor, self.high * factor, self.tier, source)


def _prototype(fj: float, zero_delay_fj: float) -> Figure:
    return Figure(fj / 1e3, zero_delay_fj / 1e3, 2 * fj / 1e3, "measured", PROTOTYPE)


# One multiply-accumulate of each array kind.
MAC = {
    "fp32": _prototype(17029, 9115),
    "bf16": _prototype(8148, 3446),
    "int8": _prototype(1415, 679),
    "ternary": _prototype(51.6, 28.7),
    "binary": _prototype(40.6, 18.1),
}
MAC_BITS = {"fp32": 32, "bf16": 16, "int8": 8}

OPERAND_BIT = Figure(0.0168, 0.0125, 0.0228, "derived", OPERAND_REGISTERS)

_INT32_MULTIPLY_PJ, _INT32_ADD_PJ = 3.1, 0.1


def multiply(bits_a: int, bits_b: int) -> Figure:
    """Integer multiplier: Horowitz's 32 x 32 bits scaled by the number of partial-product bits."""
    pj = _INT32_MULTIPLY_PJ * bits_a * bits_b / 1024
    return Figure(pj, pj / 3, pj * 3, "derived", f"{HOROWITZ}: 32-bit multiply 3.1 pJ x {bits_a}*{bits_b}/1024")


def add(bits: int) -> Figure:
    """Integer adder or comparator: Horowitz's 32 bits scaled linearly."""
    pj = _INT32_ADD_PJ * bits / 32
    return Figure(pj, pj / 3, pj * 3, "derived", f"{HOROWITZ}: 32-bit add 0.1 pJ x {bits}/32")


def total(*figures: Figure) -> Figure:
    """Events that happen together."""
    return Figure(
        sum(f.pj for f in figures),
        sum(f.low for f in figures),
        sum(f.high for f in figures),
        "derived",
        " + ".join(f.source for f in figures),
    )


# External memory, picojoules a bit: value, low, high.
DRAM = {
    "lpddr4": Figure(8, 4, 20, "table", "LPDDR4, 4 to 20 pJ/bit over published systems"),
    "hbm2": Figure(5, 3.9, 6.3, "table", "HBM2, 3.9 to 6.3 pJ/bit over published systems"),
    "ddr3": Figure(30, 20, 70, "table", "DDR3, 20 to 70 pJ/bit over published systems"),
}

# Horowitz: 64-bit SRAM reads by capacity in bytes.
_HOROWITZ_SRAM = ((8192, 10.0), (32768, 20.0), (1 << 20, 100.0))


@dataclass(frozen=True)
class Sram:
    """One bank: energy of a read and of a write, leakage in milliwatts, area in mm2."""

    read: Figure
    write: Figure
    leakage_mw: float
    area_mm2: float


@cache
def _cacti_rows() -> tuple[dict, ...]:
    text = resources.files("ternbin.energy").joinpath("cacti7_45nm.csv").read_text()
    rows = [row for row in csv.DictReader(text.splitlines()) if row["cell"] == "itrs-lstp"]
    return tuple({key: value if key == "cell" else float(value) for key, value in row.items()} for row in rows)


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
    return tuple(sorted({int(row["word_bits"]) for row in _cacti_rows()}))


def _macros(words: int, word_bits: int, width: int) -> Sram:
    """``word_bits`` made of side-by-side macros ``width`` bits wide."""
    copies = -(-word_bits // width)
    capacity = words * width // 8
    rows = sorted((r for r in _cacti_rows() if r["word_bits"] == width), key=lambda r: r["capacity_bytes"])
    row = next((r for r in rows if r["capacity_bytes"] >= capacity), rows[-1])
    stacked = max(1, -(-capacity // int(row["capacity_bytes"])))  # deeper than the table: several macros, one accessed
    horowitz = next((pj for size, pj in _HOROWITZ_SRAM if capacity * copies <= size), _HOROWITZ_SRAM[-1][1])
    note = f"{CACTI}; {copies} x {width} bits of {int(row['capacity_bytes'])} bytes"

    def figure(pj: float) -> Figure:
        pj *= copies
        return Figure(pj, pj / 2, max(pj * 1.5, horowitz * word_bits / 64), "table", note)

    return Sram(
        figure(row["read_pJ"]),
        figure(row["write_pJ"]),
        row["leakage_mW"] * copies * stacked,
        row["area_mm2"] * copies * stacked,
    )
