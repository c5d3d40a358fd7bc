"""What the plots drawn with Matplotlib share: style, figures, SVG text."""

import io
from collections.abc import Callable
from functools import wraps
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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


def svg(figure: Figure) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # savefig would draw twice
    text = buffer.getvalue()
    return text[text.index("<svg") :]
