"""Random capacities of every memory: mapped and right, or refused with sizes that do; also where assertions are off."""

import subprocess
import sys
from pathlib import Path

import capacities
import pytest


@pytest.mark.parametrize("seed", range(12))
def test_mapped_or_refused_with_sizes_that_map(seed):
    capacities.check(seed)


def test_nothing_depends_on_assertions():
    run = [sys.executable, "-O", str(Path(capacities.__file__)), "12", "14"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("words", [64, 96, 112, 128])
def test_parameters_that_were_replaced_are_loaded_again(words):
    """A token a piece, so that the parameters of more ops alternate than PBUF holds."""
    capacities.run("2-2", capacities.HwConfig(cols=1, pbuf_words=words), dict(d_model=96, ffn=200), 24, 2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_many_random_capacities(seed):
    capacities.check(seed)
