"""Splits that near-duplicate texts never cross.

Near-duplicate documents (``foo-dev``, ``foo-doc``, ...) form families; a family stays in one split and gives at most
:data:`FAMILY_CAP` documents.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ternbin.errors import InputError
from ternbin.models.task.data import SPLITS, Example

FAMILY_CAP = 4

_PERMUTATIONS = 64
_BAND_ROWS = 4
_SAME_FAMILY = 0.5
_MERSENNE = (1 << 61) - 1


@dataclass(frozen=True, kw_only=True)
class Document:
    """What stays together: the rows made of one package's description, and the paragraphs that tell its family."""

    package: str
    paragraphs: list[str]
    examples: list[Example]


# -- families ----------------------------------------------------------------------------------


def minhash(text: str, multipliers: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """MinHash signature (uint64, one value a permutation) of the word trigrams of `text`."""
    words = re.findall(r"\w+", text.lower())
    shingles = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    hashes = np.array([zlib.crc32(shingle.encode()) for shingle in sorted(shingles)], dtype=np.uint64)
    return ((hashes[:, None] * multipliers + offsets) % np.uint64(_MERSENNE)).min(axis=0)


def find_families(documents: Sequence[Sequence[str]], seed: int = 0) -> list[int]:
    """Family number of every document (a list of paragraphs).

    Two documents are related when their first paragraphs are equal, or when they share a band of
    the MinHash signature and the estimated Jaccard index is at least 0.5; families are the
    transitive closure.
    """
    generator = np.random.default_rng(seed)
    multipliers = generator.integers(1, 1 << 29, _PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = generator.integers(0, 1 << 60, _PERMUTATIONS, dtype=np.uint64)
    signatures = np.stack([minhash(" ".join(paragraphs), multipliers, offsets) for paragraphs in documents])
    parent = list(range(len(documents)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    leaders: dict[object, int] = {}
    for i, paragraphs in enumerate(documents):
        j = leaders.setdefault(paragraphs[0].lower(), i)
        parent[find(i)] = find(j)
    for start in range(0, _PERMUTATIONS, _BAND_ROWS):
        buckets: dict[bytes, int] = {}
        for i, key in enumerate(signatures[:, start : start + _BAND_ROWS]):
            j = buckets.setdefault(key.tobytes(), i)
            if i != j and (signatures[i] == signatures[j]).mean() >= _SAME_FAMILY:
                parent[find(i)] = find(j)
    return [find(i) for i in range(len(documents))]


# -- splits ------------------------------------------------------------------------------------


def split_by_family(
    documents: Sequence[Document], seed: int = 0, validation: int = 500, test: int = 1000
) -> dict[str, list[Example]]:
    """Shuffle whole families into `test` rows, `validation` rows and the rest to train, at most 4 documents of each."""
    families: dict[int, list[Document]] = {}
    for document, family in zip(documents, find_families([d.paragraphs for d in documents], seed), strict=True):
        families.setdefault(family, []).append(document)
    rng = random.Random(seed)
    groups = [sorted(rng.sample(g, min(len(g), FAMILY_CAP)), key=lambda d: d.package) for g in families.values()]
    rng.shuffle(groups)
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for group in groups:
        rows = [example for document in group for example in document.examples]
        if len(splits["test"]) < test:
            splits["test"] += rows[: test - len(splits["test"])]
        elif len(splits["validation"]) < validation:
            splits["validation"] += rows[: validation - len(splits["validation"])]
        else:
            splits["train"] += rows
    return splits


def split_by_package(
    documents: Sequence[Document], seed: int = 0, validation: int = 500, test: int = 1000
) -> dict[str, list[Example]]:
    """Shuffle documents into `test` rows, `validation` rows and the rest to train."""
    order = list(documents)
    random.Random(seed).shuffle(order)
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for document in order:
        held = next(
            (name for name, most in (("test", test), ("validation", validation)) if len(splits[name]) < most), "train"
        )
        splits[held] += document.examples
    return splits


def split_by_text(examples: Sequence[Example], seed: int = 0) -> dict[str, list[Example]]:
    """A tenth of the rows to test and a twentieth to validation, at most 1,000 and 500, the rest to train.

    Rows of the same source, whatever its case, stay together.  Raises InputError for fewer than three different sources.
    """
    documents: dict[str, Document] = {}
    for example in examples:
        key = example.source.casefold()
        documents.setdefault(key, Document(package=key, paragraphs=[], examples=[])).examples.append(example)
    if len(documents) < len(SPLITS):
        raise InputError(
            f"data of one file must have at least {len(SPLITS)} different sources to be split, not {len(documents)}"
        )
    rows = len(documents)
    held = {"validation": min(500, max(1, rows // 20)), "test": min(1000, max(1, rows // 10))}
    return split_by_package(list(documents.values()), seed, **held)


def split_by_name(documents: Iterable[Document], names: Mapping[str, Sequence[str]]) -> dict[str, list[Example]]:
    """Splits with the packages that `names` lists; packages that left the index are left out."""
    by_package: dict[str, list[Example]] = {}
    for document in documents:
        by_package.setdefault(document.package, document.examples)
    return {split: [row for name in names[split] for row in by_package.get(name, ())] for split in SPLITS}


def names_of(splits: Mapping[str, Sequence[Example]]) -> dict[str, list[str]]:
    """The packages of each split, each once, in order."""
    return {split: list(dict.fromkeys(e.package for e in examples)) for split, examples in splits.items()}
