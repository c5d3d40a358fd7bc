"""Token ids in padded batches of like lengths."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ternbin.errors import InputError
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import cut

Row = tuple[list[int], list[int]]
"""Source ids and target ids, special ones included."""


@dataclass(frozen=True)
class Ends:
    """The ids of a model that the decoder starts from, and that fill up rows."""

    start: int
    pad: int

    @classmethod
    def of(cls, config: Any) -> Ends:
        """Of the config of an encoder-decoder.  Raises InputError where it has no start."""
        start, pad = config.decoder_start_token_id, config.pad_token_id
        start = config.bos_token_id if start is None else start
        if start is None:
            raise InputError("decoder_start_token_id or bos_token_id of config.json must be set, not left out")
        return cls(start, start if pad is None else pad)


@dataclass(frozen=True)
class Batch:
    """`source` (B, S) padded token ids, `mask` (B, S) 1 on tokens, `labels` (B, T) with -100 on padding."""

    source: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    ends: Ends

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(self.source.to(device), self.mask.to(device), self.labels.to(device), self.ends)

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments for a forward pass; the decoder sees the start token and the labels shifted right."""
        shifted = self.labels.roll(1, dims=1).masked_fill(self.labels.roll(1, dims=1) == -100, self.ends.pad)
        shifted[:, 0] = self.ends.start
        return dict(input_ids=self.source, attention_mask=self.mask, decoder_input_ids=shifted, use_cache=False)


def shorten(task: Task, rows: Sequence[Row], limit: int) -> list[Row]:
    """The rows with sources of at most `limit` tokens: longer ones are cut or left out, as the task says."""
    if task.longer == "cut":
        return [(cut(source, limit), target) for source, target in rows]
    return [row for row in rows if len(row[0]) <= limit]


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Right-pad integer rows with `value` to a (rows, longest) int64 tensor."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def collate(rows: Sequence[Row], ends: Ends) -> Batch:
    """Pad (source ids, target ids) rows into a batch."""
    source = pad_rows([row[0] for row in rows], ends.pad)
    mask = pad_rows([[1] * len(row[0]) for row in rows], 0)
    return Batch(source, mask, pad_rows([row[1] for row in rows], -100), ends)


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


def epoch_batches(rows: Sequence[Row], budget: int, *, ends: Ends, rng: random.Random | None = None) -> Iterator[Batch]:
    """One pass over `rows` in batches of like lengths and at most `budget` padded tokens.

    With `rng` the pass is shuffled: rows first, then the batches of every 4,096 rows.
    """
    order = list(rows)
    if rng is not None:
        rng.shuffle(order)
    for first in range(0, len(order), 4096):
        chunk = sorted(order[first : first + 4096], key=lambda row: (len(row[0]), len(row[1])))
        groups = group_rows(chunk, budget)
        if rng is not None:
            rng.shuffle(groups)
        yield from (collate(group, ends) for group in groups)
