"""ROUGE and likelihood of a checkpoint on the held-out texts, beside the lead baselines."""

import argparse
from pathlib import Path

from ternbin.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR", help="checkpoint folder (default: the bundled ternary BART)")
    parser.add_argument(
        "--data", default="data/debian", metavar="DIR", help="data set (default: data/debian; built where missing)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N texts")
    options.add_json(parser)


def call(args: argparse.Namespace) -> None:
    from ternbin.models.prepare import bundled_dir
    from ternbin.models.task.data import build_dataset
    from ternbin.models.task.evaluate import main_evaluate
    from ternbin.progress import say

    data = Path(args.data)
    if not (data / "test.jsonl").exists():
        say(f"building the data set in {data}")
        build_dataset(data)
    main_evaluate(
        Path(args.model) if args.model else bundled_dir(), data, args.json and Path(args.json), limit=args.limit
    )
