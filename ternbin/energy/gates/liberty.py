"""A reader of Liberty cell libraries: what timing, leakage and power of mapped netlists need, and no more.

Cells are parsed when asked for: a library of a hundred thousand lines opens in a fraction of a second.
"""

import functools
import itertools
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ternbin.errors import InputError

_TOKEN = re.compile(r'"[^"]*"|[{}();:,]|[^\s{}();:,"]+')
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
}


@dataclass
class Group:
    """One Liberty group: ``kind (args) { ... }``."""

    kind: str
    args: list[str]
    values: dict[str, list[str]] = field(default_factory=dict)  # simple and complex attributes; the last of a name wins
    groups: list["Group"] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        return self.values[name][0] if name in self.values else default

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self.text(name, str(default)))

    def of(self, kind: str) -> list["Group"]:
        return [group for group in self.groups if group.kind == kind]


def parse_group(text: str) -> Group:
    """The first group in ``text`` (comments and line continuations already removed)."""
    tokens = [token.strip('"') for token in _TOKEN.findall(text)]
    root, stack, i = Group("", []), [], 0
    stack.append(root)
    while i < len(tokens):
        token = tokens[i]
        if token == "}":
            stack.pop()
            i += 1
            if len(stack) == 1:
                break
        elif token == ";":
            i += 1
        elif tokens[i + 1] == ":":
            end = i + 2
            while tokens[end] not in (";", "}"):
                end += 1
            stack[-1].values[token] = [" ".join(tokens[i + 2 : end])]
            i = end
        else:  # name (args) ; or name (args) {
            close = tokens.index(")", i)
            args = [part for part in tokens[i + 2 : close] if part != ","]
            i = close + 1
            if i < len(tokens) and tokens[i] == "{":
                group = Group(token, args)
                stack[-1].groups.append(group)
                stack.append(group)
                i += 1
            else:
                if token == "fanout_length":  # the one attribute that is repeated
                    args = stack[-1].values.get(token, []) + args
                stack[-1].values[token] = args
    return root.groups[0]


@dataclass(frozen=True)
class Table:
    """A look-up table of up to two axes (rows: slew, columns: load), interpolated linearly and extrapolated from its last
    two points, as timers do. Plain floats: one look-up costs about a microsecond, and a core needs millions."""

    axes: tuple[tuple[float, ...], ...]
    values: tuple

    def __call__(self, slew: float, load: float) -> float:
        if not self.axes:
            return self.values
        values, axis = self.values, self.axes[0]
        i = min(max(bisect_left(axis, slew) - 1, 0), len(axis) - 2)
        t = (slew - axis[i]) / (axis[i + 1] - axis[i])
        low, high = values[i], values[i + 1]
        if len(self.axes) == 1:
            return low + (high - low) * t
        axis = self.axes[1]
        j = min(max(bisect_left(axis, load) - 1, 0), len(axis) - 2)
        u = (load - axis[j]) / (axis[j + 1] - axis[j])
        first = low[j] + (low[j + 1] - low[j]) * u
        return first + (high[j] + (high[j + 1] - high[j]) * u - first) * t


def _numbers(strings: list[str]) -> tuple[float, ...]:
    return tuple(float(x) for part in strings for x in re.split(r"[,\s]+", part.strip()) if x)


def read_table(group: Group) -> Table:
    """A ``cell_rise``, ``rise_power``, ... group; ``scalar`` ones have no axes."""
    axes = tuple(_numbers(group.values[name]) for name in ("index_1", "index_2") if name in group.values)
    values = _numbers(group.values["values"])
    if not axes:
        return Table((), values[0])
    if len(axes) == 2:
        width = len(axes[1])
        values = tuple(values[i : i + width] for i in range(0, len(values), width))
    return Table(axes, values)


