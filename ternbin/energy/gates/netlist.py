"""Mapped netlists: read from Yosys JSON, as cells on numbered nets."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ternbin.energy.gates.cells import Cell, Gate
from ternbin.energy.gates.functions import truth_table
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.roles import kind_of
from ternbin.errors import InputError

ZERO, ONE = 0, 1  # the first two nets are constants
# In Yosys JSON a number or a constant ("0", "1", "x", "z"); here also the end of an output that nothing is connected to.
Bit = int | str | tuple[str, str, str]
RAM = "ternbin_ram"  # the memory bank of rtl/primitives, a black box of netlists


@dataclass(frozen=True)
class Placed:
    """One cell instance; ``pins`` maps every pin to its net (an unconnected output has a net of its own)."""

    name: str
    cell: Cell
    pins: dict[str, int]

    @property
    def clock(self) -> int:
        """The net of the clock pin of a flip-flop or clock gate."""
        return self.pins[self.cell.clock]

    @property
    def gated(self) -> int:
        """The net that a clock gate drives."""
        return self.pins[self.gate.output]

    @property
    def gate(self) -> Gate:
        """What the cell does as a clock gate.  Raises RuntimeError for any other cell."""
        if self.cell.gate is None:
            raise RuntimeError(f"{self.name}: cell must be a clock gate, not {self.cell.name}")
        return self.cell.gate


@dataclass(frozen=True)
class Ram:
    """One memory bank: parameters and ports of the primitive, by name; ports as nets, low bit first."""

    name: str
    parameters: dict[str, int]
    pins: dict[str, list[int]]


@dataclass(frozen=True)
class Netlist:
    """A flat, mapped module. ``inputs``, ``outputs``: port -> nets, low bit first; ``clock``: the net of the clock port. Flip-flops, memory
    banks and clock gates hang on it or on the output of a clock gate. ``wires``: capacitance of the wire of nets that are placed; of
    others the library's wire-load model says it."""

    library: Library
    nets: int
    cells: list[Placed]
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    clock: int
    rams: list[Ram] = field(default_factory=list[Ram])
    names: dict[int, str] = field(default_factory=dict[int, str])
    wires: dict[int, float] = field(default_factory=dict[int, float])

    @cached_property
    def flops(self) -> list[Placed]:
        return [cell for cell in self.cells if cell.cell.state]

    @cached_property
    def clock_gates(self) -> list[Placed]:
        """Every one after the gate that its clock comes from."""
        left, known = [c for c in self.cells if c.cell.gate], {self.clock}
        result: list[Placed] = []
        while left:
            ready = [c for c in left if c.clock in known]
            if not ready:
                raise InputError(f"clock gate {left[0].name} must hang on the clock")
            result += ready
            known |= {c.gated for c in ready}
            left = [c for c in left if c not in ready]
        return result

    @cached_property
    def domains(self) -> dict[int, int]:
        """Clock net -> number: the clock gates in order, then the clock itself."""
        return {c.gated: i for i, c in enumerate(self.clock_gates)} | {self.clock: len(self.clock_gates)}

    @cached_property
    def gates(self) -> list[tuple[Placed, str, int]]:
        """(cell, output pin, truth table) of every combinational output."""
        tables: dict[tuple[str, str], int] = {}
        result: list[tuple[Placed, str, int]] = []
        for placed in self.cells:
            if placed.cell.state or placed.cell.gate:
                continue
            for pin in placed.cell.outputs:
                key = (placed.cell.name, pin)
                if key not in tables:
                    tables[key] = truth_table(placed.cell.pins[pin].function, placed.cell.inputs)
                result.append((placed, pin, tables[key]))
        return result

    @cached_property
    def sinks(self) -> dict[int, list[tuple[Placed, str]]]:
        found = defaultdict[int, list[tuple[Placed, str]]](list)
        for placed in self.cells:
            for pin in placed.cell.inputs:
                found[placed.pins[pin]].append((placed, pin))
        return found

    @cached_property
    def area(self) -> float:
        return sum(placed.cell.area for placed in self.cells)

    @cached_property
    def leakage_nw(self) -> float:
        return sum(placed.cell.leakage for placed in self.cells) * self.library.leakage_unit * 1e9

    def area_by_class(self) -> dict[str, float]:
        """Area of flip-flops, full and half adders, XORs, buffers and inverters, and other gates."""
        result: dict[str, float] = defaultdict(float)
        for placed in self.cells:
            result[kind_of(placed.cell)] += placed.cell.area
        return dict(sorted(result.items()))

    def loads(self) -> list[float]:
        """Capacitance of every net, pins and wire, in library units."""
        result = [0.0] * self.nets
        for net, sinks in self.sinks.items():
            result[net] = sum(placed.cell.pins[pin].cap for placed, pin in sinks) + self.wire(net)
        return result

    def wire(self, net: int) -> float:
        """Capacitance of the wire of a net, in library units."""
        return self.wires.get(net, self.library.wire_cap(len(self.sinks.get(net, ()))))


