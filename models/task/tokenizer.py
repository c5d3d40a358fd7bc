"""Byte-level BPE tokenizers with BART's special token ids, and texts as ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ternbin.errors import InputError

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BOS, PAD, EOS, UNK, MASK = range(5)
TOKENIZER_FILE = "tokenizer.json"


def train_tokenizer(texts: Iterable[str], path: Path, vocab: int, *, opens: bool = True) -> None:
    """Write a byte-level BPE of `vocab` tokens; it encodes as ``<s> ... </s>``, or ``... </s>`` where it does not open."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

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
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if opens else "$A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    tokenizer.save(str(path))


def load_tokenizer(folder: Path):
    """The ``tokenizer.json`` of `folder` as a :class:`transformers.PreTrainedTokenizerFast`."""
    from transformers import PreTrainedTokenizerFast

    path = Path(folder) / TOKENIZER_FILE
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


def cut(ids: Sequence[int], limit: int) -> list[int]:
    """`ids` cut to `limit` tokens, the last one staying ``</s>``."""
    return list(ids) if len(ids) <= limit else [*ids[: limit - 1], EOS]


def encode(tokenizer, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
    """Token ids of each text, special ones included, cut to `limit` tokens where one is given."""
    encoded = tokenizer(list(texts))["input_ids"]
    return encoded if limit is None else [cut(ids, limit) for ids in encoded]
