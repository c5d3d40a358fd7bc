"""The cycle model against the compiled simulation of the tiny accelerators."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from ternbin.cycles import Deviation, predict
from ternbin.errors import CheckError, InputError
from ternbin.generate import Policy
from ternbin.hw import NAMED
from ternbin.isa import INSTRUCTION_BYTES, Unit, decode, encode
from ternbin.mapper import map_model
from ternbin.models.lower import lower
from ternbin.models.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.program import Program
from ternbin.sim.runner import MemoryModel, RunResult, run

torch.set_num_threads(1)
MEMORIES = [MemoryModel(), MemoryModel(latency=1), MemoryModel(latency=90, bandwidth=0.25)]


@pytest.fixture(scope="module", params=[("2-2", "tiny"), ("2-8", "tiny"), ("1-1", "tiny-binary")], ids=" on ".join)
def job(request) -> tuple[Program, Policy]:
    bits, hw = request.param
    lowered = fold(lower(random_quant_bart(bits)))
    return map_model(lowered, NAMED[hw], 15, 3), Policy.of(lowered.meta, 3)


def simulate(job: tuple[Program, Policy], memory: MemoryModel) -> RunResult:
    program, policy = job
    return run(program, ids=list(range(3, 3 + program.source_len)), policy=policy, memory=memory, probes=False)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_cycles_of_run_calls_and_ops(job, memory):
    prediction, result = predict(job[0], memory), simulate(job, memory)
    assert len(prediction.calls) == len(result.calls)
    deviations = prediction.deviations(result)
    whole = [item for item in deviations if item.what == "run" or item.what.startswith("call ")]
    assert len(whole) == 1 + len(result.calls)
    assert max(item.relative for item in whole) <= WHOLE, prediction.report(result)
    assert prediction.worst(result) <= OPS, prediction.report(result)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_every_instruction_of_a_decoder_call(job, memory):
    program = job[0]
    call, record = predict(program, memory, 2).calls[1], simulate(job, memory).calls[1]
    units = [None if i.op.name == "END" else i for i in program.instructions(1)]
    assert len(call.start) == len(units) == program.calls[1].count
    for unit in Unit:
        records = sorted((r for r in record.records if r.unit == unit), key=lambda r: r.index)
        own = [i for i, item in enumerate(units) if item is not None and unit_of(item) == unit]
        assert [int(call.start[i]) for i in own] == [r.start for r in records]
        assert [int(call.done[i]) for i in own] == [r.done for r in records]
    assert call.done[-1] == call.cycles == record.cycles


def unit_of(instruction) -> Unit:
    from ternbin.isa import UNIT_OF

    return UNIT_OF[instruction.op]
