"""What tells the relatives of BART apart, as data: where LayerNorms stand, what positions are, which tables are shared.

All have the module names of BART.  A family has a Layout; fields of config.json, some of which the library no longer reads, say the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ternbin.errors import InputError

ENCODER_TABLE, DECODER_TABLE, HEAD = "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"
SHARED = "model.shared"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Of a family.

    `pre_norm`: LayerNorms stand before the blocks, and one at the end of each stack.  `embedding_norm`: one follows the embedding.
    `sinusoidal`: positions are sines, which checkpoints may leave out.  `position_offset`: row of position 0.  `tied_apart`: the
    library knows models whose head shares the decoder's table where the encoder has another one.
    """

    pre_norm: bool = False
    embedding_norm: bool = True
    sinusoidal: bool = False
    position_offset: int = 2
    tied_apart: bool = False

    def check(self, config: Any) -> None:
        """Raise InputError for a config whose model is not of this layout."""
        told = {
            "normalize_before": self.pre_norm,
            "add_final_layer_norm": self.pre_norm,
            "static_position_embeddings": self.sinusoidal,
        }
        if not self.embedding_norm:
            told["normalize_embedding"] = False
        for name, value in told.items():
            given = getattr(config, name, value)
            if given is not value:
                raise InputError(
                    f"{name} must be {str(value).lower()} for models of this family, not {str(given).lower()}"
                )
        if config.tie_word_embeddings and not tables_shared(config) and not self.tied_apart:
            raise InputError("share_encoder_decoder_embeddings must be true where tie_word_embeddings is, not false")

    def embeddings_normalized(self, config: Any) -> bool:
        return self.embedding_norm and getattr(config, "normalize_embedding", True)


def target_vocab(config: Any) -> int:
    """Tokens that the decoder knows."""
    return getattr(config, "decoder_vocab_size", None) or config.vocab_size


def tables_shared(config: Any) -> bool:
    """Whether encoder and decoder have one table."""
    shared = getattr(config, "share_encoder_decoder_embeddings", None)
    return bool(config.tie_word_embeddings) if shared is None else shared


def tied(config: Any) -> dict[str, str]:
    """Modules that share the weight of another one, by name."""
    shared = tables_shared(config)
    names = dict.fromkeys((ENCODER_TABLE, DECODER_TABLE), SHARED) if shared else {}
    return names | ({HEAD: SHARED if shared else DECODER_TABLE} if config.tie_word_embeddings else {})


def shared_weights(model: Any) -> dict[str, str]:
    """Parameters of a stock or quantized model that are another one, by name."""
    return dict(model.get_expanded_tied_weights_keys(all_submodels=True))


def vary(model: Any, layout: Layout) -> None:
    """Change a freshly built model of the library to what its config says and the library does not build: no LayerNorm after the embedding,
    a vocabulary of its own for the decoder."""
    config, inner = model.config, model.model
    for stack in (inner.encoder, inner.decoder):
        if layout.embedding_norm and not layout.embeddings_normalized(config):
            stack.layernorm_embedding = nn.Identity()
    vocab, decoder = target_vocab(config), inner.decoder
    if decoder.embed_tokens.num_embeddings == vocab:
        return
    if tables_shared(config):
        raise InputError(
            f"decoder_vocab_size must be {config.vocab_size} where encoder and decoder share a table, not {vocab}"
        )
    old, head = decoder.embed_tokens, nn.Linear(config.d_model, vocab, bias=False)
    options = {"embed_scale": old.embed_scale} if hasattr(old, "embed_scale") else {}
    decoder.embed_tokens = type(old)(vocab, config.d_model, old.padding_idx, **options)
    model.final_logits_bias = nn.Buffer(torch.zeros(1, vocab))
    model.lm_head = head
    if config.tie_word_embeddings:
        head.weight = decoder.embed_tokens.weight


def absent(model: Any, layout: Layout) -> Iterator[tuple[str, torch.Tensor]]:
    """What a checkpoint may leave out, by name, and its values then."""
    yield "final_logits_bias", torch.zeros(1, target_vocab(model.config))
    if layout.sinusoidal:
        for name in ("encoder", "decoder"):
            rows, width = getattr(model.model, name).embed_positions.weight.shape
            yield f"model.{name}.embed_positions.weight", sinusoids(rows, width)


def sinusoids(rows: int, width: int) -> torch.Tensor:
    """Sines in the first half of a row, cosines in the second: float32 [rows, width], the angles of "Attention is all you need"."""
    even, odd = (torch.arange(start, width, 2, dtype=torch.float64) // 2 * 2 / width for start in (0, 1))
    at = torch.arange(rows, dtype=torch.float64)[:, None]
    return torch.cat([torch.sin(at / 10000**even), torch.cos(at / 10000**odd)], dim=1).float()
