"""Train a full-precision teacher, or distil a quantized student from one, on a data set.

A set known by name is built on first use. Training resumes where it was stopped when started again with the same folder.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed


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
    if args.lr is not None and not 0 < args.lr < 1:
        raise InputError(f"--lr must be above 0 and below 1, not {args.lr:g}")
    if args.dropout is not None and not 0 <= args.dropout < 1:
        raise InputError(f"--dropout must be at least 0 and below 1, not {args.dropout:g}")
    with claimed(Path(args.out)) as out:
        _train(args, out)
    print(f"checkpoint: {args.out}")


def _train(args: argparse.Namespace, out: Path) -> None:
    from ternbin.models.task.fit import Schedule
    from ternbin.models.task.sets import open_dataset
    from ternbin.models.task.student import StudentRecipe, train_student
    from ternbin.models.task.teacher import TeacherRecipe, train_teacher

    def scheduled(schedule: Schedule) -> Schedule:
        return schedule if args.lr is None else replace(schedule, lr=args.lr)

    data = open_dataset(args.data)
    common = {"minutes": args.minutes, "steps": args.steps, "seed": args.seed, "threads": args.threads}
    if args.role == "teacher":
        recipe = TeacherRecipe()
        dropout = recipe.dropout if args.dropout is None else args.dropout
        train_teacher(data, out, recipe=replace(recipe, schedule=scheduled(recipe.schedule), dropout=dropout), **common)
    else:
        recipe = StudentRecipe()
        recipe = replace(recipe, schedule=scheduled(recipe.schedule))
        start = args.start and Path(args.start)
        train_student(Path(args.teacher), data, out, bits=args.bits, start_dir=start, recipe=recipe, **common)
