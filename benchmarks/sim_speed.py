"""Simulation speed: one run of the bundled model, repeated; medians of cycles and multiply-accumulates a second.

    python benchmarks/sim_speed.py --hw small --runs 5 --json speed.json

Also cycles a second while the array works all the time, and while weights stream in and everything else waits (processor time).
"""

import argparse
import json
import statistics
from pathlib import Path
from time import process_time

from ternbin.contract.hw import HwConfig, load_hw
from ternbin.contract.isa import INSTRUCTION_BYTES, Epilogue, Instruction, Mem, Op, encode
from ternbin.counting.external import MemoryModel
from ternbin.counting.workload import work
from ternbin.decoding.search import Policy
from ternbin.flow import simulate
from ternbin.mapping.mapper import map_model
from ternbin.models import prepare
from ternbin.sim.build import build
from ternbin.sim.simulator import Simulator


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
        "hw": hw.name,
        "runs": runs,
        "cycles": cycles,
        "macs": macs,
        "median_seconds": seconds,
        "cycles_per_second": cycles / seconds,
        "macs_per_second": macs / seconds,
        "all_seconds": [result.sim_seconds for result in results],
    }


def loops(hw: HwConfig) -> dict[str, Instruction]:
    """Name -> an instruction that keeps one unit busy for long: products of the whole array, words for WBUF."""
    chunks, row_tiles, col_tiles = 8, min(16, hw.wbuf_words // 8), min(16, hw.abuf_words // 16)
    return {
        "array": Instruction(
            Op.GEMM,
            {
                "row_stride": chunks,
                "row_planes": 1,
                "col_stride": chunks,
                "col_planes": 1,
                "chunks": chunks,
                "row_tiles": row_tiles,
                "col_tiles": col_tiles,
                "tokens": col_tiles * hw.cols,
                "epilogue": Epilogue.CODES,
                "kind": hw.kind == "binary",
                "thresholds": 2,
                "base": -1,
                "dirs": 3,
                "dst_addr": hw.abuf_words // 2,
            },
        ),
        "loading": Instruction(
            Op.LOAD, {"mem": Mem.WBUF, "outer": hw.rows * 8, "inner": chunks, "dram": 1 << 16, "stride": 0}
        ),
    }


def cycles_per_second(hw: HwConfig, library: Path, instruction: Instruction, runs: int) -> float:
    """Median over ``runs`` of a program that repeats one instruction for at least 100000 cycles."""
    rates, count = [], 1
    while len(rates) < runs:
        words = [encode(instruction)] * count + [encode(Instruction(Op.END))]
        memory = bytearray(
            b"".join(word.to_bytes(INSTRUCTION_BYTES, "little") for word in words).ljust(1 << 20, b"\x5a")
        )
        with Simulator(hw, library, memory, MemoryModel()) as simulator:
            begin = process_time()
            cycles = simulator.call(0, len(words)).cycles
            seconds = process_time() - begin
        if cycles < 100_000:
            count *= 2
        else:
            rates.append(cycles / seconds)
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hw", default="small")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    record = measure(args.hw, args.runs, args.max_new_tokens)
    hw = load_hw(args.hw)
    for name, instruction in loops(hw).items():
        record[f"{name}_cycles_per_second"] = cycles_per_second(hw, build(hw), instruction, args.runs)
    record["array_macs_per_second"] = record["array_cycles_per_second"] * hw.peak_macs
    for key, value in record.items():
        print(f"{key:18} {value:,.4g}" if isinstance(value, float) else f"{key:18} {value}")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
