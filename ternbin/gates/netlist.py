"""Mapped netlists: read from Yosys JSON, as cells on numbered nets."""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from ternbin.errors import InputError
from ternbin.gates.liberty import Cell, Library, truth_table

ZERO, ONE = 0, 1  # the first two nets are constants


@dataclass(frozen=True)
class Placed:
    """One cell instance; ``pins`` maps every pin to its net (an unconnected output has a net of its own)."""

    name: str
    cell: Cell
    pins: dict[str, int]


@dataclass(frozen=True)
class Netlist:
    """A flat, mapped module. ``inputs``, ``outputs``: port -> nets, low bit first; ``clock``: the net of the clock port."""

    library: Library
    nets: int
    cells: list[Placed]
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    clock: int
    names: dict[int, str] = field(default_factory=dict)

    @cached_property
    def flops(self) -> list[Placed]:
        return [cell for cell in self.cells if cell.cell.state]

    @cached_property
    def gates(self) -> list[tuple[Placed, str, int]]:
        """(cell, output pin, truth table) of every combinational output."""
        tables: dict[tuple[str, str], int] = {}
        result = []
        for placed in self.cells:
            if placed.cell.state:
                continue
            for pin in placed.cell.outputs:
                key = (placed.cell.name, pin)
                if key not in tables:
                    tables[key] = truth_table(placed.cell.pins[pin].function, placed.cell.inputs)
                result.append((placed, pin, tables[key]))
        return result

    @cached_property
    def sinks(self) -> dict[int, list[tuple[Placed, str]]]:
        found = defaultdict(list)
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
            result[_class(placed.cell)] += placed.cell.area
        return dict(sorted(result.items()))

    def loads(self) -> list[float]:
        """Capacitance of every net, pins and wire-load model, in library units."""
        result = [0.0] * self.nets
        for net, sinks in self.sinks.items():
            result[net] = sum(placed.cell.pins[pin].cap for placed, pin in sinks) + self.library.wire_cap(len(sinks))
        return result


def _class(cell: Cell) -> str:
    if cell.state:
        return "flip-flop"
    base = cell.name.split("_")[0]
    named = {"FA": "adder", "HA": "adder", "XOR2": "xor", "XNOR2": "xor", "BUF": "buffer", "CLKBUF": "buffer", "INV": "buffer",
             "MUX2": "mux", "LOGIC0": "constant", "LOGIC1": "constant"}
    return named.get(base, "gate")


def read_json(path, top: str, library: Library, clock: str = "clk", cut: Collection[str] = ()) -> Netlist:
    """The module ``top`` of a Yosys JSON file; cells of the types ``cut`` are left out, their outputs become inputs
    ``instance.port`` and their inputs outputs. Raises InputError for cells outside the library or with unusual state."""
    module = json.loads(open(path).read())["modules"][top]
    numbers: dict = {"0": ZERO, "1": ONE, "x": ZERO, "z": ZERO}
    count = 2

    def net(bit) -> int:
        nonlocal count
        if bit not in numbers:
            numbers[bit] = count
            count += 1
        return numbers[bit]

    ports = {name: (port["direction"], [net(bit) for bit in port["bits"]]) for name, port in module["ports"].items()}
    cells = []
    for name, instance in module["cells"].items():
        if instance["type"] in cut:
            for port, bits in instance["connections"].items():
                way = "input" if instance["port_directions"][port] == "output" else "output"
                if port != clock:
                    ports[f"{name}.{port}"] = (way, [net(bit) for bit in bits])
            continue
        cell = library.cell(instance["type"])
        if not cell.state and any(not pin.function for pin in cell.pins.values() if pin.output):
            raise InputError(f"{path}: cells must be gates or plain flip-flops, not {cell.name}")
        pins = {}
        for pin in cell.pins:
            bits = instance["connections"].get(pin, [])
            if bits:
                pins[pin] = net(bits[0])
            elif cell.pins[pin].output:
                pins[pin] = net(("open", name, pin))
            else:
                pins[pin] = ZERO
        cells.append(Placed(name, cell, pins))
    names = {}
    for name, entry in module["netnames"].items():
        for i, bit in enumerate(entry["bits"]):
            if isinstance(bit, int) and not entry.get("hide_name"):
                names.setdefault(net(bit), f"{name}[{i}]" if len(entry["bits"]) > 1 else name)
    inputs = {name: nets for name, (way, nets) in ports.items() if way == "input" and name != clock}
    outputs = {name: nets for name, (way, nets) in ports.items() if way == "output"}
    clock_net = ports[clock][1][0] if clock in ports else -1
    wrong = [f for f in cells if f.cell.state and f.pins[f.cell.state[0]] != clock_net]
    if wrong:
        raise InputError(f"{path}: every flip-flop must be clocked by port {clock}, not {wrong[0].name}")
    return Netlist(library, count, cells, inputs, outputs, clock_net, names)
