"""Energies of the events of a whole core, fitted to its gate-level simulation, and how well they foretell runs they were not fitted to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from scipy.optimize import nnls  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]  # scipy has no types

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.counting.external import MemoryModel
from ternbin.energy.block_events import events, size
from ternbin.energy.gates.fingerprint import structure
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.whole_core import PARTS, Core, Recording, record
from ternbin.graph.ir import Lowered
from ternbin.mapping.mapper import map_model
from ternbin.rtl.verilog.generate import TOP
from ternbin.sim.build import verilog

WINDOW = 256  # cycles of one equation
MODES = {"glitch": True, "zero_delay": False}
# Two sizes: what grows with rows, lanes or the bus is told from what does not. Room for the bundled model.
_SMALL = replace(NAMED["tiny"], name="gates-4", abuf_words=1024, wbuf_words=512, kbuf_words=1024, pbuf_words=512)
CORES = (_SMALL, replace(_SMALL, name="gates-8", rows=8, cols=4, lanes=32, axi_data_bits=64))
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
        program = map_model(self.lowered, hw, len(self.ids), self.calls)
        return record(program, self.ids, self.lowered.meta["decoder_start_id"], range(self.calls), self.memory)


def random_workloads() -> list[Workload]:
    """Untrained models that use every unit in every way: what the energies are fitted to."""
    from ternbin.models.families import FAMILIES
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
        family = FAMILIES[0]  # the one the records were made with
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
    """One workload on one core: femtojoules by part and mode in every window, events likewise."""

    workload: str
    core: str
    cycles: int
    calls: list[int]  # first window of every call
    events: dict[str, dict[str, np.ndarray]]
    energy: dict[str, dict[str, np.ndarray]]  # mode -> part


def measure(core: Core, workload: Workload) -> Measurement:
    recording = workload.record(core.hw)
    counted, first = _windows(recording, core.hw)
    energy: dict[str, dict[str, np.ndarray]] = {}
    for mode, timed in MODES.items():
        cycles = core.energy(recording, timed=timed)
        energy[mode] = {part: np.add.reduceat(values.sum(axis=1), first) for part, values in cycles.items()}
    calls = [int(np.searchsorted(first, start)) for start in recording.starts]
    return Measurement(workload.name, core.hw.name, recording.cycles - recording.starts[0], calls, counted, energy)


def _nonnegative(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The x without negative elements of the least ``|matrix @ x - values|``."""
    return cast(np.ndarray, nnls(matrix, values)[0])


def fit(measurements: Sequence[Measurement], mode: str) -> dict[str, dict[str, float]]:
    """Part -> event -> femtojoules: non-negative least squares over all windows, relative to the part's mean of each core."""
    result: dict[str, dict[str, float]] = {}
    for part in PARTS:
        names = list(measurements[0].events[part])
        rows: list[np.ndarray] = []
        values: list[np.ndarray] = []
        for core in {m.core for m in measurements}:
            own = [m for m in measurements if m.core == core]
            energy = np.concatenate([m.energy[mode][part] for m in own])
            matrix = np.concatenate([np.stack([m.events[part][name] for name in names], axis=1) for m in own])
            rows.append(matrix / energy.mean())
            values.append(energy / energy.mean())
        matrix, energy = np.concatenate(rows), np.concatenate(values)
        scale = np.maximum(np.abs(matrix).max(axis=0), 1e-30)
        result[part] = dict(zip(names, (_nonnegative(matrix / scale, energy) / scale).tolist(), strict=True))
    return result


def predicted(measurement: Measurement, energies: dict[str, dict[str, float]]) -> dict[str, np.ndarray]:
    """Femtojoules of every window by part, by the event model."""
    return {
        part: sum((count * energies[part][name] for name, count in own.items()), np.zeros(()))
        for part, own in measurement.events.items()
    }


def comparison(measurement: Measurement, energies: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Every call of a workload, gate level beside the event model, in picojoules; ``energies``: mode -> what :func:`fit` gives."""
    rows: list[dict[str, Any]] = []
    foretold = {mode: predicted(measurement, energies[mode]) for mode in MODES}
    ends = [*measurement.calls[1:], None]
    for number, (first, end) in enumerate(zip(measurement.calls, ends, strict=True)):
        row: dict[str, Any] = {
            "workload": measurement.workload,
            "core": measurement.core,
            "call": "encoder" if number == 0 else f"decoder token {number}",
            "cycles": int(measurement.events["control"]["cycle"][first:end].sum()),
        }
        for mode in MODES:
            gates = {part: float(values[first:end].sum()) / 1e3 for part, values in measurement.energy[mode].items()}
            model = {part: float(values[first:end].sum()) / 1e3 for part, values in foretold[mode].items()}
            row[mode] = {
                "gates_pj": sum(gates.values()),
                "model_pj": sum(model.values()),
                "error": sum(model.values()) / sum(gates.values()) - 1,
                "parts": {part: [gates[part], model[part]] for part in gates},
            }
        rows.append(row)
    return rows


def _part_records(cores: Sequence[Core], energies: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """A record of every part, as docs/energy.md describes them; figures of the largest core, ``sizes`` of all."""
    records: list[dict[str, Any]] = []
    for part, events_of in energies["glitch"].items():
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
                "fj_per_event": {
                    name: {mode: {"total": energies[mode][part][name]} for mode in MODES} for name in events_of
                },
                "tier": "measured",
                "provenance": f"fitted to the gate-level simulation of the cores {', '.join(c.hw.name for c in cores)}",
            }
        )
    return records


def characterise_cores(
    library: Library, progress: Callable[[str], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records of the parts, and the ``core`` entry of the characterisation: the cores, the runs fitted to, the runs compared."""
    cores = [Core(hw, library) for hw in CORES]
    fitted: list[Measurement] = []
    tested: list[Measurement] = []
    for core in cores:
        for workloads, into in ((random_workloads(), fitted), (real_workloads(), tested)):
            for workload in workloads:
                progress(f"core {core.hw.name}: {workload.name}")
                into.append(measure(core, workload))
    energies = {mode: fit(fitted, mode) for mode in MODES}
    rows = [row for measurement in tested for row in comparison(measurement, energies)]
    described = [{"hardware": core.hw.asdict(), "structure": digest(core.hw)} | core.summary() for core in cores]
    return _part_records(cores, energies), {
        "cores": described,
        "fitted": [row for measurement in fitted for row in comparison(measurement, energies)],
        "compared": rows,
        "gate_level_error": max(abs(row["glitch"]["error"]) for row in rows),
    }


def digest(hw: HwConfig) -> str:
    """Of the hardware that was synthesized, whatever its names: other hardware needs a new characterisation."""
    return structure(verilog(hw), TOP)
