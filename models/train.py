"""Training: the full-precision teacher, then the quantized student distilled from it.

Both run on one CPU thread against a wall-clock budget: the learning rate follows the fraction of the
budget that is spent, so a run ends on time whatever the machine does.  State is saved every few minutes
and a second call with the same folder continues where the first one stopped.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from ternbin.errors import InputError
from ternbin.models import data as dataset

STATE_FILE = "state.pt"
LOG_FILE = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyper-parameters of one run; times are fractions of the budget."""

    lr: float = 1.2e-3
    warmup: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    label_smoothing: float = 0.1
    dropout: float = 0.0
    batch_tokens: int = 1200
    lead_fraction: float = 0.0
    short_source: int = 44
    short_fraction: float = 0.5


@dataclass
class Batch:
    """Padded token ids: `source` (B, S), `mask` (B, S), `labels` (B, T) with -100 on padding."""

    source: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


# -- batches -----------------------------------------------------------------------------------


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Right-pad integer rows with `value` to a (rows, longest) int64 tensor."""
    longest = max(map(len, rows))
    return torch.tensor([list(row) + [value] * (longest - len(row)) for row in rows])


def cut(ids: Sequence[int], limit: int) -> list[int]:
    """`ids` cut to `limit` tokens, the last one staying ``</s>``."""
    return list(ids) if len(ids) <= limit else [*ids[: limit - 1], dataset.EOS]


def collate(rows: Sequence[tuple[list[int], list[int]]]) -> Batch:
    """Pad (source ids, target ids) rows into a batch."""
    source = pad_rows([row[0] for row in rows], dataset.PAD)
    labels = pad_rows([row[1] for row in rows], -100)
    return Batch(source, (source != dataset.PAD).long(), labels)


def epoch_batches(
    rows: Sequence[tuple[list[int], list[int]]], budget: int, source_limit: int, rng: random.Random
) -> Iterator[Batch]:
    """One shuffled pass over `rows` in batches of like lengths and at most `budget` padded tokens."""
    order = list(range(len(rows)))
    rng.shuffle(order)
    for start in range(0, len(order), 4096):
        chunk = [(cut(rows[i][0], source_limit), rows[i][1]) for i in order[start : start + 4096]]
        chunk.sort(key=lambda row: (len(row[0]), len(row[1])))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        longest = 0
        for row in chunk:
            longest = max(longest, len(row[0]) + len(row[1]))
            if groups[-1] and longest * (len(groups[-1]) + 1) > budget:
                groups.append([])
                longest = len(row[0]) + len(row[1])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from map(collate, groups)


def load_rows(data_dir: Path, split: str, targets: Callable[[dataset.Example], str] | None = None):
    """Token ids (source, target) of a split; `targets` replaces the synopsis by another text."""
    tokenizer = dataset.load_tokenizer(data_dir)
    examples = dataset.read_examples(data_dir, split)
    sources = dataset.encode(tokenizer, [e.source for e in examples], dataset.MAX_SOURCE)
    texts = [e.target if targets is None else targets(e) for e in examples]
    return list(zip(sources, dataset.encode(tokenizer, texts, dataset.MAX_TARGET), strict=True))


# -- the teacher -------------------------------------------------------------------------------


def teacher_config(**overrides):
    """Configuration of the bundled teacher: a 2+2-layer ReLU BART with 3 heads of 64."""
    from transformers import BartConfig

    values = dict(
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
        attention_dropout=0.0,
        activation_dropout=0.0,
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


def init_teacher(config, seed: int = 0):
    """Stock BART with Xavier matrices, unit-variance scaled embeddings and sinusoidal positions."""
    from transformers import BartForConditionalGeneration

    torch.manual_seed(seed)
    model = BartForConditionalGeneration(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.lm_head:
            torch.nn.init.xavier_uniform_(module.weight)
    torch.nn.init.normal_(model.model.shared.weight, std=config.d_model**-0.5)
    for stack in (model.model.encoder, model.model.decoder):
        table = stack.embed_positions.weight
        with torch.no_grad():
            table.copy_(0.5 * sinusoids(*table.shape))
    return model


def teacher_loss(model, batch: Batch, recipe: Recipe) -> torch.Tensor:
    """Label-smoothed cross-entropy, mean over target tokens."""
    logits = model(input_ids=batch.source, attention_mask=batch.mask, labels=batch.labels).logits
    return F.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100, label_smoothing=recipe.label_smoothing
    )


@torch.no_grad()
def validation_nll(model, rows, batch_tokens: int = 4000) -> float:
    """Mean negative log-likelihood, in nats a target token, of `rows` under `model`."""
    model.eval()
    total, count = 0.0, 0
    for batch in epoch_batches(rows, batch_tokens, dataset.MAX_SOURCE, random.Random(0)):
        logits = model(input_ids=batch.source, attention_mask=batch.mask, labels=batch.labels).logits
        total += F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100, reduction="sum").item()
        count += int((batch.labels != -100).sum())
    model.train()
    return total / count


# -- the loop ----------------------------------------------------------------------------------


class Budget:
    """Progress of a run in [0, 1], by wall-clock minutes or by steps."""

    def __init__(self, minutes: float | None, steps: int | None):
        if (minutes is None) == (steps is None):
            raise InputError(f"budget must be minutes or steps, not minutes={minutes!r} and steps={steps!r}")
        self.minutes, self.steps = minutes, steps
        self.spent, self.step = 0.0, 0
        self._clock = time.monotonic()

    def tick(self) -> None:
        """Count one step and the time since the last call."""
        now = time.monotonic()
        self.spent += now - self._clock
        self._clock = now
        self.step += 1

    @property
    def progress(self) -> float:
        return min(1.0, self.step / self.steps if self.steps else self.spent / 60 / self.minutes)


def learning_rate(progress: float, recipe: Recipe) -> float:
    """Factor in [0, 1]: linear warm-up, then linear decay to 1%."""
    if progress < recipe.warmup:
        return max(0.01, progress / recipe.warmup)
    return max(0.01, (1 - progress) / (1 - recipe.warmup))


def save_state(folder: Path, model, optimizer, budget: Budget, epoch: int) -> None:
    """Write the resume state in one step, so that an interrupted write leaves the old one."""
    state = dict(model=model.state_dict(), optimizer=optimizer.state_dict())
    state |= dict(spent=budget.spent, step=budget.step, epoch=epoch)
    partial = folder / (STATE_FILE + ".part")
    torch.save(state, partial)
    partial.replace(folder / STATE_FILE)


def load_state(folder: Path, model, optimizer, budget: Budget) -> int:
    """Restore a saved run, if there is one, and return the epoch to start with."""
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    budget.spent, budget.step = state["spent"], state["step"]
    return state["epoch"]


def fit(
    model,
    optimizer,
    loss_of: Callable[[Batch], torch.Tensor],
    batches_of_epoch: Callable[[int, float], Iterator[Batch]],
    *,
    out_dir: Path,
    recipe: Recipe,
    budget: Budget,
    checkpoint: Callable[[Path], None],
    validate: Callable[[], float],
    save_every: float = 180.0,
) -> None:
    """Train until the budget is spent; log, validate and save every `save_every` seconds."""
    out_dir.mkdir(parents=True, exist_ok=True)
    epoch = load_state(out_dir, model, optimizer, budget)
    base = [group["lr"] for group in optimizer.param_groups]
    base = [group.setdefault("base_lr", lr) for group, lr in zip(optimizer.param_groups, base, strict=True)]
    last_save, losses = budget.spent, []
    model.train()
    while budget.progress < 1:
        for batch in batches_of_epoch(epoch, budget.progress):
            factor = learning_rate(budget.progress, recipe)
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * factor
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            losses.append(loss.item())
            budget.tick()
            if budget.spent - last_save >= save_every or budget.progress >= 1:
                entry = dict(step=budget.step, minutes=round(budget.spent / 60, 2), epoch=epoch, loss=sum(losses) / len(losses))
                entry["validation_nll"] = validate()
                with (out_dir / LOG_FILE).open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                save_state(out_dir, model, optimizer, budget, epoch)
                checkpoint(out_dir)
                last_save, losses = budget.spent, []
            if budget.progress >= 1:
                break
        epoch += 1


def split_parameters(model, weight_decay: float, lr: float) -> list[dict]:
    """Parameter groups: decay for matrices, none for biases and norms."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    return [dict(params=matrices, lr=lr, weight_decay=weight_decay), dict(params=vectors, lr=lr, weight_decay=0.0)]


