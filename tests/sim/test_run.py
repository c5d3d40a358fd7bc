"""Programs on the compiled simulation of the tiny accelerators: bits, errors, timing, records."""

import dataclasses
import re
import threading

import pytest
import torch

from ternbin.contract.hw import NAMED
from ternbin.contract.isa import INSTRUCTION_BYTES, UNIT_OF, ErrorCode, Op, Unit
from ternbin.contract.program import Program
from ternbin.counting.cycles import predict
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import RunResult
from ternbin.decoding.greedy import reference_run
from ternbin.decoding.search import Policy
from ternbin.errors import CheckError, InputError, MissingToolError
from ternbin.graph.ir import Lowered
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.sim.build import build
from ternbin.sim.check import Comparison, check
from ternbin.sim.runner import run
from ternbin.sim.simulator import CoreError, Simulator, Waves
from ternbin.sim.toolchain import has_fst

torch.set_num_threads(1)
IDS = [3, 7, 9, 11, 5]
NEW = 3


@pytest.fixture(scope="module")
def job() -> tuple[Lowered, Program, Policy]:
    lowered = fold(lower(random_quant_bart("2-2")))
    return lowered, map_model(lowered, NAMED["tiny"], len(IDS), NEW), Policy.of(lowered.meta, NEW)


@pytest.fixture(scope="module")
def plain(job) -> RunResult:
    _, program, policy = job
    return run(program, ids=IDS, policy=policy)


def test_every_tensor_equals_the_reference(job, plain):
    lowered, program, policy = job
    result = check(program, lowered, IDS, policy.prompt[0], plain)
    assert result.bit_exact and result.partial == () and result.first_divergence is None
    assert plain.tokens == reference_run(lowered, IDS, NEW)[0]


@pytest.mark.parametrize(
    "memory",
    [
        MemoryModel(latency=1),
        MemoryModel(latency=90, bandwidth=0.25),
        MemoryModel(latency=9, stall_seed=0),
        MemoryModel(stall_seed=5),
    ],
    ids=str,
)
def test_memory_timing_changes_cycles_only(job, plain, memory):
    lowered, program, policy = job
    result = run(program, ids=IDS, policy=policy, memory=memory)
    assert check(program, lowered, IDS, policy.prompt[0], result).bit_exact
    assert result.tokens == plain.tokens and result.memory == plain.memory and result.cycles != plain.cycles


def test_slower_memory_takes_longer_and_runs_repeat(job, plain):
    _, program, policy = job

    def cycles(**memory) -> int:
        return run(program, ids=IDS, policy=policy, memory=MemoryModel(**memory), seed=2, probes=False).cycles

    assert cycles(latency=1) < cycles() < cycles(latency=200)
    assert cycles() == plain.cycles < cycles(bandwidth=0.5) < cycles(bandwidth=0.25)


@pytest.mark.parametrize("sixty_fourths", [64, 48, 38, 19])
def test_reads_at_the_bandwidth(job, sixty_fourths):
    """Decoding does little else."""
    _, program, policy = job
    memory = MemoryModel(latency=1, bandwidth=sixty_fourths / 64)
    for call in run(program, ids=IDS, policy=policy, memory=memory, probes=False).calls[1:]:
        beats = call.counters["axi_load_beats"] + call.counters["axi_fetch_beats"]
        assert 0.9 * memory.bandwidth < beats / call.cycles <= memory.bandwidth


@pytest.mark.parametrize("sixty_fourths", [64, 48, 38, 19])
def test_writes_at_the_bandwidth(sixty_fourths):
    lowered = fold(lower(random_quant_bart("2-2")))
    program = map_model(lowered, dataclasses.replace(NAMED["tiny"], kv_external=True), len(IDS), 1)
    memory = MemoryModel(bandwidth=sixty_fourths / 64)
    call = run(program, ids=IDS, policy=Policy.of(lowered.meta, 1), memory=memory, probes=False).calls[0]
    stores = [record for record in call.records if record.unit == Unit.STORE]
    least = (call.counters["axi_write_beats"] - len(stores)) / memory.bandwidth + len(stores) * (memory.latency + 5)
    assert call.counters["axi_write_beats"] > 20 and least - 2 <= sum(r.done - r.start for r in stores) <= least + 2


@pytest.mark.parametrize("bits", ["1-1", "1-8", "2-8"])
def test_other_models(bits):
    lowered = fold(lower(random_quant_bart(bits)))
    policy = Policy.of(lowered.meta, 2)
    program = map_model(lowered, NAMED["tiny"], len(IDS), 2)
    result = check(program, lowered, IDS, policy.prompt[0], run(program, ids=IDS, policy=policy))
    assert result.bit_exact and result.partial == ()