def truth_table(function: str, pins: list[str]) -> int:
    """Bit i is the function's value with pin j at bit j of i. Liberty syntax: ! ' & * | + ^, juxtaposition is AND.

    Raises InputError for anything else.
    """
    tokens = re.findall(r"[A-Za-z_][\w\[\]]*|[01]|[()!'&*|+^]", function)
    if "".join(tokens) != re.sub(r"[\s\"]+", "", function):
        raise InputError(f"a Liberty function must be made of pins and ! ' & * | + ^, not {function!r}")
    result = 0
    for index, bits in enumerate(itertools.product((0, 1), repeat=len(pins))):
        state = dict(zip(reversed(pins), bits, strict=True))
        value, rest = _either(tokens, state)
        if rest:
            raise InputError(f"a Liberty function must be one expression, not {function!r}")
        result |= value << index
    return result


def _either(tokens, state):
    value, tokens = _exclusive(tokens, state)
    while tokens and tokens[0] in "|+":
        other, tokens = _exclusive(tokens[1:], state)
        value |= other
    return value, tokens


def _exclusive(tokens, state):
    value, tokens = _both(tokens, state)
    while tokens and tokens[0] == "^":
        other, tokens = _both(tokens[1:], state)
        value ^= other
    return value, tokens


def _both(tokens, state):
    value, tokens = _single(tokens, state)
    while tokens and tokens[0] not in ")|+^":
        other, tokens = _single(tokens[1:] if tokens[0] in "&*" else tokens, state)
        value &= other
    return value, tokens


def _single(tokens, state):
    if tokens[0] == "!":
        value, tokens = _single(tokens[1:], state)
        return 1 - value, tokens
    if tokens[0] == "(":
        value, tokens = _either(tokens[1:], state)
        tokens = tokens[1:]
    else:
        try:
            value = int(tokens[0]) if tokens[0] in "01" else state[tokens[0]]
        except KeyError:
            raise InputError(f"a Liberty function must use pins of its cell, not {tokens[0]!r}") from None
        tokens = tokens[1:]
    while tokens and tokens[0] == "'":
        value, tokens = 1 - value, tokens[1:]
    return value, tokens


@dataclass(frozen=True)
class Arc:
    """Timing from ``related`` to an output: delay and transition tables for a rising and a falling output."""

    related: str
    sense: str
    delay: tuple[Table, Table]  # rise, fall
    slew: tuple[Table, Table]


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
    power: tuple[tuple[str, tuple[Table, Table]], ...]
    setup: tuple[Table, Table] | None

    def internal(self, slew: float, load: float, related: str | None = None) -> float:
        """Energy inside the cell for one transition of this pin: the mean of rise and fall, of conditions and related pins.

        Rising and falling edges alternate, so the mean is per transition; adding both would count twice.
        """
        entries = [tables for name, tables in self.power if related in (None, name)]
        if not entries:
            return 0.0
        return sum((rise(slew, load) + fall(slew, load)) / 2 for rise, fall in entries) / len(entries)


@dataclass(frozen=True)
class Cell:
    """One cell; ``state`` is (clock pin, data pin, Q name, QN name) of a plain rising-edge flip-flop, else None; ``gate`` is (clock pin,
    enable pin, output pin) of a clock-gating cell for rising edges without a test pin, else None."""

    name: str
    area: float
    leakage: float
    pins: Mapping[str, Pin]
    state: tuple[str, str, str, str] | None
    gate: tuple[str, str, str] | None = None

    @property
    def inputs(self) -> list[str]:
        return [pin.name for pin in self.pins.values() if not pin.output]

    @property
    def outputs(self) -> list[str]:
        return [pin.name for pin in self.pins.values() if pin.output]


