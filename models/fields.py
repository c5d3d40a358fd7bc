"""Fields of checkpoint files that are read whatever the family, with their bounds.  Others go to the library as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import TypedDict

from ternbin.errors import InputError
from ternbin.models.config import QuantConfig
from ternbin.schema import Number, Range

MAX_VOCAB = 1 << 20

TokenId = Annotated[int, Range(0, MAX_VOCAB - 1)]
Chance = Annotated[float, Range(0, 1)]
Length = Annotated[int, Range(0, 1 << 20)]


class TokenIds(TypedDict, total=False):
    """Of config.json and generation_config.json."""

    bos_token_id: TokenId | None
    pad_token_id: TokenId | None
    eos_token_id: TokenId | list[TokenId] | None
    decoder_start_token_id: TokenId | list[TokenId] | None
    forced_bos_token_id: TokenId | None
    forced_eos_token_id: TokenId | list[TokenId] | None


class GenerationFields(TokenIds, total=False):
    """Of generation_config.json, and of older config.json files."""

    max_length: Length | None
    min_length: Length | None
    max_new_tokens: Length | None
    min_new_tokens: Length | None
    num_beams: Annotated[int, Range(1, 1 << 10)] | None
    no_repeat_ngram_size: Length | None
    length_penalty: Number | None
    repetition_penalty: Annotated[float, Range(above=0)] | None
    early_stopping: bool | Literal["never"] | None
    do_sample: bool | None


class ModelFields(TokenIds, total=False):
    """Of config.json."""

    model_type: str
    dtype: Literal["float32", "float16", "bfloat16", "float64"] | None
    torch_dtype: Literal["float32", "float16", "bfloat16", "float64"] | None
    quant: dict[str, object] | None


class IndexFields(TypedDict):
    """Of model.safetensors.index.json."""

    weight_map: dict[str, str]


def check_common(values: dict[str, Any], where: str | Path, vocab: int) -> None:
    """Raise InputError for token ids of a config.json that are not below `vocab`, and for a `quant` that is none."""
    for name in TokenIds.__annotations__:
        given = values.get(name)
        highest = max(given, default=0) if isinstance(given, list) else given or 0
        if highest >= vocab:
            raise InputError(f"{where}: {name} must be below vocab_size ({vocab}), not {highest}")
    try:
        QuantConfig.from_dict(values.get("quant") or {})
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
