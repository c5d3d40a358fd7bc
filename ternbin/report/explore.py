"""An exploration as one page, readable offline: plots that answer to the mouse, tables, and why points are where they are."""

import csv
import io
import json
import random
from collections.abc import Sequence
from html import escape
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ternbin import results, storage
from ternbin.errors import MissingToolError
from ternbin.report.markup import Html, details, document, note, table
from ternbin.report.tables import aligned

MOST = 5000  # points that the page draws: the front, and others drawn at random
SHOWN = 200  # points of the front in its table
MET = 0.995  # of a clock, that counts as met: named configurations' are rounded
STYLE = """
#plots{display:flex;flex-wrap:wrap;gap:1em}#plots select{margin:0 .6em .4em .2em}
#scatter,#parallel{width:100%;border:1px solid #d5dae0;border-radius:8px}#scatter{height:440px}#parallel{height:320px}
#point{border:1px solid #d5dae0;border-radius:8px;padding:.4em 1em;margin:.6em 0;font-size:.87em;display:none}
#point pre{background:#f5f7f9;padding:.6em;overflow:auto}#tip{position:fixed;display:none;background:#1b1f24;color:#fff;padding:.3em .6em;
border-radius:6px;font-size:.8em;pointer-events:none;white-space:pre;z-index:9}#all th{cursor:pointer}#all tr.on{background:#fff8c5}
#all tbody tr{cursor:pointer}#all{max-height:28em;overflow:auto;display:block}
"""


def write(summary: dict[str, Any], records: Sequence[dict[str, Any]], out: Path) -> None:
    """Writes explore.json, index.html, points.csv and the ``--hw`` files of the front below ``out``; each whole or not at all."""
    results.write_json(out / "explore.json", summary)
    storage.write_text(out / "points.csv", points_csv(summary, records))
    folder = out / "front"
    for old in folder.glob("point*.toml") if folder.is_dir() else ():
        if old.stem not in summary["hardware"]:
            old.unlink()
    for name, text in summary["hardware"].items():
        storage.write_text(folder / f"{name}.toml", text)
    storage.write_text(out / "index.html", page(summary, records))


