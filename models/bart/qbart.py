"""BART with ternary or binary weights and activations, on Hugging Face classes.

`QuantBartForConditionalGeneration` is the stock model with its linear layers, embeddings, LayerNorms and activation
functions replaced by quantized ones of the same parameter names, and an attention function registered with the
library; `forward`, `generate`, `save_pretrained` and `from_pretrained` work as for the stock class.
The arithmetic is that of docs/architecture.md, in floating point.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AttentionInterface, AutoConfig, AutoModelForSeq2SeqLM, BartConfig, BartForConditionalGeneration
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS, Activation
from ternbin.models.quantizers import (
    MIN_ALPHA,
    NONNEGATIVE_KIND,
    SIGNED_KIND,
    ActQuantizer,
    ResidualSite,
    straight_through,
    weight_codes,
)

BITS = {"1-1": (1, 1), "2-2": (2, 2), "1-8": (1, 8), "2-8": (2, 8)}
ATTENTION = "ternbin"


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How a BART is quantized.

    `bits`: weights-activations.  `res_bits`: width of the residual stream.  `fracs`: frac of every residual site
    (`ternbin.models.bart.calibrate`); empty means not calibrated, the stream is then not rounded.  `form`: "deploy" can be
    lowered to integers, "paper" has run-time ranges, no residual grids and a full-precision LM head.
    `center_weights` subtracts the row mean of the weights first.
    """

    bits: str = "2-2"
    head_act_bits: int = 8
    res_bits: int = 16
    form: str = "deploy"
    center_weights: bool = False
    fracs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        if self.bits not in BITS:
            raise InputError(f"bits must be one of {', '.join(BITS)}, not {self.bits!r}")
        if self.form not in ("deploy", "paper"):
            raise InputError(f"form must be 'deploy' or 'paper', not {self.form!r}")
        if self.head_act_bits not in SIGNED_KIND:
            raise InputError(f"head_act_bits must be 1, 2 or 8, not {self.head_act_bits!r}")
        if not (isinstance(self.res_bits, int) and 8 <= self.res_bits <= 20):
            raise InputError(f"res_bits must be 8 to 20, not {self.res_bits!r}")

    @property
    def weight_bits(self) -> int:
        return BITS[self.bits][0]

    @property
    def act_bits(self) -> int:
        return BITS[self.bits][1]

    @classmethod
    def from_dict(cls, values: dict) -> QuantConfig:
        """From the `quant` entry of a config.json."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise InputError(f"quant config must not have the unknown field {sorted(unknown)[0]!r}")
        return cls(**values)


@strict
class QuantBartConfig(BartConfig):
    """BartConfig and `quant`: a QuantConfig as a dict."""

    model_type = "ternbin_bart"

    quant: dict | None = None

    @property
    def quant_config(self) -> QuantConfig:
        return QuantConfig.from_dict(self.quant or {})


# -- modules -----------------------------------------------------------------------------------


class QuantWeight:
    """Mixin of modules whose `weight` is quantized per row.

    A module either has latent `weight` (training) or, once packed, the buffers `codes` (int8, shape of the weight)
    and `row_scale` (rows, 1); the values used in the forward pass are the same.
    """

    bits: int
    center: bool

    def use_quantization(self, bits: int, center: bool) -> None:
        self.bits, self.center, self._cached = bits, center, (None, None)

    def train(self, mode: bool = True):
        """As the library's; also forgets the kept weight: fused optimisers update without a version."""
        self._cached = (None, None)
        return super().train(mode)

    @property
    def is_packed(self) -> bool:
        return self.weight is None

    @torch.no_grad()
    def weight_parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (floating-point integers) and row scales [rows, 1]."""
        if self.is_packed:
            return self.codes.to(self.row_scale.dtype), self.row_scale
        return weight_codes(self.weight, self.bits, self.center)

    def set_packed(self, codes: torch.Tensor, row_scale: torch.Tensor) -> None:
        """Replace the latent weight by int8 `codes` and `row_scale` [rows, 1]."""
        self.weight = None
        self.register_buffer("codes", codes)
        self.register_buffer("row_scale", row_scale)

    def quantized_weight(self) -> torch.Tensor:
        """`codes * row_scale`, with the gradient of the latent weight; kept between calls that need no gradient."""
        source = self.codes if self.is_packed else self.weight
        if torch.is_grad_enabled() and source.requires_grad:
            codes, scale = self.weight_parts()
            return straight_through(self.weight, codes * scale)
        key = (source.data_ptr(), source._version, source.device, (self.row_scale if self.is_packed else source).dtype)
        if self._cached[0] != key:
            codes, scale = self.weight_parts()
            self._cached = (key, codes * scale)
        return self._cached[1]


class QuantLinear(QuantWeight, nn.Linear):
    """`y_quant(y_scale * (W x_quant(x) + b))`, or `round(W x_quant(x) + b)` on the grid of `site`.

    x [.., in] -> [.., out].  `y_quant` and `site` are None where the output stays as it is.
    """

    x_quant: ActQuantizer

    def __init__(self, in_features: int, out_features: int, **options):
        super().__init__(in_features, out_features, **options)
        self.y_quant: ActQuantizer | None = None
        self.y_scale = 1.0
        self.site: ResidualSite | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(self.x_quant(x), self.quantized_weight(), self.bias)
        if self.y_quant is not None:
            return self.y_quant(y * self.y_scale if self.y_scale != 1.0 else y)
        return y if self.site is None else self.site.round(y)


class QuantEmbedding(QuantWeight, nn.Embedding):
    """Rows of codes times their scales, the scale on the grid of `site`: ids [..] -> [.., d]."""

    embed_scale: float
    site: ResidualSite

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.is_packed:
            codes, scale = F.embedding(ids, self.codes).to(self.row_scale.dtype), F.embedding(ids, self.row_scale)
            return codes * self.site.round(scale * self.embed_scale)
        rows = F.embedding(ids, self.weight, self.padding_idx)
        codes, scale = weight_codes(rows.detach(), self.bits, self.center)
        return straight_through(rows * self.embed_scale, codes * self.site.round(scale * self.embed_scale))


class QuantPositions(nn.Embedding):
    """Learned positions on the grid of `site`; same call as the library's class."""

    offset: int
    site: ResidualSite

    def forward(self, input_ids, past_key_values_length: int = 0, position_ids=None):
        if position_ids is None:
            length = input_ids.shape[1]
            position_ids = torch.arange(length, device=self.weight.device) + past_key_values_length
        return self.site.round(F.embedding(position_ids + self.offset, self.weight)).unsqueeze(0)


