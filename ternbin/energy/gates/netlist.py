"""Mapped netlists: read from Yosys JSON, as cells on numbered nets."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from ternbin.energy.gates.liberty import Cell, Library, truth_table
from ternbin.errors import InputError

ZERO, ONE = 0, 1  # the first two nets are constants
RAM = "ternbin_ram"  # the memory bank of rtl/primitives, a black box of netlists


@dataclass(frozen=True)
class Placed:
    """One cell instance; ``pins`` maps every pin to its net (an unconnected output has a net of its own)."""

    name: str
    cell: Cell
    pins: dict[str, int]


@dataclass(frozen=True)
class Ram:
    """One memory bank: parameters and ports of the primitive, by name; ports as nets, low bit first."""

    name: str
    parameters: dict[str, int]
    pins: dict[str, list[int]]


@dataclass(frozen=True)
class Netlist:
    """A flat, mapped module. ``inputs``, ``outputs``: port -> nets, low bit first; ``clock``: the net of the clock port. Flip-flops, memory
    banks and clock gates hang on it or on the output of a clock gate."""

    library: Library
    nets: int
    cells: list[Placed]
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    clock: int
    rams: list[Ram] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    @cached_property
    def flops(self) -> list[Placed]:
        return [cell for cell in self.cells if cell.cell.state]

    @cached_property
    def clock_gates(self) -> list[Placed]:
        """Every one after the gate that its clock comes from."""
        left, known, result = [c for c in self.cells if c.cell.gate], {self.clock}, []
        while left:
            ready = [c for c in left if c.pins[c.cell.gate[0]] in known]
            if not ready:
                raise InputError(f"clock gate {left[0].name} must hang on the clock")
            result += ready
            known |= {c.pins[c.cell.gate[2]] for c in ready}
            left = [c for c in left if c not in ready]
        return result

    @cached_property
    def domains(self) -> dict[int, int]:
        """Clock net -> number: the clock gates in order, then the clock itself."""
        return {c.pins[c.cell.gate[2]]: i for i, c in enumerate(self.clock_gates)} | {self.clock: len(self.clock_gates)}

    @cached_property
    def gates(self) -> list[tuple[Placed, str, int]]:
        """(cell, output pin, truth table) of every combinational output."""
        tables: dict[tuple[str, str], int] = {}
        result = []
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
    if cell.state or cell.gate:
        return "flip-flop" if cell.state else "clock gate"
    base = cell.name.split("_")[0]
    named = {
        "FA": "adder",
        "HA": "adder",
        "XOR2": "xor",
        "XNOR2": "xor",
        "BUF": "buffer",
        "CLKBUF": "buffer",
        "INV": "buffer",
        "MUX2": "mux",
        "LOGIC0": "constant",
        "LOGIC1": "constant",
    }
    return named.get(base, "gate")


def read_json(path, top: str, library: Library, clock: str = "clk") -> Netlist:
    """The module ``top`` of a Yosys JSON file. Raises InputError for cells outside the library or with unusual state."""
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
    cells, rams = [], []
    for name, instance in module["cells"].items():
        if instance["type"] == RAM:
            pins = {port: [net(bit) for bit in bits] for port, bits in instance["connections"].items()}
            rams.append(Ram(name, {p: int(bits, 2) for p, bits in instance["parameters"].items()}, pins))
            continue
        cell = library.cell(instance["type"])
        if not (cell.state or cell.gate) and any(not pin.function for pin in cell.pins.values() if pin.output):
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
    netlist = Netlist(library, count, cells, inputs, outputs, clock_net, rams, names)
    clocks = {f.name: f.pins[f.cell.state[0]] for f in netlist.flops} | {r.name: r.pins["clk"][0] for r in rams}
    wrong = [name for name, net in clocks.items() if net not in netlist.domains]
    if wrong:
        raise InputError(
            f"{path}: flip-flops must be clocked by port {clock}, directly or through clock gates, not {wrong[0]}"
        )
    return netlist
