"""Speed of the integer reference: one greedy summarisation against the full-precision Hugging Face model of the same shape.

    python benchmarks/interpreter_speed.py --runs 3 --json interpreter.json

Both models are random BARTs of the given size (default: BART-base), both cache keys and values, both make exactly ``--new-tokens``
tokens from the same ids with the same number of threads; runs alternate.
"""

import argparse
import json
import resource
import statistics
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import torch

from ternbin.decoding.greedy import reference_run
from ternbin.graph.ir import Lowered
from ternbin.models.bart.lower import lower
from ternbin.models.bart.qbart import quantize_model
from ternbin.models.bart.random_model import random_stock_bart
from ternbin.models.calibrate import calibrate
from ternbin.models.config import QuantConfig
from ternbin.models.prepare import calibration_batches
from ternbin.passes import fold


def endless(lowered: Lowered) -> Lowered:
    """The model without an end token, so that every run makes all tokens."""
    return replace(lowered, meta=lowered.meta | {"eos_id": -1, "forced_bos_id": None, "forced_eos_id": None})


def measure(args: argparse.Namespace) -> dict:
    """Seconds of both, by run, and the ratio of their medians."""
    torch.set_num_threads(args.threads)
    stock = random_stock_bart(
        d_model=args.d,
        heads=args.heads,
        ffn=4 * args.d,
        layers=args.layers,
        vocab=args.vocab,
        activation="gelu",
        positions=1024,
        scale_embedding=False,
    )
    student = quantize_model(stock, QuantConfig(bits=args.bits))
    calibrate(student, calibration_batches(student, None))
    lowered = endless(fold(lower(student.pack())))
    del student
    ids = torch.randint(3, args.vocab, (args.source_len,), generator=torch.Generator().manual_seed(0))

    def full_precision() -> int:
        with torch.no_grad():
            out = stock.generate(  # pyright: ignore[reportAttributeAccessIssue]  # transformers mixes it in
                ids[None],
                num_beams=1,
                do_sample=False,
                min_new_tokens=args.new_tokens,
                max_new_tokens=args.new_tokens,
                use_cache=True,
                forced_bos_token_id=None,
                forced_eos_token_id=None,
            )
        return out.shape[1] - 1

    def integers() -> int:
        return len(reference_run(lowered, ids.tolist(), args.new_tokens)[0])

    seconds: dict[str, list[float]] = {"full_precision": [], "integers": []}
    cpu_seconds: dict[str, list[float]] = {"full_precision": [], "integers": []}
    for run in range(args.runs + 1):
        for name, job in (("full_precision", full_precision), ("integers", integers)):
            begin, cpu = perf_counter(), process_time()
            tokens = job()
            if tokens != args.new_tokens:
                raise SystemExit(f"{name} must make {args.new_tokens} tokens, not {tokens}")
            if run:  # the first one warms up
                seconds[name].append(perf_counter() - begin)
                cpu_seconds[name].append(process_time() - cpu)
    medians, cpu_medians = ({name: statistics.median(v) for name, v in each.items()} for each in (seconds, cpu_seconds))
    return {
        "bits": args.bits,
        "d": args.d,
        "layers": args.layers,
        "vocab": args.vocab,
        "source_len": args.source_len,
        "new_tokens": args.new_tokens,
        "threads": args.threads,
        "seconds": seconds,
        "median_seconds": medians,
        "ratio": medians["integers"] / medians["full_precision"],
        "cpu_seconds": cpu_seconds,
        "cpu_ratio": cpu_medians["integers"] / cpu_medians["full_precision"],
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bits", default="2-2")
    for name, value in (
        ("d", 768),
        ("heads", 12),
        ("layers", 6),
        ("vocab", 50265),
        ("source-len", 128),
        ("new-tokens", 32),
        ("threads", 2),
        ("runs", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    record = measure(args)
    for key, value in record.items():
        print(f"{key:16} {value:.4g}" if isinstance(value, float) else f"{key:16} {value}")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
