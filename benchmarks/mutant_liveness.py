"""Bits of a flat netlist (Yosys JSON) that some output depends on, by structure alone: a mutant of another bit changes nothing."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

Pin = tuple[str, str, int]  # cell, port, bit
_BITWISE = {"$not", "$and", "$or", "$xor", "$xnor", "$mux", "$pmux", "$dff", "$dlatch", "$pos"}
_CARRY = {"$add", "$sub", "$neg", "$mul"}  # a bit depends on those up to it
_READ, _WRITE = ("$memrd", "$memrd_v2"), ("$memwr", "$memwr_v2")
_WHOLE = ("S", "CLK", "EN", "ARST", "SRST")  # ports that all bits of the result depend on


def live_pins(module: dict[str, Any]) -> set[Pin]:
    """Pins of the cells of ``module`` that a port of it, or a module in it, depends on."""
    cells, drivers, writers = module["cells"], {}, defaultdict(list)
    waiting: list[int] = [
        bit for port in module["ports"].values() if port["direction"] == "output" for bit in port["bits"]
    ]
    pins: set[Pin] = set()
    for name, cell in cells.items():
        if cell["type"] in _WRITE:
            writers[cell["parameters"]["MEMID"]].append(name)
        for port, bits in cell["connections"].items():
            out = cell["port_directions"][port] == "output"
            for number, bit in enumerate(bits):
                if out:
                    drivers[bit] = (name, port, number)
                elif not cell["type"].startswith("$"):
                    pins.add((name, port, number))
                    waiting.append(bit)
    seen: set[object] = set()
    while waiting:
        bit = waiting.pop()
        if bit in seen or bit not in drivers:
            continue
        seen.add(bit)
        name, port, number = pin = drivers[bit]
        pins.add(pin)
        for needed in _needed(cells, writers, name, number):
            if needed not in pins:
                pins.add(needed)
                waiting.append(cells[needed[0]]["connections"][needed[1]][needed[2]])
    return pins


def _needed(cells: dict[str, Any], writers: dict[str, list[str]], name: str, number: int) -> Iterator[Pin]:
    """Input pins that bit ``number`` of a cell's result depends on."""
    cell = cells[name]
    kind, widths = cell["type"], {port: len(bits) for port, bits in cell["connections"].items()}
    inputs = [port for port in widths if cell["port_directions"][port] == "input"]
    if kind in _READ:
        for writer in writers[cell["parameters"]["MEMID"]]:
            yield from ((writer, port, number) for port in ("DATA", "EN"))
            yield from _all(cells, writer, ("ADDR", "CLK"))
        yield from _all(cells, name, inputs)
    elif kind in _BITWISE:
        for port in inputs:
            if port in _WHOLE:
                yield from _all(cells, name, (port,))
            elif kind == "$pmux" and port == "B":
                yield from ((name, port, at) for at in range(number, widths[port], widths["A"]))
            else:
                yield name, port, min(number, widths[port] - 1)
    elif kind in _CARRY:
        yield from ((name, port, at) for port in inputs for at in range(min(number + 1, widths[port])))
    else:
        yield from _all(cells, name, inputs)


def _all(cells: dict[str, Any], name: str, ports: list[str] | tuple[str, ...]) -> Iterator[Pin]:
    for port in ports:
        yield from ((name, port, at) for at in range(len(cells[name]["connections"].get(port, ()))))