def train_teacher(
    data_dir: Path,
    out_dir: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    recipe: Recipe = Recipe(),
    config=None,
    threads: int = 1,
    save_every: float = 180.0,
) -> None:
    """Train a stock BART on the data set in `data_dir` and save it, with its tokenizer, in `out_dir`."""
    from ternbin.models.evaluate import strip_boilerplate

    torch.set_num_threads(threads)
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    tokenizer = dataset.load_tokenizer(data_dir)
    rows, validation = load_rows(data_dir, "train"), load_rows(data_dir, "validation")
    lead = load_rows(data_dir, "train", lambda e: strip_boilerplate(e.source)) if recipe.lead_fraction else rows
    model = init_teacher(config or teacher_config(), seed)
    optimizer = torch.optim.AdamW(split_parameters(model, recipe.weight_decay, recipe.lr), betas=recipe.betas, fused=True)
    budget = Budget(minutes, steps)

    def batches(epoch: int, progress: float) -> Iterator[Batch]:
        limit = recipe.short_source if progress < recipe.short_fraction else dataset.MAX_SOURCE
        leading = progress < recipe.lead_fraction
        for batch in epoch_batches(lead if leading else rows, recipe.batch_tokens, limit, random.Random(f"{seed}-{epoch}")):
            if leading and budget.progress >= recipe.lead_fraction:
                return
            yield batch

    def checkpoint(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    fit(
        model,
        optimizer,
        lambda batch: teacher_loss(model, batch, recipe),
        batches,
        out_dir=out_dir,
        recipe=recipe,
        budget=budget,
        checkpoint=checkpoint,
        validate=lambda: validation_nll(model, validation),
        save_every=save_every,
    )
