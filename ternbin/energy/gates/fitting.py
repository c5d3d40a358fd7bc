"""Energies of the events of a whole core, fitted to its gate-level simulation, and runs they were not fitted to.

An event's energy has three parts, none of them negative: clock pins, settled toggles, and what glitches add. So an event never costs more
without glitches than with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from scipy.optimize import nnls  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]  # scipy has no types

from ternbin.contract.hw import NAMED
from ternbin.counting.external import MemoryModel
from ternbin.energy.block_events import size
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.measured_core import COMPONENTS, MeasuredCore, Measurement, Workload
from ternbin.energy.gates.whole_core import PARTS

MODES = {"glitch": COMPONENTS, "zero_delay": COMPONENTS[:2]}  # what each counts
# Two sizes: what grows with rows, lanes or the bus is told from what does not. Room for the bundled model.
_SMALL = replace(NAMED["tiny"], name="gates-4", abuf_words=1024, wbuf_words=512, kbuf_words=1024, pbuf_words=512)
CORES = (_SMALL, replace(_SMALL, name="gates-8", rows=8, cols=4, lanes=32, axi_data_bits=64))
BLIND = NAMED["small"]  # never fitted: only compared
REAL_LENGTHS = (8, 5)  # tokens of the first bundled texts


def random_workloads() -> list[Workload]:
    """Untrained models that use every unit in every way: what the energies are fitted to, beside a trained one."""
    from ternbin.models.families import families
    from ternbin.models.family import Sizes
    from ternbin.passes import fold

    shapes = [
        ("1-1", "relu", 64, 2, 7, 2),
        ("2-8", "gelu", 64, 2, 9, 3),
        ("1-8", "relu", 32, 1, 6, 4),
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


def trained_workload() -> Workload:
    """The bundled translation model on a bundled text. The codes of a trained model change less often than those of untrained ones."""
    return _bundled("translation", "translation model", REAL_LENGTHS[:1])[0]


def real_workloads() -> list[Workload]:
    """The bundled model on bundled texts: what the energies are tested on."""
    return _bundled("summarisation", "bundled model", REAL_LENGTHS)


def _bundled(name: str, said: str, lengths: Sequence[int]) -> list[Workload]:
    """Encoder and first decoder token of a bundled model on the first of its texts, cut to ``lengths`` tokens."""
    from ternbin.models import prepare
    from ternbin.passes import fold

    folder = prepare.bundled_dir(name)
    lowered = fold(prepare.lower(prepare.load_model(folder, None)))
    tokenizer = prepare.load_tokenizer(folder)
    result: list[Workload] = []
    for number, (demo, length) in enumerate(zip(prepare.demo_texts(folder), lengths, strict=False), start=1):
        ids = prepare.encode_text(tokenizer, demo["source"], lowered.meta["max_positions"])[:length]
        result.append(Workload(f"{said}, {length} tokens of text {number}", lowered, ids, 2))
    return result


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
    for core in sorted({m.hw.name for m in measurements}):
        own = [m for m in measurements if m.hw.name == core]
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
            "core": measurement.hw.name,
            "call": "encoder" if number == 0 else f"decoder token {number}",
            "cycles": int(measurement.windows["cycles"][first:end].sum()),
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


def _part_records(cores: Sequence[MeasuredCore], energies: Energies) -> list[dict[str, Any]]:
    """A record of every part, as docs/energy.md describes them; figures of the largest core, ``sizes`` of all."""
    records: list[dict[str, Any]] = []
    for part, events_of in energies["clock"].items():
        sizes = [core.sizes["parts"][part] | {"core": core.hw.name, "size": size(part, core.hw)} for core in cores]
        records.append(
            sizes[-1]
            | {
                "name": f"core {part}",
                "kind": f"core {part}",
                "event": "of the whole core",
                "lanes": 1,
                "sizes": sizes,
                "critical_path_ns": cores[-1].sizes["core"]["critical_path_ns"],
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
    cores = [MeasuredCore(hw, library) for hw in CORES]
    workloads, real = [*random_workloads(), trained_workload()], real_workloads()
    fitted = [core.measure(workload, progress) for core in cores for workload in workloads]
    tested = [core.measure(workload, progress) for core in cores for workload in real]
    energies = fit(fitted)
    records = _part_records(cores, energies)
    found: dict[str, Any] = {"cores": [core.sizes["core"] for core in cores]}
    if blind:
        third = MeasuredCore(BLIND, library)
        tested.append(third.measure(real[0], progress))
        found["blind"] = [third.sizes["core"]]
    for name, measured in (("fitted", fitted), ("compared", tested)):
        found[name] = [row for measurement in measured for row in comparison(measurement, energies)]
    return records, found
