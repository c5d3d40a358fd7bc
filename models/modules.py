"""Quantized counterparts of stock modules: linear layers, embeddings, LayerNorms, activation functions, attention.

They have the parameter names of the modules they replace, whatever the family; `ternbin.models.replace` puts them in place.
The arithmetic is that of docs/numerics.md, in floating point.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS, Activation
from ternbin.graph.ir import code_type
from ternbin.models.config import WEIGHT_KIND
from ternbin.models.quantizers import ActQuantizer, ResidualSite, straight_through, weight_codes

ATTENTION = "ternbin"  # `quant_attention`, as `ternbin.models.library` registers it


# -- weights -----------------------------------------------------------------------------------


class QuantWeight(nn.Module):
    """Mixin of modules whose `weight` is quantized per row.

    A module either has latent `weight` (training) or, once packed, the buffers `codes` (integers, shape of the weight)
    and `row_scale` (rows, 1); the values used in the forward pass are the same.
    """

    bits: int
    center: bool
    codes: Tensor
    row_scale: Tensor
    _cached: tuple[object, Tensor | None]

    def reset_parameters(self) -> None:
        """None are drawn: they come from the module that is replaced."""

    def use_quantization(self, bits: int, center: bool) -> None:
        self.bits, self.center, self._cached = bits, center, (None, None)

    def train(self, mode: bool = True):
        """As the library's; also forgets the kept weight: fused optimisers update without a version."""
        self._cached = (None, None)
        return super().train(mode)

    @property
    def latent(self) -> nn.Parameter | None:
        """The weight itself; None once packed."""
        return self._parameters["weight"]

    @property
    def shape(self) -> torch.Size:
        """[rows, width]."""
        return (self.codes if self.latent is None else self.latent).shape

    @property
    def is_packed(self) -> bool:
        return self.latent is None

    @property
    def value(self) -> Tensor:
        """The weight as a full-precision model has it: the latent one, or once packed scale times code."""
        return self.quantized_weight() if self.latent is None else self.latent

    @property
    def kind(self) -> str:
        """Of the codes."""
        return WEIGHT_KIND[self.bits]

    @torch.no_grad()
    def weight_parts(self) -> tuple[Tensor, Tensor]:
        """Codes (once packed, the integers that are kept; else in the weight's type) and row scales [rows, 1]."""
        latent = self.latent
        if latent is None:
            return self.codes, self.row_scale
        return weight_codes(latent, self.bits, self.center)

    def set_packed(self, codes: Tensor, row_scale: Tensor) -> None:
        """Replace the latent weight by `codes` (integers in any type) and `row_scale` [rows, 1]."""
        self._parameters["weight"] = None
        self.register_buffer("codes", codes.to(code_type(self.kind)))
        self.register_buffer("row_scale", row_scale)

    def quantized_weight(self) -> Tensor:
        """`codes * row_scale`, with the gradient of the latent weight; kept between calls that need no gradient."""
        latent = self.latent
        if latent is not None and torch.is_grad_enabled() and latent.requires_grad:
            codes, scale = self.weight_parts()
            return straight_through(latent, codes * scale)
        source, real = (self.codes, self.row_scale) if latent is None else (latent, latent)
        key = (source.data_ptr(), source._version, source.device, real.dtype)
        kept = self._cached[1]
        if kept is None or self._cached[0] != key:
            codes, scale = self.weight_parts()
            kept = codes * scale
            self._cached = (key, kept)
        return kept


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

    def forward(self, input: Tensor) -> Tensor:
        y = F.linear(self.x_quant(input), self.quantized_weight(), self.bias)
        if self.y_quant is not None:
            return self.y_quant(y * self.y_scale if self.y_scale != 1.0 else y)
        return y if self.site is None else self.site.round(y)

    @property
    def head_quant(self) -> ActQuantizer:
        """The quantizer of the output of a q, k or v projection, which always has one."""
        if self.y_quant is None:
            raise RuntimeError("a projection must have a quantizer of its output to be asked for it")
        return self.y_quant


