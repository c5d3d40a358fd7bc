"""The set ``misaki``: English word -> its phonemes, the hand-checked US words of the package misaki (Apache-2.0)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from ternbin.errors import MissingToolError
from ternbin.models.task.data import Example
from ternbin.models.task.splits import Document, split_by_package
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import EOS
from ternbin.schema import DATA_BYTES, read_text

SPLIT = split_by_package
FILE = "data/us_gold.json"

TASK = Task(
    name="misaki",
    about="English words to phonemes",
    metric="exact",
    max_source=24,
    max_target=28,
    longer="drop",
    vocab=128,
    units="characters",
    teacher=dict(
        model_type="bart",
        decoder_start_token_id=EOS,
        d_model=128,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_position_embeddings=64,
    ),
)


def fetch() -> dict[str, str]:
    """The word list of the installed package.  Raises MissingToolError where it is not installed."""
    found = importlib.util.find_spec("misaki")
    if found is None or not found.submodule_search_locations:
        raise MissingToolError("misaki must be installed for its word list: pip install 'ternbin[train]'")
    return {FILE: read_text(Path(found.submodule_search_locations[0]) / FILE, DATA_BYTES)}


def collect(raw: Mapping[str, str]) -> list[Document]:
    """A document a word of letters, those that differ in case only as one; of a word that is said in several ways, the usual one."""
    documents: dict[str, Document] = {}
    for word, said in sorted(json.loads(raw[FILE]).items()):
        phonemes = said.get("DEFAULT") if isinstance(said, dict) else said
        if word.isalpha() and not word.isupper() and phonemes:
            key = word.casefold()
            document = documents.setdefault(key, Document(package=key, paragraphs=[key], examples=[]))
            document.examples.append(Example(package=key, source=word, target=phonemes))
    return list(documents.values())