def test_binary_array():
    lowered = fold(lower(random_quant_bart("1-1")))
    policy = Policy.of(lowered.meta, 2)
    program = map_model(lowered, NAMED["tiny-binary"], len(IDS), 2)
    result = check(program, lowered, IDS, policy.prompt[0], run(program, ids=IDS, policy=policy))
    assert result.bit_exact and result.partial == ()


@pytest.mark.parametrize("shape", [dict(d_model=12, heads=2, ffn=16, vocab=40), dict(layers=2)], ids=["all", "some"])
def test_weights_that_stay_on_chip(shape):
    """The memories keep them from call to call; without them the same program takes longer."""
    lowered = fold(lower(random_quant_bart("2-2", **shape)))
    policy, hw = Policy.of(lowered.meta, NEW), dataclasses.replace(NAMED["tiny"], resident="decoder")
    program, usual = (map_model(lowered, each, len(IDS), NEW) for each in (hw, NAMED["tiny"]))
    result = run(program, ids=IDS, policy=policy)
    verdict = check(program, lowered, IDS, policy.prompt[0], result)
    assert verdict.bit_exact and verdict.partial == ()
    predicted = predict(program, MemoryModel(), len(result.calls)).calls
    assert [call.cycles for call in result.calls] == [call.cycles for call in predicted]
    slower = run(usual, ids=IDS, policy=policy, probes=False)
    assert result.tokens == slower.tokens and result.calls[2].cycles < 0.8 * slower.calls[2].cycles
    first, *later = (call.counters["wbuf_writes"] for call in result.calls[1:])
    assert first == slower.calls[1].counters["wbuf_writes"] and len(set(later)) == 1
    assert later[0] < first and (later[0] == 0) == ("layers" not in shape)


def test_a_wrong_row_of_weights_is_found(job):
    lowered, program, policy = job
    damaged = dict(lowered.weights)
    node = next(node for node in lowered.encoder.nodes() if node.op.opname == "linear_residual")
    damaged[node.op.weight] = damaged[node.op.weight].clone()
    damaged[node.op.weight][1] *= -1
    other = map_model(dataclasses.replace(lowered, weights=damaged), NAMED["tiny"], len(IDS), NEW)
    result = check(program, lowered, IDS, policy.prompt[0], run(other, ids=IDS, policy=policy))
    assert not result.bit_exact and result.mismatches > 0
    first = result.first_divergence
    assert first is not None
    assert (first.call, first.op, first.index[-1]) == (0, node.name, 1) and first.expected != first.actual


def test_comparing_beside_the_run_finds_the_same(job, plain):
    lowered, program, policy = job
    with Comparison(program, lowered, IDS) as comparison:
        verdict = comparison.verdict(run(program, ids=IDS, policy=policy, comparison=comparison))
    assert verdict.bit_exact and verdict == check(program, lowered, IDS, policy.prompt[0], plain)
    with Comparison(program, lowered, IDS[::-1]) as comparison:
        verdict = comparison.verdict(run(program, ids=IDS, policy=policy, comparison=comparison))
    assert verdict.mismatches > 0 and verdict == check(program, lowered, IDS[::-1], policy.prompt[0], plain)


def test_a_run_that_fails_ends_the_comparison(job, plain):
    """At any call; a fault of the comparison comes out where its result is asked for."""
    lowered, program, policy = job
    threads = threading.active_count()
    for number in range(len(plain.calls)):

        def report(call, cycles, done, last=number):
            if call == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), Comparison(program, lowered, IDS) as comparison:
            run(program, ids=IDS, policy=policy, comparison=comparison, progress=report)
        assert threading.active_count() == threads
    with Comparison(program, dataclasses.replace(lowered, weights={}), IDS) as comparison:
        result = run(program, ids=IDS, policy=policy, comparison=comparison)
        with pytest.raises(Exception, match="weight"):
            comparison.verdict(result)


def test_damaged_instruction_stops_the_core(job):
    _, program, policy = job
    address = program.calls[1].address + 2 * INSTRUCTION_BYTES
    image = bytearray(program.image)
    image[address + 30] ^= 0x10
    with pytest.raises(
        CoreError, match=re.escape(f"decoder position 0: the core stopped with CHECK at {address:#x}")
    ) as error:
        run(dataclasses.replace(program, image=bytes(image)), ids=IDS, policy=policy)
    assert (error.value.code, error.value.address) == (ErrorCode.CHECK, address)