class QuantEmbedding(QuantWeight, nn.Embedding):
    """Rows of codes times their scales, the scale on the grid of `site`: ids [..] -> [.., d]."""

    embed_scale: float
    site: ResidualSite

    def forward(self, input: Tensor) -> Tensor:
        latent = self.latent
        if latent is None:
            codes, scale = F.embedding(input, self.codes).to(self.row_scale.dtype), F.embedding(input, self.row_scale)
            return codes * self.site.round(scale * self.embed_scale)
        rows = F.embedding(input, latent, self.padding_idx)
        codes, scale = weight_codes(rows.detach(), self.bits, self.center)
        return straight_through(rows * self.embed_scale, codes * self.site.round(scale * self.embed_scale))


# -- the residual stream -----------------------------------------------------------------------


class QuantPositions(nn.Embedding):
    """Positions on the grid of `site`, a row each; same call as the library's classes, some of which are given a shape."""

    offset: int
    site: ResidualSite

    def reset_parameters(self) -> None:
        """As of a QuantWeight."""

    def forward(
        self,
        input: Tensor | tuple[int, ...],
        past_key_values_length: int = 0,
        position_ids: Tensor | None = None,
        cache_length: int = 0,
    ) -> Tensor:
        if position_ids is None:
            length = (input.shape if isinstance(input, Tensor) else input)[1]
            position_ids = torch.arange(length, device=self.weight.device) + past_key_values_length + cache_length
        rows = self.site.round(F.embedding(position_ids + self.offset, self.weight))
        return rows if rows.dim() == 3 else rows.unsqueeze(0)


class QuantLayerNorm(nn.LayerNorm):
    """LayerNorm from the grid of `source` (saturating) to the grid of `site`; where it stands `beside` the stream, the stream saturates
    too."""

    source: ResidualSite
    site: ResidualSite
    beside: bool = False

    def forward(self, input: Tensor) -> Tensor:
        x = self.source.saturate(input, in_place=self.beside)
        y = super().forward(x)
        return self.site.saturate(self.site.round(y))


# -- activation and attention ------------------------------------------------------------------


def activation_of(name: str | None) -> Activation:
    """The activation function of a config.json.  Raises InputError for one that is not in the table."""
    if name not in ACTIVATIONS:
        raise InputError(f"activation_function must be one of {', '.join(ACTIVATIONS)}, not {name!r}")
    return ACTIVATIONS[name]


class QuantActivation(nn.Module):
    """An activation function; in 8-bit models the argument of a smooth one lies on a signed 8-bit grid."""

    def __init__(self, fn: Activation, x_quant: ActQuantizer | None):
        super().__init__()
        self.fn, self.x_quant = fn, x_quant

    def forward(self, x: Tensor) -> Tensor:
        return self.fn.trained(x if self.x_quant is None else self.x_quant(x))


class Attention(Protocol):
    """What an attention block holds once its projections are quantized."""

    q_proj: QuantLinear
    k_proj: QuantLinear
    v_proj: QuantLinear
    out_proj: QuantLinear
    p_quant: ActQuantizer
    embed_dim: int
    head_dim: int
    training: bool


class FeedForward(Protocol):
    """What a layer holds of its feed-forward block once it is quantized."""

    fc1: QuantLinear
    activation_fn: QuantActivation
    fc2: QuantLinear


def quant_attention(
    module: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention on quantized heads [B, heads, T, head_dim]; `head_dim**-0.5` is already inside `query`.

    Returns the context [B, T, heads, head_dim] and the quantized probabilities.
    """
    scores = query @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores + attention_mask
    probs = module.p_quant(F.softmax(scores, dim=-1))
    probs = F.dropout(probs, p=dropout, training=module.training)
    if module.p_quant.kind == "binary_nn":
        context = _exact_product(probs, value, module.p_quant, module.v_proj.head_quant)
    else:
        context = probs @ value
    return context.transpose(1, 2).contiguous(), probs


def _exact_product(probs: Tensor, value: Tensor, p_quant: ActQuantizer, v_quant: ActQuantizer) -> Tensor:
    """`probs @ value` by way of integers.

    A binary context is often exactly 0, whose sign must not depend on the rounding of a sum of equal magnitudes.
    """
    alpha_p, alpha_v = (quantizer.step.detach().clamp_min(quantizer.least) for quantizer in (p_quant, v_quant))
    return ((probs / alpha_p) @ (value / alpha_v)) * (alpha_p * alpha_v)
