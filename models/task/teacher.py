"""The teacher: a full-precision model trained on a data set, from scratch or from a checkpoint, against a budget of minutes or steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PretrainedConfig

from ternbin.errors import InputError
from ternbin.models.task.batches import Batch, Ends, Row, epoch_batches, shorten
from ternbin.models.task.budget import Budget, Schedule
from ternbin.models.task.checkpoint import start_in
from ternbin.models.task.data import SPLITS
from ternbin.models.task.dataset import Choice, Dataset, Encoded, Room, encode_set, unsaid
from ternbin.models.task.embed import embeddings
from ternbin.models.task.fit import Job, fit, make_optimizer
from ternbin.models.task.generate import mean_nll
from ternbin.models.task.machine import Machine
from ternbin.models.task.noise import noisy_rows
from ternbin.models.task.scores import strip_boilerplate
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.task import Task, carried_task
from ternbin.models.task.tokenizer import (
    BOS,
    EOS,
    PAD,
    TOKENIZER_FILE,
    closing,
    cut,
    encode,
    load_tokenizer,
    tokenizer_in,
    train_tokenizer,
)

TUNED_LR = 1e-4  # peak rate where a checkpoint is fine-tuned


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """Settings of the teacher; fractions are of the budget, `short_source` of the task's longest source.

    For the first `lead_fraction` the target is the beginning of the source or all of it, as the task says: copying is
    learned within minutes from this exact signal, and the targets build on it.  For `pretrain` after that, the model
    restores texts of the set that were noised (`ternbin.models.task.noise`).  Until `short_fraction`, sources are
    shorter, which makes steps cheaper.  From `dropout_start`, when rows begin to be seen again and again, residual
    dropout is on.
    """

    schedule: Schedule = field(default_factory=Schedule)
    label_smoothing: float = 0.1
    batch_tokens: int = 1200
    lead_fraction: float = 0.05
    pretrain: float = 0.0
    short_source: float = 0.7
    short_fraction: float = 0.5
    dropout: float = 0.1
    dropout_start: float = 0.25


def tuning(recipe: TeacherRecipe) -> TeacherRecipe:
    """The recipe where a checkpoint is fine-tuned: it can write already."""
    return replace(recipe, lead_fraction=0.0, short_fraction=0.0, dropout_start=0.0)


def teacher_config(task: Task, **overrides: Any) -> PretrainedConfig:
    """Configuration of the task's teacher: 2+2 layers of width 192 with ReLU and 3 heads of 64, and what the task says.

    Raises InputError for fields that no model can have.
    """
    values: dict[str, Any] = dict(
        model_type="bart",
        decoder_start_token_id=EOS,
        vocab_size=task.vocab,
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
        bos_token_id=BOS,
        pad_token_id=PAD,
        eos_token_id=EOS,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
    )
    try:
        return AutoConfig.for_model(**{**values, **task.teacher, **overrides})
    except Exception as error:  # the library's classes check values as they like
        raise InputError(f"--config: {' '.join(str(error).split())[:200]}") from None


def sinusoids(rows: int, width: int) -> torch.Tensor:
    """The sinusoidal position table (rows, width) of amplitude 1."""
    angles = torch.arange(rows)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def init_teacher(config: PretrainedConfig, seed: int = 0, table: torch.Tensor | None = None) -> Any:
    """Stock model with Xavier matrices, scaled embeddings of unit variance and sinusoidal positions.

    `table`: embeddings [vocab, width] of unit variance to start from, instead of random ones.
    """
    torch.manual_seed(seed)
    model = cast(Any, AutoModelForSeq2SeqLM.from_config(config))
    shared = model.get_input_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.lm_head:
            torch.nn.init.xavier_uniform_(module.weight)
    if table is None:
        torch.nn.init.normal_(shared.weight, std=shared.embedding_dim**-0.5)
    else:
        with torch.no_grad():
            shared.weight.copy_(table * shared.embedding_dim**-0.5)
    for stack in (model.model.encoder, model.model.decoder):
        positions = stack.embed_positions.weight
        with torch.no_grad():
            positions.copy_(0.5 * sinusoids(*positions.shape))
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
    """Set the dropout of embeddings and sublayer outputs of a stock model."""
    for stack in (model.model.encoder, model.model.decoder):
        for module in (stack, *stack.layers):
            module.dropout = rate


def teacher_loss(model, batch: Batch, recipe: TeacherRecipe) -> torch.Tensor:
    """Label-smoothed cross-entropy, mean over target tokens."""
    logits = model(**batch.inputs()).logits
    return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), label_smoothing=recipe.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class TeacherRows:
    """The rows of a teacher's training; `lead` has the targets of its first minutes, `noisy(rng)` gives noised ones."""

    task: Task
    rows: Sequence[Row]
    lead: Sequence[Row]
    noisy: Callable[[random.Random], Sequence[Row]]

    def batches(
        self, recipe: TeacherRecipe, budget: Budget, begun: float, ends: Ends, rng: random.Random
    ) -> Iterator[Batch]:
        """One pass over what the budget asks for that was spent when it began; of the first phases, a pass ends with its phase."""
        phases = (
            (recipe.lead_fraction, lambda: self.lead),
            (recipe.lead_fraction + recipe.pretrain, lambda: self.noisy(rng)),
        )
        until, chosen = next(((end, rows) for end, rows in phases if begun < end), (None, lambda: self.rows))
        short = recipe.short_source if begun < recipe.short_fraction else 1
        rows = chosen()
        rows = shorten(self.task, rows, int(short * self.task.max_source)) or rows
        for batch in epoch_batches(rows, recipe.batch_tokens, ends=ends, rng=rng):
            if until is not None and budget.progress >= until:
                return
            yield batch


