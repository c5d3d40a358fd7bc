"""What a task is, as data: its lengths, its tokenizer, its score and the model of its teacher.

A data set's folder holds its task in ``task.json``; training, evaluation and scores read it from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ternbin.errors import InputError
from ternbin.schema import Range, read_json, validated
from ternbin.storage import write_text

TASK_FILE = "task.json"


@dataclass(frozen=True, kw_only=True)
class Task:
    """`max_source` and `max_target` count tokens, special ones included.

    `longer`: a longer text is cut, or its row is left out, where half a text would have another target, or refused.
    `vocab`, `units`, `opens` are of the tokenizer that is made where no other is given: its size, whether it knows frequent
    pieces (byte-level BPE) or single characters, whether every encoded text starts with ``<s>``; the decoder's start
    token is what `teacher` says either way.
    `lead`: what the first minutes of a teacher's training have as target: the beginning of the source, or the source.
    `shared_words`: the teacher's embeddings start from which tokens stand in the same rows (`ternbin.models.task.embed`).
    `metric`: the score, see `ternbin.models.task.scores`.  `teacher`: ``model_type`` and fields of the teacher's config.
    """

    name: str
    about: str
    metric: Literal["rouge", "bleu", "exact"]
    max_source: Annotated[int, Range(2)]
    max_target: Annotated[int, Range(2)]
    longer: Literal["cut", "drop", "refuse"]
    vocab: Annotated[int, Range(1)] = 4096
    units: Literal["pieces", "characters"] = "pieces"
    opens: bool = True
    lead: Literal["beginning", "source"] = "source"
    shared_words: bool = False
    teacher: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``task.json``."""
        write_text(folder / TASK_FILE, json.dumps(asdict(self), indent=1) + "\n")


def read_task(folder: Path) -> Task:
    """The task of the data set in `folder`.  Raises InputError where it has none or a wrong one."""
    path = Path(folder) / TASK_FILE
    if not path.exists():
        raise InputError(f"data folder must hold {TASK_FILE}, not {str(folder)!r}")
    return validated(Task, read_json(path), path)


def carried_task(folder: Path) -> Task | None:
    """The task that a checkpoint in `folder` was trained for, where it says so."""
    return read_task(folder) if (Path(folder) / TASK_FILE).exists() else None
