"""Plots of the report as SVG text."""

import io
from collections.abc import Callable
from functools import wraps
from typing import Any

import matplotlib
import matplotlib.ticker
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from ternbin.report.layers import KINDS, kind, layer, parts

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "ternbin",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
}
COLORS = matplotlib.color_sequences["tab10"]
UNITS = ("load", "execute", "vector", "store")


def styled(plot: Callable[[dict], str]) -> Callable[[dict], str]:
    """The plot in the report's style. Settings and backend of the caller, a notebook for one, stay as they are."""

    @wraps(plot)
    def draw(data: dict) -> str:
        with matplotlib.rc_context(_STYLE):
            return plot(data)

    return draw


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options) -> tuple[Figure, Any]:
    """As pyplot's, for a figure that no one else knows of."""
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **options)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # savefig would draw twice
    text = buffer.getvalue()
    return text[text.index("<svg") :]


@styled
def cycles_by_op(result: dict) -> str:
    """Busy cycles of the execute and vector units by op, all calls of a phase added up."""
    phases = [phase["name"] for phase in result["phases"]]
    figure, axes = subplots(
        1, len(phases), figsize=(10, 0.9 + 0.17 * max(_rows(result, p) for p in phases)), squeeze=False
    )
    for axis, phase in zip(axes[0], phases, strict=True):
        ops = [op for op in result["ops"] if op["phase"] == phase]
        left = [0] * len(ops)
        for color, unit in zip(COLORS, UNITS, strict=False):
            ends = [a + op["cycles"].get(unit, 0) for a, op in zip(left, ops, strict=True)]
            boxes = [
                [(a, row - 0.4), (b, row - 0.4), (b, row + 0.4), (a, row + 0.4)]
                for row, (a, b) in enumerate(zip(left, ends, strict=True))
                if b > a
            ]
            axis.add_collection(PolyCollection(boxes, facecolor=color, label=unit))  # one shape, not one an op
            left = ends
        axis.set_xlim(0, 1.05 * max([1, *left]))
        axis.set_ylim(len(ops) - 0.5, -0.5)
        axis.set_yticks(range(len(ops)), [op["name"] for op in ops], fontsize=7)
        axis.set(title=phase, xlabel="busy cycles of a unit")
        axis.locator_params(axis="x", nbins=5)
        axis.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _rows(result: dict, phase: str) -> int:
    return max(4, sum(op["phase"] == phase for op in result["ops"]))


