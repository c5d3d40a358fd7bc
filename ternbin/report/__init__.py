"""Renderers of result.json: HTML page, CSV tables, terminal text, Chrome/Perfetto trace."""

from collections.abc import Callable
from pathlib import Path

from ternbin import results


def writers(result: dict) -> dict[str, Callable[[Path], None]]:
    """The renderings of a result, name -> what writes it; each file appears whole or not at all."""
    from ternbin.report import html, tables

    return {
        "trace.json": lambda path: results.write_json(path, tables.trace(result)),
        "index.html": lambda path: results.write_text(path, html.page(result)),
        "energy.csv": lambda path: results.write_text(path, tables.energy_csv(result)),
        "ops.csv": lambda path: results.write_text(path, tables.ops_csv(result)),
    }


def write_report(result: dict, out: Path) -> None:
    """Writes result.json, then every rendering of it below ``out``."""
    results.write_json(out / "result.json", result)
    for name, write in writers(result).items():
        write(out / name)
