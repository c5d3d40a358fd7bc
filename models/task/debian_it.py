"""The set ``debian-it``: English sentences of package descriptions -> Italian, from Debian's own translations.

A description and its translation name the same package and the checksum of the same original.  They are cut into
synopsis, paragraphs and list items, and these into sentences where both sides have as many; what does not match in
number is left out or stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ternbin.models.task.data import Example
from ternbin.models.task.index import Stanza, fetch_indices, parse_index
from ternbin.models.task.splits import Document, split_by_family
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import BOS

LANGUAGES = ("en", "it")
SPLIT = split_by_family

TASK = Task(
    name="debian-it",
    about="English sentences of Debian package descriptions to Italian",
    metric="bleu",
    max_source=32,
    max_target=32,
    longer="drop",
    vocab=4096,
    opens=False,
    lead="source",
    shared_words=True,
    teacher=dict(
        model_type="mbart",
        decoder_start_token_id=BOS,
        d_model=128,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
    ),
)

MIN_WORDS = 2
MAX_RATIO = 2.5  # of the characters of both sides

_BULLET = re.compile(r"^\s+[*+o•-]+\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-ZÀ-Ý\"(])")


def fetch() -> dict[str, str]:
    """The indices that the set is made of, by language."""
    return fetch_indices(LANGUAGES)


def segments(body: Iterable[str]) -> list[str]:
    """Paragraphs and list items of a description, each on one line."""
    parts: list[list[str]] = [[]]
    for line in body:
        if line.strip() == ".":
            parts.append([])
        elif _BULLET.match(line):
            parts.append([_BULLET.sub("", line)])
        else:
            parts[-1].append(line)
    return [text for text in (" ".join(" ".join(part).split()) for part in parts) if text]


def aligned(english: Stanza, italian: Stanza) -> Iterator[tuple[str, str]]:
    """Pairs of a text and its translation."""
    yield english.synopsis, italian.synopsis
    sources, targets = segments(english.body), segments(italian.body)
    if len(sources) != len(targets):
        return
    for source, target in zip(sources, targets, strict=True):
        parts = _SENTENCE_END.split(source), _SENTENCE_END.split(target)
        if len(parts[0]) == len(parts[1]):
            yield from zip(*parts, strict=True)
        else:
            yield source, target


def tidy(source: str, target: str) -> tuple[str, str]:
    """The pair without the marks that only list items end with, and with a full stop on both sides or on none."""
    source, target = source.rstrip(" ;,"), target.rstrip(" ;,")
    if source.endswith(".") != target.endswith("."):
        source, target = source.rstrip("."), target.rstrip(".")
    return source, target


def is_translation(source: str, target: str) -> bool:
    """Whether the pair has words to translate and sides of like lengths."""
    words = re.findall(r"[^\W\d_]{2,}", source)
    ratio = len(target) / max(1, len(source))
    return len(words) >= MIN_WORDS and source != target and 1 / MAX_RATIO <= ratio <= MAX_RATIO


def collect(indices: Mapping[str, str]) -> list[Document]:
    """Documents in order of package name; a source text stands in the first that has it, whatever its case."""
    italian = {(s.package, s.checksum): s for s in parse_index(indices["it"], "it")}
    stanzas = sorted(parse_index(indices["en"]), key=lambda s: (s.package, s.checksum))
    seen: set[str] = set()
    documents = []
    for stanza in stanzas:
        translation = italian.get((stanza.package, stanza.checksum))
        if translation is not None:
            examples = list(_new_rows(stanza, translation, seen))
            documents.append(_document(stanza, examples))
    return [document for document in documents if document.examples]


def _document(stanza: Stanza, examples: Sequence[Example]) -> Document:
    return Document(package=stanza.package, paragraphs=stanza.paragraphs or [stanza.synopsis], examples=list(examples))


def _new_rows(english: Stanza, italian: Stanza, seen: set[str]) -> Iterator[Example]:
    for pair in aligned(english, italian):
        source, target = tidy(*pair)
        key = source.casefold().rstrip(".")
        if key not in seen and is_translation(source, target):
            seen.add(key)
            yield Example(package=english.package, source=source, target=target)
