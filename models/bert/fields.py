"""Fields of config.json that BERT reads, with their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from ternbin.models.fields import MAX_VOCAB, Chance, ModelFields, check_common
from ternbin.schema import Range, validated


class BertFields(ModelFields, total=False):
    vocab_size: Annotated[int, Range(2, MAX_VOCAB)]
    hidden_size: Annotated[int, Range(1, 1 << 14)]
    num_hidden_layers: Annotated[int, Range(1, 128)]
    num_attention_heads: Annotated[int, Range(1, 256)]
    intermediate_size: Annotated[int, Range(1, 1 << 16)]
    max_position_embeddings: Annotated[int, Range(1, 1 << 14)]
    type_vocab_size: Annotated[int, Range(1, 16)]
    hidden_act: str
    layer_norm_eps: Annotated[float, Range(0, 1)]
    initializer_range: Annotated[float, Range(0, 100)]
    hidden_dropout_prob: Chance
    attention_probs_dropout_prob: Chance
    position_embedding_type: Literal["absolute"]
    is_decoder: Literal[False]
    add_cross_attention: Literal[False]
    head: Literal["embedding", "label"]
    pooling: Literal["mean", "cls", "pooler"]
    normalize: bool


def check(values: dict[str, Any], where: str | Path) -> None:
    """Raise InputError for values of a config.json that no model can have."""
    validated(BertFields, values, where, unknown=True)
    check_common(values, where, values.get("vocab_size", MAX_VOCAB))
