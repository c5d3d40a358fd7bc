"""The page of a training run: its curves and the figures of its tensors as pictures, in one file without links."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ternbin.schema import DATA_BYTES, read_text
from ternbin.storage import write_text

LOG_FILE = "log.jsonl"
TENSORS_FILE = "tensors.jsonl"
PAGE_FILE = "training.html"

FIGURES = {
    "entropy": "Entropy of the codes, bits",
    "zeros": "Share of codes that are zero",
    "saturated": "Share of activations beyond the last code",
}

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em}svg{max-width:100%;height:auto}"
    "table{border-collapse:collapse;font-size:11px}th{text-align:left;font-weight:normal}.c{min-width:14px}"
)
COLUMNS = 40


def read_lines(path: Path) -> list[dict]:
    """The objects of a log; a line that was cut off by a full disk is left out."""
    if not path.exists():
        return []
    found = []
    for line in read_text(path, DATA_BYTES).splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def write_page(folder: Path) -> Path:
    """Draw ``training.html`` from the logs of a run; returns its path."""
    log, tensors = read_lines(folder / LOG_FILE), read_lines(folder / TENSORS_FILE)
    parts = [picture(lambda axes: curves(axes, log))]
    for figure, title in FIGURES.items():
        if any(figure in own for own in _last(tensors).values()):
            parts.append(f"<h2>{escape(title)}</h2>{heat(tensors, figure)}")
    name = escape(folder.resolve().name)
    text = (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Training of {name}</title><style>{STYLE}</style>"
        f"<h1>Training of {name}</h1><p>{_summary(log)}</p>{''.join(parts)}</html>"
    )
    write_text(folder / PAGE_FILE, text)
    return folder / PAGE_FILE


def _last(tensors: Sequence[dict]) -> dict[str, dict[str, float]]:
    return tensors[-1]["tensors"] if tensors else {}


def _summary(log: Sequence[dict]) -> str:
    if not log:
        return "No validation yet."
    last = log[-1]
    best = next((entry for entry in reversed(log) if entry["best"]), last)  # it may be of a log that was taken away
    score = f" and a score of {best['validation_score']:g}" if "validation_score" in best else ""
    return (
        f"{last['step']:,} steps in {last['minutes']:g} minutes. Best validation: {best['validation_nll']:.3f} nats a token{score}, "
        f"at step {best['step']:,}."
    )


def picture(draw: Callable[[Any], None], width: float = 9, height: float = 4) -> str:
    """An SVG, as text, of what `draw` puts on its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "ternbin", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(width, height))
        draw(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def curves(axes: Any, log: Sequence[dict]) -> None:
    """Validation, and on an axis of its own the training loss, over steps."""
    steps = [entry["step"] for entry in log]
    axes.plot(steps, [entry["validation_nll"] for entry in log], "o-", ms=3, color="#1f5fa8", label="validation")
    axes.set(xlabel="step", ylabel="validation, nats a token")
    other = axes.twinx()
    other.plot(steps, [entry["loss"] for entry in log], "-", color="#c06020", lw=1)
    other.set_ylabel("training loss", color="#c06020")
    axes.grid(alpha=0.3)


def heat(tensors: Sequence[dict], figure: str) -> str:
    """A table of a figure, darker where it is larger: a row a tensor, a column a validation (at most :data:`COLUMNS`)."""
    names = [name for name, own in _last(tensors).items() if figure in own]
    count = len(tensors)
    chosen = [tensors[i] for i in sorted({round(k * (count - 1) / COLUMNS) for k in range(COLUMNS + 1)})]
    table = [[entry["tensors"].get(name, {}).get(figure) for entry in chosen] for name in names]
    top = max((value for row in table for value in row if value is not None), default=0) or 1
    steps = "".join(f"<td>{entry['step']:,}</td>" for entry in (chosen[0], chosen[-1]))
    span = f" colspan={len(chosen) - 1}" if len(chosen) > 2 else ""
    head = f"<tr><th>step</th>{steps.replace('<td>', f'<td{span} class=first>', 1)}</tr>" if len(chosen) > 1 else ""
    rows = (
        f"<tr><th>{escape(name)}</th>{''.join(_cell(value, top) for value in row)}<td>{row[-1]:.3f}</td></tr>"
        for name, row in zip(names, table, strict=True)
    )
    return f"<table>{head}{''.join(rows)}</table>"


def _cell(value: float | None, top: float) -> str:
    if value is None:
        return "<td></td>"
    return f'<td class=c style="background:hsl(215 70% {97 - 65 * value / top:.0f}%)" title="{value:g}"></td>'
