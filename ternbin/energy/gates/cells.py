"""Cells of a library: pins with capacitance, timing and power tables, and what state they hold."""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ternbin.energy.gates.functions import signal
from ternbin.energy.gates.groups import Group
from ternbin.errors import InputError


class Lookup(Protocol):
    """Delay, transition or energy by the slew at the input and the load at the output, all in library units."""

    def __call__(self, slew: float, load: float, /) -> float: ...


@dataclass(frozen=True)
class Constant:
    """The same value at every slew and load."""

    value: float

    def __call__(self, slew: float, load: float, /) -> float:
        return self.value


@dataclass(frozen=True)
class Line:
    """A table along one axis: the slew, or (``by_load``) the load."""

    axis: tuple[float, ...]
    values: tuple[float, ...]
    by_load: bool = False

    def __call__(self, slew: float, load: float, /) -> float:
        axis = self.axis
        i = min(max(bisect_left(axis, at := load if self.by_load else slew) - 1, 0), len(axis) - 2)
        low, high = self.values[i], self.values[i + 1]
        return low + (high - low) * (at - axis[i]) / (axis[i + 1] - axis[i])


@dataclass(frozen=True)
class Table:
    """A table of two axes (rows: slew, columns: load), interpolated linearly and extrapolated from its last two points, as timers do.
    Plain floats: one look-up costs about a microsecond, and a core needs millions."""

    axes: tuple[tuple[float, ...], tuple[float, ...]]
    values: tuple[tuple[float, ...], ...]

    def __call__(self, slew: float, load: float, /) -> float:
        values, axis = self.values, self.axes[0]
        i = min(max(bisect_left(axis, slew) - 1, 0), len(axis) - 2)
        t = (slew - axis[i]) / (axis[i + 1] - axis[i])
        low, high = values[i], values[i + 1]
        axis = self.axes[1]
        j = min(max(bisect_left(axis, load) - 1, 0), len(axis) - 2)
        u = (load - axis[j]) / (axis[j + 1] - axis[j])
        first = low[j] + (low[j + 1] - low[j]) * u
        return first + (high[j] + (high[j + 1] - high[j]) * u - first) * t


def _numbers(strings: Sequence[str]) -> tuple[float, ...]:
    return tuple(float(x) for part in strings for x in re.split(r"[,\s]+", part.strip()) if x)


# What the second axis of a table is called; the first is the slew of the input, or of the data pin of a constraint.
_SECOND = ("total_output_net_capacitance", "related_pin_transition")


def read_table(group: Group, templates: Mapping[str, Group]) -> Lookup:
    """A ``cell_rise``, ``rise_power``, ... group; ``scalar`` ones have no axes. ``templates`` say which axis is which, and name the
    points where the group does not; a table without its template is by slew, then by load."""
    template = templates.get(group.args[0]) if group.args else None
    axes: list[tuple[float, ...]] = []
    names: list[str] = []
    for number, default in enumerate(("slew", "load"), start=1):
        points = group.values.get(f"index_{number}") or (template and template.values.get(f"index_{number}"))
        if points:
            axes.append(_numbers(points))
            names.append(template.text(f"variable_{number}", default) if template else default)
    if template and "variable_3" in template.values:
        raise InputError(f"tables must have up to two axes, but {template.args[0]} has three")
    values = _numbers(group.values["values"])
    if len(values) == 1:
        return Constant(values[0])
    return _table(axes, names, values)


def _table(axes: list[tuple[float, ...]], names: list[str], values: tuple[float, ...]) -> Lookup:
    """The table whose axes have the ``names``; an axis of one point is left out."""
    size = 1
    for axis in axes:
        size *= len(axis)
    if not axes or size != len(values):
        raise InputError(f"a table must have as many values as points, not {len(values)} for {[len(a) for a in axes]}")
    for axis in axes:
        if any(b <= a for a, b in zip(axis, axis[1:], strict=False)):
            raise InputError(f"the points of a table must increase, not {axis}")
    kept = [(axis, name) for axis, name in zip(axes, names, strict=True) if len(axis) > 1]
    if len(kept) == 1:
        (axis, name), *_ = kept
        return Line(axis, values, by_load=name in (*_SECOND, "load"))
    (first, name), (second, _) = kept
    rows = tuple(values[i : i + len(second)] for i in range(0, len(values), len(second)))
    if name in _SECOND:
        return Table((second, first), tuple(zip(*rows, strict=True)))
    return Table((first, second), rows)


