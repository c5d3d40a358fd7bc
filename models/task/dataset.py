"""A data set of any origin, and its texts as token ids that fit a tokenizer and a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ternbin.errors import InputError
from ternbin.models.prepare import check_known
from ternbin.models.task.batches import Row
from ternbin.models.task.data import SPLITS, Example, read_examples
from ternbin.models.task.splits import split_by_text
from ternbin.models.task.tables import SUFFIXES, Columns, read_table
from ternbin.models.task.task import TASK_FILE, Task, read_task
from ternbin.models.task.tokenizer import TOKENIZER_FILE, closing, cut, encode
from ternbin.progress import say

Metric = Literal["rouge", "bleu", "exact"]
OTHER_NAMES = {"train": (), "validation": ("valid", "val", "dev"), "test": ()}
LONGEST = 512  # tokens of a text, where nothing else bounds it


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a user says of a data set; None: what the data say, or the model.

    `units` and `vocab` are of the tokenizer that is made where there is none (`ternbin.models.task.task.Task`).
    """

    columns: Columns = field(default_factory=Columns)
    metric: Metric | None = None
    max_source: int | None = None
    max_target: int | None = None
    longer: Literal["cut", "drop", "refuse"] | None = None
    units: Literal["pieces", "characters"] | None = None
    vocab: int | None = None
    split_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """`read(split)` gives the rows of "train", "validation" or "test".

    `task` is None where the data do not say what is to be learned; `metric` is then what they are scored by, where that
    is known.  `tokenizer`: a folder that holds one for these texts.
    """

    name: str
    read: Callable[[str], list[Example]]
    task: Task | None = None
    metric: Metric | None = None
    tokenizer: Path | None = None


# -- opening -----------------------------------------------------------------------------------


def own_layout(folder: Path) -> Dataset:
    """The set in a folder as `ternbin.models.task.sets` writes it."""
    tokenizer = folder if (folder / TOKENIZER_FILE).exists() else None
    task = read_task(folder)
    return Dataset(name=task.name, read=lambda split: read_examples(folder, split), task=task, tokenizer=tokenizer)


def open_folder(folder: Path, choice: Choice) -> Dataset:
    """The set in a folder: of our own layout, or with files ``train``, ``validation`` and ``test`` of rows with columns.

    Where there is only ``train``, the others are split off it.
    """
    if (folder / TASK_FILE).exists():
        return own_layout(folder)
    files = {split: _file_of(folder, split) for split in SPLITS}
    if files["train"] is None:
        endings = ", ".join(SUFFIXES)
        raise InputError(f"{folder}: data folder must hold {TASK_FILE}, or train with one of the endings {endings}")
    if files["validation"] is None and files["test"] is None:
        return open_file(files["train"], choice, folder.name)

    def read(split: str) -> list[Example]:
        path = files[split]
        if path is None:
            raise InputError(f"{folder}: data folder must hold a file of the split {split}, not only the others")
        return read_table(path, choice.columns)

    return Dataset(name=folder.name, read=read)


def _file_of(folder: Path, split: str) -> Path | None:
    names = (split, *OTHER_NAMES[split])
    return next((path for n in names for end in SUFFIXES if (path := folder / f"{n}{end}").is_file()), None)


def open_file(path: Path, choice: Choice, name: str | None = None) -> Dataset:
    """The set in one file, split by `choice.split_seed`; rows of the same source stay in one split."""
    splits = split_by_text(read_table(path, choice.columns), choice.split_seed)
    say(f"{path}: split into " + ", ".join(f"{len(rows):,} rows to {split}" for split, rows in splits.items()))
    return Dataset(name=name or path.stem, read=splits.__getitem__)


# -- the task ----------------------------------------------------------------------------------


def task_of(data: Dataset, choice: Choice, carried: Task | None, longest: tuple[int, int], positions: int) -> Task:
    """The task as the user's `choice` says, else the data, else the model (`carried`), else the texts themselves.

    `longest`: source and target of the most tokens.  Raises InputError for lengths that the model has no positions for.
    """
    task = data.task or carried or unsaid(data, choice)
    own = data.task is None and carried is None
    source, target = (min(max(2, count), positions, LONGEST) for count in longest) if own else (0, 0)
    values: dict[str, Any] = dict(max_source=source, max_target=target) if own else {}
    chosen = dict(
        metric=choice.metric, max_source=choice.max_source, max_target=choice.max_target, longer=choice.longer
    )
    task = replace(task, **values | {name: value for name, value in chosen.items() if value is not None})
    for name in ("max_source", "max_target"):
        if getattr(task, name) > positions:
            raise InputError(
                f"{name} must be at most {positions}, the positions of the model, not {getattr(task, name)}"
            )
    return task


