"""Energy of a block's netlist under stimuli, glitch-aware and zero-delay, after its outputs are checked against the RTL."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ternbin.energy.gates import rtl_run
from ternbin.energy.gates.blocks import ELEMENT, Block
from ternbin.energy.gates.engine import Simulator, pack
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.netlist import Netlist, Placed
from ternbin.energy.gates.power import clock_energy, toggle_energy
from ternbin.energy.gates.synthesis import synthesize
from ternbin.energy.gates.timing import Timing, analyse

WARMUP = 32  # cycles that are simulated and checked but not counted


@dataclass(frozen=True)
class Energy:
    """Femtojoules a cycle without the clock: of the element with the pins that its operands drive, and of the operand registers."""

    element: float
    operands: float


class Measured:
    """A block's netlist with everything that its energies need."""

    def __init__(self, block: Block, netlist: Netlist):
        self.block, self.netlist = block, netlist
        self.timing: Timing = analyse(self.netlist)
        self.weights = toggle_energy(self.netlist, self.timing)
        self.simulator = Simulator(self.netlist, self.timing, self.weights, group_of=self.group, groups=2)

    @staticmethod
    def of(block: Block, library: Library) -> "Measured":
        """The block synthesized, its wires by the library's model."""
        return Measured(block, synthesize(block.verilog, block.top, library, keep=(block.module,)))

    @staticmethod
    def group(placed: Placed) -> int:
        """1 for a cell of the element, 0 for the operand registers."""
        return int(f"{ELEMENT}." in placed.name)  # generated names have a prefix of Yosys before the instance's

    @cached_property
    def element_flops(self) -> int:
        return sum(map(self.group, self.netlist.flops))

    @cached_property
    def clock_fj_per_flop(self) -> float:
        return clock_energy(self.netlist).total / len(self.netlist.flops)

    def check(self, stimuli: Mapping[str, list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Input rows, and what the RTL answers to them."""
        rows = pack(self.block.inputs, stimuli)
        b = self.block
        return rows, rtl_run.run(b.verilog, b.top, b.inputs, b.outputs, rows)

    def energy(self, stimuli: Mapping[str, list[int]], start: int = WARMUP) -> dict[str, Energy]:
        """ "glitch" and "zero_delay" energies. Raises CheckError where the netlist's outputs differ from the RTL's."""
        rows, expected = self.check(stimuli)
        result: dict[str, Energy] = {}
        for name, timed in (("glitch", True), ("zero_delay", False)):
            activity = self.simulator.run(rows, timed=timed, start=start, per_cycle=True)
            rtl_run.check_equal(f"{self.block.name}, {name}", expected, activity.outputs, start)
            operands, element = activity.energy.sum(axis=0) / (len(rows) - start)
            driven = float(activity.toggles @ self._operand_loads) / (len(rows) - start)
            result[name] = Energy(float(element) + driven, float(operands) - driven)
        return result

    @cached_property
    def _operand_loads(self) -> np.ndarray:
        """Energy that a toggle of an operand register spends in the element's pins and the wire to them; 0 for other nets."""
        library = self.netlist.library
        result = np.zeros(self.netlist.nets)
        for flop in self.netlist.flops:
            if not self.group(flop):
                for pin in flop.cell.outputs:
                    net = flop.pins[pin]
                    inside = [p.cell.pins[name].cap for p, name in self.netlist.sinks.get(net, ()) if self.group(p)]
                    if inside:
                        load = sum(inside) + self.netlist.wire(net)
                        result[net] = 0.5 * library.volt**2 * library.cap_unit * 1e15 * load
        return result
