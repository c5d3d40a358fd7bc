"""The form for FPGAs is the same accelerator: bits, cycles and counters."""

from dataclasses import replace

import pytest
import torch

from ternbin.contract.hw import NAMED
from ternbin.counting.external import MemoryModel
from ternbin.decoding.search import Policy
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.rtl.verilog.generate import generate, manifest
from ternbin.sim.build import model_spec
from ternbin.sim.runner import run
from ternbin.sim.toolchain import compile_model

IDS, NEW = [3, 7, 9, 11, 5], 2


@pytest.mark.build
@pytest.mark.parametrize(("name", "bits"), [("tiny", "2-2"), ("tiny-ternary8", "1-8"), ("tiny-binary", "1-1")])
def test_the_form_for_fpgas_runs_as_the_other(name, bits):
    """Also what is in memory afterwards: keys and values are. Planes of `ternary8` lie in memories of their own, where none looks."""
    torch.set_num_threads(1)
    hw = replace(NAMED[name], kv_external=True)
    probes = not hw.whole_columns
    lowered = fold(lower(random_quant_bart(bits)))
    program, policy = map_model(lowered, hw, len(IDS), NEW), Policy.of(lowered.meta, NEW)
    spec = model_spec(generate(hw, "fpga"), manifest(hw, "fpga"), axi_bytes=hw.axi_bytes)
    memory = MemoryModel(latency=9, stall_seed=2)
    asic, fpga = (
        run(program, ids=IDS, policy=policy, memory=memory, library=library, probes=probes)
        for library in (None, compile_model(spec))
    )
    assert fpga.tokens == asic.tokens and fpga.memory == asic.memory
    assert [call.cycles for call in fpga.calls] == [call.cycles for call in asic.calls]
    assert [call.counters for call in fpga.calls] == [call.counters for call in asic.calls]
    assert [call.raw for call in fpga.calls] == [call.raw for call in asic.calls]
