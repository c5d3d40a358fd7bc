"""Figures of the codes of every tensor while a model learns: how many are zero or at their end, and their entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ternbin.models.model import QuantModel
from ternbin.models.packed import stored_weights
from ternbin.models.quantizers import KINDS, ActQuantizer, nearest_codes, step_of

Figures = dict[str, dict[str, float]]


@torch.no_grad()
def tensor_figures(model: QuantModel, batch: Mapping[str, Any]) -> Figures:
    """By tensor: ``zeros``, share of codes 0; ``saturated``, share of values beyond the last code, of activations;
    ``entropy`` of the codes, in bits.  Activations are those of `batch` (arguments of a forward pass)."""
    found: Figures = {}
    for name, module in stored_weights(model).items():
        codes, _ = module.weight_parts()
        found[f"{name}.weight"] = shares(codes)

    def hook(name: str):
        def see(module: ActQuantizer, args: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = activation_figures(args[0], module)

        return see

    quantizers = [(n, m) for n, m in model.named_modules() if isinstance(m, ActQuantizer) and m.alpha is not None]
    handles = [module.register_forward_hook(hook(name)) for name, module in quantizers]
    was_training = model.training
    try:
        model.eval()(**batch)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return found


def activation_figures(x: Tensor, quantizer: ActQuantizer) -> dict[str, float]:
    """Of the tensor `x` by its quantizer."""
    kind, step = KINDS[quantizer.kind], step_of(quantizer)
    scaled = (x.float() - quantizer.zero) / step
    over = (scaled > kind.hi + 0.5) | (scaled < kind.lo - 0.5) if quantizer.kind != "binary" else scaled.abs() > 1
    codes = nearest_codes(x.float(), step, quantizer.zero, quantizer.kind)
    return shares(codes) | {"saturated": round(over.float().mean().item(), 4)}


def shares(codes: Tensor) -> dict[str, float]:
    """Share of zeros and entropy of a tensor of codes."""
    whole = codes.flatten().to(torch.int64)
    counts = torch.bincount(whole - whole.min())
    p = counts[counts > 0].double() / whole.numel()
    return {
        "zeros": round((whole == 0).float().mean().item(), 4),
        "entropy": round(-(p * p.log2()).sum().item() + 0.0, 4),
    }
