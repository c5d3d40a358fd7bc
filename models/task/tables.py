"""Pairs of texts from files of other layouts: JSON Lines, CSV and TSV with named columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.models.task.data import Example
from ternbin.progress import say
from ternbin.schema import DATA_BYTES, parse_json, read_text, shown

SUFFIXES = {".jsonl": None, ".json": None, ".csv": ",", ".tsv": "\t"}
"""What separates the columns, by a file's ending; None: an object a line."""

PAIRS = (
    ("source", "target"),
    ("document", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
    ("input", "output"),
    ("src", "tgt"),
)
"""Names of the columns of source and target that need not be told, the first that a file has."""

NAMES = "--source-column and --target-column"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a row's source and target; None: one of :data:`PAIRS`.  ``a.b`` is b within column a."""

    source: str | None = None
    target: str | None = None


def read_table(path: Path, columns: Columns) -> list[Example]:
    """The rows of a file, without those that lack a text, whose number is said.

    Raises InputError, naming file and line, for what cannot be read, columns that are not there, and fewer than two rows.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: data must be a file that ends with {', '.join(SUFFIXES)}, not {path.suffix!r}")
    separator = SUFFIXES[path.suffix.lower()]
    text = read_text(path, DATA_BYTES).removeprefix("\ufeff")
    rows = _json_rows(text, path) if separator is None else _csv_rows(text, separator, path)
    return pairs(rows, columns, str(path))


def pairs(rows: Iterable[tuple[int, Mapping[str, Any]]], columns: Columns, where: str) -> list[Example]:
    """Examples of numbered rows.  Raises as :func:`read_table`."""
    found, empty, names = [], 0, None
    for number, row in rows:
        names = names or chosen(row, columns, where)
        texts = [_text(row, name, f"{where}: line {number}") for name in names]
        if all(texts):
            package = row.get("package")
            found.append(Example(package=package if isinstance(package, str) else "", source=texts[0], target=texts[1]))
        else:
            empty += 1
    if empty:
        say(f"{where}: {empty:,} rows without a source or a target are left out")
    if len(found) < 2:
        raise InputError(f"{where}: must hold at least two rows with texts, not {len(found) or 'none'}")
    return found


def chosen(row: Mapping[str, Any], columns: Columns, where: str) -> tuple[str, str]:
    """The names of the columns of source and target in rows like `row`."""
    default = next((pair for pair in PAIRS if all(name in row for name in pair)), None)
    if default is None and None in (columns.source, columns.target):
        usual = ", ".join(f"{source} and {target}" for source, target in PAIRS)
        raise InputError(f"{where}: columns must be {usual}, or named by {NAMES}, not {_listed(row)}")
    source, target = default or ("", "")
    names = columns.source or source, columns.target or target
    for name, option in zip(names, NAMES.split(" and "), strict=True):
        if value_at(row, name) is _MISSING:
            raise InputError(f"{where}: {option} must be one of its columns, {_listed(row)}, not {name!r}")
    return names


def _listed(row: Mapping[str, Any]) -> str:
    return shown(", ".join(map(str, row)))


_MISSING = object()


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """A column's value; `name` may lead into objects by dots."""
    if name in row:
        return row[name]
    outer, _, inner = name.partition(".")
    held = row.get(outer, _MISSING)
    return value_at(held, inner) if inner and isinstance(held, Mapping) else _MISSING


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = value_at(row, name)
    if value is _MISSING:
        raise InputError(f"{where}: {name} must be given")
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {name} must be a text, not {shown(value)}")
    return (value or "").strip()


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() knows more ends of a line
        if line.strip():
            row = parse_json(line.encode(), f"{path}: line {number}")
            if not isinstance(row, dict):
                raise InputError(f"{path}: line {number}: must be a JSON object, not {shown(row)}")
            yield number, row


def _csv_rows(text: str, separator: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                wanted = len(reader.fieldnames or ())
                raise InputError(f"{path}: line {reader.line_num}: must have {wanted} columns, as the first line")
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num + 1}: not readable as CSV: {error}") from None