class _Reader:
    """One module of a Yosys JSON file; nets are numbered as they come."""

    def __init__(self, path: str | Path, top: str, library: Library):
        self._path, self._library = path, library
        self._module: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))["modules"][top]
        self._numbers: dict[Bit, int] = {"0": ZERO, "1": ONE, "x": ZERO, "z": ZERO}
        self.count = 2

    def _net(self, bit: Bit) -> int:
        if bit not in self._numbers:
            self._numbers[bit] = self.count
            self.count += 1
        return self._numbers[bit]

    def _nets(self, bits: Sequence[Bit]) -> list[int]:
        return [self._net(bit) for bit in bits]

    def ports(self) -> dict[str, tuple[str, list[int]]]:
        """Name -> (direction, nets)."""
        return {name: (p["direction"], self._nets(p["bits"])) for name, p in self._module["ports"].items()}

    def instances(self) -> tuple[list[Placed], list[Ram]]:
        cells: list[Placed] = []
        rams: list[Ram] = []
        for name, instance in self._module["cells"].items():
            if instance["type"] == RAM:
                pins = {port: self._nets(bits) for port, bits in instance["connections"].items()}
                rams.append(Ram(name, {p: int(bits, 2) for p, bits in instance["parameters"].items()}, pins))
            else:
                cells.append(self._placed(name, instance))
        return cells, rams

    def _placed(self, name: str, instance: dict[str, Any]) -> Placed:
        cell, connections = self._library.cell(instance["type"]), instance["connections"]
        plain = cell.state or cell.gate or all(cell.pins[pin].function for pin in cell.outputs)
        if cell.other or not plain:
            raise InputError(f"{self._path}: cells must be gates or plain flip-flops, not {cell.name}")
        pins: dict[str, int] = {}
        for pin in cell.pins:
            bits = connections.get(pin, [])
            open_end: Bit = ("open", name, pin) if cell.pins[pin].output else "0"
            pins[pin] = self._net(bits[0] if bits else open_end)
        return Placed(name, cell, pins)

    def names(self) -> dict[int, str]:
        """Net -> the first name that the source gave it."""
        names: dict[int, str] = {}
        for name, entry in self._module["netnames"].items():
            for i, bit in enumerate(entry["bits"]):
                if isinstance(bit, int) and not entry.get("hide_name"):
                    names.setdefault(self._net(bit), f"{name}[{i}]" if len(entry["bits"]) > 1 else name)
        return names


def read_json(path: str | Path, top: str, library: Library, clock: str = "clk") -> Netlist:
    """The module ``top`` of a Yosys JSON file. Raises InputError for cells outside the library or with unusual state."""
    reader = _Reader(path, top, library)
    ports = reader.ports()
    cells, rams = reader.instances()
    names = reader.names()
    inputs = {name: nets for name, (way, nets) in ports.items() if way == "input" and name != clock}
    outputs = {name: nets for name, (way, nets) in ports.items() if way == "output"}
    clock_net = ports[clock][1][0] if clock in ports else -1
    netlist = Netlist(library, reader.count, cells, inputs, outputs, clock_net, rams, names)
    clocks = {flop.name: flop.clock for flop in netlist.flops} | {ram.name: ram.pins["clk"][0] for ram in rams}
    wrong = [name for name, net in clocks.items() if net not in netlist.domains]
    if wrong:
        raise InputError(
            f"{path}: flip-flops must be clocked by port {clock}, directly or through clock gates, not {wrong[0]}"
        )
    return netlist
