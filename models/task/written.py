"""Sequence-level distillation: targets that the teacher writes, made once and kept beside the run."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ternbin.models.task.batches import Row
from ternbin.models.task.dataset import Texts
from ternbin.models.task.generate import generate
from ternbin.models.task.page import read_lines
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import closing, cut, encode
from ternbin.progress import bar, say

WRITTEN_FILE = "written.jsonl"
PART = 256  # rows between writes


def written_rows(
    teacher: Any, tokenizer: Any, task: Task, texts: Texts, share: float, folder: Path, seed: int
) -> list[Row]:
    """The rows of `texts`, a `share` of them, drawn by `seed`, with what the teacher writes (beam 4) as target.

    What is written is kept in ``written.jsonl``, from which a run that was stopped goes on.
    """
    count = len(texts.rows)
    chosen = sorted(random.Random(seed).sample(range(count), round(share * count)))
    known = {entry["row"]: entry["target"] for entry in read_lines(folder / WRITTEN_FILE)}
    left = [row for row in chosen if row not in known]
    if left:
        say(f"the teacher writes {len(left):,} targets")
    with bar(total=len(left), label="teacher writes", unit="text") as shown:
        for first in range(0, len(left), PART):
            part = left[first : first + PART]
            known |= zip(part, _write(teacher, tokenizer, task, texts, part), strict=True)
            with (folder / WRITTEN_FILE).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"row": row, "target": known[row]}) + "\n" for row in part)
            shown.update(len(part))
    rows, tail = list(texts.rows), closing(tokenizer)
    for row, target in zip(chosen, encode(tokenizer, [known[row] for row in chosen], target=True), strict=True):
        rows[row] = rows[row][0], cut(target, task.max_target, tail)
    return rows


def _write(teacher: Any, tokenizer: Any, task: Task, texts: Texts, part: Sequence[int]) -> list[str]:
    return generate(teacher, tokenizer, task, [texts.rows[row][0] for row in part], beams=4)
