"""Beam search on the compiled simulation: bits, text, cycles, and going on after a stop."""

from dataclasses import replace

import pytest
import torch

from ternbin.contract.hw import NAMED
from ternbin.counting.cycles import predict
from ternbin.counting.external import MemoryModel
from ternbin.counting.phases import simulated_phases
from ternbin.decoding.beam import reference_beams
from ternbin.decoding.greedy import reference_run
from ternbin.decoding.search import Policy, Search
from ternbin.errors import CheckError, InputError
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.sim.check import Comparison, check
from ternbin.sim.resume import Checkpoint
from ternbin.sim.runner import run

torch.set_num_threads(1)
IDS, NEW = [3, 7, 9, 11, 5], 5
SEARCH = Search(beams=2, no_repeat_ngram_size=2)
HW = NAMED["tiny"].searching(2)


@pytest.fixture(scope="module")
def job():
    lowered = fold(lower(random_quant_bart("2-2")))
    return lowered, map_model(lowered, HW, len(IDS), NEW, 2), Policy.of(lowered.meta, NEW)


@pytest.fixture(scope="module")
def plain(job):
    _, program, policy = job
    return run(program, ids=IDS, policy=policy, search=SEARCH)


def test_every_tensor_and_the_text_equal_the_reference(job, plain):
    lowered, program, policy = job
    result = check(program, lowered, IDS, policy.prompt[0], plain)
    assert result.bit_exact and result.partial == ()
    assert plain.found == [reference_beams(lowered, IDS, NEW, SEARCH)] and plain.tokens == plain.found[0].tokens
    assert any(parents != (0, 1) for _, parents in plain.trace)


STAYS = replace(HW, resident="decoder")


@pytest.mark.parametrize(
    "hw", [HW, replace(HW, kv_external=True), STAYS], ids=["on chip", "external", "weights that stay"]
)
@pytest.mark.parametrize(
    "memory", [MemoryModel(latency=9, stall_seed=0), MemoryModel(latency=90, bandwidth=0.25)], ids=str
)
def test_memory_timing_and_place_change_cycles_only(job, plain, memory, hw):
    lowered, _, policy = job
    program = map_model(lowered, hw, len(IDS), NEW, 2)
    with Comparison(program, lowered, IDS) as comparison:
        result = run(program, ids=IDS, policy=policy, search=SEARCH, memory=memory, comparison=comparison)
        verdict = comparison.verdict(result)
    assert verdict.bit_exact and verdict == check(program, lowered, IDS, policy.prompt[0], result)
    assert result.found == plain.found and result.cycles != plain.cycles


@pytest.mark.parametrize("hw", [HW, STAYS], ids=["", "weights that stay"])
def test_two_texts_at_a_time(job, hw):
    """Greedily, on the same hardware; the second text is done a call earlier."""
    lowered, _, policy = job
    sources = [IDS, [90, 28]]
    program = map_model(lowered, hw, [len(ids) for ids in sources], NEW)
    with Comparison(program, lowered, sum(sources, [])) as comparison:
        result = run(program, ids=sum(sources, []), policy=policy, comparison=comparison)
        verdict = comparison.verdict(result)
    assert verdict.bit_exact and verdict.partial == () and len(result.calls) == 2 + NEW
    assert [text.tokens for text in result.found] == [reference_run(lowered, ids, NEW)[0] for ids in sources]
    phases = simulated_phases(program, lowered, result)
    alone = [
        simulated_phases(
            map_model(lowered, NAMED["tiny"], len(ids), NEW),
            lowered,
            run(map_model(lowered, NAMED["tiny"], len(ids), NEW), ids=ids, policy=policy),
        )
        for ids in sources
    ]
    assert result.steps == [NEW, NEW - 1]
    for number, phase in enumerate(phases):
        assert phase.macs == sum(runs[number].macs for runs in alone)
        assert phase.tokens == sum(runs[number].tokens for runs in alone)
        for name, work in phase.computed.items():
            if work.weights and name != "lm_head":  # no output rows are padded: what the array counts
                columns = sum(
                    item.counters.get("columns_single_plane", 0) for item in phase.instructions if item.op == name
                )
                assert work.macs == columns * HW.rows * HW.lanes, name
    assert phases[1].cycles < sum(runs[1].cycles for runs in alone)  # weights are loaded once for both


def test_predicted_cycles(job, plain):
    calls = predict(job[1], MemoryModel(), len(plain.calls)).calls
    assert [call.cycles for call in calls] == [call.cycles for call in plain.calls]


def test_a_stopped_search_goes_on(job, plain, tmp_path):
    _, program, policy = job

    class Stop(Exception):
        pass

    class Stopping(Checkpoint):
        def due(self):
            return True

        def save(self, key, state):
            super().save(key, state)
            if len(state.calls) == 4:
                raise Stop

    path = tmp_path / "state.npz"
    with pytest.raises(Stop):
        run(program, ids=IDS, policy=policy, search=SEARCH, checkpoint=Stopping(path))
    lines = []
    result = run(program, ids=IDS, policy=policy, search=SEARCH, checkpoint=Checkpoint(path, tell=lines.append))
    assert lines == [f"{path}: going on after call 4 of at most {1 + NEW}"]
    assert (result.found, result.calls, result.memory) == (plain.found, plain.calls, plain.memory)


def test_results_that_do_not_reach_the_host_are_found(job, plain):
    lowered, program, policy = job
    memory = bytearray(plain.memory)
    memory[program.result_addr + HW.result_words * HW.axi_bytes + 3 * HW.axi_bytes] ^= (
        1  # the second token of position 1
    )
    with pytest.raises(
        CheckError, match="^decoder position 1: the best tokens in external memory must be those on chip$"
    ):
        check(program, lowered, IDS, policy.prompt[0], replace(plain, memory=memory))


@pytest.mark.parametrize("search, count", [(None, 1), (Search(beams=3), 3)])
def test_a_search_that_the_program_is_not_for(job, search, count):
    _, program, policy = job
    with pytest.raises(InputError, match=f"^beams must be the program's 2, not {count}$"):
        run(program, ids=IDS, policy=policy, search=search)
