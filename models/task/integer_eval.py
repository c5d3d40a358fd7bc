"""Scores and likelihood of what runs on the accelerator, the integer model: the figures that evaluate.py gives for the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ternbin.decoding.beam import batched_beams, check_vocabulary
from ternbin.decoding.greedy import Batched
from ternbin.decoding.search import Search
from ternbin.models import prepare
from ternbin.models.task.batches import Row
from ternbin.models.task.generate import SEARCH
from ternbin.models.task.task import Task
from ternbin.progress import bar


class IntegerModel:
    """The integer model of a checkpoint, many texts at a time; `res_bits`: with a residual stream of another width."""

    def __init__(self, model_dir: Path, batch_size: int = 32, res_bits: int | None = None):
        self.batched = Batched(prepare.lowered_model(model_dir, res_bits=res_bits), batch_size=batch_size)

    def check(self, beams: Sequence[int]) -> None:
        """Raise InputError for a search that the accelerator cannot do for the model."""
        for count in (each for each in beams if each > 1):
            check_vocabulary(self.batched.meta, count)

    def write(self, tokenizer: Any, task: Task, rows: Sequence[Row], beams: int) -> list[str]:
        """What it writes for the sources of `rows`: greedily for one beam, else by beam search without repeated trigrams."""
        sources = [source for source, _ in rows]
        with bar(total=len(rows), label=f"integer model, beams {beams}", unit="text") as shown:

            def told(done: int) -> None:
                shown.update(done - shown.n)

            if beams == 1:
                tokens = self.batched.generate(sources, task.max_target, told)
            else:
                search = Search.of(self.batched.meta, beams, SEARCH)
                tokens = batched_beams(self.batched, sources, task.max_target, search, told)
        return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def nll(self, rows: Sequence[Row]) -> float:
        """Nats a token of the targets."""
        with bar(total=len(rows), label="integer model, likelihood", unit="text") as shown:
            sources, targets = [source for source, _ in rows], [target for _, target in rows]

            def told(done: int) -> None:
                shown.update(done - shown.n)

            nats = self.batched.nll(sources, targets, told)
        return sum(nats) / sum(len(target) for target in targets)
