"""The modules of a quantized BART or relative, what they are called, and how they take the place of stock ones.

Nothing here needs the library: `qbart.py` has the classes that are its models too, `bare.py` one that is modules alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor, nn

from ternbin.models.bart import fields
from ternbin.models.bart.layout import Layout, tables_shared, tied
from ternbin.models.model import QuantModel
from ternbin.models.modules import (
    Attention,
    FeedForward,
    QuantEmbedding,
    QuantLayerNorm,
    QuantLinear,
    QuantPositions,
)
from ternbin.models.quantizers import ResidualSite
from ternbin.models.replace import Replacer


class Seq2SeqModel(QuantModel):
    """A quantized model with the module names of BART."""

    layout: Layout
    model: Any
    lm_head: nn.Module
    final_logits_bias: Tensor

    @classmethod
    def check_values(cls, values: dict, where: Path) -> None:
        fields.check(values, where)

    @property
    def tied(self) -> dict[str, str]:
        return tied(self.config)


# -- structure, which the library's types do not tell ------------------------------------------


class Layer(Attention, FeedForward, Protocol):
    """A layer of either stack; `encoder_attn` and its norm are the decoder's."""

    self_attn: Attention
    self_attn_layer_norm: QuantLayerNorm
    encoder_attn: Attention
    encoder_attn_layer_norm: QuantLayerNorm
    final_layer_norm: QuantLayerNorm


class Stack(Protocol):
    """Encoder or decoder."""

    embed_tokens: QuantEmbedding
    embed_positions: QuantPositions
    layers: Sequence[Layer]


def embedding_norm(stack: Stack) -> QuantLayerNorm | None:
    """The LayerNorm after the embedding, where there is one."""
    norm = getattr(stack, "layernorm_embedding", None)
    return norm if isinstance(norm, QuantLayerNorm) else None


def final_norm(stack: Stack) -> QuantLayerNorm | None:
    """The LayerNorm at the end of a pre-norm stack."""
    return getattr(stack, "layer_norm", None)


def stacks(model: Seq2SeqModel) -> tuple[Stack, Stack]:
    """Encoder and decoder of a quantized model."""
    return cast(Stack, model.model.encoder), cast(Stack, model.model.decoder)


def head_of(model: Seq2SeqModel) -> QuantLinear:
    """The LM head of a model of the `deploy` form."""
    return cast(QuantLinear, model.lm_head)


# -- quantizing --------------------------------------------------------------------------------


def quantize_modules(model: Seq2SeqModel) -> None:
    """Replace the modules of a freshly built stock model in place and fill `model.sites`."""
    inner, config = model.model, model.config
    replacer = Replacer(model.quant_config)
    scale = float(config.d_model**0.5) if config.scale_embedding else 1.0
    if tables_shared(config):
        inner.shared = replacer.embedding(inner.shared, scale, None)
    elif hasattr(inner, "shared"):
        del inner.shared
    for name in ("encoder", "decoder"):
        quantize_stack(replacer, name, getattr(inner, name), model.layout, config.activation_function, scale)
    model.lm_head = replacer.head(cast(nn.Linear, model.lm_head))
    model.sites = replacer.sites
    if model.quant_config.form == "deploy":
        model.set_fracs(model.quant_config.fracs)


def quantize_stack(
    replacer: Replacer, name: str, stack: Any, layout: Layout, activation: str, embed_scale: float
) -> None:
    """The encoder or the decoder: embeddings, then its layers."""
    stream = replacer.site(f"{name}.embed")
    stack.embed_tokens = replacer.embedding(stack.embed_tokens, embed_scale, stream)
    if hasattr(stack, "embed_scale"):  # the embedding has it now
        stack.embed_scale = 1.0
    stack.embed_positions = replacer.positions(stack.embed_positions, layout.position_offset, stream)
    if isinstance(getattr(stack, "layernorm_embedding", None), nn.LayerNorm):
        site = replacer.site(f"{name}.layernorm_embedding")
        stack.layernorm_embedding = replacer.norm(stack.layernorm_embedding, stream, site)
        stream = site
    quantize_layers(replacer, name, stack, layout, activation, stream)


def quantize_layers(
    replacer: Replacer, name: str, stack: Any, layout: Layout, activation: str, stream: ResidualSite
) -> None:
    """Per layer its blocks and their LayerNorms; `stream` is what the first reads.

    Where LayerNorms stand before the blocks, all blocks write to one site, whose grid has room for what they add up to.
    """
    for index, layer in enumerate(stack.layers):
        for block in ("self_attn", "encoder_attn", "final"):
            norm = f"{block}_layer_norm"
            if not hasattr(layer, norm):
                continue
            if block == "final":
                replacer.feed_forward(layer, activation, stream)
            else:
                replacer.attention(getattr(layer, block), stream)
            site = replacer.site(f"{name}.layers.{index}.{norm}")
            setattr(layer, norm, replacer.norm(getattr(layer, norm), stream, site, beside=layout.pre_norm))
            stream = stream if layout.pre_norm else site
    if layout.pre_norm:
        stack.layer_norm = replacer.norm(stack.layer_norm, stream, replacer.site(f"{name}.layer_norm"))
