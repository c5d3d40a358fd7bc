"""Buffer trees for nets with many sinks, which synthesis module by module leaves to the driver alone."""

from dataclasses import replace

from ternbin.energy.gates.netlist import Netlist, Placed
from ternbin.energy.gates.roles import MOST, roles


def buffered(netlist: Netlist) -> Netlist:
    """``netlist`` with at most ``MOST`` cell pins on every net but clocks and constants. Buffers are named after the net's driver."""
    clocks = set(netlist.domains)
    driver = {p.pins[pin]: p.name for p in netlist.cells for pin in p.cell.outputs}
    sinks = {
        net: [(p.pins, pin) for p, pin in found]
        for net, found in netlist.sinks.items()
        if net > 1 and net not in clocks
    }
    wide = {net for net, found in sinks.items() if len(found) > MOST}
    if not wide:
        return netlist
    buffer = netlist.library.cell(roles(netlist.library).buffer)
    (output,), (source,) = buffer.outputs, buffer.inputs
    pins = {id(p.pins): dict(p.pins) for p in netlist.cells}
    cells: list[Placed] = []
    nets = netlist.nets
    for net in sorted(wide):
        left = [(pins[id(old)], pin) for old, pin in sinks[net]]
        while len(left) > MOST:
            level: list[tuple[dict[str, int], str]] = []
            for at in range(0, len(left), MOST):
                added = Placed(f"{driver.get(net, 'input')}.buffer{len(cells)}", buffer, {source: net, output: nets})
                for taken, pin in left[at : at + MOST]:
                    taken[pin] = nets
                cells.append(added)
                level.append((added.pins, source))
                nets += 1
            left = level
    kept = [Placed(p.name, p.cell, pins[id(p.pins)]) for p in netlist.cells]
    return replace(netlist, nets=nets, cells=kept + cells)
