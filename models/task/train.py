"""Training: the full-precision teacher, then the quantized student distilled from it.

Both run against a budget of minutes or steps on a given number of CPU threads, and continue where they
stopped when called again with the same folder.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from transformers import BartConfig, BartForConditionalGeneration

from ternbin.errors import InputError
from ternbin.models.config import QuantConfig
from ternbin.models.families import family_in
from ternbin.models.family import Family
from ternbin.models.model import QuantModel
from ternbin.models.task import data as dataset
from ternbin.models.task.batches import Batch, Row, encode_examples, epoch_batches
from ternbin.models.task.evaluate import mean_nll
from ternbin.models.task.fit import Budget, Schedule, fit, make_optimizer
from ternbin.models.task.scores import strip_boilerplate

CALIBRATION_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """Settings of the teacher; fractions are of the budget.

    For the first `lead_fraction` the target is the beginning of the description itself: copying is learned
    within minutes from this exact signal, and the synopses build on it.  Until `short_fraction`, sources are
    cut to `short_source` tokens, which makes steps cheaper.  From `dropout_start`, when rows begin to be seen
    again and again, residual dropout is on.
    """

    schedule: Schedule = field(default_factory=Schedule)
    label_smoothing: float = 0.1
    batch_tokens: int = 1200
    lead_fraction: float = 0.05
    short_source: int = 44
    short_fraction: float = 0.5
    dropout: float = 0.1
    dropout_start: float = 0.25


@dataclass(frozen=True, kw_only=True)
class StudentRecipe:
    """Settings of the student: loss = `soft` x soft cross-entropy + `hard` x cross-entropy + `hidden` x MSE of hidden states.

    `scale_lr` multiplies the learning rate of the activation steps.  Until `short_fraction` of the budget,
    sources are cut to `short_source` tokens.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(lr=1.5e-3))
    soft: float = 1.0
    hard: float = 1.0
    hidden: float = 0.3
    scale_lr: float = 4.0
    batch_tokens: int = 1200
    short_source: int = 44
    short_fraction: float = 0.5


# -- the teacher -------------------------------------------------------------------------------


def teacher_config(**overrides: Any) -> BartConfig:
    """Configuration of the bundled teacher: a 2+2-layer ReLU BART with 3 heads of 64."""
    values: dict[str, Any] = dict(
        vocab_size=dataset.VOCAB_SIZE,
        d_model=192,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=128,
        dropout=0.0,
        bos_token_id=dataset.BOS,
        pad_token_id=dataset.PAD,
        eos_token_id=dataset.EOS,
        decoder_start_token_id=dataset.EOS,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
    )
    return BartConfig(**(values | overrides))


def sinusoids(rows: int, width: int) -> torch.Tensor:
    """The sinusoidal position table (rows, width) of amplitude 1."""
    angles = torch.arange(rows)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def init_teacher(config: BartConfig, seed: int = 0) -> BartForConditionalGeneration:
    """Stock BART with Xavier matrices, scaled embeddings of unit variance and sinusoidal positions."""
    torch.manual_seed(seed)
    model = BartForConditionalGeneration(config)
    shared = cast(torch.nn.Embedding, model.get_input_embeddings())
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.lm_head:
            torch.nn.init.xavier_uniform_(module.weight)
    torch.nn.init.normal_(shared.weight, std=shared.embedding_dim**-0.5)
    for stack in (model.model.encoder, model.model.decoder):
        table = stack.embed_positions.weight
        with torch.no_grad():
            table.copy_(0.5 * sinusoids(*table.shape))
    return model


