"""Whisper with ternary or binary weights and activations, on Hugging Face classes.

The two convolutions, what follows them and the positions run on the host in full precision; their sum, on the grid of the residual
stream, is what the accelerator is given.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoConfig, AutoModelForSpeechSeq2Seq, WhisperConfig, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ternbin.errors import InputError
from ternbin.models.bart.layout import DECODER_TABLE, Layout
from ternbin.models.bart.structure import quantize_layers, quantize_stack
from ternbin.models.config import QuantConfig
from ternbin.models.library import LibraryModel
from ternbin.models.modules import ATTENTION, QuantLinear, activation_of
from ternbin.models.packed import weight_values
from ternbin.models.quantizers import ResidualSite
from ternbin.models.replace import Replacer
from ternbin.models.whisper import fields

LAYOUT = Layout(pre_norm=True, embedding_norm=False, position_offset=0)
SUPPRESSED = -1000.0  # logit of a token that generation_config.json suppresses, before its own


@strict
class QuantWhisperConfig(WhisperConfig):
    """WhisperConfig and `quant`: a QuantConfig as a dict."""

    model_type = "ternbin_whisper"

    quant: dict | None = None


class QuantEncoder(WhisperEncoder):
    """The library's, of any length up to the positions, from the grid of `site` on."""

    site: ResidualSite

    def embedded(self, input_features: Tensor) -> Tensor:
        """Features [B, mel, 2 * S] to the residual stream [B, S, d]: the host's part."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(input_features)))).transpose(1, 2)
        return self.site.saturate(self.site.round(x + self.embed_positions.weight[: x.shape[1]]))

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None, **kwargs) -> BaseModelOutput:
        x = self.embedded(input_features)
        for layer in self.layers:
            x = layer(x, None, **kwargs)
        return BaseModelOutput(last_hidden_state=self.layer_norm(x))


class QuantWhisper(LibraryModel, WhisperForConditionalGeneration):
    """Quantized Whisper; `config.quant` says how, see QuantConfig."""

    config_class = QuantWhisperConfig
    layout = LAYOUT

    @classmethod
    def check_values(cls, values: dict, where: Path) -> None:
        fields.check(values, where)

    def __init__(self, config: QuantWhisperConfig):
        activation_of(config.activation_function)
        if not config.tie_word_embeddings:
            raise InputError("tie_word_embeddings must be true, not false")
        config._attn_implementation = ATTENTION
        super().__init__(config)
        self.model.encoder = QuantEncoder(config)
        self._quantize()
        self.post_init()

    def _quantize(self) -> None:
        """Quantized modules in place of the stock ones, and `sites`."""
        inner, config, replacer = self.model, self.config, Replacer(self.quant_config)
        scale = float(config.d_model**0.5) if config.scale_embedding else 1.0
        encoder: Any = inner.encoder
        encoder.site = replacer.site("encoder.embed")
        quantize_layers(replacer, "encoder", encoder, LAYOUT, config.activation_function, encoder.site)
        quantize_stack(replacer, "decoder", inner.decoder, LAYOUT, config.activation_function, scale)
        for stack in (inner.encoder, inner.decoder):
            for layer in stack.layers:
                for block in ("self_attn", "encoder_attn"):
                    if hasattr(layer, block):
                        getattr(layer, block).scaling = 1.0  # is in the projection now
        self.proj_out = replacer.head(self.proj_out)
        self.sites = replacer.sites
        if self.quant_config.form == "deploy":
            self.set_fracs(self.quant_config.fracs)

    # -- as in the relatives of BART -----------------------------------------------------------

    @property
    def tied(self) -> dict[str, str]:
        return {"proj_out": DECODER_TABLE}

    @property
    def lm_head(self) -> QuantLinear:
        return cast(QuantLinear, self.proj_out)

    @property
    def final_logits_bias(self) -> Tensor:
        """[1, vocabulary]: so low where the generation config suppresses a token that it is never the best."""
        bias = torch.zeros(1, self.config.vocab_size, dtype=self.dtype)
        settings = self.generation_config
        bias[0, list(getattr(settings, "suppress_tokens", None) or ())] = SUPPRESSED
        return bias

    @property
    def prompt_ids(self) -> list[int]:
        """Tokens that are prescribed after the start token."""
        settings: Any = self.generation_config
        forced = getattr(settings, "forced_decoder_ids", None) or getattr(self.config, "forced_decoder_ids", None)
        if forced:
            places = [position for position, token in forced if token is not None]
            if places != list(range(1, len(forced) + 1)):
                raise InputError(f"forced_decoder_ids must be of positions 1, 2 and so on, not {forced!r}")
            return [token for _, token in forced]
        ids = [getattr(settings, "no_timestamps_token_id", None)]
        if getattr(settings, "is_multilingual", False):
            ids = [settings.lang_to_id["<|en|>"], settings.task_to_id["transcribe"], *ids]
        return [token for token in ids if token is not None]


# -- quantizing --------------------------------------------------------------------------------


def quantized_config(config: WhisperConfig, quant: QuantConfig) -> QuantWhisperConfig:
    """The config of a stock Whisper with `quant`."""
    values = config.to_dict()
    for key in ("model_type", "architectures", "transformers_version", "quant"):
        values.pop(key, None)
    return QuantWhisperConfig(**values, quant=asdict(quant))


def quantize_model(stock: WhisperForConditionalGeneration, quant: QuantConfig) -> QuantWhisper:
    """A QuantWhisper with a copy of the weights of a stock model; its steps are set by its first batch."""
    student = QuantWhisper(quantized_config(stock.config, quant))
    missing, unexpected = student.load_state_dict(stock.state_dict(), strict=False)
    strange = [name for name in missing if not name.endswith("alpha")] + list(unexpected)
    if strange:
        raise InputError(f"model to quantize must have the parameters of Whisper, not differ at {strange[0]!r}")
    student.generation_config = stock.generation_config
    return student.train(stock.training)


@torch.no_grad()
def stock_model(model: QuantWhisper) -> WhisperForConditionalGeneration:
    """The stock model in eval mode with the weights of `model`: the latent ones, of a packed model scale times code."""
    values = model.config.to_dict() | {"model_type": "whisper"}
    values.pop("quant", None)
    stock = WhisperForConditionalGeneration(WhisperConfig.from_dict(values))
    state = {name: tensor for name, tensor in model.state_dict().items() if name in stock.state_dict()}
    state |= {f"{name}.weight": weight for name, weight in weight_values(model).items()}
    state["proj_out.weight"] = state[f"{DECODER_TABLE}.weight"]
    stock.load_state_dict(state, strict=True)
    stock.generation_config = model.generation_config
    return stock.eval()


AutoConfig.register(QuantWhisperConfig.model_type, QuantWhisperConfig)
AutoModelForSpeechSeq2Seq.register(QuantWhisperConfig, QuantWhisper)
