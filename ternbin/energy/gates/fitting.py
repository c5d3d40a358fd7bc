"""Energies of the events of a whole core, fitted to its gate-level simulation, and runs they were not fitted to.

An event's energy has three parts, none of them negative: clock pins, settled toggles, and what glitches add. So an event never costs more
without glitches than with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from scipy.optimize import nnls  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]  # scipy has no types

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.counting.traffic import Traffic, traffic
from ternbin.energy.block_events import events, size
from ternbin.energy.gates.fingerprint import structure
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.whole_core import PARTS, Core, Recording, record
from ternbin.graph.ir import Lowered
from ternbin.mapping.mapper import map_model
from ternbin.rtl.verilog.generate import TOP
from ternbin.sim.generated import generated

WINDOW = 256  # cycles of one equation
COMPONENTS = ("clock", "settled", "glitches")
MODES = {"glitch": COMPONENTS, "zero_delay": COMPONENTS[:2]}  # what each counts
# Two sizes: what grows with rows, lanes or the bus is told from what does not. Room for the bundled model.
_SMALL = replace(NAMED["tiny"], name="gates-4", abuf_words=1024, wbuf_words=512, kbuf_words=1024, pbuf_words=512)
CORES = (_SMALL, replace(_SMALL, name="gates-8", rows=8, cols=4, lanes=32, axi_data_bits=64))
BLIND = NAMED["small"]  # never fitted: only compared
REAL_LENGTHS = (8, 5)  # tokens of the first bundled texts


@dataclass(frozen=True)
class Workload:
    """The first ``calls`` program calls of a lowered model on a source text."""

    name: str
    lowered: Lowered
    ids: Sequence[int]
    calls: int
    memory: MemoryModel = MemoryModel()

    def record(self, hw: HwConfig) -> Recording:
        program = self._program(hw)
        return record(program, self.ids, self.lowered.meta["decoder_start_id"], range(self.calls), self.memory)

    def traffic(self, hw: HwConfig) -> Traffic:
        """What its calls move over the bus."""
        program = self._program(hw)
        return traffic(hw, [i for number in range(self.calls) for i in program.instructions(number)], 0)

    def _program(self, hw: HwConfig) -> Program:
        return map_model(self.lowered, hw, len(self.ids), self.calls)


def random_workloads() -> list[Workload]:
    """Untrained models that use every unit in every way: what the energies are fitted to."""
    from ternbin.models.families import families
    from ternbin.models.family import Sizes
    from ternbin.passes import fold

    shapes = [
        ("2-2", "gelu", 64, 2, 11, 1),
        ("1-1", "relu", 64, 2, 7, 2),
        ("2-8", "gelu", 64, 2, 9, 3),
        ("1-8", "relu", 32, 1, 6, 4),
        ("2-2", "relu", 96, 3, 14, 5),
    ]
    result: list[Workload] = []
    for bits, activation, d, heads, length, seed in shapes:
        family = families()[0]  # the one the records were made with
        sizes = Sizes(heads=heads, head_dim=d // heads, ffn=2 * d, layers=(1, 1), vocab=90, activation=activation)
        model = family.random(bits, sizes, seed=seed)
        memory = MemoryModel(latency=20 * seed, bandwidth=1.0 if seed % 2 else 0.5)
        result.append(
            Workload(f"random {bits}, d {d}, {activation}", fold(family.lower(model)), range(5, 5 + length), 3, memory)
        )
    return result


def real_workloads() -> list[Workload]:
    """The bundled model on bundled texts: what the energies are tested on."""
    from ternbin.models import prepare
    from ternbin.passes import fold

    folder = prepare.bundled_dir()
    lowered = fold(prepare.lower(prepare.load_model(folder, None)))
    tokenizer = prepare.load_tokenizer(folder)
    result: list[Workload] = []
    for number, (demo, length) in enumerate(zip(prepare.demo_texts(), REAL_LENGTHS, strict=False), start=1):
        ids = prepare.encode_text(tokenizer, demo["source"], lowered.meta["max_positions"])[:length]
        result.append(Workload(f"bundled model, {length} tokens of text {number}", lowered, ids, 2))
    return result


def _windows(recording: Recording, hw: HwConfig) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """Events of every window by part, and the first cycles of the windows."""
    first = np.arange(recording.starts[0], recording.cycles, WINDOW)
    counted: dict[str, Any] = {name: np.add.reduceat(steps, first) for name, steps in recording.events.items()}
    counted["cycles"] = np.diff(np.append(first, recording.cycles))
    by_part: dict[str, dict[str, Any]] = {part: dict(own) for part, own in events(counted, hw).items()}
    return by_part, first


@dataclass
class Measurement:
    """One workload on one core: femtojoules by component and part in every window, events likewise; ``counters``: of each call."""

    workload: str
    core: str
    cycles: int
    calls: list[int]  # first window of every call
    events: dict[str, dict[str, np.ndarray]]
    energy: dict[str, dict[str, np.ndarray]]  # component -> part
    counters: list[dict[str, int]]


def measure(core: Core, workload: Workload) -> Measurement:
    recording = workload.record(core.hw)
    counted, first = _windows(recording, core.hw)
    timed, settled = (core.energy(recording, timed=timed) for timed in (True, False))
    energy: dict[str, dict[str, np.ndarray]] = {name: {} for name in COMPONENTS}
    for part, cycles in timed.items():  # toggles and clock of every cycle; the clock is the same in both
        toggles, clock = np.add.reduceat(cycles, first, axis=0).T
        quiet = np.add.reduceat(settled[part][:, 0], first)
        energy["clock"][part], energy["settled"][part], energy["glitches"][part] = clock, quiet, toggles - quiet
    calls = [int(np.searchsorted(first, start)) for start in recording.starts]
    spans = zip(recording.starts, [*recording.starts[1:], recording.cycles], strict=True)
    counters = [{name: int(steps[start:end].sum()) for name, steps in recording.events.items()} for start, end in spans]
    return Measurement(
        workload.name, core.hw.name, recording.cycles - recording.starts[0], calls, counted, energy, counters
    )


def _nonnegative(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The x without negative elements of the least ``|matrix @ x - values|``."""
    return cast(np.ndarray, nnls(matrix, values)[0])


