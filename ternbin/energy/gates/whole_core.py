"""A whole core at gate level: what its ports showed in the RTL simulation, replayed on the netlist."""

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.energy.gates import rtl_run
from ternbin.energy.gates.engine import Activity, Simulator
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.netlist import Netlist, Placed
from ternbin.energy.gates.power import domain_energy, toggle_energy
from ternbin.energy.gates.synthesis import synthesize
from ternbin.energy.gates.timing import Timing, analyse
from ternbin.rtl.verilog.generate import TOP, manifest
from ternbin.sim.build import build
from ternbin.sim.generated import generated
from ternbin.sim.simulator import Simulator as RtlSimulator

# The parts that energy is told apart by: prefixes of instance names, the first that fits. Nets that inputs and memory banks drive, and
# what stands at the top, belong to the ports.
PARTS = {
    "ports": ("input.",),
    "array": ("execute.array",),
    "execute": ("execute",),
    "vector": ("vector",),
    "load": ("load",),
    "store": ("store",),
    "bus": ("axi",),
    "control": ("control",),
    "counters": ("counters", "registers"),
    "memories": ("abuf", "wbuf", "kbuf", "rbuf", "pbuf", "idbuf", "sbuf"),
}
_RESET_CYCLES = 4


@dataclass(frozen=True)
class Recording:
    """One run at the ports of the core: rows of input and output bits (ports in the order of the netlist) of every cycle, reset first;
    ``starts``: the first cycle of every call; ``events``: counter -> its increment in every cycle."""

    inputs: np.ndarray
    outputs: np.ndarray
    starts: list[int]
    events: dict[str, np.ndarray]

    @property
    def cycles(self) -> int:
        return len(self.inputs)


def _bits(raw: np.ndarray, width: int) -> np.ndarray:
    return np.unpackbits(raw, axis=1, bitorder="little")[:, :width]


def record(program: Program, ids: Sequence[int], start: int, calls: Iterable[int], memory: MemoryModel) -> Recording:
    """The given calls of ``program`` for the source ``ids`` (``start``: the start token), simulated from zeroed registers and memories."""
    hw = program.hw
    described = manifest(hw)
    ports = [port for port in described["ports"] if port["name"] != "clk"]
    names = [f"r_{p['name']}" if p["direction"] == "input" else p["name"] for p in ports]
    signals = [counter["signal"] for counter in described["counters"]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        with RtlSimulator(hw, build(hw, ports=True), program.with_ids(ids, start), memory, seed=0) as simulator:
            sizes = simulator.record(path, [*names, *signals])
            starts: list[int] = []
            begin = simulator.cycle
            for number in calls:
                starts.append(simulator.cycle - begin + _RESET_CYCLES)
                simulator.call(program.calls[number].address, program.calls[number].count)
        rows = np.fromfile(path, np.uint8).reshape(-1, sum(sizes))
    columns = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    found: dict[str, list[np.ndarray]] = {"input": [], "output": []}
    for port, raw in zip(ports, columns, strict=False):
        bits = _bits(raw, port["bits"])
        before = np.full((_RESET_CYCLES, port["bits"]), port["name"] == "rst", np.uint8)
        found[port["direction"]].append(np.concatenate([before, bits]))
    packed = {
        way: np.packbits(np.concatenate(parts, axis=1), axis=1, bitorder="little") for way, parts in found.items()
    }
    events: dict[str, np.ndarray] = {}
    for counter, raw in zip(described["counters"], columns[len(ports) :], strict=True):
        wide = np.zeros((len(raw) + _RESET_CYCLES, 8), np.uint8)
        wide[_RESET_CYCLES:, : raw.shape[1]] = raw
        steps = np.diff(wide.view(np.int64)[:, 0], append=0)
        events[counter["name"]] = np.maximum(steps, 0)  # negative where it was cleared
    return Recording(packed["input"], packed["output"], starts, events)


@dataclass(frozen=True)
class Spent:
    """Picojoules of toggles, glitches counted, and clock pins, and the counters of the same cycles."""

    pj: float
    counters: dict[str, int]


class Core:
    """The netlist of an accelerator with clock gates, its memory banks as behaviour."""

    def __init__(self, hw: HwConfig, library: Library):
        self.hw = hw
        self.netlist: Netlist = _ordered(synthesize(generated(hw).verilog, TOP, library, gating=True), hw)

    @cached_property
    def timing(self) -> Timing:
        return analyse(self.netlist)

    @cached_property
    def _simulator(self) -> Simulator:
        """Groups: toggles of each part, then the clock of each part."""
        count = len(PARTS)
        clock = domain_energy(self.netlist, lambda placed: count + part_of(placed), 2 * count)
        weights = toggle_energy(self.netlist, self.timing)
        return Simulator(self.netlist, self.timing, weights, group_of=part_of, groups=2 * count, clock_energy=clock)

    @property
    def critical_path_ns(self) -> float:
        return self.timing.critical_path * self.netlist.library.time_unit * 1e9

    def part(self, name: str) -> dict[str, Any]:
        """Cells, flip-flops, area and leakage of a part."""
        number = list(PARTS).index(name)
        return _summary(replace(self.netlist, cells=[cell for cell in self.netlist.cells if part_of(cell) == number]))

    def summary(self) -> dict[str, Any]:
        return _summary(self.netlist) | {"critical_path_ns": self.critical_path_ns}

    def energy(self, recording: Recording, *, timed: bool) -> dict[str, np.ndarray]:
        """Femtojoules of every cycle by part, ``[cycles, 2]``: toggles, clock. Raises CheckError where a port differs from the RTL's."""
        activity: Activity = self._simulator.run(recording.inputs, timed=timed, start=_RESET_CYCLES, per_cycle=True)
        rtl_run.check_equal(f"{self.hw.name} core", recording.outputs, activity.outputs, _RESET_CYCLES + 1)
        count = len(PARTS)
        return {name: activity.energy[:, [i, count + i]] for i, name in enumerate(PARTS)}

    def spent(self, recording: Recording) -> Spent:
        """Of all calls of a recording. Raises CheckError where a port differs from the RTL's."""
        first = recording.starts[0]
        pj = sum(float(cycles[first:].sum()) for cycles in self.energy(recording, timed=True).values()) / 1e3
        return Spent(pj, {name: int(steps[first:].sum()) for name, steps in recording.events.items()})


def _summary(netlist: Netlist) -> dict[str, Any]:
    return {
        "cells": len(netlist.cells),
        "flip_flops": len(netlist.flops),
        "clock_gates": sum(bool(c.cell.gate) for c in netlist.cells),
        "area_um2": netlist.area,
        "area_by_class": netlist.area_by_class(),
        "leakage_nw": netlist.leakage_nw,
    }


def part_of(placed: Placed) -> int:
    """Number of the part that a cell belongs to; generated names have a prefix of Yosys before the instance's."""
    path = re.sub(r"^\$flatten|\\", "", placed.name)
    return next((i for i, prefixes in enumerate(PARTS.values()) if path.startswith(prefixes)), 0)


def _ordered(netlist: Netlist, hw: HwConfig) -> Netlist:
    """Ports in the order of the manifest."""
    ports = [port["name"] for port in manifest(hw)["ports"] if port["name"] != "clk"]
    for table in (netlist.inputs, netlist.outputs):
        for name in ports:
            if name in table:
                table[name] = table.pop(name)
    return netlist
