"""Token ids in padded batches of like lengths."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ternbin.models.task import data as dataset

Row = tuple[list[int], list[int]]
"""Source ids and target ids, each ``<s> ... </s>``."""


@dataclass(frozen=True)
class Batch:
    """`source` (B, S) padded token ids, `mask` (B, S) 1 on tokens, `labels` (B, T) with -100 on padding."""

    source: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments for a BART forward pass; the decoder sees ``</s>`` and the labels shifted right."""
        shifted = self.labels.roll(1, dims=1).masked_fill(self.labels.roll(1, dims=1) == -100, dataset.PAD)
        shifted[:, 0] = dataset.EOS
        return dict(input_ids=self.source, attention_mask=self.mask, decoder_input_ids=shifted, use_cache=False)


def encode_examples(tokenizer, examples: Sequence[dataset.Example], targets: Sequence[str] | None = None) -> list[Row]:
    """Token ids of `examples`, cut to the task's lengths; `targets` replaces the synopses."""
    texts = [e.target for e in examples] if targets is None else targets
    sources = dataset.encode(tokenizer, [e.source for e in examples], dataset.MAX_SOURCE)
    return list(zip(sources, dataset.encode(tokenizer, texts, dataset.MAX_TARGET), strict=True))


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Right-pad integer rows with `value` to a (rows, longest) int64 tensor."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def collate(rows: Sequence[Row]) -> Batch:
    """Pad (source ids, target ids) rows into a batch."""
    source = pad_rows([row[0] for row in rows], dataset.PAD)
    labels = pad_rows([row[1] for row in rows], -100)
    return Batch(source, (source != dataset.PAD).long(), labels)


def group_rows(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Cut a list of rows into groups whose padded token count is at most `budget` (one row at least)."""
    groups: list[list[Row]] = []
    longest = 0
    for row in rows:
        length = len(row[0]) + len(row[1])
        if not groups or max(longest, length) * (len(groups[-1]) + 1) > budget:
            groups.append([])
            longest = 0
        groups[-1].append(row)
        longest = max(longest, length)
    return groups


def epoch_batches(
    rows: Sequence[Row], budget: int, *, source_limit: int = dataset.MAX_SOURCE, rng: random.Random | None = None
) -> Iterator[Batch]:
    """One pass over `rows` in batches of like lengths and at most `budget` padded tokens.

    With `rng` the pass is shuffled: rows first, then the batches of every 4,096 rows.
    """
    order = list(rows)
    if rng is not None:
        rng.shuffle(order)
    for start in range(0, len(order), 4096):
        chunk = [(dataset.cut(source, source_limit), target) for source, target in order[start : start + 4096]]
        chunk.sort(key=lambda row: (len(row[0]), len(row[1])))
        groups = group_rows(chunk, budget)
        if rng is not None:
            rng.shuffle(groups)
        yield from map(collate, groups)