Energies = dict[str, dict[str, dict[str, float]]]  # component -> part -> event


def fit(measurements: Sequence[Measurement]) -> Energies:
    """Femtojoules: non-negative least squares over all windows, relative to the part's mean of each core, each component by itself."""
    return {component: {part: _fitted(measurements, component, part) for part in PARTS} for component in COMPONENTS}


def _fitted(measurements: Sequence[Measurement], component: str, part: str) -> dict[str, float]:
    names = list(measurements[0].events[part])
    rows: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for core in sorted({m.core for m in measurements}):
        own = [m for m in measurements if m.core == core]
        energy = np.concatenate([m.energy[component][part] for m in own])
        matrix = np.concatenate([np.stack([m.events[part][name] for name in names], axis=1) for m in own])
        mean = np.concatenate([sum(m.energy[c][part] for c in COMPONENTS) for m in own]).mean()
        rows.append(matrix / mean)
        values.append(energy / mean)
    matrix, energy = np.concatenate(rows), np.concatenate(values)
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-30)
    return dict(zip(names, (_nonnegative(matrix / scale, energy) / scale).tolist(), strict=True))


def predicted(measurement: Measurement, energies: Energies, mode: str) -> dict[str, np.ndarray]:
    """Femtojoules of every window by part, by the event model."""
    return {
        part: sum(
            (count * energies[component][part][name] for name, count in own.items() for component in MODES[mode]),
            np.zeros(()),
        )
        for part, own in measurement.events.items()
    }


