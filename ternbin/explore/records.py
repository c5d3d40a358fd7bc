"""The file of records: JSON lines, the first of which says what space they are of. Appended to, never rewritten."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ternbin import formats
from ternbin.errors import InputError
from ternbin.explore.evaluate import Record
from ternbin.schema import parse_json


class RecordFile:
    """Records of one space by their point's id, those that the file had and those that are added.

    One process at a time has it open. What a line needs to be whole is its end: a line that was cut off is dropped.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, restart: bool = False):
        """Raises InputError where the file cannot be written, is another process's, or is of another space or version."""
        self.path, self.records = path, dict[str, Record]()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            self._open(header, restart)
        except BaseException:
            self._file.close()
            raise

    def _open(self, header: dict[str, Any], restart: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{self.path}: must be written by one process, not by two: another one has it") from None
        if restart:
            self._file.truncate(0)
        whole = 0
        for end, values in _lines(self._file, self.path):
            if whole == 0:
                _same(values, header, self.path)
            elif isinstance(values.get("id"), str):
                self.records[values["id"]] = values
            else:
                raise InputError(f"{self.path}: a record must have an id, not {sorted(values)[:3]}")
            whole = end
        self._file.truncate(whole)
        if not whole:
            self._write({"schema": formats.EXPLORE} | header)

    def add(self, record: Record) -> None:
        """Raises InputError where it cannot be written; the next one to open the file drops what there is of it."""
        self._write(record)
        self.records[record["id"]] = record

    def _write(self, values: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None


def _lines(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(where it ends, what it says) of every whole line."""
    file.seek(0)
    end = 0
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            return
        end += len(line)
        values = parse_json(line, f"{path}: line {number}")
        if not isinstance(values, dict):
            raise InputError(f"{path}: line {number} must be an object, not {type(values).__name__}")
        yield end, values


def _same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raises InputError unless a header is the one that is wanted."""
    formats.check(found.get("schema"), formats.EXPLORE, str(path))
    for name, what in (("space", "of this space"), ("code", "of this version of ternbin")):
        if found.get(name) != wanted[name]:
            raise InputError(
                f"{path}: must be a record file {what} ({wanted[name]}), not of another ({found.get(name)}): "
                "give another --out, or --restart to begin anew"
            )


def read_records(path: Path) -> tuple[dict[str, Any], dict[str, Record]]:
    """Header and records of a file, which is left as it is."""
    try:
        with open(path, "rb") as file:
            lines = [values for _, values in _lines(file, path)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if not lines:
        raise InputError(f"{path}: must have a header and records, not be empty")
    return lines[0], {values["id"]: values for values in lines[1:]}
