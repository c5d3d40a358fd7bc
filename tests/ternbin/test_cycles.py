"""The cycle model against the compiled simulation of the tiny accelerators."""

import dataclasses
import re
from typing import Any

import pytest
import torch

from ternbin.contract.hw import NAMED
from ternbin.contract.isa import INSTRUCTION_BYTES, UNIT_OF, Unit, decode, encode
from ternbin.contract.program import Program
from ternbin.counting.cycles import Deviation, predict
from ternbin.counting.cycles.bus import ReadChannel
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import RunResult
from ternbin.decoding.search import Policy
from ternbin.errors import CheckError, InputError
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.sim.runner import run

torch.set_num_threads(1)
WHOLE, OPS, MOST = 0.002, 0.08, 0.01  # of run and calls; of the worst op, where a few cycles are much; of 19 ops in 20
WIDE = dataclasses.replace(NAMED["tiny"], name="wide", rows=8, axi_data_bits=128)  # 4 code words a beat, as on "base"
HW = NAMED | {"wide": WIDE, "external": dataclasses.replace(NAMED["tiny"], kv_external=True)}
HW |= {"weights that stay": dataclasses.replace(NAMED["tiny"], resident="decoder")}
MEMORIES = [
    MemoryModel(),
    MemoryModel(latency=1),
    MemoryModel(latency=90, bandwidth=0.25),
    MemoryModel(bandwidth=0.75),
    MemoryModel(latency=1, bandwidth=0.6),
    MemoryModel(latency=20, bandwidth=0.3),
]


@pytest.fixture(
    scope="module",
    params=[
        ("2-2", "tiny"),
        ("2-8", "tiny"),
        ("1-1", "tiny-binary"),
        ("2-8", "tiny-ternary8"),
        ("2-2", "wide"),
        ("2-2", "external"),
        ("2-2", "weights that stay"),
    ],
    ids=" on ".join,
)
def job(request) -> tuple[Program, Policy]:
    bits, hw = request.param
    lowered = fold(lower(random_quant_bart(bits)))
    return map_model(lowered, HW[hw], 15, 3), Policy.of(lowered.meta, 3)


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
    assert sum(item.relative > MOST for item in deviations) <= len(deviations) / 20, prediction.report(result)


@pytest.mark.parametrize("source_len", [48, 64])
@pytest.mark.parametrize("memory", [MemoryModel(), MemoryModel(latency=90, bandwidth=0.25)], ids=str)
def test_every_op_where_the_bus_is_four_words_wide(memory, source_len):
    """As on "base": results of the array take the vector unit's ports, and every op is long enough for a cycle not to count."""
    shape: dict[str, Any] = dict(d_model=96, heads=4, ffn=192, layers=1, vocab=90, positions=128, activation="gelu")
    lowered = fold(lower(random_quant_bart("2-2", **shape)))
    job = map_model(lowered, HW["wide"], source_len, 2), Policy.of(lowered.meta, 2)
    prediction, result = predict(job[0], memory), simulate(job, memory)
    # Whether an embedding's row crosses a page depends on its id, which is not known before.
    wrong = [
        item for item in prediction.deviations(result) if item.relative > 0.01 and item.what != "decode dec.embed load"
    ]
    assert not wrong, prediction.report(result)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_every_instruction_of_a_decoder_call(job, memory):
    program = job[0]
    call, real = predict(program, memory, 2).calls[1], simulate(job, memory).calls[1]
    units = [UNIT_OF.get(instruction.op) for instruction in program.instructions(1)]
    assert len(call.start) == len(call.done) == len(units) == len(real.records) + 1
    for unit in Unit:
        records = sorted((r for r in real.records if r.unit == unit), key=lambda r: r.index)
        own = [number for number, one in enumerate(units) if one == unit]
        assert call.start[own].tolist() == [r.start for r in records]
        assert call.done[own].tolist() == [r.done for r in records]
    assert call.done[-1] == call.cycles == real.cycles


@pytest.mark.parametrize("hw", [WIDE, dataclasses.replace(WIDE, kv_external=True)], ids=["on chip", "external"])
def test_bursts_that_are_not_walked_through(monkeypatch, hw):
    """Neither runs of beats nor repeated bursts change anything."""
    shape: dict[str, Any] = dict(d_model=96, heads=4, ffn=192, layers=1, vocab=90, positions=128, activation="gelu")
    program = map_model(fold(lower(random_quant_bart("2-2", **shape))), hw, 24, 1)
    memories = [
        MemoryModel(latency=latency, bandwidth=beats / 64)
        for latency, beats in ((1, 64), (40, 63), (112, 48), (90, 38), (300, 5))
    ]
    fast = [predict(program, memory) for memory in memories]
    monkeypatch.setattr(ReadChannel, "_many", lambda self, asked, limit: 0)
    monkeypatch.setattr(ReadChannel, "_repeat", lambda self, limit: None)
    for memory, short in zip(memories, fast, strict=True):
        for call, walked in zip(short.calls, predict(program, memory).calls, strict=True):
            assert call.done.tolist() == walked.done.tolist(), memory


def test_some_calls_only(job):
    program = job[0]
    everything = predict(program, MemoryModel())
    assert len(everything.calls) == len(program.calls) and everything.cycles == sum(
        call.cycles for call in everything.calls
    )
    assert [call.cycles for call in predict(program, MemoryModel(), 2).calls] == [
        call.cycles for call in everything.calls[:2]
    ]


def test_a_deviation_is_relative_to_what_the_run_took_or_to_the_least_that_counts():
    assert Deviation("x", 110, 100, 1).relative == pytest.approx(0.1)
    assert Deviation("x", 7, 5, 20).relative == pytest.approx(0.1)
    assert Deviation("x", 0, 0, 1).relative == 0


def test_a_wrong_prediction_is_seen(job):
    result = simulate(job, MemoryModel())
    other = predict(job[0], MemoryModel(latency=60))
    assert other.worst(result) > OPS
    assert "run" in other.report(result).splitlines()[1]


def changed(program: Program, number: int, word: int) -> Program:
    """The program with another instruction ``number`` in call 0."""
    at = program.calls[0].address + number * INSTRUCTION_BYTES
    image = bytearray(program.image)
    image[at : at + INSTRUCTION_BYTES] = word.to_bytes(INSTRUCTION_BYTES, "little")
    return dataclasses.replace(program, image=bytes(image))


def test_a_damaged_instruction_is_named(job):
    program = job[0]
    with pytest.raises(
        InputError, match=re.escape("call 0, instruction 3: must have a known opcode and a correct check")
    ):
        predict(changed(program, 3, program.words(0)[3] ^ 1 << 100), MemoryModel())


def test_a_program_that_waits_for_ever(job):
    program = job[0]
    first = decode(program.words(0)[0])
    endless = changed(program, 0, encode(dataclasses.replace(first, wait=frozenset({Unit.STORE}))))
    with pytest.raises(CheckError, match="call 0: instructions must not wait for tokens that nobody gives"):
        predict(endless, MemoryModel())