def comparison(measurement: Measurement, energies: Energies) -> list[dict[str, Any]]:
    """Every call of a workload, gate level beside the event model, in picojoules, and its counters."""
    rows: list[dict[str, Any]] = []
    foretold = {mode: predicted(measurement, energies, mode) for mode in MODES}
    ends = [*measurement.calls[1:], None]
    for number, (first, end) in enumerate(zip(measurement.calls, ends, strict=True)):
        row: dict[str, Any] = {
            "workload": measurement.workload,
            "core": measurement.core,
            "call": "encoder" if number == 0 else f"decoder token {number}",
            "cycles": int(measurement.events["control"]["cycle"][first:end].sum()),
            "counters": {name: count for name, count in measurement.counters[number].items() if count},
        }
        for mode, components in MODES.items():
            gates = {
                part: sum(float(measurement.energy[name][part][first:end].sum()) for name in components) / 1e3
                for part in PARTS
            }
            model = {part: float(values[first:end].sum()) / 1e3 for part, values in foretold[mode].items()}
            row[mode] = {
                "gates_pj": sum(gates.values()),
                "model_pj": sum(model.values()),
                "error": sum(model.values()) / sum(gates.values()) - 1,
                "parts": {part: [gates[part], model[part]] for part in gates},
            }
        rows.append(row)
    return rows


def _event(energies: Energies, part: str, name: str) -> dict[str, Any]:
    found = {component: energies[component][part][name] for component in COMPONENTS}
    totals = {mode: {"total": sum(found[component] for component in parts)} for mode, parts in MODES.items()}
    return totals | {"clock": found["clock"]}


def _part_records(cores: Sequence[Core], energies: Energies) -> list[dict[str, Any]]:
    """A record of every part, as docs/energy.md describes them; figures of the largest core, ``sizes`` of all."""
    records: list[dict[str, Any]] = []
    for part, events_of in energies["clock"].items():
        sizes = [core.part(part) | {"core": core.hw.name, "size": size(part, core.hw)} for core in cores]
        records.append(
            sizes[-1]
            | {
                "name": f"core {part}",
                "kind": f"core {part}",
                "event": "of the whole core",
                "lanes": 1,
                "sizes": sizes,
                "critical_path_ns": cores[-1].critical_path_ns,
                "fj_per_event": {name: _event(energies, part, name) for name in events_of},
                "tier": "measured",
                "provenance": f"fitted to the gate-level simulation of the cores {', '.join(c.hw.name for c in cores)}",
            }
        )
    return records


def characterise_cores(
    library: Library, progress: Callable[[str], None], *, blind: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records of the parts, and the ``core`` entry of the characterisation: the cores, the runs fitted to, the runs compared; ``blind``:
    of a third core too that nothing was fitted to."""
    cores = [Core(hw, library) for hw in CORES]
    fitted: list[Measurement] = []
    tested: list[Measurement] = []
    for core in cores:
        for workloads, into in ((random_workloads(), fitted), (real_workloads(), tested)):
            for workload in workloads:
                progress(f"core {core.hw.name}: {workload.name}")
                into.append(measure(core, workload))
    energies = fit(fitted)
    records = _part_records(cores, energies)
    found: dict[str, Any] = {"cores": [describe(core) for core in cores]}
    if blind:
        progress(f"core {BLIND.name}: synthesis")
        third = Core(BLIND, library)
        found["blind"] = [describe(third)]
        for workload in real_workloads()[:1]:
            progress(f"core {BLIND.name}: {workload.name}")
            tested.append(measure(third, workload))
    for name, measured in (("fitted", fitted), ("compared", tested)):
        found[name] = [row for measurement in measured for row in comparison(measurement, energies)]
    return records, found


def describe(core: Core) -> dict[str, Any]:
    """Hardware, its structure's digest, cells, area and timing."""
    return {"hardware": core.hw.asdict(), "structure": digest(core.hw)} | core.summary()


def digest(hw: HwConfig) -> str:
    """Of the hardware that was synthesized, whatever its names: other hardware needs a new characterisation."""
    return structure(generated(hw).verilog, TOP)