def sharpest(table: Lookup) -> float:
    """The smallest slew that a table has a point for."""
    if isinstance(table, Table):
        return table.axes[0][0]
    return table.axis[0] if isinstance(table, Line) and not table.by_load else 0.0


@dataclass(frozen=True)
class Arc:
    """Timing from ``related`` to an output: delay and transition tables for a rising and a falling output."""

    related: str
    sense: str
    delay: tuple[Lookup, Lookup]  # rise, fall
    slew: tuple[Lookup, Lookup]


@dataclass(frozen=True)
class Pin:
    """One pin; capacitance in farad is ``cap * Library.cap_unit``.

    ``power``: pairs (related pin or "", (rise, fall)) of internal-energy tables, conditional ones one by one.
    """

    name: str
    output: bool
    cap: float
    function: str
    clock: bool
    arcs: tuple[Arc, ...]
    power: tuple[tuple[str, tuple[Lookup, Lookup]], ...]
    setup: tuple[Lookup, Lookup] | None
    most: float = 0.0  # largest load, in library units; 0 where the library does not say

    def internal(self, slew: float, load: float, related: str | None = None) -> float:
        """Energy inside the cell for one transition of this pin: the mean of rise and fall, of conditions and related pins.

        Rising and falling edges alternate, so the mean is per transition; adding both would count twice.
        """
        entries = [tables for name, tables in self.power if related in (None, name)]
        if not entries:
            return 0.0
        return sum((rise(slew, load) + fall(slew, load)) / 2 for rise, fall in entries) / len(entries)


@dataclass(frozen=True)
class State:
    """A plain flip-flop or a ``latch``: pins ``clock`` and ``data``, names of what it holds as outputs' functions have them.

    ``inverted``: it takes its data at the falling edge, or while the clock is low.
    """

    clock: str
    data: str
    q: str
    qn: str
    inverted: bool = False
    latch: bool = False


@dataclass(frozen=True)
class Gate:
    """A clock gate for rising edges. ``low``: pins for tests, to be held at 0. ``share``: the part of the cycle after which the enable must
    stand still: a half where a flip-flop of the other edge holds it."""

    clock: str
    enable: str
    output: str
    low: tuple[str, ...] = ()
    share: float = 1.0


@dataclass(frozen=True)
class Cell:
    """One cell. ``state``: of a plain rising-edge flip-flop; ``gate``: of a clock-gating cell; ``other``: of a plain latch or flip-flop for
    the falling edge, which only a clock gate may use."""

    name: str
    area: float
    leakage: float
    pins: Mapping[str, Pin]
    state: State | None
    gate: Gate | None = None
    other: State | None = None

    @property
    def inputs(self) -> list[str]:
        return [pin.name for pin in self.pins.values() if not pin.output]

    @property
    def outputs(self) -> list[str]:
        return [pin.name for pin in self.pins.values() if pin.output]

    @property
    def clock(self) -> str:
        """The clock pin. Raises InputError for a cell without one."""
        if self.state:
            return self.state.clock
        if self.gate:
            return self.gate.clock
        raise InputError(f"cell {self.name} must have a clock")

    @property
    def data(self) -> str:
        """What must stand still before the clock's edge. Raises InputError for a cell without a clock."""
        if self.state:
            return self.state.data
        if self.gate:
            return self.gate.enable
        raise InputError(f"cell {self.name} must have a clock")


def read_cell(group: Group, templates: Mapping[str, Group], leakage: float) -> Cell:
    """The cell of a ``cell`` group; ``leakage``: the library's default.

    Raises InputError for tables that cannot be read.
    """
    pins = {
        name: _pin(name, pin, templates)
        for pin in group.of("pin")
        if pin.text("direction") != "internal"
        for name in pin.args
    }
    states = [_state(part, pins) for kind in ("ff", "latch") for part in group.of(kind)]
    state = states[0] if len(states) == 1 else None
    plain = state is not None and not state.inverted and not state.latch
    gate = _gate(group)
    return Cell(
        group.args[0],
        group.number("area"),
        _leakage(group, leakage),
        pins,
        state if plain and not gate else None,
        gate,
        None if plain or gate else state,
    )


