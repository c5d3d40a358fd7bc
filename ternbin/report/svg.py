"""A few lines of SVG: axes, bars, lines and legends as text.

The page of a run has six plots; a plotting library takes longer to import and draw them than the accelerator's model takes to be lowered.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
LIGHT = ("#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#c7c7c7", "#dbdb8d", "#9edae5")
FONT, SMALL = 12, 10  # pixels
LINE = 16
WIDE = 0.6  # of the font's size: a character, nearly


def width_of(texts: Iterable[str], size: int = FONT) -> float:
    """Of the longest of some texts, nearly, in pixels."""
    return WIDE * size * max(map(len, texts), default=0)


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` on an axis, ``log``: both above 0."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``."""
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Powers of ten, or about five round numbers."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        least = (self.high - self.low) / 5
        decade = 10.0 ** math.floor(math.log10(least))
        step = next(round_ * decade for round_ in (1, 2, 5, 10) if round_ * decade >= least * 0.999)
        return [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step * 1.000001) + 1)]


@dataclass
class Axes:
    """A plot of ``width`` x ``height`` pixels without its labels, its corner at ``left``, ``top``.

    ``y`` counts rows of bars downwards from 0, or has the scale of an upright axis from its top to its bottom.
    """

    left: float
    top: float
    width: float
    height: float
    x: Scale
    y: Scale
    parts: list[str] = field(default_factory=list[str])

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        return self.left + self.width * self.x.share(x), self.top + self.height * self.y.share(y)

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", size: int = FONT, color: str = "") -> None:
        """At a pixel, the middle of its line there."""
        fill = f' fill="{color}"' if color else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y + 0.35 * size:.1f}" font-size="{size}" text-anchor="{anchor}"{fill}>{escape(text)}</text>'
        )

    def bars(self, boxes: Iterable[tuple[float, float, float, float]], color: str) -> None:
        """Boxes (x, x, y, y) as one shape."""
        shape = ""
        for x0, x1, y0, y1 in boxes:
            (a, b), (c, d) = self.at(x0, y0), self.at(x1, y1)
            shape += f"M{a:.1f} {b:.1f}H{c:.1f}V{d:.1f}H{a:.1f}z"
        self.parts.append(f'<path d="{shape}" fill="{color}"/>')

    def line(self, points: Sequence[tuple[float, float]], *, dashed: bool = False) -> None:
        path = " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="black"{dash}/>')

    def dot(self, x: float, y: float, color: str, *, square: bool = False) -> None:
        a, b = self.at(x, y)
        self.parts.append(
            f'<rect x="{a - 4:.1f}" y="{b - 4:.1f}" width="8" height="8" fill="{color}"/>'
            if square
            else f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{color}"/>'
        )

    def frame(self, xlabel: str, *, percent: bool = False) -> None:
        """The two axes, with ticks of the horizontal one."""
        bottom = self.top + self.height
        path = f"M{self.left:.1f} {self.top:.1f}V{bottom:.1f}H{self.left + self.width:.1f}"
        for value in self.x.ticks():
            x, _ = self.at(value, self.y.low)
            path += f"M{x:.1f} {bottom:.1f}v4"
            self.text(x, bottom + 12, f"{100 * value:g}%" if percent else f"{value:,.10g}", anchor="middle", size=SMALL)
        self.parts.append(f'<path d="{path}" fill="none" stroke="black"/>')
        self.text(self.left + self.width / 2, bottom + 28, xlabel, anchor="middle", size=FONT)

    def rows(self, names: Sequence[str], *, size: int = FONT) -> None:
        """Names of the rows, left of them."""
        for row, name in enumerate(names):
            self.text(self.left - 6, self.at(self.x.low, row + 0.5)[1], name, anchor="end", size=size)

    def legend(self, entries: Iterable[tuple[str, str]], x: float, y: float) -> None:
        """Colors and names, downwards from a pixel."""
        for number, (color, name) in enumerate(entries):
            self.parts.append(
                f'<rect x="{x:.1f}" y="{y + LINE * number - 5:.1f}" width="16" height="9" fill="{color}"/>'
            )
            self.text(x + 22, y + LINE * number, name, size=SMALL)


def picture(width: float, height: float, plots: Iterable[Axes]) -> str:
    """The plots as one picture."""
    body = "".join(part for plot in plots for part in plot.parts)
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">{body}</svg>'


def stacked(rows: Sequence[Sequence[float]]) -> Iterator[list[tuple[float, float, float, float]]]:
    """Boxes of bars, a list a part: ``rows`` holds the parts of each row, laid end to end from 0."""
    reached = [0.0] * len(rows)
    for parts in zip(*rows, strict=True):
        ends = [a + b for a, b in zip(reached, parts, strict=True)]
        yield [(a, b, n + 0.1, n + 0.9) for n, (a, b) in enumerate(zip(reached, ends, strict=True)) if b > a]
        reached = ends