class QuantLayerNorm(nn.LayerNorm):
    """LayerNorm from the grid of `source` (saturating) to the grid of `site`."""

    source: ResidualSite
    site: ResidualSite

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(self.source.saturate(x))
        return self.site.saturate(self.site.round(y))


class QuantActivation(nn.Module):
    """An activation function; in 8-bit models the argument of a smooth one lies on a signed 8-bit grid."""

    def __init__(self, fn: Activation, x_quant: ActQuantizer | None):
        super().__init__()
        self.fn, self.x_quant = fn, x_quant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fn.trained(x if self.x_quant is None else self.x_quant(x))


def quant_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """Attention on quantized heads [B, heads, T, head_dim]; `head_dim**-0.5` is already inside `query`.

    Returns the context [B, T, heads, head_dim] and the quantized probabilities.
    """
    scores = query @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores + attention_mask
    probs = module.p_quant(F.softmax(scores, dim=-1))
    probs = F.dropout(probs, p=dropout, training=module.training)
    if module.p_quant.kind == "binary_nn":
        context = _exact_product(probs, value, module.p_quant, module.v_proj.y_quant)
    else:
        context = probs @ value
    return context.transpose(1, 2).contiguous(), probs


def _exact_product(probs: torch.Tensor, value: torch.Tensor, p_quant: ActQuantizer, v_quant: ActQuantizer):
    """`probs @ value` by way of integers.

    A binary context is often exactly 0, whose sign must not depend on the rounding of a sum of equal magnitudes.
    """
    alpha_p, alpha_v = (quantizer.alpha.detach().clamp_min(MIN_ALPHA) for quantizer in (p_quant, v_quant))
    return ((probs / alpha_p) @ (value / alpha_v)) * (alpha_p * alpha_v)


AttentionInterface.register(ATTENTION, quant_attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)


# -- the model ---------------------------------------------------------------------------------


