"""A student of binary activations that begins as a wider form of one of ternary activations.

A ternary code is the mean of two binary ones: with step a, code(x) = (sign(x + a/2) + sign(x - a/2)) / 2, and a non-negative one
is the sum of [x > a/2] and [x > 3a/2].  So every channel, head and feature of the feed-forward block is there twice, the two copies
of an activation a step apart, by the biases of what makes it; the stream takes the difference back where it is written next.
A ternary weight is likewise the mean of two binary ones, which differ where it is 0.  What is left to training: products of two
activations in attention, where each copy of a head sees its own, and the noise of weights that are 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.models.bart.qbart import QuantSeq2Seq, quantized_config
from ternbin.models.bart.structure import Seq2SeqModel, Stack, embedding_norm, final_norm, stacks
from ternbin.models.config import QuantConfig
from ternbin.models.modules import QuantEmbedding, QuantLayerNorm, QuantLinear, QuantPositions, QuantWeight
from ternbin.models.quantizers import ActQuantizer, latent_weight

COPIES = 2
WIDTHS = ("d_model", "encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim")


@torch.no_grad()
def widen(old: QuantSeq2Seq, quant: QuantConfig, seed: int) -> QuantSeq2Seq:
    """The student of `quant`, of binary weights and activations, COPIES times as wide as `old`, of ternary activations.

    Row c of a tensor becomes rows c and d + c, likewise columns.  `seed` draws which copies of weights that are 0 are positive.
    Raises InputError for other bits, for positions that are not learned, and for an `old` without learned steps.
    """
    bits = old.quant_config.act_bits, quant.act_bits, quant.weight_bits
    if bits != (2, 1, 1):
        raise InputError(
            f"a student of bits 2-2 must be widened to 1-1, not one of {old.quant_config.bits} to {quant.bits}"
        )
    if old.layout.sinusoidal:
        raise InputError("a student must have learned positions to be widened, not sines")
    wide = {name: COPIES * getattr(old.config, name) for name in WIDTHS}
    new = type(old)(quantized_config(type(old), type(old.config).from_dict(old.config.to_dict() | wide), quant))
    new.generation_config = old.generation_config
    generator = torch.Generator().manual_seed(seed)
    for name, module in old.named_modules():
        other: Any = new.get_submodule(name)
        if isinstance(module, ActQuantizer):
            _widen_step(name, module, other)
        elif isinstance(module, QuantWeight) and name not in old.tied:
            rows = 1 if isinstance(module, QuantEmbedding) or name == "lm_head" else COPIES
            other.latent.copy_(_two_signs(module, rows, generator))
        elif isinstance(module, QuantPositions | QuantLayerNorm):
            other.weight.copy_(_twice(module.weight))
        if isinstance(module, QuantLinear | QuantLayerNorm) and module.bias is not None:
            other.bias.copy_(module.bias if name == "lm_head" else _twice(module.bias))
    new.final_logits_bias.copy_(old.final_logits_bias)
    _shift_outputs(old, new)
    _shift_stream(old, new)
    _scale_ends(new)
    return new


def _twice(values: Tensor) -> Tensor:
    return torch.cat([values] * COPIES, dim=-1)


def _widen_step(name: str, old: ActQuantizer, new: ActQuantizer) -> None:
    """A ternary code becomes the mean of two binary ones, a non-negative one their sum; probabilities have no bias before them, their
    step is found anew."""
    if old.step.item() == 0:
        raise InputError(f"a student to be widened must have learned its steps, not have none at {name}")
    if not name.endswith("p_quant"):
        new.step.copy_(old.step / COPIES if old.kind == "ternary" else old.step)


def _two_signs(module: QuantWeight, rows: int, generator: torch.Generator) -> Tensor:
    """[rows * R, COPIES * W] of latent weights [R, W] whose signs are, two by two, the ternary code; row scales are the ternary ones.

    Of the weights of a row that are 0, as many have a positive first copy as a negative one: their noise has no mean.
    """
    codes, scale = (part.to(torch.float32) for part in module.weight_parts())
    weight = latent_weight(codes, scale, module.bits) if module.latent is None else module.latent
    drawn = torch.rand(weight.shape, generator=generator).masked_fill(codes != 0, 2.0)
    apart = (drawn.argsort(1).argsort(1) % 2 * 2 - 1) * scale / 2
    first, second = weight + apart, weight - apart
    wide = [torch.cat(pair, dim=1) for pair in ((first, second), (second, first))[:rows]]
    latent = torch.cat(wide)
    return latent * (torch.cat([scale] * rows) / latent.abs().mean(1, keepdim=True).clamp_min(1e-12))


def _shift(bias: Tensor, by: Tensor) -> None:
    """Move the first copy up and the second down, in place."""
    half = len(bias) // COPIES
    bias[:half] += by
    bias[half:] -= by


def _shift_outputs(old: Seq2SeqModel, new: Seq2SeqModel) -> None:
    """The two thresholds of queries, keys and values, and of what the feed-forward block has inside."""
    for name, module in old.named_modules():
        if isinstance(module, QuantLinear) and module.y_quant is not None:
            projection: Any = new.get_submodule(name)
            _shift(projection.bias, module.y_quant.step / 2 / module.y_scale)
    for stack, wide in zip(stacks(old), stacks(new), strict=True):
        for layer, other in zip(stack.layers, wide.layers, strict=True):
            bias: Any = other.fc1.bias
            bias[len(bias) // COPIES :] -= layer.fc2.x_quant.step


def _shift_stream(old: Seq2SeqModel, new: Seq2SeqModel) -> None:
    """The two thresholds of what reads a LayerNorm; where the stream goes on from there, its next writer takes the shift back."""
    for (_, readers, _), (norm, _, writer) in zip(_norms(old), _norms(new), strict=True):
        if readers:
            steps: list[Tensor] = [reader.x_quant.step for reader in readers]
            by = torch.stack(steps).mean() / 2
            _shift(norm.bias, by)
            if writer is not None:
                _shift(writer.bias, -by)


def _norms(model: Seq2SeqModel) -> Iterator[tuple[QuantLayerNorm, list[QuantLinear], QuantLinear | None]]:
    """Every LayerNorm, what quantizes its result to codes of the model's bits, and what writes next to the stream that its result is, if
    it is."""
    encoder, decoder = stacks(model)
    crossing = [part for layer in decoder.layers for part in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)]
    yield from _norms_of(encoder, crossing, model.layout.pre_norm)
    yield from _norms_of(decoder, [], model.layout.pre_norm)


def _norms_of(
    stack: Stack, last: list[Any], pre_norm: bool
) -> Iterator[tuple[QuantLayerNorm, list[QuantLinear], QuantLinear | None]]:
    """Of one stack, whose result `last` quantize."""
    blocks: list[tuple[Any, list[QuantLinear], QuantLinear]] = []
    for layer in stack.layers:
        own = layer.self_attn
        blocks.append((layer.self_attn_layer_norm, [own.q_proj, own.k_proj, own.v_proj], own.out_proj))
        if hasattr(layer, "encoder_attn"):
            cross = layer.encoder_attn
            blocks.append((layer.encoder_attn_layer_norm, [cross.q_proj], cross.out_proj))
        blocks.append((layer.final_layer_norm, [layer.fc1], layer.fc2))
    norms = [norm for norm, _, _ in blocks]
    if pre_norm:
        yield from ((norm, readers, None) for norm, readers, _ in blocks)
        end: Any = final_norm(stack)
        yield end, last, None
        return
    following = [(readers, writer) for _, readers, writer in blocks] + [(last, None)]
    for norm, (readers, writer) in zip([embedding_norm(stack), *norms], following, strict=True):
        if norm is not None:
            yield norm, readers, writer


def _scale_ends(model: Seq2SeqModel) -> None:
    """The embedding scale of a wider model is larger, and the head adds up all copies: the table and the last LayerNorm make up for it."""
    config, decoder = model.config, stacks(model)[1]
    table = COPIES**-0.5 if config.scale_embedding else 1.0
    for name, module in model.named_modules():
        if isinstance(module, QuantEmbedding) and name not in model.tied and module.latent is not None:
            module.latent.mul_(table)
    shared = table if model.tied.get("lm_head") else 1.0
    last: Any = final_norm(decoder) if model.layout.pre_norm else decoder.layers[-1].final_layer_norm
    for parameter in (last.weight, last.bias):
        parameter.mul_(1 / (COPIES * shared))