def points_table(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns, and a row a point: id, values of the axes, figures, what binds each phase, place on the front, what it rests on, reason.
    None where there is none."""
    axes = list(summary["axes"])
    figures = list(dict.fromkeys(name for record in records for name in record.get("figures", {})))
    phases = list(next((record["binds"] for record in records if "binds" in record), {}))
    columns = ["id", *axes, *figures, *(f"{name} binds" for name in phases), "front", "fidelity", "reason"]
    rows: list[list[Any]] = []
    for record in records:
        own, binds = record.get("figures", {}), record.get("binds", {})
        rows.append(
            [record["id"]]
            + [record["point"][name] for name in axes]
            + [own.get(name) for name in figures]
            + [binds.get(name) for name in phases]
            + [record["front"] or None, record["fidelity"], record.get("reason")]
        )
    return columns, rows


def points_csv(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    """:func:`points_table` as text."""
    columns, rows = points_table(summary, records)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)  # None becomes an empty field
    return text.getvalue()


def need_parquet() -> None:
    """Raises MissingToolError where Parquet cannot be written."""
    if find_spec("pyarrow") is None:
        raise MissingToolError("Parquet needs pyarrow: pip install 'ternbin[explore]'")


def write_parquet(summary: dict[str, Any], records: Sequence[dict[str, Any]], path: str | Path) -> None:
    """:func:`points_table` as a Parquet file with typed columns, whole or not at all. Raises MissingToolError, InputError."""
    need_parquet()
    import pyarrow
    from pyarrow import parquet

    columns, rows = points_table(summary, records)
    held = pyarrow.table({name: [row[place] for row in rows] for place, name in enumerate(columns)})
    file = io.BytesIO()
    parquet.write_table(held, file)
    storage.write_bytes(path, file.getvalue())


# ---- tables ---------------------------------------------------------------------------------------------------------


def front_of(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    by_id = {record["id"]: record for record in records}
    return [by_id[name] for name in summary["front"]]


def number(value: Any) -> str:
    """A figure or a setting, short."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def front_rows(summary: dict[str, Any], records: Sequence[dict[str, Any]], most: int) -> list[list[str]]:
    """Place, values of the axes, objectives, what binds, what the point rests on; header first."""
    front = front_of(summary, records)[:most]
    phases = list(front[0]["binds"]) if front else []
    header = ["", *summary["axes"], *summary["objectives"], *(f"{name} binds" for name in phases), "rests on"]
    rows = [
        [f"point{record['front']}"]
        + [number(record["point"][name]) for name in summary["axes"]]
        + [number(record["figures"][name]) for name in summary["objectives"]]
        + [f"{record['binds'][name]} {max(record['busy'][name].values()):.0%}" for name in phases]
        + [fidelity(record)]
        for record in front
    ]
    return [header, *rows]


def fidelity(record: dict[str, Any]) -> str:
    """What a point rests on, and where its clock is one that it does not meet."""
    return "; ".join(filter(None, (record["fidelity"], _too_fast(record["figures"]))))


def _too_fast(figures: dict[str, float]) -> str:
    margin = figures["clock_margin"]
    return "" if margin >= MET else f"too fast: meets {margin:.0%} of its clock"


def sensitivity_rows(summary: dict[str, Any], best: dict[str, Any]) -> list[list[str]]:
    """Field, from, to, and by how much each objective changes; a reason where there is no such point; header first."""
    objectives = list(summary["objectives"])
    rows = [["field", "from", "to", *objectives, ""]]
    for change in summary["sensitivity"]:
        cells = [change["field"], number(change["value"]), number(change["to"])]
        if "figures" in change:
            own, theirs = best["figures"], best["figures"] | change["figures"]
            cells += [f"{theirs[name] / own[name] - 1:+.1%}" for name in objectives] + [_too_fast(theirs)]
        else:
            cells += [""] * len(objectives) + [change["reason"]]
        rows.append(cells)
    return rows


def doubling_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Header first."""
    rows = [["step", "change", "speed", "area", "energy"]]
    for place, step in enumerate(summary["doubling"], 1):
        change = ", ".join(f"{name} {number(value)}" for name, value in step["change"].items())
        rows.append([str(place), change, *(f"{step[name]:.2f}x" for name in ("speed", "area", "energy"))])
    return rows


def validation_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Header first; gates only where some were synthesized."""
    gates = any("gates" in each for each in summary["validation"])
    rows = [["point", "bits", "values compared", "cycles, RTL", "cycles, predicted", "off by"]]
    if gates:
        rows[0] += ["logic, gates (mm2)", "logic, predicted", "off by", "critical path (ns)"]
        rows[0] += ["energy of the logic, gates (uJ)", "predicted", "off by"]
    for place, each in enumerate(summary["validation"], 1):
        rtl, synthesized = each["rtl"], each.get("gates")
        bits = "equal" if rtl["bit_exact"] else f"DIFFER: {rtl['first_divergence']}"
        cells = [f"point{place}", bits, f"{rtl['values']:,}", f"{rtl['cycles']:,}", f"{rtl['predicted']:,}"]
        cells.append(f"{rtl['error']:+.2%}")
        if synthesized:
            cells += [f"{synthesized['area_mm2']:.4g}", f"{synthesized['model_mm2']:.4g}"]
            cells += [f"{synthesized['error']:+.1%}", f"{synthesized['critical_path_ns']:.3g}"]
            cells += [f"{synthesized['gates_uj']:.4g}", f"{synthesized['model_uj']:.4g}"]
            cells.append(f"{synthesized['energy_error']:+.1%}")
        rows.append(cells)
    return rows


def counts(summary: dict[str, Any]) -> str:
    impossible = summary["points"] - summary["evaluated"]
    rate = (
        f", {summary['fresh']:,} of them now, {summary['points_per_second']:.2f} a second" if summary["fresh"] else ""
    )
    return (
        f"{summary['points']:,} points of {summary['size']:,} ({summary['sampler']['kind']}){rate}; {summary['evaluated']:,} can be "
        f"built and mapped, {impossible:,} cannot; {summary['feasible']:,} keep the bounds, {len(summary['front']):,} are the front"
    )


def terminal(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    """The exploration for the terminal."""
    parts = [f"{summary['name']}: {counts(summary)}"]
    if not summary["front"]:
        return "\n".join([*parts, *(f"  {count:,} x {reason}" for reason, count in summary["reasons"].items())])
    best = front_of(summary, records)[0]
    parts += ["", aligned(front_rows(summary, records, 12))]
    parts += [f"({len(summary['front']) - 12:,} more in the report)"] if len(summary["front"]) > 12 else []
    if summary["sensitivity"]:
        parts += ["", "point1 with one field changed", aligned(sensitivity_rows(summary, best))]
    if summary["doubling"]:
        parts += ["", "what would double the speed of point1", aligned(doubling_rows(summary))]
    if summary["validation"]:
        parts += ["", aligned(validation_rows(summary))]
    return "\n".join(parts)


# ---- the page -------------------------------------------------------------------------------------------------------


def page(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    """One self-contained page."""
    return document(f"ternbin: {summary['name']}", "".join(_sections(summary, records)), STYLE)


def _sections(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> list[str]:
    found = front_of(summary, records)
    parts = [f"<p>{escape(counts(summary))}.</p>", _asked(summary)]
    if found:
        parts += [_plots(summary, records), "<h2 id=front>The front</h2>", _front(summary, records)]
    if summary["validation"]:
        parts += ["<h2>Predicted and simulated</h2>", _table(validation_rows(summary), 2)]
        parts.append(note("Random tokens; every tensor that the program wrote compared with the integer reference."))
    if summary["sensitivity"]:
        parts += ["<h2>What point1 is sensitive to</h2>", _table(sensitivity_rows(summary, found[0]), 1)]
        parts.append(note("The same point with one field changed, all else kept; mapped and timed anew."))
    if found and (summary["sensitivity"] or summary["doubling"]):
        parts += ["<h2>What would double the speed of point1</h2>", _doubling(summary)]
    if summary["reasons"]:
        rows = [[f"{count:,}", reason] for reason, count in summary["reasons"].items()]
        parts += ["<h2>What cannot be built or mapped</h2>", table(["points", "reason"], rows, 9)]
    return parts


def _asked(summary: dict[str, Any]) -> str:
    objectives = ", ".join(f"{'most' if way > 0 else 'least'} {name}" for name, way in summary["objectives"].items())
    bounds = [
        f"{name} {word} {bound[end]:g}"
        for name, bound in summary["constraints"].items()
        for end, word in (("min", "at least"), ("max", "at most"))
        if bound[end] is not None
    ]
    rows = [["objectives", objectives], ["bounds", ", ".join(bounds) or "none"]]
    rows += [[name, ", ".join(number(value) for value in values)] for name, values in summary["axes"].items()]
    fixed = ", ".join(f"{name} {number(value)}" for name, value in summary["fixed"].items())
    rows += [["fixed", fixed], ["records of", f"space {summary['space']}, ternbin {summary['code']}"]]
    return details("The space", table(["", ""], rows, 9))


def _front(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    header, *rows = front_rows(summary, records, SHOWN)
    names = list(summary["hardware"])
    linked = [
        [Html(f"<a href='front/{name}.toml'>{name}</a>"), *row[1:]] for name, row in zip(names, rows, strict=False)
    ]
    more = len(names) - len(rows)
    return (
        table(header, linked, 1)
        + (note(f"{more:,} more are in points.csv and in the plots.") if more > 0 else "")
        + note(
            "Best first: least product of how many times each objective is worse than its best. A link is a --hw file. A part binds a "
            "phase that is busy longest in it, for at least half of its cycles; else the parts wait for each other, or for answers of "
            "memory. Points rest on the mapped program, the cycle model and the event model, or were simulated in RTL."
        )
    )


def _doubling(summary: dict[str, Any]) -> str:
    steps = summary["doubling"]
    if not steps:
        return "<p>Nothing that is doubled alone shortens its time.</p>"
    end = "" if steps[-1]["speed"] >= 2 else "<p>Doubling more does not get it to twice the speed.</p>"
    return (
        _table(doubling_rows(summary), 2) + end + note("One field after the other, each time the one that helps most.")
    )


def _table(rows: list[list[str]], numeric_from: int) -> str:
    return table(rows[0], rows[1:], numeric_from)


def drawn(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that the page draws: all, or the front and a seeded choice of the others."""
    able = [record for record in records if "figures" in record]
    if len(able) <= MOST:
        return able
    front = [record for record in able if record["front"]]
    others = [record for record in able if not record["front"]]
    return front[:MOST] + random.Random(0).sample(others, max(0, MOST - len(front)))


def _plots(summary: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    able = drawn(summary, records)
    figures = [name for name in able[0]["figures"] if all(name in record["figures"] for record in able)]
    data = {
        "axes": list(summary["axes"]),
        "figures": figures,
        "words": summary["figures"],
        "objectives": list(summary["objectives"]),
        "ways": summary["objectives"],
        "files": summary["hardware"] if len(summary["hardware"]) <= SHOWN else {},
        "points": [
            [
                record["id"],
                [record["point"][name] for name in summary["axes"]],
                [_short(record["figures"][name]) for name in figures],
                record["front"] or 0,
                record["fidelity"],
                record["broken"],
                record["busy"],
                record["binds"],
            ]
            for record in able
        ],
    }
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    script = resources.files("ternbin.report").joinpath("explore.js").read_text(encoding="utf-8")
    left = sum("figures" in record for record in records) - len(able)
    return (
        "<h2>Plots</h2><div id=controls></div><svg id=scatter></svg><div id=point></div><svg id=parallel></svg><div id=tip></div>"
        + note(
            "Orange: the front; ring: simulated in RTL; grey: breaks a bound. A point under the mouse is named, a click opens it. In the "
            "lower plot a drag along an axis keeps the lines that pass there; a click on the axis lets go."
            + (
                f" {left:,} points are left out, drawn by chance from those beside the front; points.csv has all."
                if left
                else ""
            )
        )
        + details("All points that are drawn", "<table id=all></table>")
        + f"<script type='application/json' id=data>{text}</script><script>{script}</script>"
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}")
