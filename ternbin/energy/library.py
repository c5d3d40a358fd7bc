"""What is a fact of one cell library or node and cannot be read from its Liberty file: said in a small TOML file beside it.

``NAME.cells.toml`` beside ``NAME.lib``; every line may be missing (docs/cell-library.md). Everything else (supply, units, which cell is a
full adder or a clock gate) is read from the Liberty text by ternbin/energy/gates/roles.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ternbin.schema import Printable, Range, read_toml, validated

BUILT = "gates"  # in place of a cell's name: made of gates although the library has such a cell

Name = Annotated[str, Printable(1, 200)]
Time = Annotated[float, Range(above=0, high=1000)]  # nanoseconds


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Facts of one library. Times in nanoseconds; None: found in the Liberty file.

    ``ram_access_ns``: data of a memory bank after the clock. ``input_delay_ns``: inputs of a block, which come from registers elsewhere.
    ``clock_slew_ns``: edge of a buffered clock, and of inputs. ``wire_load``: name of a ``wire_load`` group.
    ``full_adder``, ``clock_gate``: a cell, or "gates". ``buffer``: what splits nets of many sinks.
    ``dont_use``: cells that synthesis leaves alone, * and ? as in file names.
    """

    node_nm: Annotated[float, Range(above=0, high=100_000)] | None = None
    ram_access_ns: Time = 0.8  # CACTI 7, 45 nm: 0.7 to 0.9 ns for banks of up to 4 KB
    input_delay_ns: Time = 0.1  # about a flip-flop's delay at 45 nm
    clock_slew_ns: Time | None = None
    wire_load: Name | None = None
    full_adder: Name | None = None
    clock_gate: Name | None = None
    buffer: Name | None = None
    dont_use: tuple[Name, ...] = ()


def read_declared(path: Path) -> Declared:
    """The facts that a TOML file declares. Raises InputError with file and field for what cannot be one."""
    return validated(Declared, read_toml(path), path)


_KNOWN = {"NangateOpenCellLibrary": "nangate45.cells.toml"}  # libraries whose facts are in this folder


def declared_for(liberty: Path, name: str, cells: Path | None = None) -> Declared:
    """Facts of the library ``name`` in the file ``liberty``: from ``cells``, else NAME.cells.toml beside it, else what is known here."""
    beside = liberty.with_suffix(".cells.toml")
    if cells is None and beside.exists():
        cells = beside
    if cells is None and name in _KNOWN:
        cells = Path(__file__).with_name(_KNOWN[name])
    return read_declared(cells) if cells else Declared()
