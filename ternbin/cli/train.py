"""Train a full-precision teacher, or distil a quantized student from one, on the bundled task's data set.

The data set is built on first use. Training resumes where it was stopped when started again with the same folder.
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", choices=("teacher", "student"))
    parser.add_argument("--teacher", metavar="DIR", help="checkpoint of the teacher (student only)")
    parser.add_argument("--bits", choices=options.BITS, default="2-2", help="of the student (default: 2-2)")
    parser.add_argument(
        "--data", default="data/debian", metavar="DIR", help="data set (default: data/debian; built where missing)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the checkpoint")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="training time")
    budget.add_argument("--steps", type=int, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)


def call(args: argparse.Namespace) -> None:
    from ternbin.errors import InputError

    if (args.role == "student") != bool(args.teacher):
        raise InputError("--teacher must be given for a student, and only for a student")
    with claimed(Path(args.out)) as out:
        _train(args, out)
    print(f"checkpoint: {args.out}")


def _train(args: argparse.Namespace, out: Path) -> None:
    from ternbin.models.task.data import build_dataset
    from ternbin.models.task.train import train_student, train_teacher
    from ternbin.progress import say

    data = Path(args.data)
    if not (data / "train.jsonl").exists():
        say(f"building the data set in {data}")
        build_dataset(data)
    common = {"minutes": args.minutes, "steps": args.steps, "seed": args.seed, "threads": args.threads}
    if args.role == "teacher":
        train_teacher(data, out, **common)
    else:
        train_student(Path(args.teacher), data, out, bits=args.bits, **common)
