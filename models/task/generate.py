"""Texts and likelihoods of a model on rows of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ternbin.models.task.batches import Row, epoch_batches, pad_rows
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import PAD, encode


@torch.no_grad()
def generate(
    model, tokenizer, task: Task, sources: Sequence[str], *, beams: int = 1, batch_size: int = 32
) -> list[str]:
    """Targets of `sources`: greedy for one beam, else beam search without repeated trigrams."""
    model.eval()
    encoded = encode(tokenizer, sources, task.max_source)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    texts = [""] * len(encoded)
    options = dict(num_beams=beams, do_sample=False, max_new_tokens=task.max_target)
    if beams > 1:
        options |= dict(no_repeat_ngram_size=3, length_penalty=1.0, early_stopping=True)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        ids = pad_rows([encoded[i] for i in part], PAD)
        out = model.generate(input_ids=ids, attention_mask=(ids != PAD).long(), **options)
        for i, text in zip(part, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
            texts[i] = text.strip()
    return texts


@torch.no_grad()
def mean_nll(model, rows: Sequence[Row], batch_tokens: int = 4000) -> float:
    """Mean negative log-likelihood, in nats a target token, of (source ids, target ids) rows."""
    model.eval()
    total, count = 0.0, 0
    for batch in epoch_batches(rows, batch_tokens, start=model.config.decoder_start_token_id):
        logits = model(**batch.inputs()).logits
        total += torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="sum").item()
        count += int((batch.labels != -100).sum())
    return total / count
