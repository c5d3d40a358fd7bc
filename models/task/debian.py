"""The set ``debian``: package description -> one-line synopsis, from Debian's English translation index."""

from __future__ import annotations

from collections.abc import Mapping

from ternbin.models.task.data import Example
from ternbin.models.task.index import fetch_indices, parse_index
from ternbin.models.task.splits import Document, split_by_family
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import EOS

LANGUAGES = ("en",)
SPLIT = split_by_family

TASK = Task(
    name="debian",
    about="Debian package description to one-line synopsis",
    metric="rouge",
    max_source=64,
    max_target=24,
    longer="cut",
    vocab=4096,
    opens=True,
    lead="beginning",
    teacher=dict(model_type="bart", decoder_start_token_id=EOS),
)


def fetch() -> dict[str, str]:
    """The indices that the set is made of, by language."""
    return fetch_indices(LANGUAGES)


def collect(indices: Mapping[str, str]) -> list[Document]:
    """Unique (description, synopsis) pairs of the index, in order of package name."""
    rows, seen = [], set()
    stanzas = [(s.package, s.synopsis, s.paragraphs) for s in parse_index(indices["en"])]
    for package, synopsis, paragraphs in sorted(row for row in stanzas if row[2]):
        source = " ".join(paragraphs)
        if (source, synopsis) not in seen:
            seen.add((source, synopsis))
            example = Example(package=package, source=source, target=synopsis)
            rows.append(Document(package=package, paragraphs=paragraphs, examples=[example]))
    return rows
