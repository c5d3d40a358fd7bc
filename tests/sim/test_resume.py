"""Runs that stop between calls, or are killed anywhere, and go on from their checkpoint as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ternbin import formats
from ternbin.contract.hw import NAMED
from ternbin.contract.program import Program, save
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import RunResult
from ternbin.decoding.search import Policy
from ternbin.errors import InputError
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.sim.build import build
from ternbin.sim.check import Comparison, check
from ternbin.sim.resume import Checkpoint
from ternbin.sim.runner import run
from ternbin.sim.simulator import Waves

torch.set_num_threads(1)
IDS = [3, 7, 9, 11, 5]
NEW = 5
STALLS = MemoryModel(latency=13, bandwidth=0.7, stall_seed=3)


@pytest.fixture(scope="module")
def job() -> tuple[Program, Policy]:
    lowered = fold(lower(random_quant_bart("2-2")))
    return map_model(lowered, NAMED["tiny"], len(IDS), NEW), Policy.of(lowered.meta, NEW)


@pytest.fixture(scope="module", params=[MemoryModel(), STALLS], ids=["plain", "stalls"])
def whole(request, job) -> tuple[MemoryModel, RunResult]:
    program, policy = job
    return request.param, run(program, ids=IDS, policy=policy, memory=request.param)


def assert_equal(result: RunResult, whole: RunResult) -> None:
    assert result.tokens == whole.tokens and result.calls == whole.calls and result.memory == whole.memory


class Stop(Exception):
    pass


class Stopping(Checkpoint):
    """Ends the run once ``calls`` calls are in the file."""

    calls = 1

    def save(self, key, state):
        super().save(key, state)
        if len(state.calls) == self.calls:
            raise Stop


def test_goes_on_after_any_call(job, whole, tmp_path):
    program, policy = job
    memory, expected = whole
    lines, calls = [], 0
    for calls in range(1, len(expected.calls)):
        stopping = Stopping(tmp_path / "c.npz", every=0)
        stopping.calls = calls
        with pytest.raises(Stop):
            run(program, ids=IDS, policy=policy, memory=memory, checkpoint=stopping)  # goes on from the stop before
    result = run(
        program, ids=IDS, policy=policy, memory=memory, checkpoint=Checkpoint(tmp_path / "c.npz", tell=lines.append)
    )
    assert_equal(result, expected)
    assert lines == [f"{tmp_path / 'c.npz'}: going on after call {calls} of at most {len(program.calls)}"]
    assert list(tmp_path.iterdir()) == [], "the checkpoint goes when the run is over"


def test_all_calls_are_compared_in_a_run_that_goes_on(tmp_path):
    lowered = fold(lower(random_quant_bart("2-2")))
    program, policy = map_model(lowered, NAMED["tiny"], len(IDS), NEW), Policy.of(lowered.meta, NEW)
    stopped((program, policy), tmp_path / "c.npz")
    with Comparison(program, lowered, IDS) as comparison:
        result = run(program, ids=IDS, policy=policy, checkpoint=Checkpoint(tmp_path / "c.npz"), comparison=comparison)
        verdict = comparison.verdict(result)
    assert verdict.bit_exact and verdict == check(program, lowered, IDS, policy.prompt[0], result)


def test_goes_on_without_probes(job, tmp_path):
    program, policy = job
    with pytest.raises(Stop):
        run(program, ids=IDS, policy=policy, probes=False, checkpoint=Stopping(tmp_path / "c.npz", every=0))
    result = run(program, ids=IDS, policy=policy, probes=False, checkpoint=Checkpoint(tmp_path / "c.npz"))
    assert_equal(result, run(program, ids=IDS, policy=policy, probes=False))


def test_restart(job, tmp_path):
    program, policy = job
    stopped(job, tmp_path / "c.npz")
    lines = []
    result = run(
        program, ids=IDS, policy=policy, checkpoint=Checkpoint(tmp_path / "c.npz", restart=True, tell=lines.append)
    )
    assert_equal(result, run(program, ids=IDS, policy=policy))
    assert lines == [] and list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_time(job, tmp_path):
    program, policy = job
    stopping = Stopping(tmp_path / "c.npz", every=3600)
    run(program, ids=IDS, policy=policy, checkpoint=stopping)
    assert list(tmp_path.iterdir()) == []


CHILD = """
import pathlib
import sys, time
from ternbin.decoding.search import Policy
from ternbin.contract.program import load
from ternbin.sim.resume import Checkpoint
from ternbin.sim.runner import run
from ternbin.counting.external import MemoryModel

