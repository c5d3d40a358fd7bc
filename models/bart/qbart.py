"""BART and its relatives with ternary or binary weights and activations, on Hugging Face classes.

`QuantBartForConditionalGeneration`, as others, is the stock model with its linear layers, embeddings, LayerNorms and activation
functions replaced by quantized ones of the same parameter names, and an attention function registered with the
library; `forward`, `generate`, `save_pretrained` and `from_pretrained` work as for the stock class.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)

from ternbin.errors import InputError
from ternbin.models.bart.layout import SHARED, Layout, tables_shared, vary
from ternbin.models.bart.structure import Seq2SeqModel, quantize_modules
from ternbin.models.config import QuantConfig
from ternbin.models.library import LibraryModel
from ternbin.models.modules import ATTENTION, activation_of
from ternbin.models.packed import weight_values

Model = TypeVar("Model", bound="QuantSeq2Seq")


@strict
class QuantBartConfig(BartConfig):
    """BartConfig and `quant`: a QuantConfig as a dict."""

    model_type = "ternbin_bart"

    quant: dict | None = None


class QuantSeq2Seq(Seq2SeqModel, LibraryModel):
    """Mixin before the library's class of a relative of BART; `config.quant` says how it is quantized, see QuantConfig."""

    stock_class: ClassVar[type[PreTrainedModel]]
    _keys_to_ignore_on_load_missing = ["final_logits_bias"]

    def __init__(self, config: Any):
        activation_of(config.activation_function)
        self.layout.check(config)
        config._attn_implementation = ATTENTION
        super().__init__(config)
        vary(self, self.layout)
        quantize_modules(self)
        self.post_init()

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


# -- quantizing --------------------------------------------------------------------------------


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
