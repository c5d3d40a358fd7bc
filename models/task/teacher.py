"""The teacher: a full-precision model trained on a data set from scratch, against a budget of minutes or steps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PretrainedConfig

from ternbin.models.task.batches import Batch, Row, encode_examples, epoch_batches, shorten
from ternbin.models.task.data import read_examples
from ternbin.models.task.embed import embeddings
from ternbin.models.task.fit import Budget, Schedule, fit, make_optimizer
from ternbin.models.task.generate import mean_nll
from ternbin.models.task.scores import strip_boilerplate
from ternbin.models.task.task import Task, read_task
from ternbin.models.task.tokenizer import BOS, EOS, PAD, load_tokenizer


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """Settings of the teacher; fractions are of the budget, `short_source` of the task's longest source.

    For the first `lead_fraction` the target is the beginning of the source or all of it, as the task says: copying is
    learned within minutes from this exact signal, and the targets build on it.  Until `short_fraction`, sources are
    shorter, which makes steps cheaper.  From `dropout_start`, when rows begin to be seen again and again, residual
    dropout is on.
    """

    schedule: Schedule = field(default_factory=Schedule)
    label_smoothing: float = 0.1
    batch_tokens: int = 1200
    lead_fraction: float = 0.05
    short_source: float = 0.7
    short_fraction: float = 0.5
    dropout: float = 0.1
    dropout_start: float = 0.25


def teacher_config(task: Task, **overrides: Any) -> PretrainedConfig:
    """Configuration of the task's teacher: 2+2 layers of width 192 with ReLU and 3 heads of 64, and what the task says."""
    values: dict[str, Any] = dict(
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
    return AutoConfig.for_model(**{**values, **task.teacher, **overrides})


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


def teacher_loss(model, batch: Batch, recipe: TeacherRecipe, progress: float) -> torch.Tensor:
    """Label-smoothed cross-entropy, mean over target tokens."""
    set_residual_dropout(model, recipe.dropout if progress >= recipe.dropout_start else 0.0)
    logits = model(**batch.inputs()).logits
    return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), label_smoothing=recipe.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class TeacherRows:
    """The rows of a teacher's training; `lead` has the targets of its first minutes."""

    task: Task
    rows: Sequence[Row]
    lead: Sequence[Row]

    def batches(self, recipe: TeacherRecipe, budget: Budget, start: int, rng: random.Random) -> Iterator[Batch]:
        """One pass over `lead` or `rows`, whichever the spent budget asks for; a pass over `lead` ends early."""
        leading = budget.progress < recipe.lead_fraction
        short = recipe.short_source if budget.progress < recipe.short_fraction else 1
        rows = shorten(self.task, self.lead if leading else self.rows, int(short * self.task.max_source))
        for batch in epoch_batches(rows, recipe.batch_tokens, start=start, rng=rng):
            if leading and budget.progress >= recipe.lead_fraction:
                return
            yield batch


def teacher_rows(task: Task, tokenizer, data_dir: Path) -> TeacherRows:
    """The training rows of a data set."""
    examples = read_examples(data_dir, "train")
    sources = [e.source for e in examples]
    leads = sources if task.lead == "source" else [strip_boilerplate(source) for source in sources]
    rows = encode_examples(task, tokenizer, examples)
    return TeacherRows(task=task, rows=rows, lead=encode_examples(task, tokenizer, examples, leads))


def train_teacher(
    data_dir: Path,
    out_dir: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    recipe: TeacherRecipe | None = None,
    config: PretrainedConfig | None = None,
    save_every: float = 180.0,
) -> None:
    """Train a stock model on the data set in `data_dir`; save it with its tokenizer in `out_dir`."""
    torch.set_num_threads(threads)
    recipe = recipe or TeacherRecipe()
    task, tokenizer = read_task(data_dir), load_tokenizer(data_dir)
    rows = teacher_rows(task, tokenizer, data_dir)
    validation = encode_examples(task, tokenizer, read_examples(data_dir, "validation"))
    config = config or teacher_config(task)
    table = embeddings(rows.rows, config.vocab_size, config.d_model, seed) if task.shared_words else None
    model = init_teacher(config, seed, table)
    start = model.config.decoder_start_token_id
    budget = Budget(minutes, steps)
    fit(
        model,
        make_optimizer(teacher_groups(model, recipe.schedule), recipe.schedule),
        lambda batch: teacher_loss(model, batch, recipe, budget.progress),
        lambda epoch: rows.batches(recipe, budget, start, random.Random(f"{seed}-{epoch}")),
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