class Library:
    """A Liberty file. ``volt``; unit sizes in SI; ``wire_cap(fanout)`` in library capacitance units.

    Energy unit of internal-power tables: capacitance unit x volt^2.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            text = self.path.read_text(errors="replace")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S).replace("\\\n", " ")
        starts = [match.start() for match in re.finditer(r"^\s*cell\s*\(", text, re.M)]
        if not starts or not re.match(r"\s*library\s*\(", text):
            raise InputError(f"{path} must be a Liberty library with cells")
        self._texts = {}
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            self._texts[re.match(r"\s*cell\s*\(\s*\"?([\w.]+)", text[start : start + 200])[1]] = text[start:end]
        self.header = header = parse_group(text[: starts[0]] + "}")
        self.name = header.args[0]
        self.volt = header.number("nom_voltage", 1.0)
        self.time_unit = self._unit(header.text("time_unit", "1ns"))
        self.leakage_unit = self._unit(header.text("leakage_power_unit", "1nW"))
        amount, unit = header.values.get("capacitive_load_unit", ["1", "pf"])
        self.cap_unit = float(amount) * _UNITS[unit.lower()]
        self.energy_unit = self.cap_unit * 1.0  # joule, at one volt: the tables hold the voltage already

    @staticmethod
    def _unit(text: str) -> float:
        match = re.fullmatch(r"([\d.]*)\s*(\w+)", text)
        return float(match[1] or 1) * _UNITS[match[2].lower()]

    @property
    def cells(self) -> list[str]:
        return list(self._texts)

    @functools.cache  # noqa: B019 - a library lives as long as the process
    def wire_cap(self, fanout: int) -> float:
        """Capacitance of a net by the default wire-load model; 0 if the library has none."""
        name = self.header.text("default_wire_load")
        model = next((g for g in self.header.of("wire_load") if g.args[0] == name), None)
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

    @functools.cache  # noqa: B019
    def cell(self, name: str) -> Cell:
        """Raises InputError for a cell that the library does not have."""
        if name not in self._texts:
            raise InputError(f"{self.path}: a cell of the netlist must be in the library, not {name!r}")
        group = parse_group(self._texts[name])
        pins = {pin.args[0]: _pin(pin) for pin in group.of("pin") if pin.text("direction") != "internal"}
        return Cell(
            name, group.number("area"), group.number("cell_leakage_power"), pins, _state(group, pins), _gate(group)
        )


def _state(group: Group, pins: dict[str, Pin]):
    flops = group.of("ff")
    if not flops or "clear" in flops[0].values or "preset" in flops[0].values:
        return None
    clock, data = flops[0].text("clocked_on"), flops[0].text("next_state")
    return (clock, data, *flops[0].args[:2]) if clock in pins and data in pins else None


def _gate(group: Group):
    if group.text("clock_gating_integrated_cell") != "latch_posedge":
        return None
    roles = ("clock_gate_clock_pin", "clock_gate_enable_pin", "clock_gate_out_pin")
    return tuple(next(pin.args[0] for pin in group.of("pin") if pin.text(role) == "true") for role in roles)


def _pin(group: Group) -> Pin:
    arcs, setup, power = [], None, []
    for timing in group.of("timing"):
        tables = {g.kind: read_table(g) for g in timing.groups}
        if timing.text("timing_type") == "setup_rising":
            setup = (tables["rise_constraint"], tables["fall_constraint"])
        elif "cell_rise" in tables and timing.text("timing_type", "combinational") in ("combinational", "rising_edge"):
            arcs.append(
                Arc(
                    timing.text("related_pin"),
                    timing.text("timing_sense", "non_unate"),
                    (tables["cell_rise"], tables["cell_fall"]),
                    (tables["rise_transition"], tables["fall_transition"]),
                )
            )
    for entry in group.of("internal_power"):
        tables = {g.kind: read_table(g) for g in entry.groups}
        power.append((entry.text("related_pin"), (tables["rise_power"], tables["fall_power"])))
    return Pin(
        group.args[0],
        group.text("direction") == "output",
        group.number("capacitance"),
        group.text("function"),
        "true" in (group.text("clock"), group.text("clock_gate_clock_pin")),
        tuple(arcs),
        tuple(power),
        setup,
    )
