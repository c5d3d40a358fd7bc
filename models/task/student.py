"""The student: a quantized model distilled from a teacher, against a budget of minutes or steps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ternbin.errors import InputError
from ternbin.models.config import QuantConfig
from ternbin.models.families import family_in
from ternbin.models.family import Family
from ternbin.models.model import QuantModel
from ternbin.models.quantizers import ActQuantizer
from ternbin.models.task.batches import Batch, Ends, Row, epoch_batches, shorten
from ternbin.models.task.budget import Budget, Schedule
from ternbin.models.task.checkpoint import full_precision_in
from ternbin.models.task.data import SPLITS
from ternbin.models.task.dataset import Choice, Dataset, Room, Texts, encode_set
from ternbin.models.task.figures import tensor_figures
from ternbin.models.task.fit import Job, fit, make_optimizer
from ternbin.models.task.generate import generate, mean_nll
from ternbin.models.task.machine import Machine
from ternbin.models.task.relations import Relations, mean_of_copies
from ternbin.models.task.scales import weigh_scales
from ternbin.models.task.scores import METRICS
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.task import Task, carried_task
from ternbin.models.task.teacher import save_model
from ternbin.models.task.tokenizer import tokenizer_in
from ternbin.models.task.written import written_rows

CALIBRATION_ROWS = 256
SCORED_ROWS = 500
LATENT = "latent"


@dataclass(frozen=True, kw_only=True)
class StudentRecipe:
    """Settings of the student: loss = `soft` x soft cross-entropy + `hard` x cross-entropy + `hidden` x error of hidden states
    + `relation` x divergence of attention relations (`ternbin.models.task.relations`).

    `scale_lr` multiplies the learning rate of the activation steps.  Until `short_fraction` of the budget,
    sources have at most `short_source` of the task's longest source.  `written`: share of the training rows whose target
    is what the teacher writes (sequence-level distillation).  `weigh_scales`: rows of weights start with the scale of
    least error on the inputs they see (`ternbin.models.task.scales`).  `widen`: a student of binary activations has twice the
    width of the ternary one that it starts from.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(lr=1.5e-3))
    soft: float = 1.0
    hard: float = 1.0
    hidden: float = 0.3
    relation: float = 0.0
    scale_lr: float = 4.0
    batch_tokens: int = 1200
    short_source: float = 0.7
    short_fraction: float = 0.5
    written: float = 0.0
    weigh_scales: bool = False
    widen: bool = False


def exact_enough(machine: Machine, bits: str) -> Machine:
    """With its precision, if "auto", such that codes of few bits are what they are in float32: bf16 leaves a third of the gradient's
    direction of ternary activations, a sixth of binary ones' (`benchmarks/gradient_precision.py`)."""
    if machine.precision == "auto" and QuantConfig(bits=bits).act_bits < 8:
        return replace(machine, precision="tf32")
    return machine


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

    In units of the teacher's mean square, layer by layer: a pre-norm stream grows from layer to layer.  Of a wider student
    (B, T, copies * D) the mean of the copies is compared.
    """
    errors = []
    for s, t in zip(student, teacher, strict=True):
        wanted = t[valid]
        errors.append((mean_of_copies(s[valid], t.shape[-1]) - wanted).square().mean() / wanted.square().mean())
    return torch.stack(errors).mean()


class Distillation:
    """The loss of a student against its teacher; called with the student, as it is wrapped, and a batch."""

    def __init__(self, student: QuantModel, teacher: Any, recipe: StudentRecipe):
        self.teacher, self.recipe = teacher, recipe
        self.relations = Relations(student, teacher) if recipe.relation else None

    def __call__(self, student: Any, batch: Batch) -> torch.Tensor:
        recipe, inputs = self.recipe, batch.inputs()
        with torch.no_grad():
            wanted = self.teacher(**inputs, output_hidden_states=True)
        given = student(**inputs, output_hidden_states=True)
        valid = batch.labels != -100
        log_given = given.logits[valid].log_softmax(-1)
        soft = -(wanted.logits[valid].softmax(-1) * log_given).sum(-1).mean()
        hard = F.nll_loss(log_given, batch.labels[valid])
        hidden = hidden_error(given.encoder_hidden_states, wanted.encoder_hidden_states, batch.mask.bool())
        hidden = hidden + hidden_error(given.decoder_hidden_states, wanted.decoder_hidden_states, valid)
        loss = recipe.soft * soft + recipe.hard * hard + recipe.hidden * hidden
        if self.relations is not None:
            loss = loss + recipe.relation * self.relations.divergence(batch.mask.bool(), valid)
        return loss


def student_batches(
    task: Task, rows: Sequence[Row], recipe: StudentRecipe, progress: float, ends: Ends, rng: random.Random
) -> Iterator[Batch]:
    """One pass over `rows`, with sources as long as the spent budget asks for."""
    short = recipe.short_source if progress < recipe.short_fraction else 1
    rows = shorten(task, rows, int(short * task.max_source)) or rows
    return epoch_batches(rows, recipe.batch_tokens, ends=ends, rng=rng)


def first_student(
    family: Family[Any],
    teacher,
    bits: str,
    start_dir: Path | None,
    head_bits: int | None = None,
    *,
    widen: bool = False,
    seed: int = 0,
) -> QuantModel:
    """The student before training: of the teacher's weights, or of the latent weights of another student, with the steps it
    has learned where activations have the same codes; or twice as wide as that student."""
    quant = QuantConfig(bits=bits, head_weight_bits=head_bits)
    if start_dir is None:
        if widen:
            raise InputError("--widen must be given with --start, a student of ternary activations")
        return family.quantize(teacher, quant)
    folder = start_dir / LATENT if (start_dir / LATENT).is_dir() else start_dir
    other, full_precision = family_in(folder)
    if other is not family or full_precision:
        raise InputError(f"--start must be a quantized model of the teacher's family, not the one in {str(folder)!r}")
    started = family.load(folder)
    if widen:
        student = family.widen(started, bits, seed)
    else:
        student = family.requantize(started, bits)
        keep_steps(started, student)
    _check_fit(student, teacher)
    if head_bits is not None:
        student.set_head_bits(head_bits)
    return student


def _check_fit(student: Any, teacher: Any) -> None:
    """Raise InputError for a student whose logits or hidden states cannot be compared with the teacher's."""
    (rows, width), (tokens, of_teacher) = (model.get_input_embeddings().weight.shape for model in (student, teacher))
    wrong = {
        "tokens": (rows, tokens),
        "layers": tuple(
            (m.config.num_hidden_layers, getattr(m.config, "decoder_layers", 0)) for m in (student, teacher)
        ),
        "width, or a multiple of it": (width if width % of_teacher else of_teacher, of_teacher),
    }
    for what, (own, wanted) in wrong.items():
        if own != wanted:
            raise InputError(f"--start must have the teacher's {what}: {wanted}, not {own}")


