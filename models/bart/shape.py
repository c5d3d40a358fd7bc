"""Lowered models of a given shape, quickly and without numbers that mean anything: for counting what a model of that size does."""

from __future__ import annotations

from typing import Any

import torch

from ternbin.graph.ir import Lowered
from ternbin.graph.ops.ends import Embed
from ternbin.graph.shape import shape
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.models.modules import Attention
from ternbin.passes import fold

VOCAB = 97  # rows of the table that is really made
FRAC = 8
BART_BASE = dict(
    d_model=768, heads=12, ffn=3072, layers=6, vocab=50265, activation="gelu", positions=1024, scale_embedding=False
)


@torch.no_grad()
def shape_model(bits: str, *, layers: int, vocab: int, **options) -> Lowered:
    """A folded model of the shapes of ``random_quant_bart(bits, layers=layers, vocab=vocab, **options)``: every layer has the weights
    of the first, the rows of the vocabulary repeat. As in a trained model, q, k and v quantize their input each with a step of its own."""
    model = random_quant_bart(bits, layers=1, vocab=VOCAB, **options)
    model.set_fracs(dict.fromkeys(model.sites, FRAC))
    for stack in (model.model.encoder, model.model.decoder):
        first: Any = stack.layers[0]
        attention: Attention = first.self_attn
        for number, projection in enumerate((attention.q_proj, attention.k_proj, attention.v_proj)):
            projection.x_quant.step.mul_(1 + number / 64)
        stack.layers = torch.nn.ModuleList([first] * layers)
    lowered = fold(lower(model.pack()))
    rows = torch.arange(vocab) % VOCAB
    head = shape(lowered).head.op
    tables = {
        name
        for graph in lowered.stacks
        for node in graph.nodes()
        if isinstance(node.op, Embed)
        for name in (node.op.table, node.op.scale)
    } | {head.weight, head.mul, head.bias}
    weights = {name: value[rows] if name in tables else value for name, value in lowered.weights.items()}
    dims = {"vocab_size": vocab, "encoder_layers": layers, "decoder_layers": layers}
    return Lowered(lowered.stacks, weights, lowered.meta | dims)