class QuantBartForConditionalGeneration(BartForConditionalGeneration):
    """Quantized BART; `config.quant` says how, see QuantConfig."""

    config_class = QuantBartConfig
    _keys_to_ignore_on_load_missing = ["final_logits_bias"]

    def __init__(self, config: QuantBartConfig):
        if config.activation_function not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise InputError(f"activation_function must be one of {known}, not {config.activation_function!r}")
        config._attn_implementation = ATTENTION
        super().__init__(config)
        self.sites: dict[str, ResidualSite] = {}
        quantize_modules(self, config.quant_config)
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, ActQuantizer) and module.alpha is not None:
            nn.init.zeros_(module.alpha)
            module.ready = False

    @property
    def quant_config(self) -> QuantConfig:
        return self.config.quant_config

    @property
    def is_packed(self) -> bool:
        return self.model.shared.is_packed

    def set_fracs(self, fracs: dict[str, int]) -> None:
        """Set the frac of every residual site, in the modules and in the config."""
        if fracs and set(fracs) != set(self.sites):
            wrong = sorted(set(fracs) ^ set(self.sites))[0]
            raise InputError(f"fracs must name exactly the residual sites of the model, not differ at {wrong!r}")
        self.config.quant = asdict(self.quant_config) | {"fracs": dict(fracs)}
        for name, site in self.sites.items():
            site.frac = fracs.get(name)

    def pack(self) -> QuantBartForConditionalGeneration:
        """Replace every latent weight by its codes and row scales, in place; the outputs do not change."""
        packed: dict[nn.Parameter, tuple[torch.Tensor, torch.Tensor]] = {}  # tied weights stay one
        for module in self.modules():
            if isinstance(module, QuantWeight) and not module.is_packed:
                weight = module.weight
                if weight not in packed:
                    codes, row_scale = module.weight_parts()
                    packed[weight] = codes.char(), row_scale
                module.set_packed(*packed[weight])
        return self

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As the library's; a packed model is written by `ternbin.models.bart.checkpoint.save_packed`."""
        if not self.is_packed:
            return super().save_pretrained(save_directory, *args, **kwargs)
        from ternbin.models.bart import checkpoint  # it imports this module

        return checkpoint.save_packed(self, save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As the library's; a folder with a packed checkpoint gives the packed model."""
        from ternbin.models.bart import checkpoint  # it imports this module

        if (Path(pretrained_model_name_or_path) / checkpoint.PACKED_FILE).exists():
            return checkpoint.load_packed(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


def quantize_modules(model: QuantBartForConditionalGeneration, quant: QuantConfig) -> None:
    """Replace the modules of a freshly built stock model in place and fill `model.sites`."""
    builder = _Builder(model, quant)
    model.model.shared = builder.embedding(model.model.shared, None)
    builder.stack("encoder")
    builder.stack("decoder")
    builder.lm_head()
    if quant.form == "deploy":
        model.set_fracs(quant.fracs)


class _Builder:
    """Builds the quantized counterparts of stock modules; they take over the parameters."""

    def __init__(self, model: QuantBartForConditionalGeneration, quant: QuantConfig):
        self.model, self.quant = model, quant

    def act(self, kind: str, **options) -> ActQuantizer:
        return ActQuantizer(kind, form=self.quant.form, **options)

    def signed(self) -> ActQuantizer:
        return self.act(SIGNED_KIND[self.quant.act_bits])

    def site(self, name: str) -> ResidualSite:
        return self.model.sites.setdefault(name, ResidualSite(name, self.quant.res_bits))

    def linear(self, old: nn.Linear, x_quant: ActQuantizer) -> QuantLinear:
        new = _rebuild(QuantLinear, old, in_features=old.in_features, out_features=old.out_features)
        new.use_quantization(self.quant.weight_bits, self.quant.center_weights)
        new.x_quant = x_quant
        return new

    def embedding(self, old: nn.Embedding, site: ResidualSite | None) -> QuantEmbedding:
        shape = dict(num_embeddings=old.num_embeddings, embedding_dim=old.embedding_dim, padding_idx=old.padding_idx)
        new = _rebuild(QuantEmbedding, old, **shape)
        new.use_quantization(self.quant.weight_bits, self.quant.center_weights)
        new.site, new.embed_scale = site or ResidualSite("", self.quant.res_bits), float(old.embed_scale)
        return new

    def norm(self, old: nn.LayerNorm, source: ResidualSite, site: ResidualSite) -> QuantLayerNorm:
        new = _rebuild(QuantLayerNorm, old, normalized_shape=old.normalized_shape, eps=old.eps)
        new.source, new.site = source, site
        return new

    def attention(self, attn: nn.Module, site: ResidualSite) -> None:
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(attn, name, self.linear(getattr(attn, name), self.signed()))
            getattr(attn, name).y_quant = self.signed()
        attn.q_proj.y_scale = attn.head_dim**-0.5
        attn.p_quant = self.act(NONNEGATIVE_KIND[self.quant.act_bits], by_error=True)
        attn.out_proj = self.linear(attn.out_proj, self.signed())
        attn.out_proj.site = site

    def feed_forward(self, layer: nn.Module, site: ResidualSite) -> None:
        fn, bits = ACTIVATIONS[self.model.config.activation_function], self.quant.act_bits
        layer.fc1 = self.linear(layer.fc1, self.signed())
        layer.activation_fn = QuantActivation(fn, self.act("pre8") if fn.smooth and bits == 8 else None)
        layer.fc2 = self.linear(layer.fc2, self.act(NONNEGATIVE_KIND[bits], zero=fn.minimum))
        layer.fc2.site = site

    def stack(self, name: str) -> None:
        """The encoder or the decoder: embeddings, then per layer its blocks and their LayerNorms."""
        stack = getattr(self.model.model, name)
        source = self.site(f"{name}.embed")
        stack.embed_tokens = self.embedding(stack.embed_tokens, source)
        old = stack.embed_positions
        stack.embed_positions = _rebuild(
            QuantPositions, old, num_embeddings=old.num_embeddings, embedding_dim=old.embedding_dim
        )
        stack.embed_positions.site, stack.embed_positions.offset = source, old.offset
        site = self.site(f"{name}.layernorm_embedding")
        stack.layernorm_embedding = self.norm(stack.layernorm_embedding, source, site)
        for index, layer in enumerate(stack.layers):
            for block in ("self_attn", "encoder_attn", "final"):
                norm = f"{block}_layer_norm"
                if not hasattr(layer, norm):
                    continue
                if block == "final":
                    self.feed_forward(layer, site)
                else:
                    self.attention(getattr(layer, block), site)
                after = self.site(f"{name}.layers.{index}.{norm}")
                setattr(layer, norm, self.norm(getattr(layer, norm), site, after))
                site = after

    def lm_head(self) -> None:
        if self.quant.form == "paper":
            return
        kind = SIGNED_KIND[self.quant.head_act_bits]
        self.model.lm_head = self.linear(self.model.lm_head, ActQuantizer(kind, by_error=True))


def _rebuild(cls: type, old: nn.Module, **arguments) -> nn.Module:
    """A `cls` without storage of its own that takes the parameters of `old`."""
    new = cls(**arguments, device="meta")
    new._parameters.update(old._parameters)
    new.train(old.training)
    return new


def quantized_config(config: BartConfig, quant: QuantConfig) -> QuantBartConfig:
    """The config of a stock BART with `quant`."""
    values = config.to_dict()
    for key in ("model_type", "architectures", "transformers_version", "quant"):
        values.pop(key, None)
    return QuantBartConfig(**values, quant=asdict(quant))


def quantize_model(model: BartForConditionalGeneration, quant: QuantConfig | None = None):
    """A QuantBart with a copy of the weights of stock `model`; steps are set by its first batch.

    Call `ternbin.models.bart.calibrate.calibrate` next to put the residual stream on its grids.
    """
    student = QuantBartForConditionalGeneration(quantized_config(model.config, quant or QuantConfig()))
    missing, unexpected = student.load_state_dict(model.state_dict(), strict=False)
    strange = [name for name in missing if not name.endswith("alpha")] + list(unexpected)
    if strange:
        raise InputError(f"model to quantize must have the parameters of BART, not differ at {strange[0]!r}")
    student.generation_config = model.generation_config
    return student.train(model.training)


AutoConfig.register(QuantBartConfig.model_type, QuantBartConfig)
AutoModelForSeq2SeqLM.register(QuantBartConfig, QuantBartForConditionalGeneration)
