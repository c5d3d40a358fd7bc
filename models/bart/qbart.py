"""BART with ternary or binary weights and activations, on Hugging Face classes.

`QuantBartForConditionalGeneration` is the stock model with its linear layers, embeddings, LayerNorms and activation
functions replaced by quantized ones of the same parameter names, and an attention function registered with the
library; `forward`, `generate`, `save_pretrained` and `from_pretrained` work as for the stock class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol, cast

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BartConfig, BartForConditionalGeneration

from ternbin.errors import InputError
from ternbin.models.config import QuantConfig
from ternbin.models.modules import (
    ATTENTION,
    Attention,
    FeedForward,
    QuantEmbedding,
    QuantLayerNorm,
    QuantLinear,
    QuantPositions,
    activation_of,
)
from ternbin.models.packed import PackedModel, stored_weights
from ternbin.models.replace import Replacer

SHARED = "model.shared"


@strict
class QuantBartConfig(BartConfig):
    """BartConfig and `quant`: a QuantConfig as a dict."""

    model_type = "ternbin_bart"

    quant: dict | None = None


class QuantBartForConditionalGeneration(PackedModel, BartForConditionalGeneration):
    """Quantized BART; `config.quant` says how, see QuantConfig."""

    config_class = QuantBartConfig
    tied = dict.fromkeys(("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"), SHARED)
    _keys_to_ignore_on_load_missing = ["final_logits_bias"]

    def __init__(self, config: QuantBartConfig):
        activation_of(config.activation_function)
        if not config.tie_word_embeddings:
            raise InputError("tie_word_embeddings must be true, not false")
        config._attn_implementation = ATTENTION
        super().__init__(config)
        quantize_modules(self)
        self.post_init()


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
    layernorm_embedding: QuantLayerNorm
    layers: Sequence[Layer]


def stacks(model: QuantBartForConditionalGeneration) -> tuple[Stack, Stack]:
    """Encoder and decoder of a quantized model."""
    return cast(Stack, model.model.encoder), cast(Stack, model.model.decoder)


def head_of(model: QuantBartForConditionalGeneration) -> QuantLinear:
    """The LM head of a model of the `deploy` form."""
    return cast(QuantLinear, model.lm_head)


# -- quantizing --------------------------------------------------------------------------------


def quantize_modules(model: QuantBartForConditionalGeneration) -> None:
    """Replace the modules of a freshly built stock model in place and fill `model.sites`."""
    inner: Any = model.model
    replacer = Replacer(model.quant_config)
    inner.shared = replacer.embedding(inner.shared, float(inner.shared.embed_scale), None)
    _quantize_stack(replacer, "encoder", inner.encoder, model.config.activation_function)
    _quantize_stack(replacer, "decoder", inner.decoder, model.config.activation_function)
    model.lm_head = replacer.head(model.lm_head)
    model.sites = replacer.sites
    if model.quant_config.form == "deploy":
        model.set_fracs(model.quant_config.fracs)


def _quantize_stack(replacer: Replacer, name: str, stack: Any, activation: str) -> None:
    """The encoder or the decoder: embeddings, then per layer its blocks and their LayerNorms."""
    source, site = replacer.site(f"{name}.embed"), replacer.site(f"{name}.layernorm_embedding")
    stack.embed_tokens = replacer.embedding(stack.embed_tokens, float(stack.embed_tokens.embed_scale), source)
    stack.embed_positions = replacer.positions(stack.embed_positions, stack.embed_positions.offset, source)
    stack.layernorm_embedding = replacer.norm(stack.layernorm_embedding, source, site)
    for index, layer in enumerate(stack.layers):
        for block in ("self_attn", "encoder_attn", "final"):
            norm = f"{block}_layer_norm"
            if not hasattr(layer, norm):
                continue
            if block == "final":
                replacer.feed_forward(layer, activation, site)
            else:
                replacer.attention(getattr(layer, block), site)
            after = replacer.site(f"{name}.layers.{index}.{norm}")
            setattr(layer, norm, replacer.norm(getattr(layer, norm), site, after))
            site = after


def quantized_config(config: BartConfig, quant: QuantConfig) -> QuantBartConfig:
    """The config of a stock BART with `quant`."""
    values = config.to_dict()
    for key in ("model_type", "architectures", "transformers_version", "quant"):
        values.pop(key, None)
    return QuantBartConfig(**values, quant=asdict(quant))


def quantize_model(
    model: BartForConditionalGeneration, quant: QuantConfig | None = None
) -> QuantBartForConditionalGeneration:
    """A QuantBart with a copy of the weights of stock `model`; steps are set by its first batch.

    Call `ternbin.models.calibrate.calibrate` next to put the residual stream on its grids.
    """
    student = QuantBartForConditionalGeneration(quantized_config(model.config, quant or QuantConfig()))
    missing, unexpected = student.load_state_dict(model.state_dict(), strict=False)
    strange = [name for name in missing if not name.endswith("alpha")] + list(unexpected)
    if strange:
        raise InputError(f"model to quantize must have the parameters of BART, not differ at {strange[0]!r}")
    student.generation_config = model.generation_config
    return student.train(model.training)


@torch.no_grad()
def stock_model(model: QuantBartForConditionalGeneration) -> BartForConditionalGeneration:
    """The stock BART with the weights of `model`: the latent ones, of a packed model scale times code."""
    config = BartConfig.from_dict(model.config.to_dict() | {"model_type": "bart"})
    stock = BartForConditionalGeneration(config).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if name in stock.state_dict()}
    state |= {f"{name}.weight": module.quantized_weight() for name, module in stored_weights(model).items()}
    stock.load_state_dict(state, strict=False)
    stock.tie_weights()
    stock.generation_config = model.generation_config
    return stock


AutoConfig.register(QuantBartConfig.model_type, QuantBartConfig)
AutoModelForSeq2SeqLM.register(QuantBartConfig, QuantBartForConditionalGeneration)
