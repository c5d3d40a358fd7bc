"""Fields of config.json that Whisper reads, with their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from ternbin.models.fields import MAX_VOCAB, Chance, ModelFields, check_common
from ternbin.schema import Range, validated

Layers = Annotated[int, Range(1, 128)]
Heads = Annotated[int, Range(1, 256)]
Features = Annotated[int, Range(1, 1 << 16)]
Positions = Annotated[int, Range(1, 1 << 12)]


class WhisperFields(ModelFields, total=False):
    vocab_size: Annotated[int, Range(2, MAX_VOCAB)]
    num_mel_bins: Annotated[int, Range(1, 1 << 10)]
    d_model: Annotated[int, Range(2, 1 << 14)]
    encoder_layers: Layers
    decoder_layers: Layers
    encoder_attention_heads: Heads
    decoder_attention_heads: Heads
    encoder_ffn_dim: Features
    decoder_ffn_dim: Features
    max_source_positions: Positions
    max_target_positions: Positions
    activation_function: str
    scale_embedding: bool
    tie_word_embeddings: bool
    init_std: Annotated[float, Range(0, 100)]
    dropout: Chance
    attention_dropout: Chance
    activation_dropout: Chance
    encoder_layerdrop: Chance
    decoder_layerdrop: Chance


def check(values: dict[str, Any], where: str | Path) -> None:
    """Raise InputError for values of a config.json that no model can have."""
    validated(WhisperFields, values, where, unknown=True)
    check_common(values, where, values.get("vocab_size", MAX_VOCAB))
