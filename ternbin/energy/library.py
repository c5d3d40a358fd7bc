"""What is a fact of one cell library or node and cannot be read from its Liberty file: said in a small TOML file beside it.

``NAME.cells.toml`` beside ``NAME.lib``; every line may be missing (docs/cell-library.md). Everything else (supply, units, which cell is a
full adder or a clock gate) is read from the Liberty text by ternbin/energy/gates/roles.py.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from ternbin.errors import InputError

BUILT = "gates"  # in place of a cell's name: made of gates although the library has such a cell


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Facts of one library. Times in nanoseconds; None: found in the Liberty file.

    ``ram_access_ns``: data of a memory bank after the clock. ``input_delay_ns``: inputs of a block, which come from registers elsewhere.
    ``clock_slew_ns``: edge of a buffered clock, and of inputs. ``wire_load``: name of a ``wire_load`` group.
    ``full_adder``, ``clock_gate``: a cell, or "gates". ``buffer``: what splits nets of many sinks.
    ``dont_use``: cells that synthesis leaves alone, * and ? as in file names.
    """

    node_nm: float | None = None
    ram_access_ns: float = 0.8  # CACTI 7, 45 nm: 0.7 to 0.9 ns for banks of up to 4 KB
    input_delay_ns: float = 0.1  # about a flip-flop's delay at 45 nm
    clock_slew_ns: float | None = None
    wire_load: str | None = None
    full_adder: str | None = None
    clock_gate: str | None = None
    buffer: str | None = None
    dont_use: tuple[str, ...] = ()


_NUMBERS = ("node_nm", "ram_access_ns", "input_delay_ns", "clock_slew_ns")


def read_declared(path: Path) -> Declared:
    """The facts that a TOML file declares. Raises InputError with file and field for what cannot be one."""
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: must be TOML: {error}") from None
    known = [field.name for field in fields(Declared)]
    for name, value in found.items():
        if name not in known:
            raise InputError(f"{path}: a field must be one of {', '.join(known)}, not {name!r}")
        _check(path, name, value)
    facts: dict[str, Any] = {**found, "dont_use": tuple(found.get("dont_use", ()))}
    return Declared(**facts)


def _check(path: Path, name: str, value: object) -> None:
    if name in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise InputError(f"{path}: {name} must be a positive number, not {value!r}")
    elif name == "dont_use":
        if not isinstance(value, list) or not all(isinstance(cell, str) for cell in cast(list[object], value)):
            raise InputError(f"{path}: {name} must be a list of cell names, not {value!r}")
    elif not isinstance(value, str) or not value:
        raise InputError(f"{path}: {name} must be a name, not {value!r}")


_KNOWN = {"NangateOpenCellLibrary": "nangate45.cells.toml"}  # libraries whose facts are in this folder


def declared_for(liberty: Path, name: str, cells: Path | None = None) -> Declared:
    """Facts of the library ``name`` in the file ``liberty``: from ``cells``, else NAME.cells.toml beside it, else what is known here."""
    beside = liberty.with_suffix(".cells.toml")
    if cells is None and beside.exists():
        cells = beside
    if cells is None and name in _KNOWN:
        cells = Path(__file__).with_name(_KNOWN[name])
    return read_declared(cells) if cells else Declared()
