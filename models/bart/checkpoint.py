"""Checkpoints of BART: every supported folder layout, loaded as a quantized model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BartConfig

from ternbin.errors import InputError
from ternbin.models import files, packed
from ternbin.models.bart.qbart import QuantBartConfig, QuantBartForConditionalGeneration, quantized_config
from ternbin.models.config import QuantConfig
from ternbin.models.tensors import OTHER_HEADS, Tensors, assign


def load_any(folder: str | Path, quant: QuantConfig | None = None) -> QuantBartForConditionalGeneration:
    """A model in eval mode from a packed checkpoint, a saved QuantBart, or a stock BART that `quant` quantizes.

    A quantized stock model has unset steps: calibrate it.  Raises InputError naming file and tensor for whatever
    cannot be loaded.
    """
    folder = files.checked_folder(folder)
    if (folder / files.PACKED_FILE).exists():
        return load_packed(folder)
    kind = files.read_config(folder).get("model_type")
    if kind == QuantBartConfig.model_type:
        return _load_tensors(folder, files.empty_model(folder, _from_values), stock=False)
    if kind != "bart":
        raise InputError(f"{folder / files.CONFIG_FILE}: model_type must be 'bart' or 'ternbin_bart', not {kind!r}")
    if quant is None:
        raise InputError(f"{folder}: bits must be given to quantize a stock BART, not left out")
    return _load_tensors(folder, files.empty_model(folder, lambda values: _from_stock(values, quant)), stock=True)


def load_packed(folder: str | Path) -> QuantBartForConditionalGeneration:
    """The model of a packed checkpoint, in eval mode; its outputs equal those of the model saved."""
    return packed.load_packed(QuantBartForConditionalGeneration, folder)


def _from_values(values: dict) -> QuantBartForConditionalGeneration:
    return QuantBartForConditionalGeneration(QuantBartConfig.from_dict(values))


def _from_stock(values: dict, quant: QuantConfig) -> QuantBartForConditionalGeneration:
    return QuantBartForConditionalGeneration(quantized_config(BartConfig.from_dict(values), quant))


def _load_tensors(
    folder: Path, model: QuantBartForConditionalGeneration, *, stock: bool
) -> QuantBartForConditionalGeneration:
    """`model`, which is without storage, with the tensors of the folder; a stock checkpoint has no steps."""
    held = Tensors.of_weights(folder)
    held.rename(_full_name)
    owners = set(model.tied.values())
    for owner in owners:
        held.share(f"{owner}.weight", [f"{name}.weight" for name, other in model.tied.items() if other == owner])
    tied = {f"{name}.weight" for name in model.tied}
    wanted = {name: t for name, t in model.state_dict(keep_vars=True).items() if name not in tied}
    for name, old in wanted.items():
        shape = tuple(old.shape)
        if stock and name.endswith(".alpha"):
            assign(model, name, torch.zeros(()))
        elif name == "final_logits_bias" and name not in held:
            assign(model, name, torch.zeros(shape))
        else:
            assign(model, name, held.take(name, shape))
    held.done(model._keys_to_ignore_on_load_unexpected)
    for name, owner in model.tied.items():
        model.get_submodule(name).weight = model.get_submodule(owner).weight
    return files.finish(model, folder)


def _full_name(name: str) -> str:
    """The name in the conditional-generation model: the bare model, and older BARTs with another head, lack the prefix."""
    return name if name.startswith(("model.", "lm_head.", "final_logits_bias", *OTHER_HEADS)) else f"model.{name}"
