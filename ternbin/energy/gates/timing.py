"""Static timing of a mapped netlist: slews, delays of every arc, the critical path. One clock, ideal, at time 0."""

from dataclasses import dataclass

from ternbin.energy.gates.netlist import Netlist, Placed

Edges = tuple[float, float]  # rise, fall
Delays = dict[tuple[str, str], dict[str, Edges]]  # (cell name, output pin) -> related pin


@dataclass(frozen=True)
class Timing:
    """``slew[net]``: (rise, fall); ``delays``: (cell name, output pin) -> related pin -> (rise, fall) in library time units."""

    slew: list[Edges]
    delays: Delays
    critical_path: float


def _order(netlist: Netlist) -> list[Placed]:
    """Combinational cells, every one after its drivers."""
    logic = [p for p in netlist.cells if not (p.cell.state or p.cell.gate)]
    driver = {p.pins[o]: p for p in logic for o in p.cell.outputs}
    missing = {p.name: len({p.pins[i] for i in p.cell.inputs} & driver.keys()) for p in logic}
    ready = [p for p in logic if not missing[p.name]]
    for placed in ready:
        for net in {placed.pins[o] for o in placed.cell.outputs}:
            for sink in {id(s): s for s, _ in netlist.sinks.get(net, ()) if s.name in missing}.values():
                missing[sink.name] -= 1
                if not missing[sink.name]:
                    ready.append(sink)
    return ready


def _edges(sense: str, rising: bool) -> tuple[int, ...]:
    """Input edges (0: rise, 1: fall) that may cause an output edge."""
    if sense == "positive_unate":
        return (0,) if rising else (1,)
    if sense == "negative_unate":
        return (1,) if rising else (0,)
    return (0, 1)


def analyse(netlist: Netlist) -> Timing:
    """Worst slews and arrivals, edge by edge; paths end at flip-flops and clock gates (with their setup time),
    at memory banks and outputs."""
    loads, edge = netlist.loads(), netlist.library.clock_slew
    access = netlist.library.nanoseconds(netlist.library.declared.ram_access_ns)
    slew = [(edge, edge)] * netlist.nets
    arrival = [(0.0, 0.0)] * netlist.nets
    delays: Delays = {}
    for placed in netlist.flops:
        for pin in placed.cell.outputs:
            net = placed.pins[pin]
            arc = placed.cell.pins[pin].arcs[0]
            rise, fall = (arc.delay[e](edge, loads[net]) for e in (0, 1))
            delays[placed.name, pin] = {arc.related: (rise, fall)}
            arrival[net] = (rise, fall)
            slew[net] = (arc.slew[0](edge, loads[net]), arc.slew[1](edge, loads[net]))
    for net in (net for ram in netlist.rams for net in ram.pins["rdata"]):
        arrival[net] = (access, access)
    for placed in _order(netlist):
        for pin in placed.cell.outputs:
            _propagate(placed, pin, loads, slew, arrival, delays)
    ends = [max(arrival[net]) for nets in netlist.outputs.values() for net in nets]
    ends += [
        max(arrival[net]) for ram in netlist.rams for port, nets in ram.pins.items() if port != "clk" for net in nets
    ]
    for placed in [*netlist.flops, *netlist.clock_gates]:
        net, setup = placed.pins[placed.cell.data], placed.cell.pins[placed.cell.data].setup
        needed = [arrival[net][e] + (setup[e](slew[net][e], edge) if setup else 0.0) for e in (0, 1)]
        ends += [time / (placed.cell.gate.share if placed.cell.gate else 1.0) for time in needed]
    return Timing(slew, delays, max(ends, default=0.0))


def _propagate(
    placed: Placed, pin: str, loads: list[float], slew: list[Edges], arrival: list[Edges], delays: Delays
) -> None:
    """Adds slew, arrival and delays of an output ``pin`` whose cell's inputs have theirs."""
    out = placed.pins[pin]
    load = loads[out]
    by_pin: dict[str, Edges] = {}
    best, worst_slew = [0.0, 0.0], [0.0, 0.0]
    for arc in placed.cell.pins[pin].arcs:
        source = placed.pins[arc.related]
        delay = [0.0, 0.0]
        for edge in (0, 1):
            for cause in _edges(arc.sense, edge == 0):
                one = arc.delay[edge](slew[source][cause], load)
                delay[edge] = max(delay[edge], one)
                best[edge] = max(best[edge], arrival[source][cause] + one)
                worst_slew[edge] = max(worst_slew[edge], arc.slew[edge](slew[source][cause], load))
        before = by_pin.get(arc.related, (0.0, 0.0))
        by_pin[arc.related] = (max(before[0], delay[0]), max(before[1], delay[1]))
    delays[placed.name, pin] = by_pin
    arrival[out] = (best[0], best[1])
    slew[out] = (worst_slew[0], worst_slew[1])