def unsaid(data: Dataset, choice: Choice) -> Task:
    """The task of data that do not say theirs, its lengths still open."""
    metric = choice.metric or data.metric or "rouge"
    return Task(
        name=data.name,
        about=f"texts of {data.name}",
        metric=metric,
        max_source=2,
        max_target=2,
        longer="cut" if metric == "rouge" else "drop",
        units=choice.units or "pieces",
        vocab=choice.vocab or 4096,
    )


# -- texts as ids ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a model takes: tokens of a text, and ids below these."""

    positions: int
    source_vocab: int
    target_vocab: int

    @classmethod
    def of(cls, config: Any) -> Room:
        """Of the config of an encoder-decoder."""
        target = getattr(config, "decoder_vocab_size", None) or config.vocab_size
        return cls(positions=config.max_position_embeddings, source_vocab=config.vocab_size, target_vocab=target)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Rows of a split and their token ids, one for one."""

    examples: Sequence[Example]
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Splits of a data set for one tokenizer and one model."""

    task: Task
    texts: Mapping[str, Texts]


def encode_set(
    data: Dataset,
    splits: Sequence[str],
    tokenizer: Any,
    room: Room,
    choice: Choice | None = None,
    carried: Task | None = None,
    limit: int | None = None,
) -> Encoded:
    """The first `limit` texts (all by default) of each split, as ids that fit the model.

    Longer ones are cut, left out or refused, as the task says, and their number is said.  Raises InputError where the
    tokenizer has ids that the model does not know.
    """
    choice = choice or Choice()
    examples = {split: data.read(split)[:limit] for split in splits}
    rows = {split: token_rows(tokenizer, own) for split, own in examples.items()}
    every = [row for own in rows.values() for row in own]
    for side, vocab in enumerate((room.source_vocab, room.target_vocab)):
        check_known([max(row[side], default=0) for row in every], vocab)
    longest = max(len(row[0]) for row in every), max(len(row[1]) for row in every)
    task = task_of(data, choice, carried, longest, room.positions)
    tail = closing(tokenizer)
    texts = {split: fitting(task, Texts(examples=examples[split], rows=rows[split]), split, tail) for split in splits}
    return Encoded(task=task, texts=texts)


def token_rows(tokenizer: Any, examples: Sequence[Example]) -> list[Row]:
    """Ids of sources and targets of any length."""
    return list(
        zip(
            encode(tokenizer, [e.source for e in examples]),
            encode(tokenizer, [e.target for e in examples], target=True),
            strict=True,
        )
    )


def fitting(task: Task, texts: Texts, split: str, tail: int = 1) -> Texts:
    """The texts with no more tokens than the task allows; `tail`: special tokens at their ends, which stay."""
    limits = task.max_source, task.max_target
    long = [any(len(ids) > most for ids, most in zip(row, limits, strict=True)) for row in texts.rows]
    if not any(long):
        return texts
    what = f"{sum(long):,} of {len(long):,} {split} rows are longer than {limits[0]} tokens to {limits[1]}"
    if task.longer == "refuse":
        raise InputError(f"{task.name}: {what}: they must be shorter, or --longer be cut or drop")
    say(f"{task.name}: {what}: {'cut' if task.longer == 'cut' else 'left out'}")
    if task.longer == "cut":
        return Texts(
            examples=texts.examples, rows=[(cut(s, limits[0], tail), cut(t, limits[1], tail)) for s, t in texts.rows]
        )
    kept = [(e, row) for e, row, out in zip(texts.examples, texts.rows, long, strict=True) if not out]
    if not kept:
        raise InputError(f"{task.name}: {split} must hold a row that short, not none (--max-source, --max-target)")
    return Texts(examples=[e for e, _ in kept], rows=[row for _, row in kept])
