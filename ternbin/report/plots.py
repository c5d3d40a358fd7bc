"""Plots of a run's page as SVG text."""

from ternbin.report.layers import KINDS, kind, layer, parts
from ternbin.report.svg import COLORS, FONT, LIGHT, LINE, SMALL, Axes, Scale, picture, stacked, width_of

UNITS = ("load", "execute", "vector", "store")
RATIOS = (
    ("arithmetic", "multiply-accumulate alone"),
    ("arithmetic_with_registers", "with operand registers"),
    ("bits_moved", "external bits moved"),
    ("chip", "energy on chip"),
    ("system", "energy of the system"),
)
WIDTH, UNDER = 960, 44  # of a picture, in pixels; room for ticks and label of an axis
ROOM = 1.05  # the axis goes on beyond the largest value


def _beside(names: list[list[str]], size: int) -> list[tuple[float, float]]:
    """Left edge and width of plots side by side, whose rows have these names."""
    share = WIDTH / len(names)
    left = [width_of(own, size) + 14 for own in names]
    return [(share * number + room, share - room - 20) for number, room in enumerate(left)]


def cycles_by_op(result: dict) -> str:
    """Busy cycles of the units by op, all calls of a phase added up."""
    ops = [[op for op in result["ops"] if op["phase"] == phase["name"]] for phase in result["phases"]]
    names = [[op["name"] for op in own] for own in ops]
    row, most = 13, max(4, *map(len, ops))
    plots: list[Axes] = []
    for phase, own, named, (left, width) in zip(result["phases"], ops, names, _beside(names, SMALL), strict=True):
        rows = [[op["cycles"].get(unit, 0) for unit in UNITS] for op in own]
        most_cycles = max([1, *map(sum, rows)])
        plot = Axes(left, 24, width, row * max(4, len(own)), Scale(0, ROOM * most_cycles), Scale(0, max(4, len(own))))
        for color, boxes in zip(COLORS, stacked(rows), strict=False):
            plot.bars(boxes, color)
        plot.frame("busy cycles of a unit")
        plot.rows(named, size=SMALL)
        plot.text(left + width / 2, 10, phase["name"], anchor="middle")
        plot.legend(zip(COLORS, UNITS, strict=False), left + width - 70, 34)
        plots.append(plot)
    return picture(WIDTH, 24 + row * most + UNDER, plots)


def energy_by_unit(result: dict) -> str:
    """Stacked bars: energy of each phase by unit, with the range of the sum."""
    phases = result["energy"]["phases"]
    units = list(dict.fromkeys(unit for phase in phases for unit in phase["by_unit"]))
    rows = [[phase["by_unit"].get(unit, 0.0) / 1e6 for unit in units] for phase in phases]
    left, beside = width_of([phase["name"] for phase in phases]) + 14, width_of(units, SMALL) + 50
    most = max([phase["high"] / 1e6 for phase in phases] + [sum(row) for row in rows]) or 1.0
    height = max(50 * len(phases), LINE * len(units))
    plot = Axes(left, 10, WIDTH - left - beside, height, Scale(0, ROOM * most), Scale(0, len(phases)))
    colors = [(COLORS + LIGHT)[number % (2 * len(COLORS))] for number in range(len(units))]
    for color, boxes in zip(colors, stacked(rows), strict=True):
        plot.bars(boxes, color)
    for row, phase in enumerate(phases):
        low, high = phase["low"] / 1e6, phase["high"] / 1e6
        plot.line([(low, row + 0.5), (high, row + 0.5)])
        for end in (low, high):
            plot.line([(end, row + 0.4), (end, row + 0.6)])
    plot.frame("energy, uJ (black: range of the sum)")
    plot.rows([phase["name"] for phase in phases])
    plot.legend(zip(colors, units, strict=True), WIDTH - beside + 20, 18)
    return picture(WIDTH, 10 + height + UNDER, [plot])


def claim_ratios(result: dict) -> str:
    """FP32 over this run, ratio by ratio, for each phase; the dashed line is the paper's operation count."""
    phases, claimed = result["claim"]["phases"], result["claim"]["paper"]["claimed_ratio"]
    ratios = [[phase["references"]["fp32"][key] for key, _ in RATIOS] for phase in phases]
    every = [claimed, *(ratio for own in ratios for ratio in own)]
    scale = Scale(min(1.0, *every) / 1.3, max(10.0, *every) * 2, log=True)
    left, beside = width_of(label for _, label in RATIOS) + 14, 280
    plot = Axes(left, 10, WIDTH - left - beside, 46 * len(RATIOS), scale, Scale(0, len(RATIOS)))
    height = 0.8 / len(phases)
    for number, own in enumerate(ratios):
        tops = [row + 0.1 + number * height for row in range(len(RATIOS))]
        plot.bars(
            [(scale.low, ratio, top, top + 0.9 * height) for ratio, top in zip(own, tops, strict=True)], COLORS[number]
        )
        for ratio, top in zip(own, tops, strict=True):
            x, y = plot.at(ratio, top + 0.45 * height)
            plot.text(x + 4, y, f"{ratio:.1f}x", size=SMALL)
    plot.line([(claimed, 0), (claimed, len(RATIOS))], dashed=True)
    plot.frame("FP32 on the same dataflow / this run")
    plot.rows([label for _, label in RATIOS])
    x = WIDTH - beside + 20
    plot.legend([(COLORS[number], phase["name"]) for number, phase in enumerate(phases)], x, 24)
    plot.text(x, 24 + LINE * len(phases), f"dashed: operation count of the paper, {claimed:g}x", size=SMALL)
    return picture(WIDTH, 10 + plot.height + UNDER, [plot])


