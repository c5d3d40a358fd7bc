"""A packed BART or relative as modules alone: what lowering and comparing read, built without the library.

Importing the library takes longer than running a short text. A checkpoint that leaves anything to the library's defaults is not read here.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ternbin.errors import InputError
from ternbin.models import files
from ternbin.models.bart.layout import Layout, vary
from ternbin.models.bart.structure import Seq2SeqModel, quantize_modules
from ternbin.models.fields import GenerationFields, TokenIds
from ternbin.models.packed import load_packed

NEEDED = {
    *("vocab_size", "d_model", "max_position_embeddings", "activation_function", "scale_embedding"),
    *("tie_word_embeddings", "bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id"),
    *(f"{side}_{size}" for side in ("encoder", "decoder") for size in ("layers", "attention_heads", "ffn_dim")),
}
"""Fields of config.json that the library would fill in with its own."""
WITHOUT_MEANING = {
    "_from_model_config",
    "output_attentions",
    "output_hidden_states",
    "transformers_version",
    "use_cache",
}
"""Fields of generation_config.json that say nothing of the text."""


def readable(folder: Path, layout: Layout) -> bool:
    """Whether `load` gives what the library would make of the folder."""
    if layout.sinusoidal or not all((folder / name).exists() for name in (files.PACKED_FILE, files.GENERATION_FILE)):
        return False
    settings = set(files.read_json(folder / files.GENERATION_FILE)) - WITHOUT_MEANING
    return settings <= set(TokenIds.__annotations__) and files.read_config(folder).keys() >= NEEDED


def load(folder: Path, layout: Layout) -> BareModel:
    """The model of a packed checkpoint, in eval mode. Raises InputError."""
    model = files.empty_model(
        folder, lambda values: BareModel(SimpleNamespace(**values), layout), BareModel.check_values
    )
    values, _ = files.generation_values(folder)
    model.generation_config = SimpleNamespace(**(dict.fromkeys(GenerationFields.__annotations__) | values))
    return load_packed(model, folder)


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """None are drawn: they come from the checkpoint."""


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """As of a _Linear."""


class BareModel(Seq2SeqModel):
    """The modules of a quantized model, by the library's names. `config`: the values of config.json as attributes."""

    def __init__(self, config: Any, layout: Layout):
        super().__init__()
        layout.check(config)
        self.config, self.layout = config, layout
        self.model = nn.Module()
        self.model.shared = _Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.model.encoder, self.model.decoder = (_stack(config, layout, side) for side in ("encoder", "decoder"))
        self.lm_head = _Linear(config.d_model, config.vocab_size, bias=False)
        self.final_logits_bias = nn.Buffer(torch.zeros(1, config.vocab_size))
        vary(self, layout)
        quantize_modules(self)


def _stack(config: Any, layout: Layout, side: str) -> nn.Module:
    stack, width = nn.Module(), config.d_model
    stack.embed_tokens = _Embedding(config.vocab_size, width, config.pad_token_id)
    stack.embed_positions = _Embedding(config.max_position_embeddings + layout.position_offset, width)
    layers = range(getattr(config, f"{side}_layers"))
    stack.layers = nn.ModuleList(_layer(config, side) for _ in layers)
    if layout.embedding_norm:
        stack.layernorm_embedding = nn.LayerNorm(width)
    if layout.pre_norm:
        stack.layer_norm = nn.LayerNorm(width)
    return stack


def _layer(config: Any, side: str) -> nn.Module:
    layer, width, ffn = nn.Module(), config.d_model, getattr(config, f"{side}_ffn_dim")
    heads = getattr(config, f"{side}_attention_heads")
    for block in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
        setattr(layer, block, _Attention(width, heads))
        setattr(layer, f"{block}_layer_norm", nn.LayerNorm(width))
    layer.fc1, layer.fc2 = _Linear(width, ffn), _Linear(ffn, width)
    layer.final_layer_norm = nn.LayerNorm(width)
    return layer


class _Attention(nn.Module):
    """The projections of an attention block."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise InputError(f"d_model must be a multiple of the attention heads, not {width} and {heads}")
        self.embed_dim, self.head_dim = width, width // heads
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self, name, _Linear(width, width))
