"""Renderers of result.json: HTML page, CSV tables, terminal text, Chrome/Perfetto trace."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ternbin import results, storage
from ternbin.errors import InputError


def writers(result: results.Result) -> dict[str, Callable[[Path], None]]:
    """The renderings of a result, name -> what writes it; each file appears whole or not at all."""
    from ternbin.report import html, tables
    from ternbin.report.trace import trace

    return {
        "trace.json": lambda path: results.write_json(path, trace(result)),
        "index.html": lambda path: storage.write_text(path, html.page(result)),
        "energy.csv": lambda path: storage.write_text(path, tables.energy_csv(result)),
        "ops.csv": lambda path: storage.write_text(path, tables.ops_csv(result)),
    }


def write_report(result: results.Result, out: Path) -> None:
    """Writes result.json, then every rendering of it below ``out``."""
    results.write_json(out / "result.json", result)
    for name, write in writers(result).items():
        write(out / name)


def write_reports(runs: Sequence[tuple[results.Result, Path | None]], out: Path) -> Path:
    """The report of each of several results, and where it was read from, in a folder of its own below ``out``, and ``comparison.html``.

    Returns the path of that page. A folder is called as the one that the result was read from, or by its name and bits; equal names
    are numbered, and no result is written over another one of ``runs``.
    """
    from ternbin.report import compare

    if not runs:
        raise InputError("runs must hold at least one run")
    homes = [None if path is None else folder_of(path) for _, path in runs]
    taken: set[Path] = set()
    for (result, _), home in zip(runs, homes, strict=True):
        name = f"{result['name']}-{result['bits']}" if home is None else home.name
        choices = [out / name, *(out / f"{name}-{number}" for number in range(2, 2 * len(runs) + 2))]
        free = next(path for path in choices if path not in taken and path.resolve() in (home, *_nobodys(path, homes)))
        taken.add(free)
        write_report(result, free)
    storage.write_text(out / "comparison.html", compare.page([result for result, _ in runs]))
    return out / "comparison.html"


def _nobodys(path: Path, homes: Sequence[Path | None]) -> list[Path]:
    """The path, unless one of the results was read from there."""
    return [] if path.resolve() in homes else [path.resolve()]


def folder_of(path: Path) -> Path:
    """The folder of a result, given that or its result.json."""
    return path.resolve() if path.is_dir() else path.resolve().parent
