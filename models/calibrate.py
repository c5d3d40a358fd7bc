"""Calibration: steps of the activations and grids of the residual stream from a few batches."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from ternbin.errors import InputError
from ternbin.models.model import QuantModel
from ternbin.models.modules import QuantLayerNorm

MIN_FRAC, MAX_FRAC = -20, 24


def frac_for(largest: float, bits: int, name: str = "residual stream") -> int:
    """The finest frac in [-20, 24] at which `largest` uses at most half the range of `bits`-wide integers.

    Raises InputError, naming the site, for what is too large for any.
    """
    if largest == 0:
        return min(MAX_FRAC, bits - 2)
    frac = math.floor(math.log2(2 ** (bits - 2) / largest))
    if frac < MIN_FRAC:
        raise InputError(f"{name} must stay below 2^{bits - 2 - MIN_FRAC}, not reach {largest:g}")
    return min(MAX_FRAC, frac)


@torch.no_grad()
def calibrate(model: QuantModel, batches: Iterable[dict]) -> dict[str, int]:
    """Set the unset steps and the frac of every residual site from `batches` (keyword arguments of forward).

    A site holds the output of a LayerNorm and the sum that the next sub-layer adds to it; its frac leaves one bit of
    margin above the largest magnitude seen.  Returns and stores the fracs.
    """
    if model.quant_config.form != "deploy":
        raise InputError(f"form must be 'deploy' to calibrate, not {model.quant_config.form!r}")
    was_training = model.training
    model.eval()
    model.set_fracs({})
    largest = dict.fromkeys(model.sites, 0.0)
    handles = []
    for norm in (m for m in model.modules() if isinstance(m, QuantLayerNorm)):
        handles.append(norm.register_forward_hook(_Recorder(largest)))
    count = 0
    try:
        for batch in batches:
            model(**batch)
            count += 1
            if not all(math.isfinite(value) for value in largest.values()):
                raise InputError(f"residual stream must be finite, not inf or nan: {_first_not_finite(model, batch)}")
    finally:
        for handle in handles:
            handle.remove()
    if count == 0:
        raise InputError("batches must hold at least one batch, not none")
    bits = model.quant_config.res_bits
    fracs = {name: frac_for(value, bits, f"residual stream at {name}") for name, value in largest.items()}
    model.set_fracs(fracs)
    model.train(was_training)
    return fracs


def _first_not_finite(model: QuantModel, batch: dict) -> str:
    """The first module with parameters of its own whose result overflows, and the largest of them."""
    found: list[str] = []

    def watch(name: str):
        def hook(module: torch.nn.Module, inputs: tuple, output: object) -> None:
            if not found and isinstance(output, torch.Tensor) and not bool(output.isfinite().all()):
                tensors = dict(module.named_parameters()) | dict(module.named_buffers())
                sizes = {key: tensor.abs().max().item() for key, tensor in tensors.items() if tensor.numel()}
                most = max(sizes, key=lambda key: sizes[key])
                found.append(f"{name}.{most} reaches {sizes[most]:g}")

        return hook

    own = [(name, m) for name, m in model.named_modules() if name and any(True for _ in m.parameters(recurse=False))]
    handles = [module.register_forward_hook(watch(name)) for name, module in own]
    try:
        model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "a sum of two layers overflows"


class _Recorder:
    """Forward hook of a LayerNorm: the largest magnitude at its two sites."""

    def __init__(self, largest: dict[str, float]):
        self.largest = largest

    def __call__(self, norm: QuantLayerNorm, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        for site, tensor in ((norm.source, inputs[0]), (norm.site, output)):
            value = tensor.abs().max().item()
            # `not <=` keeps a nan
            if not value <= self.largest[site.name]:
                self.largest[site.name] = value
