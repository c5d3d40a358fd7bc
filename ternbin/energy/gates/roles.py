"""Which cells of a library do what: found by function in the Liberty text, or declared beside it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import permutations
from pathlib import Path

from ternbin.energy.gates.built import Parts, built_clock_gate
from ternbin.energy.gates.cells import Cell
from ternbin.energy.gates.functions import truth_table
from ternbin.energy.gates.liberty import Library
from ternbin.energy.library import BUILT, declared_for
from ternbin.errors import InputError

MOST = 24  # sinks of a net
_ROOM = 3  # a buffer may drive this many times the load of MOST gates

# Truth tables, pin j at bit j of the index.
BUFFER, INVERTER = 0b10, 0b01
AND2, NAND2, NOR2, XOR2, XNOR2 = 0b1000, 0b0111, 0b0001, 0b0110, 0b1001
SUM3, CARRY3 = 0b10010110, 0b11101000
_MUX = 0b11001010  # c ? b : a


@dataclass(frozen=True)
class FullAdder:
    """Pins of a full adder; ``inverted``: whether it gives the complements of sum and carry."""

    cell: str
    inputs: tuple[str, str, str]
    sum: str
    carry: str
    inverted: tuple[bool, bool]


@dataclass(frozen=True)
class Roles:
    """What synthesis and energy ask of a library. ``full_adder``: None where it is built from gates. ``gate_parts``: the cells that
    ``clock_gate`` is built from, or none. ``dont_use``: cells that synthesis leaves alone."""

    flip_flop: str
    buffer: str
    full_adder: FullAdder | None
    clock_gate: Cell
    gate_parts: tuple[str, ...]
    dont_use: tuple[str, ...]

    def described(self) -> dict[str, str]:
        """In words, for the provenance of figures."""
        return {
            "flip_flop": self.flip_flop,
            "buffer": self.buffer,
            "full_adder": self.full_adder.cell if self.full_adder else "gates",
            "clock_gate": " + ".join(self.gate_parts) or self.clock_gate.name,
        }


def open_library(path: Path, cells: Path | None = None) -> Library:
    """The library with what is declared in ``cells``, or beside it, and the cells that it needs for a characterisation.

    Raises InputError, with what is missing, for a library that cannot serve.
    """
    library = Library(path)
    library.declared = declared_for(path, library.name, cells)
    library.wire_cap(1)
    roles(library)
    return library


@lru_cache
def roles(library: Library) -> Roles:
    """Raises InputError with what is missing."""
    left_out = tuple(name for name in library.cells if not _usable(library, name))
    usable = [name for name in library.cells if name not in left_out]
    found = {name: tables for name in usable if (tables := _functions(library, name)) is not None}

    def smallest(function: int, inputs: int) -> Cell | None:
        """The smallest cell of one output with that function."""
        fitting = [
            library.cell(name) for name, (pins, tables) in found.items() if (pins, tables) == (inputs, [function])
        ]
        return min(fitting, key=lambda cell: cell.area, default=None)

    flops = [cell for name in usable if _holds_state(library, name) and (cell := library.cell(name)).state]
    if not flops:
        raise _missing(library, "a rising-edge flip-flop without set and reset (ff)")
    inverter, nand, conjunction = smallest(INVERTER, 1), smallest(NAND2, 2), smallest(AND2, 2)
    gate = nand or smallest(NOR2, 2) or conjunction
    if inverter is None or gate is None:
        raise _missing(library, f"{'a NAND, NOR or AND of two inputs' if inverter else 'an inverter'} (function)")
    held = [cell for name in usable if _holds_state(library, name) and (cell := library.cell(name)).other]
    clock_gate, parts = _clock_gate(library, usable, Parts([*flops, *held], conjunction, nand, inverter))
    return Roles(
        min(flops, key=lambda cell: cell.area).name,
        _buffer(library, found, gate),
        _full_adder(library, found),
        clock_gate,
        parts,
        left_out,
    )


def _missing(library: Library, what: str) -> InputError:
    return InputError(
        f"{library.path}: the library must have {what} with area, timing tables (cell_rise) and power tables (internal_power)"
    )


_ON = r"\s*:\s*\"?true"


def _usable(library: Library, name: str) -> bool:
    """Whether synthesis may take a cell: it is no pad and drives no bus, and its area, delays and energy are known."""
    text = library.outline(name)
    if any(fnmatchcase(name, pattern) for pattern in library.declared.dont_use):
        return False
    if re.search(rf"\b(pad_cell|is_pad|dont_use|dont_touch){_ON}|\bthree_state\b", text):
        return False
    area = re.search(r"\barea\s*:\s*\"?([\d.eE+-]+)", text)
    return bool(area and float(area[1]) > 0 and "internal_power" in text and re.search(r"\bcell_(rise|fall)\b", text))


def _holds_state(library: Library, name: str) -> bool:
    return re.search(r"\b(ff|latch|ff_bank|latch_bank|statetable)\s*\(", library.outline(name)) is not None


_PIN = re.compile(r"\bpin\s*\(([^)]*)\)\s*\{")


def _functions(library: Library, name: str) -> tuple[int, list[int]] | None:
    """Number of inputs, and truth tables of the outputs, of a gate of up to three inputs; None for other cells.

    Read off the text: to parse the tables of every cell would take seconds.
    """
    text = library.outline(name)
    if _holds_state(library, name) or "clock_gating_integrated_cell" in text:
        return None
    starts = [*_PIN.finditer(text)]
    inputs: list[str] = []
    functions: list[str] = []
    for start, end in zip(starts, [match.start() for match in starts[1:]] + [len(text)], strict=True):
        body = text[start.end() : end]
        function = re.search(r"\bfunction\s*:\s*\"([^\"]*)\"", body)
        if re.search(r"\bdirection\s*:\s*\"?input", body):
            inputs.append(start[1].strip('" '))
        else:
            functions.append(function[1] if function else "")
    if len(inputs) > 3 or not functions or not all(functions):
        return None
    return len(inputs), [truth_table(function, inputs) for function in functions]


_Found = dict[str, tuple[int, list[int]]]


def _adders(library: Library, found: _Found) -> Iterator[FullAdder]:
    for name, (count, tables) in found.items():
        cell = library.cell(name)
        for turn in ((0, 1), (1, 0)) if count == 3 and len(tables) == 2 else ():
            total, carry = (tables[i] for i in turn)
            if total in (SUM3, SUM3 ^ 0xFF) and carry in (CARRY3, CARRY3 ^ 0xFF):
                one, two, three = cell.inputs
                pins = [cell.outputs[i] for i in turn]
                yield FullAdder(name, (one, two, three), pins[0], pins[1], (total != SUM3, carry != CARRY3))


def _full_adder(library: Library, found: _Found) -> FullAdder | None:
    named, adders = library.declared.full_adder, {adder.cell: adder for adder in _adders(library, found)}
    if named == BUILT:
        return None
    if named is not None and named not in adders:
        raise InputError(
            f"{library.path}: full_adder must be '{BUILT}' or a cell with sum and carry of three inputs"
            f" ({', '.join(adders) or 'none here'}), not {named!r}"
        )
    return adders[named] if named else min(adders.values(), key=lambda a: library.cell(a.cell).area, default=None)


def _clock_gate(library: Library, usable: Sequence[str], parts: Parts) -> tuple[Cell, tuple[str, ...]]:
    """The declared or the smallest integrated cell, one without a test pin first; else one built from gates, with its parts."""
    named = library.declared.clock_gate
    text = re.compile(r"\bclock_gating_integrated_cell\b")
    gates = {name: cell for name in usable if text.search(library.outline(name)) and (cell := library.cell(name)).gate}
    if named not in (None, BUILT, *gates):
        raise InputError(
            f"{library.path}: clock_gate must be '{BUILT}' or a cell with clock_gating_integrated_cell latch_posedge"
            f" ({', '.join(gates) or 'none here'}), not {named!r}"
        )
    if named in gates:
        return gates[named], ()
    if gates and named is None:
        return min(gates.values(), key=lambda cell: (len(cell.gate.low) if cell.gate else 0, cell.area)), ()
    cell, names = built_clock_gate(library, parts)
    library.add(cell)
    return cell, names


def _buffer(library: Library, found: _Found, gate: Cell) -> str:
    """The declared buffer, or the smallest that drives ``MOST`` gates with room, or the strongest."""
    named = library.declared.buffer
    buffers = {name: library.cell(name) for name, (count, tables) in found.items() if (count, tables) == (1, [BUFFER])}
    if not buffers or named not in (None, *buffers):
        raise InputError(
            f"{library.path}: buffer must be a cell that gives its input ({', '.join(buffers)}), not {named!r}"
        )
    if named:
        return named
    load = _ROOM * (MOST * gate.pins[gate.inputs[0]].cap + library.wire_cap(MOST))

    def most(cell: Cell) -> float:
        return cell.pins[cell.outputs[0]].most

    enough = [cell for cell in buffers.values() if most(cell) >= load] or [max(buffers.values(), key=most)]
    return min(enough, key=lambda cell: cell.area).name


@lru_cache
def _muxes() -> frozenset[int]:
    """Truth tables of a multiplexer with any of its three pins as the select, and of its complement."""
    tables: set[int] = set()
    for order in permutations(range(3)):
        table = sum((_MUX >> sum((i >> order[j] & 1) << j for j in range(3)) & 1) << i for i in range(8))
        tables |= {table, table ^ 0xFF}
    return frozenset(tables)


def kind_of(cell: Cell) -> str:
    """What area is counted as: flip-flop, clock gate, adder, xor, buffer, mux, constant or gate."""
    if cell.state or cell.gate:
        return "flip-flop" if cell.state else "clock gate"
    count = len(cell.inputs)
    if count > 3 or not cell.outputs:
        return "gate"
    tables = [truth_table(cell.pins[pin].function, cell.inputs) for pin in cell.outputs]
    if len(tables) == 2:
        return "adder"
    by_inputs = {0: "constant", 1: "buffer"} | ({2: "xor"} if tables[0] in (XOR2, XNOR2) else {})
    return by_inputs.get(count, "mux" if count == 3 and tables[0] in _muxes() else "gate")
