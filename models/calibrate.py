"""Calibration: steps of the activations and grids of the residual stream from a few batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

import torch

from ternbin.errors import InputError
from ternbin.graph.fixedpoint import GRID_FRAC
from ternbin.models.model import QuantModel
from ternbin.models.modules import QuantLayerNorm
from ternbin.models.quantizers import MAX_STEP, ActQuantizer

MIN_FRAC, MAX_FRAC = GRID_FRAC[0], 24


def frac_for(largest: float, bits: int) -> int:
    """The finest frac in [-20, 24] at which `largest` uses at most half the range of `bits`-wide integers.

    Raises InputError for what is too large for any.
    """
    if largest == 0:
        return min(MAX_FRAC, bits - 2)
    frac = math.floor(math.log2(2 ** (bits - 2) / largest))
    if frac < MIN_FRAC:
        raise InputError(f"residual stream must stay below 2^{bits - 2 - MIN_FRAC}, not reach {largest:g}")
    return min(MAX_FRAC, frac)


@torch.no_grad()
def calibrate(model: QuantModel, batches: Iterable[dict]) -> dict[str, int]:
    """Set the unset steps and the frac of every residual site from `batches` (keyword arguments of forward).

    A site holds the output of a LayerNorm and the sum that the next sub-layer adds to it; its frac leaves one bit of
    margin above the largest magnitude seen.  Returns and stores the fracs.  A step that training brought out of the range
    of steps, below zero even, is set to the end that it counts as.
    """
    if model.quant_config.form != "deploy":
        raise InputError(f"form must be 'deploy' to calibrate, not {model.quant_config.form!r}")
    was_training = model.training
    model.eval()
    model.set_fracs({})
    for quantizer in (m for m in model.modules() if isinstance(m, ActQuantizer)):
        if quantizer.step.item() != 0:  # 0 is set by the first batch
            quantizer.step.clamp_(quantizer.least, MAX_STEP)
    largest = dict.fromkeys(model.sites, 0.0)
    handles = []
    for norm in (m for m in model.modules() if isinstance(m, QuantLayerNorm)):
        handles.append(norm.register_forward_hook(_Recorder(largest)))
    count = 0
    try:
        for batch in batches:
            model(**batch)
            count += 1
            _check_size(model, batch, largest)
    finally:
        for handle in handles:
            handle.remove()
    if count == 0:
        raise InputError("batches must hold at least one batch, not none")
    fracs = {name: frac_for(value, model.quant_config.res_bits) for name, value in largest.items()}
    model.set_fracs(fracs)
    model.train(was_training)
    return fracs


def resize_stream(model: QuantModel, bits: int) -> None:
    """A residual stream of another width: every site keeps its range, on the grid that :func:`calibrate` would have given it."""
    quant = model.quant_config
    model.config.quant = asdict(replace(quant, res_bits=bits))
    for site in model.sites.values():
        site.bits = bits
    model.set_fracs(
        {name: max(MIN_FRAC, min(MAX_FRAC, frac + bits - quant.res_bits)) for name, frac in quant.fracs.items()}
    )


def _check_size(model: QuantModel, batch: dict, largest: dict[str, float]) -> None:
    """Raise InputError, naming the site and the tensor it comes from, for a residual that no grid can hold."""
    bits = model.quant_config.res_bits - 2 - MIN_FRAC
    for name, value in largest.items():
        if not value < 2.0**bits:
            source = _first_above(model, batch, 2.0**bits) or "a sum of layers"
            raise InputError(f"residual stream at {name} must stay below 2^{bits}, not reach {value:g}: see {source}")


def _first_above(model: QuantModel, batch: dict, limit: float) -> str:
    """The largest tensor of the first module whose result is not below `limit`, and how large it is."""
    found: list[str] = []

    def watch(name: str) -> Callable[[torch.nn.Module, tuple, object], None]:
        def hook(module: torch.nn.Module, inputs: tuple, output: object) -> None:
            if not found and isinstance(output, torch.Tensor) and not output.abs().max().item() < limit:
                tensors = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
                sizes = {key: tensor.abs().max().item() for key, tensor in tensors.items() if tensor.numel()}
                most = max(sizes, key=lambda key: sizes[key])
                found.append(f"{name}.{most}, which reaches {sizes[most]:g}")

        return hook

    own = [(name, m) for name, m in model.named_modules() if name and any(True for _ in m.parameters(recurse=False))]
    handles = [module.register_forward_hook(watch(name)) for name, module in own]
    try:
        model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


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
