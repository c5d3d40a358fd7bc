"""Tokenizers that need no more than `tokenizer.json`, read without the library around them, whose import takes longer than a short run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from ternbin.schema import SETTINGS_BYTES, check_regular, read_json

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
SPECIAL = ("bos_token", "eos_token", "mask_token", "pad_token", "unk_token")
ENDLESS = 1 << 30  # a length that no text has


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Ids of a text or of two, special tokens included, and which text each is of."""

    input_ids: list[int]
    token_type_ids: list[int]


class PlainTokenizer:
    """What a run asks of a tokenizer, called as one of the library."""

    def __init__(self, file: Path):
        self._held = tokenizers.Tokenizer.from_file(str(file))

    def __call__(self, text: str, other: str | None = None, *, max_length: int | None = None, **_: Any) -> Encoded:
        """``max_length``: longer texts are cut, special tokens stay."""
        self._held.no_padding()
        if max_length is None:
            self._held.no_truncation()
        else:
            self._held.enable_truncation(max_length)
        found = self._held.encode(text, other)
        return Encoded(input_ids=found.ids, token_type_ids=found.type_ids)

    def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
        return self._held.decode(ids, skip_special_tokens=skip_special_tokens)

    def special(self) -> set[str]:
        """Special tokens that the file itself names."""
        return {token.content for token in self._held.get_added_tokens_decoder().values() if token.special}


def plain_tokenizer(folder: Path) -> PlainTokenizer | None:
    """The tokenizer of a folder; None where its settings could change what the file says, or where anything is wrong with it, for the
    library to read or to refuse."""
    if {path.name for path in folder.glob("*token*.json")} != {TOKENIZER, SETTINGS}:
        return None
    try:
        check_regular(folder / TOKENIZER)
        settings: Any = read_json(folder / SETTINGS, SETTINGS_BYTES)
        found = PlainTokenizer(folder / TOKENIZER)
        found("a")
        return found if _plain(settings, found.special()) else None
    except Exception:  # the tokenizers library raises bare Exception for a broken file
        return None


def _plain(settings: dict[str, Any], special: set[str]) -> bool:
    left = dict(settings)
    return (
        left.pop("tokenizer_class", None) in CLASSES
        and left.pop("backend", "tokenizers") == "tokenizers"
        and left.pop("clean_up_tokenization_spaces", None) is False
        and left.pop("model_max_length", 0) >= ENDLESS
        and {left.pop(name) for name in SPECIAL if name in left} <= special
        and not left
    )
