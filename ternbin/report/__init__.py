"""Renderers of result.json: HTML page, CSV tables, terminal text, Chrome/Perfetto trace."""

from pathlib import Path

from ternbin import results, storage


def write_report(result: dict, out: Path) -> None:
    """Writes result.json and every rendering of it below ``out``; each file appears whole or not at all."""
    from ternbin.report import html, tables
    from ternbin.report.trace import trace

    rendered = {
        "index.html": html.page(result),
        "energy.csv": tables.energy_csv(result),
        "ops.csv": tables.ops_csv(result),
    }
    results.write_json(out / "result.json", result)
    results.write_json(out / "trace.json", trace(result))
    for name, text in rendered.items():
        storage.write_text(out / name, text)
