"""What placing the blocks' cells changes: wires, energy and path beside those of the library's wire-load model."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from ternbin.energy.gates.blocks import Block
from ternbin.energy.gates.characterise import SEEDS, Stimuli, blocks, rounded, stimuli_of, summary
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.measure import Measured
from ternbin.energy.gates.placement import Views, place, wired
from ternbin.energy.gates.real import RealTensors, kept_tensors


def place_blocks(
    library: Library, had: dict[str, Any] | None, progress: Callable[[str], None] = lambda text: None
) -> Iterator[dict[str, Any]]:
    """``provenance``, and ``blocks``: a record each, in the order of the blocks; given again with each block that is placed. ``had``: from
    before, what it has of the same library is not placed again. Raises MissingToolError without graywolf or the library's outlines,
    CheckError where a netlist differs from its RTL."""
    views, real = Views.beside(library.path), kept_tensors()
    where = {"library": library.name, "outlines": views.lef.name, "rules": views.rules.name}
    kept: list[dict[str, Any]] = had["blocks"] if had is not None and had["provenance"] == where else []
    found = {record["name"]: record for record in kept}
    todo = [block for block in blocks() if block.name not in found]
    for number, block in enumerate(todo, 1):
        progress(f"placing block {number} of {len(todo)}")
        found[block.name] = rounded(_placed(block, library, views, real, progress))
        yield {"provenance": where, "blocks": [found[own.name] for own in blocks() if own.name in found]}


def _placed(
    block: Block, library: Library, views: Views, real: RealTensors, progress: Callable[[str], None]
) -> dict[str, Any]:
    """``tool``, ``cells``, ``width_um``, ``height_um``, ``wire_um`` (in all, but for the clock's), and placed over modelled: ``wires``
    (capacitance), ``element``, ``operands`` and ``total`` (energy of an event on the blocks' operands, glitches counted; the clock's is
    the same in both), ``critical_path``."""
    progress(f"{block.name}: synthesis")
    before = Measured.of(block, library)
    progress(f"{block.name}: {len(before.netlist.cells):,} cells placed")
    placement = place(before.netlist, views)
    after = Measured(block, wired(before.netlist, placement))
    stimuli: Stimuli = stimuli_of(block, real)
    drawn, cycles = stimuli.get("real", stimuli["operand held"])
    energies: list[dict[str, float]] = []
    for which, measured in (("modelled", before), ("placed", after)):
        progress(f"{block.name}: {which} wires")
        runs = [measured.energy(drawn(random.Random(seed)))["glitch"] for seed in SEEDS]
        energies.append(summary(measured, runs, cycles))
    wires = [sum(map(measured.netlist.wire, placement.um)) for measured in (before, after)]
    paths = [measured.timing.critical_path for measured in (before, after)]
    return {
        "name": block.name,
        "tool": placement.tool,
        "cells": len(before.netlist.cells),
        "width_um": placement.width_um,
        "height_um": placement.height_um,
        "wire_um": sum(placement.um.values()),
        "wires": wires[1] / wires[0],
        **{part: energies[1][part] / energies[0][part] for part in ("element", "operands", "total")},
        "critical_path": paths[1] / paths[0],
    }
