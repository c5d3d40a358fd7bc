"""Energy of toggles and clock, leakage: Liberty internal-power tables, pin and wire capacitance."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.netlist import Netlist, Placed
from ternbin.energy.gates.timing import Timing


def toggle_energy(netlist: Netlist, timing: Timing) -> np.ndarray:
    """Femtojoules of one transition of each net: half C V^2, the driver's internal energy at its load, and the internal
    energy of data pins that it reaches (clock pins are in ``clock_energy``)."""
    library = netlist.library
    loads = netlist.loads()
    switching = 0.5 * library.volt**2 * library.cap_unit * 1e15
    internal = library.energy_unit * 1e15
    energy = np.array(loads) * switching
    for placed in netlist.cells:
        for name in placed.cell.outputs:
            net = placed.pins[name]
            slew = _driving_slew(placed, timing, library)
            energy[net] += placed.cell.pins[name].internal(slew, loads[net]) * internal
        for name in placed.cell.inputs:
            pin = placed.cell.pins[name]
            if pin.power and not pin.clock:
                net = placed.pins[name]
                energy[net] += pin.internal(sum(timing.slew[net]) / 2, 0.0) * internal
    return energy


def _driving_slew(placed: Placed, timing: Timing, library: Library) -> float:
    """Mean slew at the inputs of a gate; the clock's at a flip-flop."""
    if placed.cell.state:
        return library.clock_slew
    slews = [sum(timing.slew[placed.pins[name]]) / 2 for name in placed.cell.inputs]
    return sum(slews) / len(slews) if slews else 0.0


@dataclass(frozen=True)
class Clock:
    """Femtojoules of one clock cycle (two edges): inside the cells, in pins and wire."""

    internal: float
    net: float

    @property
    def total(self) -> float:
        return self.internal + self.net

    def __add__(self, other: "Clock") -> "Clock":
        return Clock(self.internal + other.internal, self.net + other.net)


def _clock_pin(placed: Placed, library: Library) -> Clock:
    """The clock pin of a flip-flop or clock gate and its piece of wire, without the buffers of a clock tree (see docs/energy.md)."""
    pin = placed.cell.pins[placed.cell.clock]
    cap = pin.cap + library.wire_cap(4) / 4  # leaves of a tree: short nets, not one of a thousand sinks
    return Clock(
        2 * pin.internal(library.clock_slew, 0.0) * library.energy_unit * 1e15,
        cap * library.cap_unit * library.volt**2 * 1e15,
    )


def clock_energy(netlist: Netlist) -> Clock:
    """All flip-flops' clock pins in a cycle in which all have a clock edge."""
    return sum((_clock_pin(flop, netlist.library) for flop in netlist.flops), Clock(0.0, 0.0))


def domain_energy(netlist: Netlist, group_of: Callable[[Placed], int], groups: int) -> np.ndarray:
    """Femtojoules of a clock cycle of each clock domain, ``[domains, groups]``: the clock pins on its net, counted to the group of their
    cell, and inside the gate that drives it."""
    library, domains = netlist.library, netlist.domains
    result, load = np.zeros((len(domains), groups)), np.zeros(len(domains))
    for placed in [*netlist.flops, *netlist.clock_gates]:
        domain = domains[placed.clock]
        clock = _clock_pin(placed, library)
        result[domain, group_of(placed)] += clock.internal + clock.net
        load[domain] += clock.net / (library.cap_unit * library.volt**2 * 1e15)
    for number, placed in enumerate(netlist.clock_gates):
        inside = placed.cell.pins[placed.gate.output].internal(library.clock_slew, load[number])
        result[number, group_of(placed)] += 2 * inside * library.energy_unit * 1e15
    return result
