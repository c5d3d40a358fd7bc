"""Sets of the package `datasets`, by name: whatever copy of them the user has, or lets it fetch (``HF_HUB_OFFLINE=0``)."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ternbin.errors import InputError, MissingToolError
from ternbin.models.task.data import SPLITS, Example
from ternbin.models.task.dataset import Dataset, Metric
from ternbin.models.task.tables import Columns, pairs


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """`path` and `config` are what `datasets.load_dataset` is called with."""

    path: str
    config: str | None = None
    columns: Columns
    metric: Metric


HUB = {
    "xsum": HubSet(path="EdinburghNLP/xsum", columns=Columns(source="document", target="summary"), metric="rouge"),
    "cnn_dailymail": HubSet(
        path="abisee/cnn_dailymail",
        config="3.0.0",
        columns=Columns(source="article", target="highlights"),
        metric="rouge",
    ),
    "wmt16-en-ro": HubSet(
        path="wmt/wmt16",
        config="ro-en",
        columns=Columns(source="translation.en", target="translation.ro"),
        metric="bleu",
    ),
}


def hub_set(name: str) -> Dataset:
    """The set `name`.  Raises MissingToolError without `datasets`, InputError where it does not have the set."""
    try:
        datasets = importlib.import_module("datasets")  # an extra
    except ImportError:
        raise MissingToolError(f"datasets must be installed for {name}: pip install 'ternbin[hub]'") from None
    wanted = HUB[name]
    try:
        found: Any = datasets.load_dataset(wanted.path, wanted.config)
    except Exception as error:  # connection, missing cache, builder scripts: all of its own kinds
        reason = " ".join(str(error).split())[:200]
        fetching = "HF_HUB_OFFLINE=0 lets it fetch one"
        raise InputError(f"{name}: datasets must have a copy of {wanted.path} ({fetching}), not: {reason}") from None
    missing = [split for split in SPLITS if split not in found]
    if missing:
        raise InputError(f"{name}: must have the split {missing[0]}, not only {', '.join(map(str, found))}")

    def read(split: str) -> list[Example]:
        return pairs(enumerate(found[split], 1), wanted.columns, f"{name}, {split}")

    return Dataset(name=name, read=read, metric=wanted.metric)
