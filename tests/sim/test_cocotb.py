"""The whole tiny accelerator under cocotb: same memory contents and same cycles as the compiled simulation."""

import json
from dataclasses import replace
from typing import cast

import pytest
import torch

from ternbin.contract.hw import NAMED
from ternbin.contract.program import save
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import RunResult
from ternbin.decoding.search import Policy
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.family import Seq2Seq
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant
from ternbin.models.families import family_named
from ternbin.passes import fold
from ternbin.sim.bench import run_bench
from ternbin.sim.generated import generated
from ternbin.sim.runner import run

torch.set_num_threads(1)
IDS = [3, 7, 9]
CALLS = 2
START = 2


def bench(tmp_path, testcase: str, model: MemoryModel, family: str = "bart") -> tuple[dict, RunResult]:
    """Outcome of the cocotb bench (tokens, cycles and counters of each call) and the run of the compiled simulation."""
    hw = replace(NAMED["tiny"], kv_external=True)  # stores of many beats
    program = map_model(
        fold(lower(random_quant(cast(Seq2Seq, family_named(family)).quant_class, "2-2"))), hw, len(IDS), CALLS - 1
    )
    save(program, tmp_path / "program")
    parameters = {
        "program": str(tmp_path / "program"),
        "ids": IDS,
        "start": START,
        "calls": CALLS,
        "latency": model.latency,
        "bandwidth": model.bandwidth,
        "stall_seed": model.stall_seed,
        "result": str(tmp_path / "result.json"),
        "memory": str(tmp_path / "memory"),
    }
    run_bench(
        generated(hw).verilog,
        "ternbin.sim.tb.tb_top",
        name="ternbin",
        parameters=parameters,
        testcase=testcase,
        fast="-O0",
    )
    found = json.loads((tmp_path / "result.json").read_text())
    compiled = run(
        program, ids=IDS, policy=Policy((START,), -1, None, CALLS - 1), memory=model, seed=0
    )  # on-chip memories start with 0
    assert found["tokens"] == compiled.tokens
    assert (tmp_path / "memory").read_bytes() == bytes(compiled.memory)
    return found, compiled


@pytest.mark.parametrize(
    ("model", "family"),
    [
        (MemoryModel(latency=12), "bart"),
        (MemoryModel(bandwidth=0.75), "mbart"),
        (MemoryModel(latency=7, bandwidth=0.4, stall_seed=3), "bart"),
    ],
    ids=str,
)
def test_same_cycles(tmp_path, model, family):
    found, compiled = bench(tmp_path, "bench_cycles", model, family)
    assert found["cycles"] == [call.cycles for call in compiled.calls]
    assert found["counters"] == [call.counters for call in compiled.calls]


def test_foreign_bus_models_with_random_pauses(tmp_path):
    found, compiled = bench(tmp_path, "bench_axi", MemoryModel())
    for cocotb_run, call in zip(found["counters"], compiled.calls, strict=True):
        for name in (
            "execute_array_columns",
            "axi_load_beats",
            "axi_write_beats",
            "abuf_writes",
            "vector_ln_norm_words",
        ):
            assert cocotb_run[name] == call.counters[name], name
