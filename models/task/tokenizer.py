"""Tokenizers: made here with BART's special token ids, or those of a checkpoint; and texts as ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.models import prepare
from ternbin.storage import replacing

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BOS, PAD, EOS, UNK, MASK = range(5)
TOKENIZER_FILE = "tokenizer.json"


def train_tokenizer(texts: Iterable[str], path: Path, vocab: int, *, opens: bool = True, units: str = "pieces") -> None:
    """Write a tokenizer of at most `vocab` tokens: a byte-level BPE, or with `units` "characters" one a character.

    It encodes as ``<s> ... </s>``, or ``... </s>`` where it does not open.
    """
    from tokenizers import processors

    tokenizer = _characters(texts, vocab) if units == "characters" else _pieces(texts, vocab)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if opens else "$A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    with replacing(path) as fresh:
        tokenizer.save(str(fresh))


def _characters(texts: Iterable[str], vocab: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    often = Counter(character for text in texts for character in text).most_common(vocab - len(SPECIAL_TOKENS))
    known = [*SPECIAL_TOKENS, *sorted(character for character, _ in often)]
    tokenizer = Tokenizer(models.WordLevel({token: place for place, token in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _pieces(texts: Iterable[str], vocab: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(folder: Path):
    """The ``tokenizer.json`` of `folder` as a :class:`transformers.PreTrainedTokenizerFast`."""
    from transformers import PreTrainedTokenizerFast

    path = prepare.home(folder) / TOKENIZER_FILE
    if not path.exists():
        raise InputError(f"model or data folder must hold {TOKENIZER_FILE}, not {str(folder)!r}")
    bos, pad, eos, unk, mask = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token=bos,
        pad_token=pad,
        eos_token=eos,
        unk_token=unk,
        mask_token=mask,
        clean_up_tokenization_spaces=False,
    )


def tokenizer_in(folder: Path) -> Any:
    """The tokenizer of a checkpoint's folder, of whatever layout, or of a data set's.  Raises InputError where it has none."""
    folder = prepare.home(folder)
    if (folder / TOKENIZER_FILE).exists() and not (folder / "tokenizer_config.json").exists():
        return load_tokenizer(folder)
    found = prepare.load_tokenizer(folder)
    return load_tokenizer(folder) if found is None else found


def cut(ids: Sequence[int], limit: int, tail: int = 1) -> list[int]:
    """`ids` cut to `limit` tokens, the last `tail` ones staying what they are."""
    tail = min(tail, limit)
    return list(ids) if len(ids) <= limit else [*ids[: limit - tail], *ids[len(ids) - tail :]]


def closing(tokenizer: Any) -> int:
    """Special tokens at the end of every encoded text."""
    special = set(tokenizer.all_special_ids)
    ids = encode(tokenizer, ["a"])[0]
    return next((place for place, token in enumerate(reversed(ids)) if token not in special), len(ids))


def encode(tokenizer: Any, texts: Sequence[str], limit: int | None = None, *, target: bool = False) -> list[list[int]]:
    """Token ids of each text, special ones included, cut to `limit` tokens where one is given.

    Those of a `target` end with the first end token, whatever the tokenizer puts behind it.
    """
    if target:
        end = tokenizer.eos_token_id
        encoded = [_ended(ids, end) for ids in tokenizer(text_target=list(texts), verbose=False)["input_ids"]]
    else:
        encoded = tokenizer(list(texts), verbose=False)["input_ids"]
    return encoded if limit is None else [cut(ids, limit) for ids in encoded]


def _ended(ids: list[int], end: int | None) -> list[int]:
    place = ids.index(end, 1) if end in ids[1:] else len(ids) - 1
    return ids[: place + 1]