def timeline(result: dict) -> str:
    """What every unit did over the cycles of the first call and of the last."""
    calls, first = sorted({entry["call"] for entry in result["timeline"]}), result["phases"][0]["calls"]
    chosen = calls[:1] + calls[-1:] if len(calls) > 1 else calls
    each, left = 150, width_of(UNITS) + 14
    plots: list[Axes] = []
    for number, call in enumerate(chosen):
        entries = [entry for entry in result["timeline"] if entry["call"] == call]
        last = max(entry["end"] for entry in entries)
        plot = Axes(left, each * number + 24, WIDTH - left - 20, 76, Scale(0, last), Scale(0, len(UNITS)))
        for row, unit in enumerate(UNITS):
            own = [(e["start"], e["end"], row + 0.1, row + 0.9) for e in entries if e["unit"] == unit]
            plot.bars(own, COLORS[row])
        plot.frame("cycle")
        plot.rows(UNITS)
        plot.text(left, plot.top - 12, "prefill" if call < first else f"decode call {call - first + 1}")
        plots.append(plot)
    return picture(WIDTH, each * len(chosen), plots)


def roofline(result: dict) -> str:
    """Multiply-accumulates a cycle against multiply-accumulates a byte, by kind of op and phase, under the two bounds."""
    hardware = result["hardware"]
    peak, beat = hardware["peak_macs"], hardware["axi_data_bits"] / 8 * result["memory"]["bandwidth"]
    points = [part for part in parts(result, kind) if part.bytes]
    knee = peak / beat
    each = [knee, *(part.macs / part.bytes for part in points)]
    low, high = min(each) / 3, max(each) * 3
    least = min([low * beat, *(part.macs / part.cycles for part in points)]) / 2
    beside, left = 240, 70
    plot = Axes(left, 20, WIDTH - left - beside, 330, Scale(low, high, log=True), Scale(2 * peak, least, log=True))
    plot.line([(low, low * beat), (knee, peak), (high, peak)])
    x, y = plot.at(high, peak)
    plot.text(x, y - 10, f"array: {peak:,} a cycle", anchor="end", size=SMALL)
    x, y = plot.at(low, low * beat)
    plot.text(x + 14, y + 6, f"bus: {beat:g} bytes a cycle", size=SMALL)
    entries: list[tuple[str, str]] = []
    for phase, square in zip(result["phases"], (False, True), strict=False):
        for part in points:
            if part.phase == phase["name"]:
                color = COLORS[KINDS.index(part.name) + len(KINDS) * square]
                plot.dot(part.macs / part.bytes, part.macs / part.cycles, color, square=square)
                entries.append((color, f"{part.phase}: {part.name}"))
    plot.frame("useful multiply-accumulates a byte on the bus")
    for value in Scale(least, 2 * peak, log=True).ticks():
        plot.text(left - 6, plot.at(low, value)[1], f"{value:,.10g}", anchor="end", size=SMALL)
    plot.text(0, 8, "useful multiply-accumulates a cycle", size=FONT)
    plot.legend(entries, WIDTH - beside + 20, 34)
    return picture(WIDTH, 20 + plot.height + UNDER, [plot])


def layer_utilization(result: dict) -> str:
    """Share of the array's peak that each layer reaches while it is in progress, by phase."""
    peak, groups = result["hardware"]["peak_macs"], parts(result, layer)
    own = [[part for part in groups if part.phase == phase["name"]] for phase in result["phases"]]
    names = [[part.name for part in each] for each in own]
    row, most = 22, max(3, *map(len, own))
    plots: list[Axes] = []
    for phase, each, named, (left, width) in zip(result["phases"], own, names, _beside(names, FONT), strict=True):
        values = [part.macs / (part.cycles * peak) for part in each]
        scale = Scale(0, 1.25 * max([1e-6, *values]))
        plot = Axes(left, 24, width, row * max(3, len(each)), scale, Scale(0, max(3, len(each))))
        plot.bars([(0, value, n + 0.1, n + 0.9) for n, value in enumerate(values)], COLORS[0])
        for n, value in enumerate(values):
            x, y = plot.at(value, n + 0.5)
            plot.text(x + 4, y, f"{100 * value:.3g}%", size=SMALL)
        plot.frame("share of the peak", percent=True)
        plot.rows(named)
        plot.text(left + width / 2, 10, phase["name"], anchor="middle")
        plots.append(plot)
    return picture(WIDTH, 24 + row * most + UNDER, plots)
