"""Whole models in a simulator of four states: nothing depends on what nothing wrote, before and after resets in the middle of work."""

import shutil
from dataclasses import replace

import pytest
import torch

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES, Instruction, Mem, Op, encode
from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.decoding.greedy import greedy
from ternbin.decoding.search import Policy
from ternbin.errors import CheckError
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.rtl.verilog.generate import generate
from ternbin.sim.build import build
from ternbin.sim.four_state import FourState
from ternbin.sim.host import Host
from ternbin.sim.simulator import Simulator

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed"),
]
torch.set_num_threads(1)
IDS, NEW = [3, 7, 9], 1
TINY = replace(NAMED["tiny"], kv_external=True)
INTERRUPTED = ((700, 4), (1500, 1), (1, 2))  # cycles of work before a reset, cycles of it


def job(bits: str, hw: HwConfig) -> tuple[Program, Policy]:
    lowered = fold(lower(random_quant_bart(bits)))
    return map_model(lowered, hw, len(IDS), NEW), Policy.of(lowered.meta, NEW)


def generated(program: Program, policy: Policy, simulator, resets=()) -> tuple[list[int], list[int]]:
    """Tokens, and cycles of every call, after work that resets interrupted."""
    first = program.calls[0]
    for limit, cycles in resets:
        with pytest.raises(CheckError, match=f"must finish within {limit} cycles"):
            simulator.call(first.address, first.count, limit=limit)
        simulator.reset(cycles)
    host = Host(program, simulator, None, False, lambda: None)
    host.call(0)
    tokens = greedy(policy, host.step)
    return tokens, [call.cycles for call in host.calls]


def both(tmp_path, program: Program, policy: Policy, model: MemoryModel, resets=(), verilog=None):
    """The run in the compiled simulation and in that of four states: the same cycles, and no X where it matters."""
    images = [program.with_ids(IDS, policy.prompt[0]) for _ in range(2)]
    with Simulator(program.hw, build(program.hw), images[0], model, seed=5) as simulator:
        compiled = generated(program, policy, simulator, resets)
    with FourState(program.hw, tmp_path, images[1], model, verilog) as simulator:
        found = generated(program, policy, simulator, resets)
        assert simulator.unknown() == {} and simulator.unknown_words == 0
    assert found == compiled and images[0] == images[1]


def test_ternary(tmp_path):
    program, policy = job("2-2", TINY)
    both(tmp_path, program, policy, MemoryModel(stall_seed=1), INTERRUPTED)


def test_binary(tmp_path):
    """Unused lanes of a binary array hold no zeros that would hide what they are multiplied with."""
    program, policy = job("1-1", NAMED["tiny-binary"])
    both(tmp_path, program, policy, MemoryModel(latency=9, stall_seed=7))


def test_the_form_for_fpgas(tmp_path):
    """Its registers hold what the other form decodes or adds up again in every cycle."""
    program, policy = job("2-2", TINY)
    both(tmp_path, program, policy, MemoryModel(stall_seed=3), INTERRUPTED, generate(program.hw, "fpga"))


def test_what_was_not_written_is_seen(tmp_path):
    """On the bus and in external memory: the checks of the other tests can fail."""
    store = Instruction(Op.STORE, {"mem": Mem.RBUF, "inner": 1, "outer": 1, "dram": 1024})
    program = b"".join(encode(each).to_bytes(INSTRUCTION_BYTES, "little") for each in (store, Instruction(Op.END)))
    with FourState(NAMED["tiny"], tmp_path, bytearray(program.ljust(2048, b"\0")), MemoryModel(latency=3)) as simulator:
        simulator.call(0, 2)
        assert "m_axi_wdata" in simulator.unknown() and simulator.unknown_words == NAMED["tiny"].res_word_bits // 32
