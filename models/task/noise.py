"""Noised texts to restore: pretraining on the texts of the set itself, as BART's (Lewis et al., 2020, text infilling)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from ternbin.models.task.batches import Row
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import closing

HIDDEN = 0.3  # share of the tokens of a text
SPAN = 3.0  # mean tokens of a span that one mask stands for


def noisy_rows(task: Task, rows: Sequence[Row], tokenizer: Any, rng: random.Random) -> list[Row]:
    """A row for every source and target of `rows`: a piece of the text, noised, and the piece itself.

    A piece is as long as the task's targets, and begins anywhere in its text.
    """
    mask, tail = tokenizer.mask_token_id, closing(tokenizer)
    longest = min(task.max_source, task.max_target)
    return [_noisy(ids, mask, longest, tail, rng) for row in rows for ids in row]


def _noisy(ids: Sequence[int], mask: int | None, longest: int, tail: int, rng: random.Random) -> Row:
    first = 1 if len(ids) > tail + 1 else 0  # the start token stays in front
    head, body, end = list(ids[:first]), list(ids[first : len(ids) - tail]), list(ids[len(ids) - tail :])
    room = max(1, longest - first - tail)
    if len(body) > room:
        at = rng.randrange(len(body) - room + 1)
        body = body[at : at + room]
    return [*head, *infill(body, mask, rng), *end], [*head, *body, *end]


def infill(tokens: Sequence[int], mask: int | None, rng: random.Random) -> list[int]:
    """`tokens` with spans that hold about :data:`HIDDEN` of them replaced by one `mask` each, or left out where there is none."""
    left = list(tokens)
    hidden = round(HIDDEN * len(left))
    while hidden > 0 and left:
        span = min(hidden, max(1, poisson(SPAN, rng)), len(left))
        at = rng.randrange(len(left) - span + 1)
        left[at : at + span] = [] if mask is None else [mask]
        hidden -= span
    return left


def poisson(mean: float, rng: random.Random) -> int:
    """A Poisson-distributed number, by Knuth's product of uniform ones."""
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count
