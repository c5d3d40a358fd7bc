"""Configurations, models and memory stalls in a simulator of four states: unknown values on outputs, or written, and equal memories.

    python benchmarks/four_state.py

A line for each case; exit code 1 where one is not clean. Needs Icarus Verilog. Some ten minutes.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.decoding.greedy import greedy
from ternbin.decoding.search import Policy
from ternbin.errors import TernbinError
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.sim.four_state import FourState
from ternbin.sim.host import Host
from ternbin.sim.runner import run

TINY, BINARY = NAMED["tiny"], NAMED["tiny-binary"]
CONFIGS: dict[str, HwConfig] = {
    "tiny": TINY,
    "tiny, packed trits": replace(TINY, weight_pack="5trit"),
    "tiny, keys and values outside": replace(TINY, kv_external=True),
    "tiny-binary": BINARY,
    "tiny-binary, keys and values outside": replace(BINARY, kv_external=True),
}
STALLS = [
    MemoryModel(),
    MemoryModel(latency=1, stall_seed=1),
    MemoryModel(latency=9, bandwidth=0.5, stall_seed=7),
    MemoryModel(latency=90, bandwidth=0.25),
]
MODELS = {"ternary": ["2-2", "2-8", "1-1", "1-8"], "binary": ["1-1"]}
IDS, NEW = [3, 7, 9], 1


def outcome(program: Program, policy: Policy, memory: MemoryModel) -> str:
    """ "" or what is wrong."""
    compiled = run(program, ids=IDS, policy=policy, memory=memory, probes=False)
    image = program.with_ids(IDS, policy.prompt[0])
    with tempfile.TemporaryDirectory() as folder, FourState(program.hw, Path(folder), image, memory) as simulator:
        host = Host(program, cast(Any, simulator), None, False, lambda: None)
        try:
            host.call(0)
            greedy(policy, host.step)
        except TernbinError as error:
            return f"{error} {simulator.unknown()}"
        unknown, words = simulator.unknown(), simulator.unknown_words
    if unknown or words:
        return f"X on {unknown}, in {words} words of memory"
    if [call.cycles for call in host.calls] != [call.cycles for call in compiled.calls]:
        return "other cycles than the compiled simulation"
    return "" if image == compiled.memory else "other memory than the compiled simulation"


def main() -> int:
    torch.set_num_threads(1)
    failed = 0
    print("| configuration | model | memory | X |\n| --- | --- | --- | --- |")
    for name, hw in CONFIGS.items():
        for number, memory in enumerate(STALLS):
            bits = MODELS[hw.kind][number % len(MODELS[hw.kind])]
            lowered = fold(lower(random_quant_bart(bits)))
            program, policy = map_model(lowered, hw, len(IDS), NEW), Policy.of(lowered.meta, NEW)
            found = outcome(program, policy, memory)
            failed += bool(found)
            timing = f"latency {memory.latency}, bandwidth {memory.bandwidth:g}, stalls {memory.stall_seed}"
            print(f"| {name} | {bits} | {timing} | {found or 'none'} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
