"""BERT with ternary or binary weights and activations: an encoder whose result the host reads.

`QuantBert` has the parameters of the stock model under names of its own (`RENAMED` says which), because the library's attention and
feed-forward modules are not shaped as those of the other families.  Pooler and classifier run on the host in full precision.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedModel

from ternbin.errors import InputError
from ternbin.models.bert import fields
from ternbin.models.config import QuantConfig
from ternbin.models.library import LibraryModel
from ternbin.models.modules import QuantLayerNorm, activation_of, quant_attention
from ternbin.models.packed import stored_weights
from ternbin.models.quantizers import ResidualSite
from ternbin.models.replace import Replacer

HEADS = ("embedding", "label")
POOLINGS = ("mean", "cls", "pooler")

# Name in a stock checkpoint (without the prefix `bert.`) and here.
RENAMED = (
    ("embeddings.word_embeddings", "embed_tokens"),
    ("embeddings.position_embeddings", "embed_positions"),
    ("embeddings.token_type_embeddings", "embed_positions.types"),
    ("embeddings.LayerNorm", "layernorm_embedding"),
    ("encoder.layer.{}.attention.self.query", "layers.{}.self_attn.q_proj"),
    ("encoder.layer.{}.attention.self.key", "layers.{}.self_attn.k_proj"),
    ("encoder.layer.{}.attention.self.value", "layers.{}.self_attn.v_proj"),
    ("encoder.layer.{}.attention.output.dense", "layers.{}.self_attn.out_proj"),
    ("encoder.layer.{}.attention.output.LayerNorm", "layers.{}.self_attn_layer_norm"),
    ("encoder.layer.{}.intermediate.dense", "layers.{}.fc1"),
    ("encoder.layer.{}.output.dense", "layers.{}.fc2"),
    ("encoder.layer.{}.output.LayerNorm", "layers.{}.final_layer_norm"),
    ("pooler.dense", "pooler"),
    ("classifier", "classifier"),
)


def renamed(name: str, *, back: bool = False) -> str | None:
    """The name here of a stock parameter, or with `back` the other way round; None for one that this model has not."""
    path, _, leaf = name.rpartition(".")
    number = re.search(r"(?<=\.)\d+(?=\.)", path)
    general = path if number is None else path.replace(number[0], "{}", 1)
    for stock, ours in RENAMED:
        known, wanted = (ours, stock) if back else (stock, ours)
        if general == known:
            return f"{wanted.format(number[0] if number else '')}.{leaf}"
    return None


@strict
class QuantBertConfig(BertConfig):
    """BertConfig and `quant`: a QuantConfig as a dict.

    `head`: what the host makes of the result, one of HEADS; `pooling`, one of POOLINGS, and `normalize` are those of an embedding.
    """

    model_type = "ternbin_bert"

    quant: dict | None = None
    head: str = "embedding"
    pooling: str = "mean"
    normalize: bool = False


# -- modules -----------------------------------------------------------------------------------


class TypedPositions(nn.Embedding):
    """Positions [positions, d] plus token types [types, d], on the grid of `site`: place `type * positions + position` [..] -> [.., d]."""

    types: nn.Embedding
    site: ResidualSite

    def rows(self) -> Tensor:
        """Of every place, not rounded: [types * positions, d]."""
        return (self.types.weight[:, None] + self.weight[None]).flatten(0, 1)

    def forward(self, input: Tensor) -> Tensor:
        position, kind = input % self.num_embeddings, input // self.num_embeddings
        return self.site.round(nn.functional.embedding(position, self.weight) + self.types(kind))


class SelfAttention(nn.Module):
    """The projections of an attention block; `Replacer.attention` quantizes them."""

    p_quant: Any

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.embed_dim, self.head_dim = width, width // heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self: Any, x: Tensor, mask: Tensor | None) -> Tensor:
        """`x` [B, S, d], `mask` [B, 1, 1, S] (added to the scores) to what is added to the stream."""
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        context, _ = quant_attention(self, q, k, v, mask)
        return self.out_proj(context.flatten(-2))


class Layer(nn.Module):
    """Attention and feed-forward, each followed by the LayerNorm of its sum."""

    self_attn: Any
    fc1: Any
    fc2: Any
    activation_fn: Any
    self_attn_layer_norm: QuantLayerNorm
    final_layer_norm: QuantLayerNorm

    @classmethod
    def check_values(cls, values: dict, where: Path) -> None:
        fields.check(values, where)

    def __init__(self, config: QuantBertConfig):
        super().__init__()
        width = config.hidden_size
        self.self_attn = SelfAttention(width, config.num_attention_heads)
        self.fc1, self.fc2 = nn.Linear(width, config.intermediate_size), nn.Linear(config.intermediate_size, width)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            setattr(self, name, nn.LayerNorm(width, eps=config.layer_norm_eps))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x, mask))
        return self.final_layer_norm(x + self.fc2(self.activation_fn(self.fc1(x))))


class QuantBert(LibraryModel, PreTrainedModel):
    """Quantized BERT; `config.quant` says how, see QuantConfig.  `forward` gives the residual stream of the last layer."""

    config_class = QuantBertConfig
    base_model_prefix = ""

    def __init__(self, config: QuantBertConfig):
        _check(config)
        super().__init__(config)
        width = config.hidden_size
        self.embed_tokens: Any = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.embed_positions: Any = TypedPositions(config.max_position_embeddings, width)
        self.embed_positions.types = nn.Embedding(config.type_vocab_size, width)
        self.layernorm_embedding: Any = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layers: Any = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        with_pooler = config.head == "label" or config.pooling == "pooler"
        self.pooler = nn.Linear(width, width) if with_pooler else None
        self.classifier = nn.Linear(width, config.num_labels or 1) if config.head == "label" else None
        self._quantize()
        self.post_init()

    def _quantize(self) -> None:
        """Quantized modules in place of the stock ones, and `sites`."""
        replacer = Replacer(self.quant_config)
        source, site = replacer.site("embed"), replacer.site("layernorm_embedding")
        self.embed_tokens = replacer.embedding(self.embed_tokens, 1.0, source)
        self.embed_positions.site = source
        self.layernorm_embedding = replacer.norm(self.layernorm_embedding, source, site)
        for index, layer in enumerate(self.layers):
            for block in ("self_attn", "final"):
                if block == "final":
                    replacer.feed_forward(layer, self.config.hidden_act, site)
                else:
                    replacer.attention(layer.self_attn, site)
                norm = f"{block}_layer_norm"
                after = replacer.site(f"layers.{index}.{norm}")
                setattr(layer, norm, replacer.norm(getattr(layer, norm), site, after))
                site = after
        self.sites = replacer.sites
        if self.quant_config.form == "deploy":
            self.set_fracs(self.quant_config.fracs)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Ids [B, S], types [B, S] (default: 0), mask [B, S] of 1 and 0 (default: all 1) to [B, S, d]."""
        places = torch.arange(input_ids.shape[-1], device=input_ids.device).expand_as(input_ids)
        if token_type_ids is not None:
            places = places + token_type_ids * self.config.max_position_embeddings
        mask = None
        if attention_mask is not None:
            mask = torch.zeros_like(attention_mask, dtype=self.dtype).masked_fill(attention_mask == 0, -torch.inf)
            mask = mask[:, None, None]
        x = self.layernorm_embedding(self.embed_tokens(input_ids) + self.embed_positions(places))
        for layer in self.layers:
            x = layer(x, mask)
        return x

    # -- on the host ---------------------------------------------------------------------------

    @torch.no_grad()
    def answer(self, hidden: Tensor) -> Tensor:
        """Logits of the labels, or the embedding, of one text: `hidden` [S, d] of its last layer."""
        first = hidden[0]
        if self.pooler is not None:
            first = torch.tanh(self.pooler(first))
        if self.classifier is not None:
            return self.classifier(first)
        pooled = hidden.mean(0) if self.config.pooling == "mean" else first
        return nn.functional.normalize(pooled, dim=0) if self.config.normalize else pooled


