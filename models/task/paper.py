"""Sizes and operation factors of the paper's table (arXiv 2306.01841, BART-base), computed from the model's own shapes."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration

BITS = ("32-32-32", "8-8-8", "2-2-8", "2-2-2", "1-1-8", "1-1-1")  # weights - embeddings - activations
MIB = 8 * (1 << 20)
RATIOS = {
    "rouge1": {
        bits: 100 * score / 44.90 for bits, score in (("2-8", 43.46), ("2-2", 41.03), ("1-8", 42.66), ("1-1", 35.56))
    },
    "bleu": {"2-2": 100 * 21.7 / 26.8, "1-1": 100 * 17.6 / 26.8},
}
"""Percent of the full-precision model's score that the paper's students keep: CNN/DailyMail, WMT16 English to Romanian."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: quantized ones, their rows (a scale each), full-precision ones with buffers."""

    quantized: int
    rows: int
    full: int


def on_meta(config: BartConfig) -> BartForConditionalGeneration:
    """A model on the meta device: shapes without numbers."""
    with torch.device("meta"):
        return BartForConditionalGeneration(config)


def bart_base() -> BartForConditionalGeneration:
    """BART-base on the meta device."""
    config = BartConfig(
        vocab_size=50265,
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        max_position_embeddings=1024,
    )
    return on_meta(config)


def count(model: BartForConditionalGeneration) -> Parameters:
    """What the paper quantizes: every linear layer's weights and the token embedding, which the LM head shares."""
    matrices = {id(module.weight): module.weight for module in model.modules() if isinstance(module, nn.Linear)}
    shared = cast(nn.Embedding, model.get_input_embeddings()).weight
    matrices[id(shared)] = shared
    matrices.pop(id(model.lm_head.weight), None)
    matrices[id(shared)] = shared
    every = {id(p): p.numel() for p in model.parameters()}
    if model.lm_head.weight is not shared:  # on the meta device the tie may be missing
        every.pop(id(model.lm_head.weight), None)
    quantized = sum(p.numel() for p in matrices.values())
    full = sum(every.values()) - quantized + sum(b.numel() for b in model.buffers())
    return Parameters(quantized, sum(p.shape[0] for p in matrices.values()), full)


def size_mib(parameters: Parameters, weight_bits: int, *, scales: bool = False) -> float:
    """Model size by the paper's count; ``scales`` adds one 32-bit scale a quantized row, which the paper leaves out."""
    extra = parameters.rows if scales and weight_bits < 32 else 0
    return (parameters.quantized * weight_bits + (parameters.full + extra) * 32) / MIB


def operation_factor(weight_bits: int, act_bits: int) -> float:
    """Operations of a quantized model in units of the full-precision model's: w * a / 64, and 1 for full precision."""
    return 1.0 if weight_bits == 32 else weight_bits * act_bits / 64


def paper_table() -> dict[str, dict[str, float]]:
    """Bits -> ``size_mib``, ``size_with_scales_mib``, ``flops_factor``."""
    parameters = count(bart_base())
    table = {}
    for bits in BITS:
        weights, _, acts = (int(part) for part in bits.split("-"))
        table[bits] = {
            "size_mib": size_mib(parameters, weights),
            "size_with_scales_mib": size_mib(parameters, weights, scales=True),
            "flops_factor": operation_factor(weights, acts),
        }
    return table
