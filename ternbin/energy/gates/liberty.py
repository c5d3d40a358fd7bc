"""A reader of Liberty cell libraries: what timing, leakage and power of mapped netlists need, and no more.

Cells are parsed when asked for: a library of a hundred thousand lines opens in a fraction of a second.
"""

import re
from functools import cached_property
from pathlib import Path

import numpy as np

from ternbin.energy.gates.cells import Cell, read_cell, sharpest
from ternbin.energy.gates.groups import Group, parse_group
from ternbin.energy.library import Declared
from ternbin.errors import InputError

_UNITS = {
    "ps": 1e-12,
    "ns": 1e-9,
    "us": 1e-6,
    "ff": 1e-15,
    "pf": 1e-12,
    "pw": 1e-12,
    "nw": 1e-9,
    "uw": 1e-6,
    "mw": 1e-3,
    "mv": 1e-3,
    "v": 1.0,
}
_CELL = re.compile(r"\bcell\s*\(\s*\"?([\w.]+)\"?\s*\)\s*\{")


class Library:
    """A Liberty file, and what is ``declared`` beside it. ``volt``; unit sizes in SI; ``wire_cap(fanout)`` in library capacitance units.

    Energy unit of internal-power tables: capacitance unit x voltage unit^2. Raises InputError, with what is missing, for a file that is
    no library with cells, units and supply.
    """

    def __init__(self, path: str | Path, declared: Declared | None = None):
        self.path = Path(path)
        self.declared = declared or Declared()
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\r\n", " ").replace("\\\n", " ")
        found = list(_CELL.finditer(text))
        starts = [match.start() for match in found]
        if not starts or not re.match(r"\s*library\s*\(", text):
            raise InputError(f"{path} must be a Liberty library with cells")
        if text.count("{") != text.count("}"):
            raise InputError(f"{path} must have an end for every group: {text.count('{')} begin, {text.count('}')} end")
        self._texts: dict[str, str] = {}
        for match, end in zip(found, [*starts[1:], len(text)], strict=True):
            self._texts[match[1]] = text[match.start() : end]
        self._cells: dict[str, Cell] = {}
        self._outlines: dict[str, str] = {}
        self._wire: dict[int, float] = {}
        self.header = header = parse_group(text[: starts[0]] + "}")
        self.name = header.args[0] if header.args else self.path.stem
        self.time_unit = self._unit("time_unit")
        self.leakage_unit = self._unit("leakage_power_unit")
        self.cap_unit = self._capacitance()
        self.volt = self._supply()
        volt_unit = self._unit("voltage_unit") if "voltage_unit" in header.values else 1.0
        self.energy_unit = self.cap_unit * volt_unit**2  # joule: the tables hold the voltage already

    def _unit(self, name: str) -> float:
        text = self.header.text(name)
        match = re.fullmatch(r"([\d.]*)\s*(\w+)", text)
        if match is None or match[2].lower() not in _UNITS:
            found = f"not {text!r}" if text else "but is missing"
            raise InputError(f"{self.path}: {name} must be a number and a unit, such as 1ns or 1nW, {found}")
        return float(match[1] or 1) * _UNITS[match[2].lower()]

    def _capacitance(self) -> float:
        values = self.header.values.get("capacitive_load_unit", [])
        if len(values) != 2 or values[1].lower() not in _UNITS:
            found = f"not {values}" if values else "but is missing"
            raise InputError(f"{self.path}: capacitive_load_unit must be a number and a unit, such as (1, pf), {found}")
        return float(values[0]) * _UNITS[values[1].lower()]

    def _supply(self) -> float:
        volt = self.header.number("nom_voltage")
        for condition in self.header.of("operating_conditions"):
            if condition.args[:1] == [self.header.text("default_operating_conditions")]:
                volt = condition.number("voltage", volt)
        if volt <= 0:
            raise InputError(f"{self.path}: nom_voltage must be a supply of more than 0 V, not {volt:g}")
        return volt

    @property
    def celsius(self) -> float:
        return self.header.number("nom_temperature", 25)

    @property
    def cells(self) -> list[str]:
        """Names of the cells in the file."""
        return list(self._texts)

    def outline(self, name: str) -> str:
        """The Liberty text of a cell without the numbers of its tables, which are nearly all of it."""
        if name not in self._outlines:
            self._outlines[name] = re.sub(r'"[^"]*,[^"]*"', "", self._texts[name])
        return self._outlines[name]

    def add(self, cell: Cell) -> None:
        """One more cell: made of others, for the netlist to name."""
        self._cells[cell.name] = cell

    @cached_property
    def wire_load(self) -> Group | None:
        """The declared wire-load model, else the default one. Raises InputError where the library has not the one that is named."""
        name = self.declared.wire_load or self.header.text("default_wire_load")
        found = {group.args[0]: group for group in self.header.of("wire_load")}
        if name and name not in found:
            raise InputError(f"{self.path}: the wire load must be one of {', '.join(found) or 'none'}, not {name!r}")
        return found.get(name)

    def wire_cap(self, fanout: int) -> float:
        """Capacitance of a net by the wire-load model; 0 if the library has none."""
        if fanout not in self._wire:
            self._wire[fanout] = self._wire_cap(fanout)
        return self._wire[fanout]

    def _wire_cap(self, fanout: int) -> float:
        model = self.wire_load
        if model is None or fanout == 0:
            return 0.0
        flat = [float(x) for x in model.values["fanout_length"]]
        lengths = dict(zip((int(x) for x in flat[::2]), flat[1::2], strict=True))
        known = sorted(lengths)
        if fanout > known[-1]:
            length = lengths[known[-1]] + (fanout - known[-1]) * model.number("slope")
        else:
            length = float(np.interp(fanout, known, [lengths[k] for k in known]))
        return length * model.number("capacitance")

    @cached_property
    def _templates(self) -> dict[str, Group]:
        kinds = ("lu_table_template", "power_lut_template")
        return {group.args[0]: group for kind in kinds for group in self.header.of(kind)}

    def cell(self, name: str) -> Cell:
        """Raises InputError for a cell that the library does not have, or that cannot be read."""
        if name not in self._cells:
            if name not in self._texts:
                raise InputError(f"{self.path}: a cell of the netlist must be in the library, not {name!r}")
            try:
                leakage = self.header.number("default_cell_leakage_power")
                self._cells[name] = read_cell(parse_group(self._texts[name]), self._templates, leakage)
            except (InputError, KeyError, ValueError) as error:
                raise InputError(f"{self.path}: cell {name} must be readable, but: {error}") from None
        return self._cells[name]

    @cached_property
    def clock_slew(self) -> float:
        """Edge of a buffered clock and of inputs: as declared, else 0.02 ns, or the sharpest that the flip-flops' tables know."""
        if self.declared.clock_slew_ns is not None:
            return self.nanoseconds(self.declared.clock_slew_ns)
        flops = [self.cell(name) for name, text in self._texts.items() if re.search(r"\bff\s*\(", text)]
        arcs = [arc for cell in flops if cell.state for pin in cell.pins.values() for arc in pin.arcs]
        return max(self.nanoseconds(0.02), min((sharpest(table) for a in arcs for table in a.delay), default=0.0))

    def nanoseconds(self, time: float) -> float:
        """``time`` in nanoseconds in the library's unit of time."""
        return time * 1e-9 / self.time_unit
