"""The student: a quantized model distilled from a teacher, against a budget of minutes or steps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ternbin.errors import InputError
from ternbin.models.config import QuantConfig
from ternbin.models.families import family_in
from ternbin.models.family import Family
from ternbin.models.model import QuantModel
from ternbin.models.task.batches import Batch, Row, encode_examples, epoch_batches, shorten
from ternbin.models.task.data import read_examples
from ternbin.models.task.fit import Budget, Schedule, fit, make_optimizer
from ternbin.models.task.generate import mean_nll
from ternbin.models.task.task import Task, read_task
from ternbin.models.task.teacher import save_model
from ternbin.models.task.tokenizer import load_tokenizer

CALIBRATION_ROWS = 256
LATENT = "latent"


@dataclass(frozen=True, kw_only=True)
class StudentRecipe:
    """Settings of the student: loss = `soft` x soft cross-entropy + `hard` x cross-entropy + `hidden` x error of hidden states.

    `scale_lr` multiplies the learning rate of the activation steps.  Until `short_fraction` of the budget,
    sources have at most `short_source` of the task's longest source.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(lr=1.5e-3))
    soft: float = 1.0
    hard: float = 1.0
    hidden: float = 0.3
    scale_lr: float = 4.0
    batch_tokens: int = 1200
    short_source: float = 0.7
    short_fraction: float = 0.5


def student_groups(model, recipe: StudentRecipe) -> list[dict]:
    """Parameter groups: matrices with decay, vectors without, activation steps with their own rate."""
    schedule = recipe.schedule
    steps = [p for name, p in model.named_parameters() if name.endswith("alpha")]
    chosen = {id(p) for p in steps}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    matrices, vectors = [p for p in rest if p.ndim >= 2], [p for p in rest if p.ndim < 2]
    return [
        dict(params=matrices, lr=schedule.lr, weight_decay=schedule.weight_decay),
        dict(params=vectors, lr=schedule.lr, weight_decay=0.0),
        dict(params=steps, lr=schedule.lr * recipe.scale_lr, weight_decay=0.0),
    ]


def hidden_error(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], valid: torch.Tensor) -> torch.Tensor:
    """Mean squared error of hidden states (B, T, D) over layers and the tokens that `valid` (B, T) marks.

    In units of the teacher's mean square, layer by layer: a pre-norm stream grows from layer to layer.
    """
    errors = []
    for s, t in zip(student, teacher, strict=True):
        wanted = t[valid]
        errors.append((s[valid] - wanted).square().mean() / wanted.square().mean())
    return torch.stack(errors).mean()


def distillation_loss(student, teacher, batch: Batch, recipe: StudentRecipe) -> torch.Tensor:
    """Soft cross-entropy to the teacher, cross-entropy to the target and error of hidden states."""
    with torch.no_grad():
        wanted = teacher(**batch.inputs(), output_hidden_states=True)
    given = student(**batch.inputs(), output_hidden_states=True)
    valid = batch.labels != -100
    log_given = given.logits[valid].log_softmax(-1)
    soft = -(wanted.logits[valid].softmax(-1) * log_given).sum(-1).mean()
    hard = F.nll_loss(log_given, batch.labels[valid])
    hidden = hidden_error(given.encoder_hidden_states, wanted.encoder_hidden_states, batch.mask.bool())
    hidden = hidden + hidden_error(given.decoder_hidden_states, wanted.decoder_hidden_states, valid)
    return recipe.soft * soft + recipe.hard * hard + recipe.hidden * hidden


def student_batches(
    task: Task, rows: Sequence[Row], recipe: StudentRecipe, progress: float, start: int, rng: random.Random
) -> Iterator[Batch]:
    """One pass over `rows`, with sources as long as the spent budget asks for."""
    short = recipe.short_source if progress < recipe.short_fraction else 1
    rows = shorten(task, rows, int(short * task.max_source))
    return epoch_batches(rows, recipe.batch_tokens, start=start, rng=rng)


def load_teacher(folder: Path) -> tuple[Family[Any], Any]:
    """Family and model of a full-precision checkpoint.  Raises InputError for a quantized one."""
    family, full_precision = family_in(folder)
    if not full_precision:
        raise InputError(f"teacher must be a full-precision model, not the quantized one in {str(folder)!r}")
    return family, family.load_stock(folder)


def first_student(family: Family[Any], teacher, bits: str, start_dir: Path | None) -> QuantModel:
    """The student before training: of the teacher's weights, or of the latent weights of another student."""
    quant = QuantConfig(bits=bits)
    if start_dir is None:
        return family.quantize(teacher, quant)
    folder = start_dir / LATENT if (start_dir / LATENT).is_dir() else start_dir
    other, full_precision = family_in(folder)
    if other is not family or full_precision:
        raise InputError(f"--start must be a quantized model of the teacher's family, not the one in {str(folder)!r}")
    return family.requantize(family.load(folder), bits)


def train_student(
    teacher_dir: Path,
    data_dir: Path,
    out_dir: Path,
    *,
    bits: str = "2-2",
    start_dir: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    recipe: StudentRecipe | None = None,
    save_every: float = 180.0,
) -> None:
    """Distil the model in `teacher_dir` into a `bits` model; save it packed, with its tokenizer, in `out_dir`.

    The student starts from the teacher's weights, or from those of the student in `start_dir`.
    ``out_dir/latent`` holds its latent weights.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    recipe = recipe or StudentRecipe()
    task, tokenizer = read_task(data_dir), load_tokenizer(data_dir)
    rows = encode_examples(task, tokenizer, read_examples(data_dir, "train"))
    validation = encode_examples(task, tokenizer, read_examples(data_dir, "validation"))
    family, teacher = load_teacher(teacher_dir)
    start = teacher.config.decoder_start_token_id
    student = first_student(family, teacher, bits, start_dir)
    first = rows[:CALIBRATION_ROWS]
    calibration = [batch.inputs() for batch in epoch_batches(first, recipe.batch_tokens, start=start)]
    budget = Budget(minutes, steps)
    fit(
        student,
        make_optimizer(student_groups(student, recipe), recipe.schedule),
        lambda batch: distillation_loss(student, teacher, batch, recipe),
        lambda epoch: student_batches(task, rows, recipe, budget.progress, start, random.Random(f"{seed}-{epoch}")),
        out_dir=Path(out_dir),
        schedule=recipe.schedule,
        budget=budget,
        checkpoint=lambda folder: save_student(family, student, tokenizer, calibration, folder),
        validate=lambda: mean_nll(student, validation),
        save_every=save_every,
    )


def save_student(
    family: Family[Any], student: QuantModel, tokenizer: Any, calibration: list[dict], folder: Path
) -> None:
    """Save the packed model in `folder` and the latent one in ``folder/latent``, both with calibrated grids.

    The grids are taken off again: training goes on without them, since their rounding is far below a step.
    """
    family.calibrate(student, calibration)
    family.save(student, folder, tokenizer)
    save_model(student, tokenizer, folder / LATENT)
    student.set_fracs({})