def test_errors_leave_the_core_usable(job):
    _, program, _ = job
    memory = program.with_ids(IDS, 2)
    with Simulator(program.hw, build(program.hw), memory, MemoryModel()) as simulator:
        with pytest.raises(CoreError, match="BUS_READ"):
            simulator.call(1 << 30, 1)
        call = program.calls[0]
        with pytest.raises(CheckError, match="call: the core must finish within 50 cycles"):
            simulator.call(call.address, call.count, limit=50)
    with Simulator(program.hw, build(program.hw), memory, MemoryModel()) as simulator:
        with pytest.raises(CoreError, match="BUS_READ"):
            simulator.call(1 << 30, 1)
        assert simulator.call(call.address, call.count).counters["cycles"] > 100


def test_one_core_beside_another(job, plain):
    """A simulator opened, used and closed while another is open leaves that one as it was, and lets it be closed."""
    _, program, policy = job
    memory, call = program.with_ids(IDS, 2), program.calls[0]
    with Simulator(program.hw, build(program.hw), memory, MemoryModel()) as simulator:
        assert run(program, ids=IDS, policy=policy).tokens == plain.tokens
        assert simulator.call(call.address, call.count).cycles == plain.calls[0].cycles


def test_records_and_counters(job, plain):
    _, program, _ = job
    for number, call in enumerate(plain.calls):
        instructions = program.instructions(number)
        assert len(call.records) == len(instructions) - 1
        for unit in set(UNIT_OF.values()):
            own = sorted((r for r in call.records if r.unit == unit), key=lambda r: r.index)
            count = sum(UNIT_OF.get(i.op) == unit for i in instructions if i.op != Op.END)
            assert [r.index for r in own] == list(range(count)) and count == call.counters[
                f"{unit.name.lower()}_instructions"
            ]
            assert all(r.start < r.done <= call.cycles for r in own)
            assert all(a.done < b.done for a, b in zip(own, own[1:], strict=False))
            for name, total in call.counters.items():
                if name.startswith(unit.name.lower()) and not name.endswith("wait_token"):
                    assert sum(r.counters.get(name, 0) for r in own) == total, name
        assert 0 <= call.cycles - call.counters["cycles"] < 8


def test_progress_exception_ends_the_run(job):
    _, program, policy = job

    class Stop(Exception):
        pass

    def report(call, cycles, done):
        raise Stop

    with pytest.raises(Stop):
        run(
            program, ids=IDS, policy=policy, progress=report, memory=MemoryModel(latency=20000)
        )  # slow, yet below the watchdog


def test_wrong_arguments(job):
    _, program, policy = job
    with pytest.raises(InputError, match=f"max_new_tokens must be at most the program's {NEW}, not {NEW + 1}"):
        run(program, ids=IDS, policy=dataclasses.replace(policy, max_new_tokens=NEW + 1))
    with pytest.raises(InputError, match="memory latency must be at least 1 cycle, not 0"):
        MemoryModel(latency=0)
    with pytest.raises(InputError, match="memory bandwidth must be from 1/64 to 1 beat a cycle, not 2"):
        MemoryModel(bandwidth=2)
    with pytest.raises(InputError, match="waves must be one of vcd, fst, not 'txt'"):
        build(program.hw, waves="txt")


@pytest.mark.skipif(has_fst(), reason="FST can be built here")
def test_fst_without_its_libraries(job):
    with pytest.raises(MissingToolError, match="fst waves need the headers of zlib and lz4: apt-get install"):
        build(job[1].hw, waves="fst")


@pytest.mark.soak
def test_waves_show_the_window(job, plain, tmp_path):
    """Compiles a model of its own."""
    _, program, policy = job
    result = run(program, ids=IDS, policy=policy, waves=Waves(path=tmp_path / "w.vcd", start=100, stop=300))
    times = [int(t) for t in re.findall(r"^#(\d+)$", (tmp_path / "w.vcd").read_text(), re.M)]
    assert (times[0], times[-1], len(times)) == (200, 599, 400)
    assert result.cycles == plain.cycles and result.memory == plain.memory


@pytest.mark.parametrize("hw, bits", [("tiny", "2-2"), ("tiny-binary", "1-1")])
def test_an_8_bit_head_equals_the_reference_in_the_predicted_time(hw, bits):
    lowered = fold(lower(random_quant_bart(bits, head_weight_bits=8)))
    program, policy = map_model(lowered, NAMED[hw], len(IDS), NEW), Policy.of(lowered.meta, NEW)
    result = run(program, ids=IDS, policy=policy)
    assert check(program, lowered, IDS, policy.prompt[0], result).bit_exact
    assert result.tokens == reference_run(lowered, IDS, NEW)[0]
    predicted = predict(program, MemoryModel(), len(result.calls)).calls
    assert [call.cycles for call in result.calls] == [call.cycles for call in predicted]
