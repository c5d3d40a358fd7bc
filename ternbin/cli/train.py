"""Train a full-precision teacher, or distil a quantized student from one, on a data set.

A set known by name is built on first use. Training resumes where it was stopped when started again with the same folder.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternbin.cli import options
from ternbin.storage import claimed

if TYPE_CHECKING:
    from ternbin.models.task.fit import Schedule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", choices=("teacher", "student"))
    parser.add_argument("--teacher", metavar="DIR", help="checkpoint of the teacher (student only)")
    parser.add_argument("--bits", choices=options.BITS, default="2-2", help="of the student (default: 2-2)")
    parser.add_argument(
        "--start", metavar="DIR", help="student to start from, of any bits, instead of the teacher's weights"
    )
    options.add_data(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the checkpoint")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=options.number(0, above=True), help="training time")
    budget.add_argument("--steps", type=options.whole(1), help="optimizer steps")
    parser.add_argument(
        "--lr", type=options.number(0, 1, above=True), metavar="X", help="peak learning rate (default: the recipe's)"
    )
    parser.add_argument(
        "--batch-tokens", type=options.whole(1), metavar="N", help="padded tokens of a batch (default: 1200)"
    )
    parser.add_argument(
        "--dropout", type=options.number(0, 1), metavar="X", help="of a teacher's sublayers (default: 0.1)"
    )
    parser.add_argument("--seed", type=options.whole(0), default=0)
    parser.add_argument("--threads", type=options.whole(1, 1024), default=1)


def call(args: argparse.Namespace) -> None:
    from ternbin.errors import InputError

    if (args.role == "student") != bool(args.teacher):
        raise InputError("--teacher must be given for a student, and only for a student")
    for option, role in (("start", "student"), ("dropout", "teacher")):
        if getattr(args, option) is not None and args.role != role:
            raise InputError(f"--{option} must be given only for a {role}")
    with claimed(Path(args.out)) as out:
        _train(args, out)
    print(f"checkpoint: {args.out}")


def _train(args: argparse.Namespace, out: Path) -> None:
    from ternbin.models.task.sets import open_dataset
    from ternbin.models.task.student import StudentRecipe, train_student
    from ternbin.models.task.teacher import TeacherRecipe, train_teacher

    data = open_dataset(args.data)
    common = {"minutes": args.minutes, "steps": args.steps, "seed": args.seed, "threads": args.threads}
    if args.role == "teacher":
        teacher = TeacherRecipe()
        chosen = {} if args.dropout is None else {"dropout": args.dropout}
        train_teacher(data, out, recipe=replace(teacher, **_chosen(args, teacher.schedule), **chosen), **common)
    else:
        student, start = StudentRecipe(), args.start and Path(args.start)
        recipe = replace(student, **_chosen(args, student.schedule))
        train_student(Path(args.teacher), data, out, bits=args.bits, start_dir=start, recipe=recipe, **common)


def _chosen(args: argparse.Namespace, schedule: "Schedule") -> dict[str, Any]:
    """What the options change of either recipe."""
    chosen: dict[str, Any] = {} if args.lr is None else {"schedule": replace(schedule, lr=args.lr)}
    return chosen if args.batch_tokens is None else chosen | {"batch_tokens": args.batch_tokens}