def teacher_groups(model, schedule: Schedule) -> list[dict]:
    """Parameter groups: weight decay for matrices, none for biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    decay = schedule.weight_decay
    return [
        dict(params=matrices, lr=schedule.lr, weight_decay=decay),
        dict(params=vectors, lr=schedule.lr, weight_decay=0.0),
    ]


def set_residual_dropout(model, rate: float) -> None:
    """Set the dropout of embeddings and sublayer outputs of a stock BART."""
    for stack in (model.model.encoder, model.model.decoder):
        for module in (stack, *stack.layers):
            module.dropout = rate


def teacher_loss(model, batch: Batch, recipe: TeacherRecipe, progress: float) -> torch.Tensor:
    """Label-smoothed cross-entropy, mean over target tokens."""
    set_residual_dropout(model, recipe.dropout if progress >= recipe.dropout_start else 0.0)
    logits = model(**batch.inputs()).logits
    return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), label_smoothing=recipe.label_smoothing)


def teacher_batches(
    rows: Sequence[Row], lead: Sequence[Row], recipe: TeacherRecipe, budget: Budget, rng: random.Random
) -> Iterator[Batch]:
    """One pass over `lead` or `rows`, whichever the spent budget asks for; a pass over `lead` ends early."""
    leading = budget.progress < recipe.lead_fraction
    limit = recipe.short_source if budget.progress < recipe.short_fraction else dataset.MAX_SOURCE
    for batch in epoch_batches(lead if leading else rows, recipe.batch_tokens, source_limit=limit, rng=rng):
        if leading and budget.progress >= recipe.lead_fraction:
            return
        yield batch


def train_teacher(
    data_dir: Path,
    out_dir: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    recipe: TeacherRecipe | None = None,
    config=None,
    save_every: float = 180.0,
) -> None:
    """Train a stock BART on the data set in `data_dir`; save it with its tokenizer in `out_dir`."""
    torch.set_num_threads(threads)
    recipe = recipe or TeacherRecipe()
    tokenizer = dataset.load_tokenizer(data_dir)
    examples = dataset.read_examples(data_dir, "train")
    rows = encode_examples(tokenizer, examples)
    lead = encode_examples(tokenizer, examples, [strip_boilerplate(e.source) for e in examples])
    validation = encode_examples(tokenizer, dataset.read_examples(data_dir, "validation"))
    model = init_teacher(config or teacher_config(), seed)
    budget = Budget(minutes, steps)
    fit(
        model,
        make_optimizer(teacher_groups(model, recipe.schedule), recipe.schedule),
        lambda batch: teacher_loss(model, batch, recipe, budget.progress),
        lambda epoch: teacher_batches(rows, lead, recipe, budget, random.Random(f"{seed}-{epoch}")),
        out_dir=Path(out_dir),
        schedule=recipe.schedule,
        budget=budget,
        checkpoint=lambda folder: save_model(model, tokenizer, folder),
        validate=lambda: mean_nll(model, validation),
        save_every=save_every,
    )


def save_model(model, tokenizer, folder: Path) -> None:
    """Save model and tokenizer in the Hugging Face layout."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# -- the student -------------------------------------------------------------------------------


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
    """Mean squared error of hidden states (B, T, D), over layers and the tokens that `valid` (B, T) marks."""
    errors = [(s - t).square().mean(-1)[valid].mean() for s, t in zip(student, teacher, strict=True)]
    return torch.stack(errors).mean()


def distillation_loss(student, teacher, batch: Batch, recipe: StudentRecipe) -> torch.Tensor:
    """Soft cross-entropy to the teacher, cross-entropy to the synopsis and error of hidden states."""
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


def student_batches(rows: Sequence[Row], recipe: StudentRecipe, progress: float, rng: random.Random) -> Iterator[Batch]:
    """One pass over `rows`, with sources as long as the spent budget asks for."""
    limit = recipe.short_source if progress < recipe.short_fraction else dataset.MAX_SOURCE
    return epoch_batches(rows, recipe.batch_tokens, source_limit=limit, rng=rng)


def train_student(
    teacher_dir: Path,
    data_dir: Path,
    out_dir: Path,
    *,
    bits: str = "2-2",
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    recipe: StudentRecipe | None = None,
    save_every: float = 180.0,
) -> None:
    """Distil the model in `teacher_dir` into a `bits` model; save it packed, with its tokenizer, in `out_dir`.

    The student starts from the teacher's weights.  ``out_dir/latent`` holds its latent weights.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    recipe = recipe or StudentRecipe()
    tokenizer = dataset.load_tokenizer(data_dir)
    rows = encode_examples(tokenizer, dataset.read_examples(data_dir, "train"))
    validation = encode_examples(tokenizer, dataset.read_examples(data_dir, "validation"))
    family, full_precision = family_in(teacher_dir)
    if not full_precision:
        raise InputError(f"teacher must be a full-precision model, not the quantized one in {str(teacher_dir)!r}")
    teacher = family.load_stock(teacher_dir)
    student = family.quantize(family.load_stock(teacher_dir), QuantConfig(bits=bits))
    calibration = [batch.inputs() for batch in epoch_batches(rows[:CALIBRATION_ROWS], recipe.batch_tokens)]
    budget = Budget(minutes, steps)
    fit(
        student,
        make_optimizer(student_groups(student, recipe), recipe.schedule),
        lambda batch: distillation_loss(student, teacher, batch, recipe),
        lambda epoch: student_batches(rows, recipe, budget.progress, random.Random(f"{seed}-{epoch}")),
        out_dir=Path(out_dir),
        schedule=recipe.schedule,
        budget=budget,
        checkpoint=lambda folder: save_student(family, student, tokenizer, calibration, folder),
        validate=lambda: mean_nll(student, validation),
        save_every=save_every,
    )


def save_student(family: Family[Any], model: QuantModel, tokenizer: Any, calibration: list[dict], folder: Path) -> None:
    """Save the packed model in `folder` and the latent one in ``folder/latent``, both with calibrated grids.

    The grids are taken off again: training goes on without them, since their rounding is far below a step.
    """
    family.calibrate(model, calibration)
    family.save(model, folder, tokenizer)
    save_model(model, tokenizer, folder / "latent")
    model.set_fracs({})
