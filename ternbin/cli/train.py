"""Train a full-precision teacher, or distil a quantized student from one, on a data set of yours or one known by name.

A set known by name is built on first use. Training resumes at the step where it was stopped when started again with the same folder,
keeps the checkpoint of the best validation, and draws its curves in training.html.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternbin.cli import options
from ternbin.storage import claimed

if TYPE_CHECKING:
    from ternbin.models.task.budget import Schedule

RECIPE = ("relation", "written", "weigh_scales", "widen")  # options that are fields of a student's recipe
ROLES = {  # options of one role
    "student": (*RECIPE, "head_bits"),
    "teacher": ("dropout", "pretrain", "config", "tokenizer", "units", "vocab"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    share = options.number(0, 1)
    parser.add_argument("role", choices=("teacher", "student"))
    parser.add_argument("--teacher", metavar="DIR", help="checkpoint of the teacher (student only)")
    parser.add_argument("--bits", choices=options.BITS, default="2-2", help="of the student (default: 2-2)")
    options.add_head_bits(parser)
    parser.add_argument(
        "--start",
        metavar="DIR",
        help="student to start from, of any bits, instead of the teacher's weights; or checkpoint to fine-tune",
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
    parser.add_argument("--dropout", type=share, metavar="X", help="of a teacher's sublayers (default: 0.1)")
    parser.add_argument(
        "--pretrain",
        type=share,
        metavar="X",
        help="share of a teacher's budget in which it restores noised texts (default: 0)",
    )
    parser.add_argument("--config", metavar="FILE", help="JSON with fields of a new teacher's config, such as d_model")
    parser.add_argument("--tokenizer", metavar="DIR", help="of a new teacher (default: the data's, else made of them)")
    parser.add_argument(
        "--units",
        choices=("pieces", "characters"),
        help="of a tokenizer that is made of the data (default: pieces, by BPE)",
    )
    parser.add_argument(
        "--vocab", type=options.whole(6, 1 << 20), metavar="N", help="its tokens at most (default: 4096)"
    )
    parser.add_argument(
        "--relation",
        type=options.number(0),
        metavar="X",
        help="weight of a student's attention-relation loss (default: 0)",
    )
    parser.add_argument(
        "--written", type=share, metavar="X", help="share of a student's targets that the teacher writes (default: 0)"
    )
    parser.add_argument(
        "--weigh-scales",
        action="store_true",
        default=None,
        help="start a student's rows with scales weighted by their inputs",
    )
    parser.add_argument(
        "--widen",
        action="store_true",
        default=None,
        help="make a 1-1 student twice as wide as the 2-2 of --start, two binary activations for each ternary one",
    )
    _add_machine(parser)
    parser.add_argument("--seed", type=options.whole(0), default=0)
    parser.add_argument("--threads", type=options.whole(1, 1024), default=1)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "tf32", "bf16"),
        default="auto",
        help="of products (default: auto: fp32 on a CPU, on a GPU bf16, tf32 for students of 1- or 2-bit activations)",
    )
    parser.add_argument(
        "--accumulate", type=options.whole(1), default=1, metavar="N", help="batches a step (default: 1)"
    )
    parser.add_argument(
        "--patience", type=options.whole(1), metavar="N", help="stop after N validations without a better score"
    )
    parser.add_argument(
        "--save-every",
        type=options.number(0),
        default=180.0,
        metavar="S",
        help="seconds between validations (default: 180)",
    )
    parser.add_argument("--compile", action="store_true", help="compile the model (torch.compile; minutes at first)")
    parser.add_argument(
        "--tensorboard", action="store_true", help="log for TensorBoard, too, in tensorboard/ of the folder"
    )


def call(args: argparse.Namespace) -> None:
    from ternbin.errors import InputError
    from ternbin.models.task.records import COMMAND_FILE

    if (args.role == "student") != bool(args.teacher):
        raise InputError("--teacher must be given for a student, and only for a student")
    for role, names in ROLES.items():
        for name in names:
            if getattr(args, name) is not None and args.role != role:
                raise InputError(f"--{name.replace('_', '-')} must be given only for a {role}")
    if args.start and (args.config or args.tokenizer):
        raise InputError("--config and --tokenizer must be left out with --start, whose own are taken")
    if os.environ.get("RANK", "0") != "0":  # another process of `accelerate launch`, whose first one writes
        return _train(args, Path(args.out))
    with claimed(Path(args.out)) as out:
        _train(args, out)
        with (out / COMMAND_FILE).open("a", encoding="utf-8") as file:
            file.write(options.typed() + "\n")
    print(f"checkpoint: {args.out}")
    print(f"curves: {out / 'training.html'}")


def _train(args: argparse.Namespace, out: Path) -> None:
    from ternbin.models.files import read_json
    from ternbin.models.task.machine import Machine
    from ternbin.models.task.student import StudentRecipe, train_student
    from ternbin.models.task.teacher import TUNED_LR, TeacherRecipe, train_teacher, tuning

    machine = Machine(
        precision=args.precision,
        accumulate=args.accumulate,
        patience=args.patience,
        compile=args.compile,
        tensorboard=args.tensorboard,
        save_every=args.save_every,
        threads=args.threads,
    )
    start = args.start and Path(args.start)
    common: dict[str, Any] = {"minutes": args.minutes, "steps": args.steps, "seed": args.seed}
    common |= {"machine": machine, "choice": options.choice(args), "start_dir": start}
    if args.role == "teacher":
        teacher = tuning(TeacherRecipe()) if start else TeacherRecipe()
        schedule = replace(teacher.schedule, lr=TUNED_LR) if start else teacher.schedule
        train_teacher(
            args.data,
            out,
            recipe=replace(teacher, **_chosen(args, schedule, ("dropout", "pretrain"))),
            config=args.config and read_json(Path(args.config)),
            tokenizer_dir=args.tokenizer and Path(args.tokenizer),
            **common,
        )
    else:
        student = StudentRecipe()
        recipe = replace(student, **_chosen(args, student.schedule, RECIPE))
        bits = {"bits": args.bits, "head_bits": args.head_bits}
        train_student(Path(args.teacher), args.data, out, recipe=recipe, **bits, **common)


def _chosen(args: argparse.Namespace, schedule: "Schedule", names: tuple[str, ...]) -> dict[str, Any]:
    """What the options change of a recipe."""
    chosen = {name: getattr(args, name) for name in ("batch_tokens", *names) if getattr(args, name) is not None}
    return chosen | {"schedule": schedule if args.lr is None else replace(schedule, lr=args.lr)}
