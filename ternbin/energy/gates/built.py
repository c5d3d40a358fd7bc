"""A clock gate made of a library's gates, as one cell: for libraries without an integrated one.

A latch that is open while the clock is low holds the enable, an AND lets the clock through. Where there is no latch, a flip-flop for the
falling edge holds it: the enable must then come in the first half of the cycle. Either may get its clock through an inverter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ternbin.energy.gates.cells import Cell, Constant, Gate, Lookup, Pin, State
from ternbin.energy.gates.liberty import Library
from ternbin.errors import InputError

NAME = "ternbin_built_clock_gate"


@dataclass(frozen=True)
class Parts:
    """What a library has: cells that hold a bit, and the smallest gates."""

    holders: Sequence[Cell]
    conjunction: Cell | None
    nand: Cell | None
    inverter: Cell


@dataclass(frozen=True)
class _Holder:
    """What holds the enable while the clock is high; ``inverted``: its clock comes through an inverter."""

    cell: Cell
    state: State
    inverted: bool

    @property
    def share(self) -> float:
        """Part of the cycle that the enable has."""
        return 1.0 if self.state.latch else 0.5

    @property
    def output(self) -> Pin:
        pins = self.cell.pins.values()
        return next(pin for pin in pins if pin.output and pin.function.strip("() ") == self.state.q)


def _holder(parts: Parts) -> _Holder:
    """A latch before a flip-flop, one without an inverter before one with it, then the smallest."""
    states = [(cell, state) for cell in parts.holders if (state := cell.state or cell.other)]
    found = [_Holder(cell, state, inverted=not state.inverted) for cell, state in states]
    return min(found, key=lambda holder: (not holder.state.latch, holder.inverted, holder.cell.area))


@dataclass(frozen=True)
class _Added:
    """A table and something fixed on top."""

    table: Lookup
    more: float

    def __call__(self, slew: float, load: float, /) -> float:
        return self.table(slew, load) + self.more


class _Inside:
    """Energies inside the cell, in the library's unit, for one transition each."""

    def __init__(self, library: Library):
        self._library = library
        self._switching = 0.5 * library.volt**2 * library.cap_unit / library.energy_unit

    def taken(self, pin: Pin) -> float:
        """By a cell when an input changes."""
        return pin.internal(self._library.clock_slew, 0.0)

    def driven(self, driver: Pin, sinks: Sequence[Pin]) -> float:
        """By an output that drives ``sinks``."""
        load = self.load(sinks)
        return driver.internal(self._library.clock_slew, load) + self._switching * load + sum(map(self.taken, sinks))

    def load(self, sinks: Sequence[Pin]) -> float:
        return sum(pin.cap for pin in sinks) + self._library.wire_cap(len(sinks))


def built_clock_gate(library: Library, parts: Parts) -> tuple[Cell, tuple[str, ...]]:
    """The cell, and the names of its parts. Energies inside it are those of its parts at the slew of the clock and their own loads;
    every change of the enable counts as if it went through to the AND. Raises InputError where the library has no AND and no NAND."""
    holder, inside = _holder(parts), _Inside(library)
    gate = parts.conjunction or parts.nand
    if gate is None:
        raise InputError(f"{library.path}: the library must have an AND or a NAND of two inputs for clock gates")
    enable_side, clock_side = (gate.pins[name] for name in gate.inputs)
    enable, clock = holder.cell.pins[holder.state.data], holder.cell.pins[holder.state.clock]
    last = None if parts.conjunction else parts.inverter
    cells = [holder.cell, *[parts.inverter] * holder.inverted, gate, *([last] if last else [])]
    first, passing = clock, inside.taken(clock)
    if holder.inverted:
        first = parts.inverter.pins[parts.inverter.inputs[0]]
        passing = inside.taken(first) + inside.driven(parts.inverter.pins[parts.inverter.outputs[0]], [clock])
    changing = inside.taken(enable) + inside.driven(holder.output, [enable_side])
    pins = [
        _input("CK", inside.load([first, clock_side]), passing + inside.taken(clock_side), clock=True),
        replace(_input("E", enable.cap, changing), setup=enable.setup),
        _output(gate, last, inside),
    ]
    area, leakage = sum(cell.area for cell in cells), sum(cell.leakage for cell in cells)
    clock_gate = Gate("CK", "E", "GCK", share=holder.share)
    return Cell(NAME, area, leakage, {pin.name: pin for pin in pins}, None, clock_gate), _names(cells)


def _names(cells: Iterable[Cell]) -> tuple[str, ...]:
    return tuple(cell.name for cell in cells)


def _input(name: str, cap: float, energy: float, *, clock: bool = False) -> Pin:
    table = Constant(energy)
    return Pin(name, False, cap, "", clock, (), (("", (table, table)),), None)


def _output(gate: Cell, last: Cell | None, inside: _Inside) -> Pin:
    """The gated clock: the output of the AND, or of the inverter behind the NAND with what that takes."""
    pin = gate.pins[gate.outputs[0]]
    if last:
        more, pin = inside.driven(pin, [last.pins[last.inputs[0]]]), last.pins[last.outputs[0]]
        pin = replace(pin, power=tuple((n, (_Added(r, more), _Added(f, more))) for n, (r, f) in pin.power))
    return replace(pin, name="GCK", function="", arcs=())
