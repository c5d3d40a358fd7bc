"""The data sets that can be built here, by name: a module each, with `TASK`, `LANGUAGES` and `collect`."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.models.prepare import SUMMARISATION, bundled_dir
from ternbin.models.task import debian, debian_it
from ternbin.models.task.data import SPLITS, Example, write_examples
from ternbin.models.task.index import fetch_indices
from ternbin.models.task.splits import split_by_family, split_by_name
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import TOKENIZER_FILE, encode, load_tokenizer, train_tokenizer
from ternbin.progress import say

SPLITS_FILE = "splits.json.xz"
HELD_OUT = {"validation": 500, "test": 1000}  # rows
SETS: dict[str, Any] = {module.TASK.name: module for module in (debian, debian_it)}

BUNDLED = {debian.TASK.name: bundled_dir(SUMMARISATION), debian_it.TASK.name: bundled_dir("translation")}
"""Folders of the bundled models, with the committed splits and tokenizers, by the name of their set."""


def open_dataset(data: str | Path) -> Path:
    """The folder of a data set, given by folder or name; a set of :data:`SETS` is built where it is missing.

    A bare name stands for ``data/NAME``.
    """
    folder = Path(data)
    if folder.name in SETS and folder == Path(folder.name) and not folder.is_dir():
        folder = Path("data") / folder
    if not (folder / "train.jsonl").exists() and folder.name in SETS:
        say(f"building the data set in {folder}")
        build_dataset(folder.name, folder)
    if not folder.is_dir():
        raise InputError(f"data must be a folder or one of {', '.join(SETS)}, not {str(data)!r}")
    return folder


def set_of(model_dir: Path) -> str:
    """The set that a bundled model was made for; of any other model ``debian``."""
    return next((name for name, folder in BUNDLED.items() if folder == model_dir), debian.TASK.name)


def split_names(name: str) -> dict[str, list[str]] | None:
    """Package names of each split as committed, or None before they were first written."""
    path = BUNDLED[name] / SPLITS_FILE
    return json.loads(lzma.decompress(path.read_bytes())) if path.exists() else None


def build_dataset(name: str, out_dir: Path, seed: int = 0, indices: Mapping[str, str] | None = None) -> dict[str, int]:
    """Write the set `name` into `out_dir` and return the number of rows of each split.

    `indices` are the texts of the ``Translation-*`` files by language; by default they are fetched.  Splits follow
    the bundled package names where they exist, else they are drawn anew with `seed`.  The bundled tokenizer is
    used where it exists, so that bundled checkpoints fit the rebuilt data.
    """
    module, out_dir = SETS[name], Path(out_dir)
    documents = module.collect(fetch_indices(module.LANGUAGES) if indices is None else indices)
    if not documents:
        raise InputError("description index must hold at least one package with a long description, not none")
    names = split_names(name)
    spare = {split: rows * 3 // 2 for split, rows in HELD_OUT.items()} if module.TASK.longer == "drop" else HELD_OUT
    splits = split_by_family(documents, seed, **spare) if names is None else split_by_name(documents, names)
    out_dir.mkdir(parents=True, exist_ok=True)
    _put_tokenizer(module.TASK, splits["train"], out_dir)
    for split in SPLITS:
        splits[split] = fitting(module.TASK, splits[split], out_dir)[: HELD_OUT.get(split)]
        write_examples(out_dir / f"{split}.jsonl", splits[split])
    module.TASK.save(out_dir)
    return {split: len(examples) for split, examples in splits.items()}


def _put_tokenizer(task: Task, train: list[Example], out_dir: Path) -> None:
    bundled = BUNDLED[task.name] / TOKENIZER_FILE
    if bundled.exists():
        shutil.copyfile(bundled, out_dir / TOKENIZER_FILE)
    else:
        texts = (text for e in train for text in (e.source, e.target))
        train_tokenizer(texts, out_dir / TOKENIZER_FILE, task.vocab, opens=task.opens)


def fitting(task: Task, examples: list[Example], folder: Path) -> list[Example]:
    """The rows that are not too long for the task; all of them where longer ones are cut."""
    if task.longer == "cut" or not examples:
        return examples
    tokenizer = load_tokenizer(folder)
    sources = encode(tokenizer, [e.source for e in examples])
    targets = encode(tokenizer, [e.target for e in examples])
    kept = zip(examples, sources, targets, strict=True)
    return [e for e, s, t in kept if len(s) <= task.max_source and len(t) <= task.max_target]
