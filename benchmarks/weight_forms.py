"""Other forms of the weights of a trained ternary student: likelihood as they are, and after some steps of training.

Needs the latent weights that `ternbin train student` leaves, its teacher and its data set:

    python benchmarks/weight_forms.py s22 data --teacher teacher --steps 300

Forms: ``as trained``; ``head 8 bits``, the LM head's own codes from the latent weight that it shares with the embedding; ``3 of 4``,
the least of each four weights of a row 0, the others -1 or +1, the row's scale the mean of what is kept. Every form goes on from the
same student, over the same batches. Writes a table, and --out as JSON.
"""

import argparse
import json
import random
from collections.abc import Callable
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ternbin.models import modules
from ternbin.models.families import family_in
from ternbin.models.quantizers import weight_codes
from ternbin.models.task.batches import Ends
from ternbin.models.task.budget import Schedule
from ternbin.models.task.checkpoint import full_precision_in
from ternbin.models.task.data import SPLITS
from ternbin.models.task.dataset import Room, encode_set
from ternbin.models.task.fit import make_optimizer, update
from ternbin.models.task.generate import mean_nll
from ternbin.models.task.machine import Machine
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.student import LATENT, Distillation, StudentRecipe, student_batches, student_groups
from ternbin.models.task.tokenizer import tokenizer_in
from ternbin.progress import bar
from ternbin.storage import write_text

WARM = 20  # steps until the learning rate is at its peak


def three_of_four(weight: torch.Tensor, bits: int, center: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """As `weight_codes`, of ternary weights of which the least of each four is 0."""
    if bits != 2:
        return weight_codes(weight, bits, center)
    fours = weight.unflatten(-1, (-1, 4))
    kept = torch.ones_like(fours).scatter(-1, fours.abs().argmin(-1, keepdim=True), 0.0).flatten(-2)
    codes = torch.where(weight >= 0, kept, -kept)
    return codes, (weight.abs() * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True)


@contextmanager
def codes_by(make: Callable[..., tuple[torch.Tensor, torch.Tensor]]):
    """Quantized modules take their codes from `make`."""
    before, modules.weight_codes = modules.weight_codes, make
    try:
        yield
    finally:
        modules.weight_codes = before


FORMS: dict[
    str, tuple[int, Callable[..., tuple[torch.Tensor, torch.Tensor]]]
] = {  # bits of the head, codes of the rest
    "as trained": (2, weight_codes),
    "head 8 bits": (8, weight_codes),
    "3 of 4": (2, three_of_four),
}


def trained(student: Any, teacher: Any, task: Any, rows: Any, steps: int, lr: float) -> None:
    """`steps` of distillation, the learning rate up to `lr` and down to 0."""
    recipe = StudentRecipe(schedule=Schedule(lr=lr))
    machine, loss_of = Machine(), Distillation(student, teacher, recipe)
    optimizer = make_optimizer(student_groups(student, recipe), recipe.schedule)
    batches = student_batches(task, rows, recipe, 1.0, Ends.of(student.config), random.Random(0))
    with bar(total=steps, label="training", unit="step") as shown:
        for step, batch in enumerate(islice(batches, steps)):
            factor = min(1.0, (step + 1) / WARM, (steps - step) / max(1, steps - WARM))
            update(student, optimizer, loss_of, batch, recipe.schedule, factor, machine)
            shown.update()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("data")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--limit", type=int, default=500, help="validation texts (default: 500)")
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.student / LATENT
    family, _ = family_in(folder)
    _, teacher = full_precision_in(args.teacher, "teacher")
    tokenizer, room = tokenizer_in(folder), Room.of(teacher.config)
    encoded = encode_set(open_dataset(args.data), SPLITS[:2], tokenizer, room)
    held = encoded.texts["validation"].rows[: args.limit]
    found: dict[str, dict[str, float]] = {}
    for form in args.forms:
        bits, make = FORMS[form]
        torch.manual_seed(0)
        student: Any = family.load(folder)
        student.lm_head.bits = bits
        with codes_by(make):
            found[form] = {"nll": round(mean_nll(student, held), 4)}
            if args.steps:
                student.set_fracs({})
                trained(student, teacher, encoded.task, encoded.texts["train"].rows, args.steps, args.lr)
                found[form] |= {"steps": args.steps, "nll_trained": round(mean_nll(student, held), 4)}
        print(form, "  ".join(f"{name} {value}" for name, value in found[form].items()), flush=True)
        if args.out:
            write_text(args.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
