"""Checkpoints of BART and its relatives: every supported folder layout, loaded as a quantized or a stock model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch

from ternbin.errors import InputError
from ternbin.models import files, library
from ternbin.models.bart.layout import DECODER_TABLE, ENCODER_TABLE, HEAD, SHARED, absent, shared_weights
from ternbin.models.bart.qbart import (
    QuantBartForConditionalGeneration,
    QuantSeq2Seq,
    build_stock,
    config_class,
    quantized_config,
)
from ternbin.models.config import QuantConfig
from ternbin.models.tensors import OTHER_HEADS, Tensors, assign

Model = TypeVar("Model", bound=QuantSeq2Seq)
LOGITS_BIAS, HEAD_BIAS = "final_logits_bias", f"{HEAD}.bias"


def load_any(
    folder: str | Path, quant: QuantConfig | None = None, cls: type[Model] = QuantBartForConditionalGeneration
) -> Model:
    """A model in eval mode from a packed checkpoint, a saved `cls`, or a stock model of its kind that `quant` quantizes.

    A quantized stock model has unset steps: calibrate it.  Raises InputError naming file and tensor for whatever
    cannot be loaded.
    """
    folder = files.checked_folder(folder)
    if (folder / files.PACKED_FILE).exists():
        return load_packed(folder, cls)
    kind = files.read_config(folder).get("model_type")
    own, stock = config_class(cls), config_class(cls.stock_class)
    if kind == own.model_type:
        return _load(folder, cls, lambda values: cls(own.from_dict(values)))
    if kind != stock.model_type:
        raise InputError(
            f"{folder / files.CONFIG_FILE}: model_type must be {stock.model_type!r} or {own.model_type!r}, not {kind!r}"
        )
    if quant is None:
        raise InputError(f"{folder}: bits must be given to quantize a stock model, not left out")
    return _load(folder, cls, lambda values: cls(quantized_config(cls, stock.from_dict(values), quant)), steps=False)


def load_stock(folder: str | Path, cls: type[QuantSeq2Seq]) -> Any:
    """The stock model of a folder, in eval mode and float32; `cls` is the class of its quantized models."""
    stock = config_class(cls.stock_class)
    return _load(files.checked_folder(folder), cls, lambda values: build_stock(cls, stock.from_dict(values)))


def load_packed(folder: str | Path, cls: type[Model] = QuantBartForConditionalGeneration) -> Model:
    """The model of a packed checkpoint, in eval mode; its outputs equal those of the model saved."""
    return cls.of_packed(folder)


def _load(folder: Path, cls: type[QuantSeq2Seq], make: Any, *, steps: bool = True) -> Any:
    """The model that `make` builds from the values of config.json, with the tensors of the folder; without `steps` they are unset."""
    held = Tensors.of_weights(folder)
    held.rename(_full_name)

    def told(values: dict) -> dict:
        """Older checkpoints whose head is not tied hold one table all the same."""
        one = f"{DECODER_TABLE}.weight" not in held and f"{SHARED}.weight" in held
        return ({"share_encoder_decoder_embeddings": True} if one else {}) | values

    model = library.empty_model(folder, lambda values: make(told(values)), cls.check_values)
    tied = shared_weights(model)
    for owner in set(tied.values()):
        held.share(owner, [name for name, other in tied.items() if other == owner])
    missing = dict(absent(model, cls.layout))
    one = {f"{table}.weight": f"{SHARED}.weight" for table in (ENCODER_TABLE, DECODER_TABLE)}
    for name, old in model.state_dict(keep_vars=True).items():
        if name in tied:
            continue
        if name.endswith(".alpha") and not steps:
            value = torch.zeros(())
        elif name in missing and name not in held:
            value = missing[name]
        else:
            value = held.take(name if name in held or name not in one else one[name], tuple(old.shape))
        if name == LOGITS_BIAS and HEAD_BIAS in held:
            value = value + held.take(HEAD_BIAS, value.shape[1:])
        assign(model, name, value)
    unused = [] if f"{ENCODER_TABLE}.weight" in tied else [f"^{SHARED}.weight$"]
    held.done([*(model._keys_to_ignore_on_load_unexpected or ()), *unused])
    for name, owner in tied.items():
        target = model.get_submodule(name.rpartition(".")[0])
        target.weight = model.get_parameter(owner)
    return library.finish(model, folder)


def _full_name(name: str) -> str:
    """The name in the conditional-generation model: the bare model, and older BARTs with another head, lack the prefix."""
    return name if name.startswith(("model.", "lm_head.", LOGITS_BIAS, *OTHER_HEADS)) else f"model.{name}"