def _leakage(group: Group, default: float) -> float:
    """The mean over input states where the cell gives no figure of its own."""
    if "cell_leakage_power" in group.values:
        return group.number("cell_leakage_power")
    by_state = [part.number("value") for part in group.of("leakage_power") if "value" in part.values]
    return sum(by_state) / len(by_state) if by_state else default


def _state(group: Group, pins: Mapping[str, Pin]) -> State | None:
    """Of a flip-flop or latch without set and reset; None for others."""
    if "clear" in group.values or "preset" in group.values:
        return None
    roles = ("clocked_on", "next_state") if group.kind == "ff" else ("enable", "data_in")
    (clock, inverted), (data, negated) = (signal(group.text(role)) for role in roles)
    outputs = {pin.function.strip("() ") for pin in pins.values() if pin.output}
    if clock not in pins or data not in pins or negated or len(group.args) < 2 or group.args[0] not in outputs:
        return None
    return State(clock, data, group.args[0], group.args[1], inverted, group.kind == "latch")


def _gate(group: Group) -> Gate | None:
    """Of an integrated clock-gating cell for rising edges, whose test pin (if any) opens it."""
    if not group.text("clock_gating_integrated_cell").startswith("latch_posedge"):
        return None
    found = {
        role: [name for pin in group.of("pin") if pin.text(f"clock_gate_{role}_pin") == "true" for name in pin.args]
        for role in ("clock", "enable", "out", "test", "obs")
    }
    if not all(found[role] for role in ("clock", "enable", "out")) or found["obs"]:
        return None
    return Gate(found["clock"][0], found["enable"][0], found["out"][0], tuple(found["test"]))


def _pair(tables: Mapping[str, Lookup], rise: str, fall: str, missing: Lookup | None = None) -> tuple[Lookup, Lookup]:
    """Two tables of which one may be missing: it is ``missing``, or like the other."""
    either = tables.get(rise) or tables[fall]
    return tables.get(rise) or missing or either, tables.get(fall) or missing or either


def _pin(name: str, group: Group, templates: Mapping[str, Group]) -> Pin:
    arcs: list[Arc] = []
    power: list[tuple[str, tuple[Lookup, Lookup]]] = []
    setup: tuple[Lookup, Lookup] | None = None
    for timing in group.of("timing"):
        kind = timing.text("timing_type", "combinational")
        if kind not in ("setup_rising", "setup_falling", "rising_edge", "falling_edge") and "combinational" not in kind:
            continue
        tables = {g.kind: read_table(g, templates) for g in timing.groups if "values" in g.values}
        if kind.startswith("setup") and tables:
            setup = _pair(tables, "rise_constraint", "fall_constraint")
        elif "cell_rise" in tables or "cell_fall" in tables:
            delay, slew = _pair(tables, "cell_rise", "cell_fall"), _pair(tables, "rise_transition", "fall_transition")
            arcs += [
                Arc(related, timing.text("timing_sense", "non_unate"), delay, slew)
                for related in timing.text("related_pin").split()
            ]
    for entry in group.of("internal_power"):
        tables = {g.kind: read_table(g, templates) for g in entry.groups if "values" in g.values}
        if "power" in tables:
            tables = {"rise_power": tables["power"], "fall_power": tables["power"]}
        if tables:
            both = _pair(tables, "rise_power", "fall_power", Constant(0.0))
            power += [(related, both) for related in entry.text("related_pin").split() or [""]]
    return Pin(
        name,
        group.text("direction") == "output",
        group.number("capacitance"),
        group.text("function"),
        "true" in (group.text("clock"), group.text("clock_gate_clock_pin")),
        tuple(arcs),
        tuple(power),
        setup,
        group.number("max_capacitance"),
    )