def _check(config: QuantBertConfig) -> None:
    activation_of(config.hidden_act)
    for name, allowed in (("head", HEADS), ("pooling", POOLINGS)):
        if getattr(config, name) not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, not {getattr(config, name)!r}")
    if config.is_decoder or config.add_cross_attention:
        raise InputError("is_decoder and add_cross_attention must be false, not true: a BERT here is an encoder")
    kind = getattr(config, "position_embedding_type", "absolute")
    if kind != "absolute":
        raise InputError(f"position_embedding_type must be 'absolute', not {kind!r}")
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"hidden_size must be a multiple of num_attention_heads, not {config.hidden_size} and {config.num_attention_heads}"
        )


# -- quantizing --------------------------------------------------------------------------------


def quantized_config(config: BertConfig, quant: QuantConfig, **host: Any) -> QuantBertConfig:
    """The config of a stock BERT with `quant`; `host`: head, pooling, normalize."""
    values = config.to_dict()
    for key in ("model_type", "architectures", "transformers_version", "quant"):
        values.pop(key, None)
    return QuantBertConfig(**(values | host), quant=asdict(quant))


Stock = BertModel | BertForSequenceClassification


def bare(stock: Stock) -> BertModel:
    """The encoder of either stock model."""
    return stock.bert if isinstance(stock, BertForSequenceClassification) else stock


def host_of(stock: Stock) -> dict[str, Any]:
    """`head` and `pooling` of a stock model that says no more: its classifier, else its pooler, else the mean."""
    if isinstance(stock, BertForSequenceClassification):
        return dict(head="label")
    return dict(head="embedding", pooling="mean" if stock.pooler is None else "pooler")


def quantize_model(stock: Stock, quant: QuantConfig, **host: Any) -> QuantBert:
    """A QuantBert with a copy of the weights of a stock model; its steps are set by its first batch."""
    student = QuantBert(quantized_config(stock.config, quant, **(host_of(stock) | host)))
    state = {renamed(name.removeprefix("bert.")): tensor for name, tensor in stock.state_dict().items()}
    wanted = {name for name in student.state_dict() if not name.endswith("alpha")}
    missing = sorted(wanted - set(state))
    if missing:
        raise InputError(f"model to quantize must have the parameters of BERT, not lack {missing[0]!r}")
    student.load_state_dict({name: state[name] for name in wanted if name is not None}, strict=False)
    return student.train(stock.training)


@torch.no_grad()
def stock_model(model: QuantBert) -> Stock:
    """The stock model in eval mode with the weights of `model`: the latent ones, of a packed model scale times code."""
    values = model.config.to_dict() | {"model_type": "bert"}
    for key in ("quant", "head", "pooling", "normalize", "architectures"):
        values.pop(key, None)
    config, label = BertConfig.from_dict(values), model.config.head == "label"
    stock: Any = (
        BertForSequenceClassification(config)
        if label
        else BertModel(config, add_pooling_layer=model.pooler is not None)
    )
    state = dict(model.state_dict())
    packed = {name: module for name, module in stored_weights(model).items() if module.is_packed}
    state |= {f"{name}.weight": module.quantized_weight() for name, module in packed.items()}
    named = {renamed(name, back=True): tensor for name, tensor in state.items()}
    named = {
        f"bert.{name}" if label and not name.startswith("classifier") else name: t for name, t in named.items() if name
    }
    stock.load_state_dict(named, strict=True)
    return stock.eval()
