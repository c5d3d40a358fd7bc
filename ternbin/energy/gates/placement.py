"""Where the cells of a block lie, by graywolf (Debian's TimberWolf), and how long its wires are then.

A net's length is that of the least rectilinear tree over its pins: at most 1.5 times the shortest possible one, mostly 1.1. The clock
has none: its tree is another figure. Nothing is routed.
"""

import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ternbin.energy.gates.netlist import ONE, ZERO, Netlist
from ternbin.errors import InputError, MissingToolError

GRID = 100  # units of graywolf's files in a micrometre
PAD = 7  # half the side of a port's pad, in these units
_PIN = re.compile(r"^  PIN (\S+)(.*?)^  END \1", re.DOTALL | re.MULTILINE)
_SHAPE = re.compile(r"(?:POLYGON|RECT) ([-\d. ]+)")
_MACRO = re.compile(r"^MACRO (\S+)(.*?)^END \1", re.DOTALL | re.MULTILINE)
_VERSION = re.compile(r"twflow version:(\S+)")
_SIZE = re.compile(r"SIZE ([\d.]+) BY ([\d.]+)")


@dataclass(frozen=True)
class Outline:
    """Of a cell, in units: size, and where its pins are, from the middle."""

    width: int
    height: int
    pins: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Views:
    """What placing needs of a library beside its Liberty file: a LEF file of the same name and graywolf's rules, a .par file."""

    lef: Path
    rules: Path

    @staticmethod
    def beside(library: Path) -> "Views":
        """Raises MissingToolError where they are not there."""
        lef, rules = library.with_suffix(".lef"), sorted(library.parent.glob("*.par"))
        if not lef.exists() or not rules:
            raise MissingToolError(f"placing needs {lef.name} and rules for graywolf (*.par) in {library.parent}")
        return Views(lef, rules[0])

    @cached_property
    def outlines(self) -> dict[str, Outline]:
        text = self.lef.read_text(encoding="utf-8", errors="replace")
        return {name: _outline(body) for name, body in _MACRO.findall(text) if _SIZE.search(body)}


def _outline(body: str) -> Outline:
    size = _SIZE.search(body)
    assert size  # noqa: S101  # only bodies with one come here
    width, height = (round(float(value) * GRID) for value in size.groups())
    pins: dict[str, tuple[int, int]] = {}
    for name, text in _PIN.findall(body):
        shape = _SHAPE.search(text)
        if shape:
            xy = np.array(shape[1].split(), float) * GRID
            pins[name] = round(float(xy[::2].mean())) - width // 2, round(float(xy[1::2].mean())) - height // 2
    return Outline(width, height, pins)


def graywolf() -> str:
    """Its path. Raises MissingToolError."""
    found = shutil.which("graywolf")
    if found is None:
        raise MissingToolError("placing needs graywolf: apt-get install graywolf")
    return found


@dataclass(frozen=True)
class Placement:
    """``um``: net -> length of its wire; ``width_um``, ``height_um``: of the rows of cells; ``tool``: what placed them."""

    um: dict[int, float]
    width_um: float
    height_um: float
    tool: str


def place(netlist: Netlist, views: Views) -> Placement:
    """Raises MissingToolError without graywolf, InputError with its last words where it fails or a cell has no outline."""
    tool = graywolf()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "block.cel").write_text("\n".join(_cells(netlist, views)) + "\n", encoding="utf-8")
        shutil.copyfile(views.rules, folder / "block.par")
        done = subprocess.run(
            [tool, "-n", "block"], cwd=folder, capture_output=True, encoding="utf-8", errors="replace"
        )
        boxes, pins = folder / "block.pl1", folder / "block.pin"
        if done.returncode or not boxes.exists() or not pins.exists():
            raise InputError(f"graywolf must place the cells, not stop with: {(done.stdout + done.stderr)[-1000:]}")
        version = _VERSION.search(done.stdout)
        where = f"graywolf {version[1] if version else 'of unknown version'}"
        return _read(boxes.read_text(encoding="utf-8"), pins.read_text(encoding="utf-8"), where)


def _cells(netlist: Netlist, views: Views) -> Iterator[str]:
    """Cells and ports as graywolf reads them."""
    ideal = {ZERO, ONE, netlist.clock}
    for number, placed in enumerate(netlist.cells, 1):
        outline = views.outlines.get(placed.cell.name)
        if outline is None:
            raise InputError(f"{views.lef}: a cell of the netlist must be in it, not {placed.cell.name!r}")
        left, bottom = -(outline.width // 2), -(outline.height // 2)
        yield f"cell {number} c{number}"
        yield f"left {left} right {left + outline.width} bottom {bottom} top {bottom + outline.height}"
        for pin, net in placed.pins.items():
            if net not in ideal:
                x, y = outline.pins[pin]
                yield f"pin name {pin} signal n{net} layer 1 {x} {y}"
    ports = [net for nets in (netlist.inputs | netlist.outputs).values() for net in nets if net not in ideal]
    for number, net in enumerate(ports, len(netlist.cells) + 1):
        yield f"pad {number} name p{number}"
        yield f"corners 4 {-PAD} {-PAD} {-PAD} {PAD} {PAD} {PAD} {PAD} {-PAD}"
        yield f"pin name p signal n{net} layer 1 0 0"


def _read(boxes: str, pins: str, tool: str) -> Placement:
    """Of a box: name, left, bottom, right, top. Of a pin: net, number, cell, pin, x; it is at either edge of the cell, so it counts at
    half its height."""
    edges = {name: tuple(map(int, rest[:4])) for name, *rest in map(str.split, boxes.splitlines())}
    cells = np.array([box for name, box in edges.items() if name.startswith("c")])
    points: dict[int, set[tuple[float, float]]] = defaultdict(set)
    for net, _, cell, _, x, *_ in map(str.split, pins.splitlines()):
        if cell in edges:  # not what graywolf adds to cross a row
            _, bottom, _, top = edges[cell]
            points[int(net[1:])].add((float(x), (bottom + top) / 2))
    width, height = cells[:, 2].max() - cells[:, 0].min(), cells[:, 3].max() - cells[:, 1].min()
    lengths = {net: tree(at) / GRID for net, at in points.items()}
    return Placement(lengths, float(width) / GRID, float(height) / GRID, tool)


def tree(points: set[tuple[float, float]]) -> float:
    """Length of the least rectilinear tree over the points, by Prim."""
    left = np.array(sorted(points))
    here, left = left[0], left[1:]
    away = np.full(len(left), np.inf)
    total = 0.0
    while len(left):
        away = np.minimum(away, np.abs(left - here).sum(axis=1))
        nearest = int(away.argmin())
        total += float(away[nearest])
        here = left[nearest]
        left, away = np.delete(left, nearest, axis=0), np.delete(away, nearest)
    return total


def wired(netlist: Netlist, placement: Placement) -> Netlist:
    """The netlist with the wires that were placed, at the capacitance that the library's wire-load model has for their length."""
    model = netlist.library.wire_load
    if model is None:
        raise InputError(f"{netlist.library.path}: must have a wire-load model: the capacitance of a length of wire")
    each = model.number("capacitance")
    return replace(netlist, wires={net: um * each for net, um in placement.um.items()})