@styled
def energy_by_unit(result: dict) -> str:
    """Stacked bars: energy of each phase by unit, with the range of the sum."""
    phases = result["energy"]["phases"]
    units = list(dict.fromkeys(unit for phase in phases for unit in phase["by_unit"]))
    figure, axis = subplots(figsize=(7, 1.2 + 0.5 * len(phases)))
    left = [0.0] * len(phases)
    cmap = matplotlib.color_sequences["tab20"]
    for i, unit in enumerate(units):
        values = [phase["by_unit"].get(unit, 0.0) / 1e6 for phase in phases]
        axis.barh([phase["name"] for phase in phases], values, left=left, label=unit, color=cmap[i % 20])
        left = [a + b for a, b in zip(left, values, strict=True)]
    for row, phase in enumerate(phases):
        low, high = phase["low"] / 1e6, phase["high"] / 1e6
        axis.plot([low, high], [row, row], color="black", lw=1, marker="|")
    axis.invert_yaxis()
    axis.set(xlabel="energy, uJ (black: range of the sum)")
    axis.legend(frameon=False, fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


RATIOS = (
    ("arithmetic", "multiply-accumulate alone"),
    ("arithmetic_with_registers", "with operand registers"),
    ("bits_moved", "external bits moved"),
    ("chip", "energy on chip"),
    ("system", "energy of the system"),
)


@styled
def claim_ratios(result: dict) -> str:
    """FP32 over this run, ratio by ratio, for each phase; the dashed line is the paper's operation count."""
    phases = result["claim"]["phases"]
    figure, axis = subplots(figsize=(8, 3))
    height = 0.8 / len(phases)
    for i, phase in enumerate(phases):
        values = [phase["references"]["fp32"][key] for key, _ in RATIOS]
        positions = [row + i * height for row in range(len(RATIOS))]
        bars = axis.barh(positions, values, height=height * 0.9, color=COLORS[i], label=phase["name"])
        axis.bar_label(bars, labels=[f" {value:.1f}x" for value in values], fontsize=8)
    axis.set_yticks(
        [row + height * (len(phases) - 1) / 2 for row in range(len(RATIOS))], [label for _, label in RATIOS]
    )
    claimed = result["claim"]["paper"]["claimed_ratio"]
    axis.axvline(claimed, color="black", ls="--", lw=1, label=f"operation count of the paper: {claimed:g}x")
    axis.set(xscale="log", xlabel="FP32 on the same dataflow / this run")
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


@styled
def timeline(result: dict) -> str:
    """What every unit did over the cycles of the first call and of the last."""
    calls, first = sorted({entry["call"] for entry in result["timeline"]}), result["phases"][0]["calls"]
    chosen = calls[:1] + calls[-1:] if len(calls) > 1 else calls
    figure, axes = subplots(len(chosen), 1, figsize=(10, 1.5 * len(chosen)), squeeze=False)
    for axis, call in zip(axes[:, 0], chosen, strict=True):
        entries = [entry for entry in result["timeline"] if entry["call"] == call]
        for row, unit in enumerate(UNITS):
            spans = [(e["start"], e["end"] - e["start"]) for e in entries if e["unit"] == unit]
            axis.broken_barh(spans, (row - 0.4, 0.8), color=COLORS[row])
        axis.set_yticks(range(len(UNITS)), UNITS)
        axis.set_title("prefill" if call < first else f"decode call {call - first + 1}", fontsize=9, loc="left")
        axis.set_xlabel("cycle")
        axis.invert_yaxis()
    return _svg(figure)


@styled
def roofline(result: dict) -> str:
    """Multiply-accumulates a cycle against multiply-accumulates a byte, by kind of op and phase, under the two bounds."""
    hardware = result["hardware"]
    peak, beat = hardware["peak_macs"], hardware["axi_data_bits"] / 8 * result["memory"]["bandwidth"]
    points = [part for part in parts(result, kind) if part.bytes]
    figure, axis = subplots(figsize=(8, 4))
    knee = peak / beat
    low, high = (
        min([knee, *(p.macs / p.bytes for p in points)]) / 3,
        max([knee, *(p.macs / p.bytes for p in points)]) * 3,
    )
    axis.plot([low, knee, high], [low * beat, peak, peak], color="black", lw=1)
    axis.annotate(
        f"array: {peak:,} a cycle",
        (high, peak),
        ha="right",
        va="bottom",
        fontsize=8,
        xytext=(0, 3),
        textcoords="offset points",
    )
    axis.annotate(
        f"bus: {beat:g} bytes a cycle",
        (low, low * beat),
        va="center",
        fontsize=8,
        xytext=(10, 0),
        textcoords="offset points",
    )
    for phase, marker in zip(result["phases"], "os", strict=False):
        for part in points:
            if part.phase == phase["name"]:
                color = COLORS[KINDS.index(part.name)]
                axis.plot(
                    part.macs / part.bytes,
                    part.macs / part.cycles,
                    marker,
                    color=color,
                    label=f"{part.phase}: {part.name}",
                )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="useful multiply-accumulates a byte on the bus",
        ylabel="useful multiply-accumulates a cycle",
    )
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


@styled
def layer_utilization(result: dict) -> str:
    """Share of the array's peak that each layer reaches while it is in progress, by phase."""
    peak, groups = result["hardware"]["peak_macs"], parts(result, layer)
    phases = [phase["name"] for phase in result["phases"]]
    rows = max(sum(part.phase == phase for part in groups) for phase in phases)
    figure, axes = subplots(1, len(phases), figsize=(10, 0.9 + 0.22 * max(rows, 3)), squeeze=False)
    for axis, phase in zip(axes[0], phases, strict=True):
        own = [part for part in groups if part.phase == phase]
        values = [part.macs / (part.cycles * peak) for part in own]
        bars = axis.barh([part.name for part in own], values, color=COLORS[0])
        axis.bar_label(bars, labels=[f" {100 * value:.3g}%" for value in values], fontsize=8)
        axis.set(title=phase, xlabel="share of the peak")
        axis.locator_params(axis="x", nbins=5)
        axis.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
        axis.margins(x=0.15)
        axis.invert_yaxis()
    return _svg(figure)
