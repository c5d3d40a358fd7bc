"""Small random quantized BERTs: untrained, but with codes spread as in a trained one, for tests and `verify`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

from ternbin.models.bert.qbert import QuantBert, Stock, quantize_model
from ternbin.models.calibrate import calibrate
from ternbin.models.config import QuantConfig


def random_stock_bert(
    *,
    d_model: int = 32,
    heads: int = 2,
    ffn: int = 64,
    layers: int = 1,
    vocab: int = 97,
    activation: str = "gelu",
    positions: int = 64,
    types: int = 2,
    labels: int = 0,
    seed: int = 0,
    **config,
) -> Stock:
    """A full-precision model in eval mode, every parameter random; `labels` above 0: with a classifier."""
    options: dict[str, Any] = dict(
        vocab_size=vocab,
        hidden_size=d_model,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        hidden_act=activation,
        max_position_embeddings=positions,
        type_vocab_size=types,
        num_labels=max(labels, 1),
    )
    sizes = BertConfig(**(options | config))
    with torch.random.fork_rng(devices=[]):
        model = BertForSequenceClassification(sizes) if labels else BertModel(sizes)
    _randomize(model, torch.Generator().manual_seed(seed))
    return model.eval()


def random_quant_bert(bits: str = "2-2", *, res_bits: int = 16, seed: int = 0, **options) -> QuantBert:
    """A quantized, calibrated model in eval mode; `options` as for random_stock_bert."""
    stock = random_stock_bert(seed=seed, **options)
    student = quantize_model(stock, QuantConfig(bits=bits, res_bits=res_bits)).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    shape = 4, min(24, stock.config.max_position_embeddings)
    ids = torch.randint(0, stock.config.vocab_size, shape, generator=generator)
    types = torch.randint(0, stock.config.type_vocab_size, shape, generator=generator)
    calibrate(student, [dict(input_ids=ids, token_type_ids=types)])
    return student


@torch.no_grad()
def _randomize(model: nn.Module, generator: torch.Generator) -> None:
    def normal(tensor: torch.Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            normal(module.weight, 0.1, 1.0)
            normal(module.bias, 0.1)
        elif isinstance(module, nn.Linear):
            normal(module.weight, module.in_features**-0.5)
            normal(module.bias, 0.1)
        elif isinstance(module, nn.Embedding):
            normal(module.weight, 0.5)
