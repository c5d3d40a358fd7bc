"""A data set's folder::

task.json                                     what is to be learned (`ternbin.models.task.task`)
train.jsonl  validation.jsonl  test.jsonl     one {"package", "source", "target"} a line
tokenizer.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ternbin.errors import InputError
from ternbin.schema import DATA_BYTES, parse_json, read_text, validated
from ternbin.storage import replacing

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row of a data set; `package` names where the texts come from, where that is known."""

    package: str = ""
    source: str
    target: str


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write one JSON object a line."""
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(vars(example), ensure_ascii=False) + "\n")


def read_examples(data_dir: Path, split: str) -> list[Example]:
    """Rows of one split ("train", "validation" or "test") of the data set in `data_dir`."""
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    path = Path(data_dir) / f"{split}.jsonl"
    if not path.exists():
        raise InputError(f"data folder must hold {path.name} not {str(data_dir)!r}")
    lines = enumerate(read_text(path, DATA_BYTES).split("\n"), start=1)  # splitlines() knows more ends of a line
    rows = [_example(line, f"{path}: line {number}") for number, line in lines if line]
    if not rows:
        raise InputError(f"{path}: must hold at least one row, not none")
    return rows


def _example(line: str, where: str) -> Example:
    return validated(Example, parse_json(line.encode(), where), where)
