"""Simulation speed: one run of the bundled model, repeated; medians of cycles and multiply-accumulates a second.

    python benchmarks/sim_speed.py --hw small --runs 5 --json speed.json
"""

import argparse
import json
import statistics
from pathlib import Path

from ternbin.flow import simulate
from ternbin.generate import Policy
from ternbin.hw import load_hw
from ternbin.mapper import map_model
from ternbin.models import prepare
from ternbin.sim.build import build
from ternbin.sim.runner import MemoryModel
from ternbin.workload import work


def measure(hw_name: str, runs: int, new_tokens: int) -> dict:
    """Seconds, cycles/s and useful multiply-accumulates/s of the encoder call plus ``new_tokens`` decoder calls."""
    folder, hw = prepare.bundled_dir(), load_hw(hw_name)
    lowered = prepare.lowered_model(folder)
    ids = prepare.encode_text(prepare.load_tokenizer(folder), prepare.default_text(), lowered.meta["max_positions"])
    policy = Policy.of(lowered.meta, new_tokens)
    program, library = map_model(lowered, hw, len(ids), new_tokens), build(hw)
    results = [simulate(program, ids, policy, MemoryModel(), library=library) for _ in range(runs)]
    macs = 0
    for call in range(len(results[0].calls)):
        dims = {"S": len(ids), "T": 1, "P": call - 1, "N": call}
        graph = lowered.decoder if call else lowered.encoder
        macs += sum(item.macs for item in work(graph, lowered.weights, dims).values())
    seconds = statistics.median(result.sim_seconds for result in results)
    cycles = results[0].cycles
    return {
        "hw": hw.name, "runs": runs, "cycles": cycles, "macs": macs, "median_seconds": seconds,
        "cycles_per_second": cycles / seconds, "macs_per_second": macs / seconds,
        "all_seconds": [result.sim_seconds for result in results],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hw", default="small")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    record = measure(args.hw, args.runs, args.max_new_tokens)
    for key, value in record.items():
        print(f"{key:18} {value:,.4g}" if isinstance(value, float) else f"{key:18} {value}")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
