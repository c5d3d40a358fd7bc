"""Checkpoints of Whisper: packed, saved, or stock ones."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from ternbin.errors import InputError
from ternbin.models import files, library
from ternbin.models.bart.layout import DECODER_TABLE
from ternbin.models.config import QuantConfig
from ternbin.models.tensors import Tensors, assign
from ternbin.models.whisper import fields
from ternbin.models.whisper.qwhisper import QuantWhisper, QuantWhisperConfig, quantized_config, stock_model


def load_any(folder: str | Path, quant: QuantConfig | None = None) -> QuantWhisper:
    """A model in eval mode from a packed checkpoint, a saved QuantWhisper, or a stock Whisper that `quant` quantizes.

    A quantized stock model has unset steps: calibrate it.  Raises InputError naming file and tensor for whatever
    cannot be loaded.
    """
    folder = files.checked_folder(folder)
    if (folder / files.PACKED_FILE).exists():
        return QuantWhisper.of_packed(folder)
    if files.read_config(folder).get("model_type") == QuantWhisperConfig.model_type:
        model = library.empty_model(
            folder, lambda values: QuantWhisper(QuantWhisperConfig.from_dict(values)), fields.check
        )
        return _filled(folder, model, steps=True)
    if quant is None:
        raise InputError(f"{folder}: bits must be given to quantize a stock Whisper, not left out")
    return _from_stock(folder, quant)


def load_stock(folder: Path) -> WhisperForConditionalGeneration:
    """The full-precision model, in eval mode."""
    return stock_model(_from_stock(folder, QuantConfig()))


def _from_stock(folder: Path, quant: QuantConfig) -> QuantWhisper:
    def make(values: dict) -> QuantWhisper:
        return QuantWhisper(quantized_config(WhisperConfig.from_dict(values), quant))

    return _filled(folder, library.empty_model(folder, make, fields.check), steps=False)


def _filled(folder: Path, model: QuantWhisper, *, steps: bool) -> QuantWhisper:
    """`model`, which is without storage, with the tensors of the folder; without `steps` these are unset."""
    held = Tensors.of_weights(folder)
    held.rename(lambda name: name if name.startswith(("model.", "proj_out.")) else f"model.{name}")
    held.share(f"{DECODER_TABLE}.weight", ["proj_out.weight"])
    for name, old in model.state_dict(keep_vars=True).items():
        if name != "proj_out.weight":
            unset = name.endswith(".alpha") and not steps
            assign(model, name, torch.zeros(()) if unset else held.take(name, tuple(old.shape)))
    held.done()
    model.proj_out.weight = model.get_parameter(f"{DECODER_TABLE}.weight")
    return library.finish(model, folder)