class Slow(Checkpoint):
    def save(self, key, state):
        for _ in range(200):  # killed while it writes as well as between, long before it is done
            super().save(key, state)

program = load(sys.argv[1])
run(program, ids=%r, policy=Policy.of(program.info, %d), memory=%r, checkpoint=Slow(pathlib.Path(sys.argv[2]), every=0, tell=print))
print("done", flush=True)
"""


def test_killed_at_any_moment(job, whole, tmp_path):
    program, policy = job
    memory, expected = whole
    path = tmp_path / "c.npz"
    save(program, tmp_path / "p.tbn")
    command = [sys.executable, "-c", CHILD % (IDS, NEW, memory)]
    for delay in (0.0, 0.05):
        before = path.stat().st_mtime_ns if path.exists() else 0
        child = subprocess.Popen([*command, str(tmp_path / "p.tbn"), str(path)], stdout=subprocess.PIPE, text=True)
        while child.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        assert "done" not in child.communicate()[0] and child.returncode == -signal.SIGKILL
    lines = []
    assert_equal(
        run(program, ids=IDS, policy=policy, memory=memory, checkpoint=Checkpoint(path, tell=lines.append)), expected
    )
    assert len(lines) == 1 and ": going on after call " in lines[0] and not path.exists()


def stopped(job, path: Path, **options) -> None:
    program, policy = job
    with pytest.raises(Stop):
        run(program, ids=IDS, policy=policy, checkpoint=Stopping(path, every=0), **options)


@pytest.mark.parametrize("what", ["memory", "ids", "seed", "version", "simulator"])
def test_checkpoint_of_another_run_is_not_used(job, what, tmp_path, monkeypatch):
    program, policy = job
    path, lines = tmp_path / "c.npz", []
    options = {"memory": {"memory": STALLS}, "seed": {"seed": 2}}.get(what, {})
    stopped(job, path)
    ids = IDS[::-1] if what == "ids" else IDS
    if what == "version":
        monkeypatch.setattr(formats, "CHECKPOINT", formats.CHECKPOINT + "0")
    if what == "simulator":
        other = tmp_path / "simulator.so"
        other.write_bytes(build(program.hw).read_bytes() + b"\0")
        options = {"library": other}
    result = run(program, ids=ids, policy=policy, checkpoint=Checkpoint(path, tell=lines.append), **options)
    assert_equal(result, run(program, ids=ids, policy=policy, **options))
    assert lines == [f"{path}: checkpoint of another program, input, hardware or version; starting anew"]


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "flipped", "foreign", "other arrays", "other head", "named pipe"]
)
def test_damaged_checkpoint_is_not_used(job, damage, tmp_path):
    program, policy = job
    path, lines = tmp_path / "c.npz", []
    stopped(job, path)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(
        {"truncated": data[:-100], "empty": b"", "flipped": data, "foreign": b"PK\3\4 no zip"}.get(damage, b"")
    )
    if damage == "other arrays":
        np.savez(path, head=np.zeros(3))
    if damage == "other head":
        np.savez(path, head=np.frombuffer(b'{"key": 3, "calls": []}', dtype=np.uint8))
    if damage == "named pipe":
        path.unlink()
        os.mkfifo(path)
    result = run(program, ids=IDS, policy=policy, checkpoint=Checkpoint(path, tell=lines.append))
    assert_equal(result, run(program, ids=IDS, policy=policy))
    assert (
        len(lines) == 1
        and lines[0].startswith(f"{path}: checkpoint is damaged (")
        and lines[0].endswith("; starting anew")
    )


def test_folder_that_cannot_be_written(job, whole, tmp_path):
    program, policy = job
    memory, expected = whole
    (tmp_path / "file").write_text("in the place of a folder")
    path, lines = tmp_path / "file" / "c.npz", []
    result = run(
        program, ids=IDS, policy=policy, memory=memory, checkpoint=Checkpoint(path, every=0, tell=lines.append)
    )
    assert_equal(result, expected)
    assert lines == [f"{path}: cannot be written: File exists; going on without checkpoints"]


def test_not_with_waves(job, tmp_path):
    program, policy = job
    with pytest.raises(InputError, match="a run that writes waves must not have a checkpoint"):
        run(
            program,
            ids=IDS,
            policy=policy,
            waves=Waves(path=tmp_path / "w.vcd"),
            checkpoint=Checkpoint(tmp_path / "c.npz"),
        )
