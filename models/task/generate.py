"""Texts and likelihoods of a model on rows of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ternbin.models.task.batches import Ends, Row, epoch_batches, pad_rows
from ternbin.models.task.task import Task

SEARCH: Mapping[str, Any] = {"no_repeat_ngram_size": 3, "length_penalty": 1.0, "early_stopping": True}
"""Settings of a beam search, by the names of a generation config."""


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    task: Task,
    sources: Sequence[Sequence[int]],
    *,
    beams: int = 1,
    batch_size: int = 32,
    progress: Callable[[int], object] = lambda done: None,
) -> list[str]:
    """What the model writes for `sources` (token ids): greedily for one beam, else by beam search without repeated trigrams."""
    model.eval()
    ends = Ends.of(model.config)
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    texts = [""] * len(sources)
    options = dict(num_beams=beams, do_sample=False, max_new_tokens=task.max_target)
    if beams > 1:
        options |= dict(SEARCH)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        ids = pad_rows([sources[i] for i in part], ends.pad).to(model.device)
        mask = pad_rows([[1] * len(sources[i]) for i in part], 0).to(model.device)
        out = model.generate(input_ids=ids, attention_mask=mask, **options)
        for i, text in zip(part, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
            texts[i] = text.strip()
        progress(len(part))
    return texts


@torch.no_grad()
def mean_nll(model, rows: Sequence[Row], batch_tokens: int = 4000) -> float:
    """Mean negative log-likelihood, in nats a target token, of (source ids, target ids) rows."""
    model.eval()
    total, count = 0.0, 0
    for batch in epoch_batches(rows, batch_tokens, ends=Ends.of(model.config)):
        batch = batch.to(model.device)
        logits = model(**batch.inputs()).logits
        total += torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="sum").item()
        count += int((batch.labels != -100).sum())
    return total / count
