"""Puts the quantized modules in the place of the stock ones of a freshly built model; they take over the parameters.

A family says which module is what (see `ternbin.models.bart.qbart.quantize_modules`); how each becomes quantized is here.
"""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from ternbin.graph.fixedpoint import PROBABILITY_STEP
from ternbin.models.config import NONNEGATIVE_KIND, SIGNED_KIND, QuantConfig
from ternbin.models.modules import (
    QuantActivation,
    QuantEmbedding,
    QuantLayerNorm,
    QuantLinear,
    QuantPositions,
    activation_of,
)
from ternbin.models.quantizers import MIN_ALPHA, ActQuantizer, ResidualSite

Module = TypeVar("Module", bound=nn.Module)


class Replacer:
    """The quantized counterparts of stock modules; `sites` collects the residual sites by name.

    A stock module is typed Any where the library gives its attributes no types.
    """

    def __init__(self, quant: QuantConfig):
        self.quant = quant
        self.sites: dict[str, ResidualSite] = {}

    def act(self, kind: str, *, zero: float = 0.0, by_error: bool = False, least: float = MIN_ALPHA) -> ActQuantizer:
        return ActQuantizer(kind, zero=zero, by_error=by_error, form=self.quant.form, least=least)

    def signed(self) -> ActQuantizer:
        return self.act(SIGNED_KIND[self.quant.act_bits])

    def site(self, name: str) -> ResidualSite:
        return self.sites.setdefault(name, ResidualSite(name, self.quant.res_bits))

    def linear(self, old: nn.Linear, x_quant: ActQuantizer, bits: int | None = None) -> QuantLinear:
        """`bits` of its weights, if not those of all others."""
        new = _rebuild(QuantLinear, old, in_features=old.in_features, out_features=old.out_features)
        new.use_quantization(bits or self.quant.weight_bits, self.quant.center_weights)
        new.x_quant = x_quant
        return new

    def embedding(self, old: nn.Embedding, embed_scale: float, site: ResidualSite | None) -> QuantEmbedding:
        """The token embedding; `site` is None where the table is not read itself but shared."""
        shape = dict(num_embeddings=old.num_embeddings, embedding_dim=old.embedding_dim, padding_idx=old.padding_idx)
        new = _rebuild(QuantEmbedding, old, **shape)
        new.use_quantization(self.quant.weight_bits, self.quant.center_weights)
        new.site, new.embed_scale = site or ResidualSite("", self.quant.res_bits), embed_scale
        return new

    def positions(self, old: nn.Embedding, offset: int, site: ResidualSite) -> QuantPositions:
        """Learned positions; `offset` is the row of position 0."""
        new = _rebuild(QuantPositions, old, num_embeddings=old.num_embeddings, embedding_dim=old.embedding_dim)
        new.site, new.offset = site, offset
        return new

    def norm(
        self, old: nn.LayerNorm, source: ResidualSite, site: ResidualSite, *, beside: bool = False
    ) -> QuantLayerNorm:
        """A LayerNorm of the stream at `source`; its result, at `site`, takes the stream's place, or stands `beside` it."""
        new = _rebuild(QuantLayerNorm, old, normalized_shape=old.normalized_shape, eps=old.eps)
        new.source, new.site, new.beside = source, site, beside
        return new

    def attention(self, attn: Any, site: ResidualSite) -> None:
        """In place: the projections q_proj, k_proj, v_proj and out_proj, which writes to the stream at `site`."""
        for name in ("q_proj", "k_proj", "v_proj"):
            projection = self.linear(getattr(attn, name), self.signed())
            projection.y_quant = self.signed()
            setattr(attn, name, projection)
        attn.q_proj.y_scale = attn.head_dim**-0.5
        kind = NONNEGATIVE_KIND[self.quant.act_bits]
        attn.p_quant = self.act(kind, by_error=True, least=PROBABILITY_STEP[kind])
        attn.out_proj = self.linear(attn.out_proj, self.signed())
        attn.out_proj.site = site

    def feed_forward(self, layer: Any, activation: str | None, site: ResidualSite) -> None:
        """In place: fc1, the function `activation`, and fc2, which writes to the stream at `site`."""
        fn, bits = activation_of(activation), self.quant.act_bits
        layer.fc1 = self.linear(layer.fc1, self.signed())
        layer.activation_fn = QuantActivation(fn, self.act("pre8") if fn.smooth and bits == 8 else None)
        layer.fc2 = self.linear(layer.fc2, self.act(NONNEGATIVE_KIND[bits], zero=fn.minimum))
        layer.fc2.site = site

    def head(self, old: nn.Linear) -> nn.Linear:
        """The LM head, which stays as it is in the `paper` form."""
        if self.quant.form == "paper":
            return old
        x_quant = ActQuantizer(SIGNED_KIND[self.quant.head_act_bits], by_error=True)
        return self.linear(old, x_quant, self.quant.head_bits)


def _rebuild(cls: type[Module], old: nn.Module, **arguments) -> Module:
    """A `cls` without storage of its own that takes the parameters of `old`."""
    new = cls(**arguments, device="meta")
    new._parameters.update(old._parameters)
    new.train(old.training)
    return new
