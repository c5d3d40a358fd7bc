"""The data sets there are by name: those that are built here, a module each with `TASK`, `SPLIT`, `fetch` and `collect`, and those of
the package `datasets`."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.models.prepare import SUMMARISATION, bundled_dir, home
from ternbin.models.task import debian, debian_it, misaki
from ternbin.models.task.data import SPLITS, Example, write_examples
from ternbin.models.task.dataset import Choice, Dataset, Texts, fitting, open_file, open_folder, own_layout, token_rows
from ternbin.models.task.hub import HUB, hub_set
from ternbin.models.task.splits import split_by_name
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import TOKENIZER_FILE, load_tokenizer, train_tokenizer
from ternbin.progress import say

SPLITS_FILE = "splits.json.xz"
HELD_OUT = {"validation": 500, "test": 1000}  # rows
SETS: dict[str, Any] = {module.TASK.name: module for module in (debian, debian_it, misaki)}

BUNDLED = {debian.TASK.name: bundled_dir(SUMMARISATION), debian_it.TASK.name: bundled_dir("translation")}
"""Folders of the bundled models, with the committed splits and tokenizers, by the name of their set."""


def open_dataset(data: str | Path | Dataset, choice: Choice | None = None) -> Dataset:
    """A data set by file, folder or name; a set of :data:`SETS` is built where it is missing.

    A bare name stands for ``data/NAME``.  Raises InputError, MissingToolError.
    """
    if isinstance(data, Dataset):
        return data
    path, choice = Path(data), choice or Choice()
    if path.is_file():
        return open_file(path, choice)
    bare = path == Path(path.name) and not path.is_dir()
    if bare and path.name in HUB:
        return hub_set(path.name)
    if bare and path.name in SETS:
        path = Path("data") / path
    if not (path / "train.jsonl").exists() and path.name in SETS:
        say(f"building the data set in {path}")
        build_dataset(path.name, path)
        return own_layout(path)
    if not path.is_dir():
        raise InputError(f"data must be a file, a folder or one of {', '.join((*SETS, *HUB))}, not {str(data)!r}")
    return open_folder(path, choice)


def set_of(model_dir: Path) -> str:
    """The set that a bundled model was made for; of any other model ``debian``."""
    return next((name for name, folder in BUNDLED.items() if folder == home(model_dir)), debian.TASK.name)


def split_names(name: str) -> dict[str, list[str]] | None:
    """Package names of each split as committed, or None before they were first written."""
    path = BUNDLED[name] / SPLITS_FILE if name in BUNDLED else None
    return json.loads(lzma.decompress(path.read_bytes())) if path is not None and path.exists() else None


def build_dataset(name: str, out_dir: Path, seed: int = 0, raw: Mapping[str, str] | None = None) -> dict[str, int]:
    """Write the set `name` into `out_dir` and return the number of rows of each split.

    `raw` are the texts that the set's module collects from; by default they are fetched.  Splits follow
    the bundled package names where they exist, else they are drawn anew with `seed`.  The bundled tokenizer is
    used where it exists, so that bundled checkpoints fit the rebuilt data.
    """
    module, out_dir = SETS[name], Path(out_dir)
    documents = module.collect(module.fetch() if raw is None else raw)
    if not documents:
        raise InputError(f"the source of {name} must hold at least one text, not none")
    names = split_names(name)
    spare = {split: rows * 3 // 2 for split, rows in HELD_OUT.items()} if module.TASK.longer == "drop" else HELD_OUT
    splits = module.SPLIT(documents, seed, **spare) if names is None else split_by_name(documents, names)
    out_dir.mkdir(parents=True, exist_ok=True)
    _put_tokenizer(module.TASK, splits["train"], out_dir)
    for split in SPLITS:
        splits[split] = short_enough(module.TASK, splits[split], out_dir)[: HELD_OUT.get(split)]
        write_examples(out_dir / f"{split}.jsonl", splits[split])
    module.TASK.save(out_dir)
    return {split: len(examples) for split, examples in splits.items()}


def _put_tokenizer(task: Task, train: list[Example], out_dir: Path) -> None:
    bundled = BUNDLED[task.name] / TOKENIZER_FILE if task.name in BUNDLED else None
    if bundled is not None and bundled.exists():
        shutil.copyfile(bundled, out_dir / TOKENIZER_FILE)
    else:
        texts = [text for e in train for text in (e.source, e.target)]
        train_tokenizer(texts, out_dir / TOKENIZER_FILE, task.vocab, opens=task.opens, units=task.units)


def short_enough(task: Task, examples: list[Example], folder: Path) -> list[Example]:
    """The rows that are not too long for the task; all of them where longer ones are cut."""
    if task.longer == "cut" or not examples:
        return examples
    rows = token_rows(load_tokenizer(folder), examples)
    return list(fitting(task, Texts(examples=examples, rows=rows), "").examples)