@torch.no_grad()
def keep_steps(old: QuantModel, new: QuantModel) -> None:
    """Give the activations of `new` the steps of those of `old` that have the same name and kind of codes; others are unset."""
    learned = {name: module for name, module in old.named_modules() if isinstance(module, ActQuantizer)}
    for name, module in new.named_modules():
        if isinstance(module, ActQuantizer) and module.alpha is not None:
            other = learned.get(name)
            if other is not None and other.alpha is not None and other.kind == module.kind:
                module.alpha.copy_(other.alpha)


def train_student(
    teacher_dir: Path,
    data: str | Path | Dataset,
    out_dir: Path,
    *,
    bits: str = "2-2",
    head_bits: int | None = None,
    start_dir: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    recipe: StudentRecipe | None = None,
    machine: Machine | None = None,
    choice: Choice | None = None,
) -> None:
    """Distil the model in `teacher_dir` into a `bits` model, the weights of its LM head of `head_bits` (None: as all others, or as
    those of the student in `start_dir`); save it packed, with the teacher's tokenizer, in `out_dir`.

    The student starts from the teacher's weights, or from those of the student in `start_dir`. The checkpoint that is kept has the
    best likelihood of the validation texts; where the teacher writes targets, what is written greedily for the first :data:`SCORED_ROWS`
    of them has the best score.
    ``out_dir/latent`` holds its latent weights, ``task.json`` what it learned.
    """
    out_dir, budget = Path(out_dir), Budget(minutes, steps)
    recipe, machine = recipe or StudentRecipe(), exact_enough(machine or Machine(), bits)
    device = machine.accelerator.device
    torch.manual_seed(seed)
    family, teacher = full_precision_in(teacher_dir, "teacher")
    tokenizer, ends = tokenizer_in(teacher_dir), Ends.of(teacher.config)
    held = open_dataset(data, choice)
    encoded = encode_set(
        held, SPLITS[:2], tokenizer, Room.of(teacher.config), choice=choice, carried=carried_task(teacher_dir)
    )
    task, rows, validation = encoded.task, encoded.texts["train"].rows, encoded.texts["validation"].rows
    student = first_student(family, teacher, bits, start_dir, head_bits, widen=recipe.widen, seed=seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    task.save(out_dir)
    teacher.to(device)
    calibration = [
        b.to(device).inputs() for b in epoch_batches(rows[:CALIBRATION_ROWS], recipe.batch_tokens, ends=ends)
    ]
    if recipe.written:
        with machine.accelerator.main_process_first():  # the others read what it wrote
            rows = written_rows(teacher, tokenizer, task, encoded.texts["train"], recipe.written, out_dir, seed)
    student.to(device)
    if recipe.weigh_scales and start_dir is None:
        weigh_scales(student, calibration)
    if machine.accelerator.num_processes > 1:
        student.eval()(**calibration[0])  # sets the steps: every process begins with the same
    job = Job(
        model=student,
        optimizer=make_optimizer(student_groups(student, recipe), recipe.schedule),
        loss_of=Distillation(student, teacher, recipe),
        batches_of=lambda epoch, progress: student_batches(
            task, rows, recipe, progress, ends, random.Random(f"{seed}-{epoch}")
        ),
        checkpoint=lambda folder: save_student(family, student, tokenizer, calibration, folder),
        validate=lambda: mean_nll(student, validation),
        measure=lambda: tensor_figures(student, calibration[0]),
        score=(lambda: text_score(student, tokenizer, task, encoded.texts["validation"])) if recipe.written else None,
    )
    fit(job, out_dir=out_dir, schedule=recipe.schedule, budget=budget, machine=machine)


def text_score(student: QuantModel, tokenizer: Any, task: Task, texts: Texts) -> float:
    """The task's first score of what `student` writes greedily for the first :data:`SCORED_ROWS` of `texts`, in percent."""
    examples, rows = texts.examples[:SCORED_ROWS], texts.rows[:SCORED_ROWS]
    metric = METRICS[task.metric]
    written = generate(student, tokenizer, task, [source for source, _ in rows])
    return metric.score(written, [example.target for example in examples])[metric.first]


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
