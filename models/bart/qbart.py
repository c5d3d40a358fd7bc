"""BART and its relatives with ternary or binary weights and activations, on Hugging Face classes.

`QuantBartForConditionalGeneration`, as others, is the stock model with its linear layers, embeddings, LayerNorms and activation
functions replaced by quantized ones of the same parameter names, and an attention function registered with the
library; `forward`, `generate`, `save_pretrained` and `from_pretrained` work as for the stock class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)

from ternbin.errors import InputError
from ternbin.models.bart import fields
from ternbin.models.bart.layout import SHARED, Layout, tables_shared, tied, vary
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
from ternbin.models.packed import PackedModel, weight_values
from ternbin.models.quantizers import ResidualSite
from ternbin.models.replace import Replacer

Model = TypeVar("Model", bound="QuantSeq2Seq")


@strict
class QuantBartConfig(BartConfig):
    """BartConfig and `quant`: a QuantConfig as a dict."""

    model_type = "ternbin_bart"

    quant: dict | None = None


class QuantSeq2Seq(PackedModel):
    """Mixin before the library's class of a relative of BART; `config.quant` says how it is quantized, see QuantConfig."""

    stock_class: ClassVar[type[PreTrainedModel]]
    layout: ClassVar[Layout]
    model: Any
    lm_head: nn.Module
    final_logits_bias: Tensor
    _keys_to_ignore_on_load_missing = ["final_logits_bias"]

    def __init__(self, config: Any):
        activation_of(config.activation_function)
        self.layout.check(config)
        config._attn_implementation = ATTENTION
        super().__init__(config)
        vary(self, self.layout)
        quantize_modules(self)
        self.post_init()

    @classmethod
    def check_values(cls, values: dict, where: Path) -> None:
        fields.check(values, where)

    @property
    def tied(self) -> dict[str, str]:
        return tied(self.config)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict:
        """As the library's, which knows of none where the head is not tied."""
        return {f"{name}.weight": f"{owner}.weight" for name, owner in self.tied.items()}

    def get_input_embeddings(self) -> nn.Module:
        return self.model.encoder.embed_tokens


class QuantBartForConditionalGeneration(QuantSeq2Seq, BartForConditionalGeneration):
    """Quantized BART."""

    config_class = QuantBartConfig
    stock_class = BartForConditionalGeneration
    layout = Layout()


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


def stacks(model: QuantSeq2Seq) -> tuple[Stack, Stack]:
    """Encoder and decoder of a quantized model."""
    return cast(Stack, model.model.encoder), cast(Stack, model.model.decoder)


def head_of(model: QuantSeq2Seq) -> QuantLinear:
    """The LM head of a model of the `deploy` form."""
    return cast(QuantLinear, model.lm_head)


# -- quantizing --------------------------------------------------------------------------------


def quantize_modules(model: QuantSeq2Seq) -> None:
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


def quantized_config(cls: type[QuantSeq2Seq], config: PreTrainedConfig, quant: QuantConfig) -> Any:
    """The config of a stock model with `quant`, for models of class `cls`."""
    values = config.to_dict()
    for key in ("model_type", "architectures", "transformers_version", "quant"):
        values.pop(key, None)
    return config_class(cls)(**values, quant=asdict(quant))


def config_class(cls: type[PreTrainedModel]) -> Any:
    """The class of the config of models of class `cls`."""
    if cls.config_class is None:
        raise TypeError(f"{cls.__name__} must say its config_class")
    return cls.config_class


def quantize(cls: type[Model], model: PreTrainedModel, quant: QuantConfig) -> Model:
    """A `cls` with a copy of the weights of stock `model`; steps are set by its first batch.

    Call `ternbin.models.calibrate.calibrate` next to put the residual stream on its grids.
    """
    if not isinstance(model, cls.stock_class):
        raise InputError(f"model to quantize must be a {cls.stock_class.__name__}, not {type(model).__name__}")
    student = cls(quantized_config(cls, model.config, quant))
    state = model.state_dict()
    if not tables_shared(student.config):
        state.pop(f"{SHARED}.weight", None)
    missing, unexpected = student.load_state_dict(state, strict=False)
    strange = [name for name in missing if not name.endswith("alpha")] + list(unexpected)
    if strange:
        raise InputError(f"model to quantize must have the parameters of its family, not differ at {strange[0]!r}")
    student.generation_config = model.generation_config
    return student.train(model.training)


def quantize_model(
    model: BartForConditionalGeneration, quant: QuantConfig | None = None
) -> QuantBartForConditionalGeneration:
    """As `quantize`, of a BART."""
    return quantize(QuantBartForConditionalGeneration, model, quant or QuantConfig())


def build_stock(cls: type[QuantSeq2Seq], config: Any) -> Any:
    """A freshly built stock model, of what the library or the config makes of it."""
    cls.layout.check(config)
    model = cls.stock_class(config)
    vary(model, cls.layout)
    return model


@torch.no_grad()
def stock_model(model: QuantSeq2Seq) -> Any:
    """The stock model with the weights of `model`: the latent ones, of a packed model scale times code."""
    config = config_class(model.stock_class)
    values = model.config.to_dict() | {"model_type": config.model_type}
    values.pop("quant", None)
    stock = build_stock(type(model), config.from_dict(values)).eval()
    weights = weight_values(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name in stock.state_dict()}
    state |= {f"{name}.weight": weight for name, weight in weights.items()}
    state |= {f"{name}.weight": weights[owner] for name, owner in model.tied.items()}
    stock.load_state_dict(state, strict=False)
    stock.generation_config = model.generation_config
    return stock


AutoConfig.register(QuantBartConfig.model_type, QuantBartConfig)
AutoModelForSeq2SeqLM.register(QuantBartConfig, QuantBartForConditionalGeneration)