def teacher_rows(encoded: Encoded, tokenizer: Any) -> TeacherRows:
    """The training rows of a data set."""
    task, train = encoded.task, encoded.texts["train"]
    sources = [e.source for e in train.examples]
    leads = sources if task.lead == "source" else [strip_boilerplate(source) for source in sources]
    tail = closing(tokenizer)
    targets = [cut(ids, task.max_target, tail) for ids in encode(tokenizer, leads, target=True)]
    lead = list(zip((source for source, _ in train.rows), targets, strict=True))
    return TeacherRows(
        task=task, rows=train.rows, lead=lead, noisy=lambda rng: noisy_rows(task, train.rows, tokenizer, rng)
    )


# -- tokenizer ---------------------------------------------------------------------------------


def own_tokenizer(data: Dataset, choice: Choice, out_dir: Path, given: Path | None) -> Any:
    """The tokenizer of a teacher from scratch: the `given` one, that of the data, else one made of their training texts."""
    if given is not None or data.tokenizer is not None:
        return tokenizer_in(given or data.tokenizer or out_dir)
    path = out_dir / TOKENIZER_FILE
    if not path.exists():
        task = data.task or unsaid(data, choice)
        texts = [text for e in data.read("train") for text in (e.source, e.target)]
        train_tokenizer(texts, path, task.vocab, opens=task.opens, units=task.units)
    return load_tokenizer(out_dir)


# -- training ----------------------------------------------------------------------------------


def train_teacher(
    data: str | Path | Dataset,
    out_dir: Path,
    *,
    start_dir: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    recipe: TeacherRecipe | None = None,
    config: Mapping[str, Any] | None = None,
    tokenizer_dir: Path | None = None,
    machine: Machine | None = None,
    choice: Choice | None = None,
) -> None:
    """Train a model of the library on a data set; save it with its tokenizer in `out_dir`, and there ``task.json``, what it learned.

    It starts from the checkpoint in `start_dir` (of a quantized one, from the weights that it stands for), else from random weights
    by the task's config, with the fields of `config` in the place of its own.
    """
    out_dir, budget = Path(out_dir), Budget(minutes, steps)
    recipe, machine, choice = recipe or TeacherRecipe(), machine or Machine(), choice or Choice()
    held = open_dataset(data, choice)
    out_dir.mkdir(parents=True, exist_ok=True)
    if start_dir is not None:
        model = start_in(start_dir)
        tokenizer = tokenizer_in(tokenizer_dir or start_dir)
        encoded = encode_set(held, SPLITS[:2], tokenizer, Room.of(model.config), choice, carried_task(start_dir))
    else:
        tokenizer = own_tokenizer(held, choice, out_dir, tokenizer_dir)
        task, size = held.task or unsaid(held, choice), len(tokenizer)
        wanted = {"vocab_size": size} | dict(config or {})
        room = Room(
            positions=teacher_config(task, **wanted).max_position_embeddings, source_vocab=size, target_vocab=size
        )
        encoded = encode_set(held, SPLITS[:2], tokenizer, room, choice)
        made = teacher_config(encoded.task, **wanted)
        rows = encoded.texts["train"].rows
        table = embeddings(rows, made.vocab_size, made.d_model, seed) if encoded.task.shared_words else None
        model = init_teacher(made, seed, table)
    fit_teacher(model, tokenizer, encoded, out_dir, recipe, budget, machine, seed)


def fit_teacher(
    model: Any,
    tokenizer: Any,
    encoded: Encoded,
    out_dir: Path,
    recipe: TeacherRecipe,
    budget: Budget,
    machine: Machine,
    seed: int,
) -> None:
    """Train `model` on the texts at hand."""
    torch.set_num_threads(machine.threads)
    encoded.task.save(out_dir)
    rows, validation, ends = teacher_rows(encoded, tokenizer), encoded.texts["validation"].rows, Ends.of(model.config)

    def loss_of(wrapped: Any, batch: Batch) -> torch.Tensor:
        set_residual_dropout(model, recipe.dropout if budget.progress >= recipe.dropout_start else 0.0)
        return teacher_loss(wrapped, batch, recipe)

    job = Job(
        model=model,
        optimizer=make_optimizer(teacher_groups(model, recipe.schedule), recipe.schedule),
        loss_of=loss_of,
        batches_of=lambda epoch, begun: rows.batches(recipe, budget, begun, ends, random.Random(f"{seed}-{epoch}")),
        checkpoint=lambda folder: save_model(model, tokenizer, folder),
        validate=lambda: mean_nll(model, validation),
    )
    fit(job, out_dir=out_dir, schedule=recipe.schedule, budget=budget, machine=machine)


def save_model(model, tokenizer, folder: Path) -> None:
    """Save model and tokenizer in the Hugging Face layout."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
