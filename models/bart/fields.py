"""Fields of config.json that BART and its relatives read, with their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from ternbin.errors import InputError
from ternbin.models.fields import MAX_VOCAB, Chance, ModelFields, check_common
from ternbin.schema import Range, validated

MAX_POSITION_VALUES = 1 << 26  # of a table of positions

Layers = Annotated[int, Range(1, 128)]
Heads = Annotated[int, Range(1, 256)]
Features = Annotated[int, Range(1, 1 << 16)]
Tokens = Annotated[int, Range(2, MAX_VOCAB)]


class Seq2SeqFields(ModelFields, total=False):
    vocab_size: Tokens
    decoder_vocab_size: Tokens | None
    d_model: Annotated[int, Range(1, 1 << 14)]
    encoder_layers: Layers
    decoder_layers: Layers
    encoder_attention_heads: Heads
    decoder_attention_heads: Heads
    encoder_ffn_dim: Features
    decoder_ffn_dim: Features
    max_position_embeddings: Annotated[int, Range(1, 1 << 16)]
    activation_function: str
    scale_embedding: bool
    tie_word_embeddings: bool
    share_encoder_decoder_embeddings: bool
    normalize_before: bool
    normalize_embedding: bool
    add_final_layer_norm: bool
    static_position_embeddings: bool
    init_std: Annotated[float, Range(0, 100)]
    dropout: Chance
    attention_dropout: Chance
    activation_dropout: Chance
    encoder_layerdrop: Chance
    decoder_layerdrop: Chance


def check(values: dict[str, Any], where: str | Path) -> None:
    """Raise InputError for values of a config.json that no model can have."""
    validated(Seq2SeqFields, values, where, unknown=True)
    vocab = min(values.get("vocab_size", MAX_VOCAB), values.get("decoder_vocab_size") or MAX_VOCAB)
    check_common(values, where, vocab)
    table = values.get("max_position_embeddings", 1) * values.get("d_model", 1)
    if table > MAX_POSITION_VALUES:
        raise InputError(
            f"{where}: max_position_embeddings times d_model must be at most {MAX_POSITION_VALUES}, not {table}"
        )
