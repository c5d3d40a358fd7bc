"""BART-base at full size: the figures asked for, and the figures measured.

    python benchmarks/bart_base.py --json bart_base.json

Random weights of the usual statistics, or with ``--model`` a checkpoint folder. Each part runs in a process of its own; results are kept
in ``--work`` (with the random checkpoint), so that an interrupted benchmark goes on where it stopped; ``--fresh`` forgets them.
``build_seconds`` is that of a build into an empty cache; ``compared_seconds`` that of the simulation with every tensor compared;
``loop_cycles_per_second`` is that of decoder calls alone, with nothing read from the chip, and ``decode_of_loop`` what the run's decoding
reaches of it; ``busy_macs_per_second`` that of a program of products alone, ``encoder_macs_per_second`` (in the JSON) that of the whole
encoder, all else included.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import parts

ASKED = {
    "bit_exact": ("==", True),
    "compared_seconds": ("<", 20),
    "loop_cycles_per_second": (">=", 8e5),
    "decode_of_loop": (">=", 0.90),
    "busy_macs_per_second": (">=", 5e9),
    "peak_rss_gb": ("<", 4),
    "build_seconds": ("<", 40),
    "lower_seconds": ("<", 15),
    "rtl_seconds": ("<", 10),
    "interpreter_vs_fp32": ("<=", 4),
    "encoder_utilization_128": (">=", 0.90),
    "encoder_utilization_512": (">=", 0.95),
    "decode_bandwidth_fraction": (">=", 0.95),
    "cycle_model_max_error": ("<=", 0.01),
    "cycle_model_seconds": ("<", 2),
    "bit_exact_1024": ("==", True),
}
HOLDS = {"==": lambda a, b: a == b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b}
SHAPE: dict[str, Any] = dict(
    d_model=768, heads=12, ffn=3072, layers=6, vocab=50265, activation="gelu", positions=1024, scale_embedding=False
)
SOURCE, NEW, LONG, LONGEST = 128, 32, 512, 1024


def checkpoint(args: argparse.Namespace) -> Path:
    """The folder of the model, made where there is none."""
    if args.model:
        return args.model
    from ternbin.models.bart.random_model import random_quant_bart
    from ternbin.models.packed import save_packed

    folder = args.work / f"bart-base-{args.bits}"
    if not (folder / "config.json").exists():
        save_packed(random_quant_bart(args.bits, **SHAPE), folder)
    return folder


def model_and_ids(folder: Path):
    """The lowered model without an end token, and its source ids."""
    import torch
    from interpreter_speed import endless

    from ternbin.models.prepare import lowered_model

    lowered = endless(lowered_model(folder))
    return lowered, torch.randint(
        3, lowered.meta["vocab_size"], (LONGEST,), generator=torch.Generator().manual_seed(0)
    ).tolist()


def part_build(args: argparse.Namespace) -> dict:
    """Verilog and simulator, from nothing."""
    import os

    from ternbin.contract.hw import load_hw
    from ternbin.rtl.verilog.generate import generate
    from ternbin.sim.build import build

    hw = load_hw(args.hw)
    begin = perf_counter()
    generate(hw)
    rtl = perf_counter() - begin
    generate.cache_clear()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TERNBIN_CACHE"] = cache
        begin = perf_counter()
        build(hw)
        seconds = perf_counter() - begin
    return {"rtl_seconds": rtl, "build_seconds": seconds}


def decoding_alone(program: Any, library: Path, ids: list[int], calls: int = 4) -> float:
    """Cycles a second of the first decoder calls: no probes, nobody who compares."""
    from ternbin.counting.external import MemoryModel
    from ternbin.sim.simulator import Simulator

    with Simulator(program.hw, library, program.with_ids(ids, 2), MemoryModel()) as simulator:
        first, *others = [partial(simulator.call, call.address, call.count) for call in program.calls[: 1 + calls]]
        first()
        begin = perf_counter()
        return sum(call().cycles for call in others) / (perf_counter() - begin)


def part_run(args: argparse.Namespace) -> dict:
    """One summarisation, 128 tokens in and 32 out, every tensor compared."""
    from sim_speed import cycles_per_second, loops

    from ternbin.contract.hw import load_hw
    from ternbin.counting.cycles import predict
    from ternbin.counting.external import MemoryModel
    from ternbin.counting.workload import call_work
    from ternbin.decoding.search import Policy
    from ternbin.mapping.mapper import map_model
    from ternbin.sim.build import build
    from ternbin.sim.check import Comparison
    from ternbin.sim.runner import run

    hw, memory, begin = load_hw(args.hw), MemoryModel(), perf_counter()
    lowered, ids = model_and_ids(checkpoint(args))
    ids, policy = ids[:SOURCE], Policy.of(lowered.meta, NEW)
    program = map_model(lowered, hw, SOURCE, NEW)
    lowering = perf_counter() - begin
    library, stamps = build(hw), [perf_counter()]

    def stamp(call: int, _: int, done: int) -> None:
        if done == program.calls[call].count:
            stamps.append(perf_counter())

    begin = perf_counter()
    with Comparison(program, lowered, ids) as comparison:
        result = run(program, ids=ids, policy=policy, library=library, progress=stamp, comparison=comparison)
        verdict = comparison.verdict(result)
    compared = perf_counter() - begin
    loop = decoding_alone(program, library, ids)
    macs = sum(work.macs for work in call_work(lowered, program, 0).values())
    decode = result.calls[1:]
    beats = sum(
        call.counters[name] for call in decode for name in ("axi_load_beats", "axi_fetch_beats", "axi_write_beats")
    )
    begin = perf_counter()
    predicted = predict(program, memory, calls=len(result.calls))
    model_seconds = perf_counter() - begin
    return {
        **verdict.asdict(),
        "lower_seconds": lowering,
        "compared_seconds": compared,
        "sim_seconds": result.sim_seconds,
        "loop_cycles_per_second": loop,
        "decode_of_loop": sum(call.cycles for call in decode) / (stamps[-1] - stamps[1]) / loop,
        "cycles": result.cycles,
        "cycles_per_second": result.cycles_per_second,
        "encoder_seconds": stamps[1] - stamps[0],
        "encoder_macs_per_second": macs / (stamps[1] - stamps[0]),
        "busy_macs_per_second": hw.peak_macs * cycles_per_second(hw, library, loops(hw)["array"], 9),
        "encoder_utilization_128": macs / (hw.peak_macs * result.calls[0].cycles),
        "decode_cycles": sum(call.cycles for call in decode),
        "decode_bandwidth_fraction": beats / sum(call.cycles for call in decode),
        "cycle_model_max_error": predicted.worst(result),
        "cycle_model_seconds": model_seconds,
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def part_long(args: argparse.Namespace) -> dict:
    """The encoder on 512 tokens."""
    from ternbin.contract.hw import load_hw
    from ternbin.counting.external import MemoryModel
    from ternbin.counting.workload import call_work
    from ternbin.mapping.mapper import map_model
    from ternbin.sim.build import build
    from ternbin.sim.simulator import Simulator

    hw = load_hw(args.hw)
    lowered, ids = model_and_ids(checkpoint(args))
    program = map_model(lowered, hw, LONG, 1)
    with Simulator(hw, build(hw), program.with_ids(ids[:LONG], 2), MemoryModel()) as simulator:
        call = simulator.call(program.calls[0].address, program.calls[0].count, ())
    macs = sum(work.macs for work in call_work(lowered, program, 0).values())
    return {"encoder_cycles_512": call.cycles, "encoder_utilization_512": macs / (hw.peak_macs * call.cycles)}


def part_longest(args: argparse.Namespace) -> dict:
    """As many tokens in as the model takes, 2 out, every tensor compared."""
    from ternbin.contract.hw import load_hw
    from ternbin.counting.workload import call_work
    from ternbin.decoding.search import Policy
    from ternbin.mapping.mapper import map_model
    from ternbin.sim.build import build
    from ternbin.sim.check import check
    from ternbin.sim.runner import run

    hw = load_hw(args.hw)
    lowered, ids = model_and_ids(checkpoint(args))
    policy, program = Policy.of(lowered.meta, 2), map_model(lowered, hw, LONGEST, 2)
    result = run(program, ids=ids, policy=policy, library=build(hw))
    verdict = check(program, lowered, ids, policy.prompt[0], result)
    macs = sum(work.macs for work in call_work(lowered, program, 0).values())
    return {
        "bit_exact_1024": verdict.bit_exact,
        "values_checked_1024": verdict.values_checked,
        "sim_seconds_1024": result.sim_seconds,
        "encoder_utilization_1024": macs / (hw.peak_macs * result.calls[0].cycles),
        "peak_rss_gb_1024": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def part_interpreter(args: argparse.Namespace) -> dict:
    """The integer reference against the full-precision model."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        script = Path(__file__).with_name("interpreter_speed.py")
        subprocess.run([sys.executable, script, "--bits", args.bits, "--json", file.name], check=True)
        return {"interpreter_vs_fp32": json.loads(Path(file.name).read_text(encoding="utf-8"))["ratio"]}


PARTS = {
    "interpreter": part_interpreter,
    "build": part_build,
    "run": part_run,
    "long": part_long,
    "longest": part_longest,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path)
    parts.add_arguments(parser, PARTS, "build/bart_base")
    args = parser.parse_args()
    measured = parts.figures(
        args,
        __file__,
        PARTS,
        lambda part: f"{part}-{'' if part == 'interpreter' else Path(args.hw).stem + '-'}{args.bits}",
        ["--model", args.model] if args.model else [],
    )
    if measured is None:
        return
    print(f"{'figure':26} {'asked':>10} {'measured':>10}")
    for key, (relation, limit) in ASKED.items():
        asked, value = relation + ("true" if limit is True else f"{limit:g}"), measured[key]
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{key:26} {asked:>10} {shown:>10}{'' if HOLDS[relation](value, limit) else ' !'}")
    parts.write(args, {"hw": args.hw, "bits": args.bits, **measured})


if __name__ == "__main__":
    main()
