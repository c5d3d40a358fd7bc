"""Checkpoints of BERT: packed, saved, or stock ones, with what their folder says of the host's part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig

from ternbin.errors import InputError
from ternbin.models import files, library
from ternbin.models.bert import fields
from ternbin.models.bert.qbert import (
    POOLINGS,
    QuantBert,
    QuantBertConfig,
    Stock,
    quantized_config,
    renamed,
    stock_model,
)
from ternbin.models.config import QuantConfig
from ternbin.models.tensors import Tensors, assign

POOLING_FILE = "1_Pooling/config.json"  # as sentence-transformers writes it
NORMALIZE = "2_Normalize"  # a folder that holds nothing, of the same library; its modules.json names it
IGNORED = (r"position_ids$", r"token_type_ids$")  # buffers of older versions
CLASSIFIES = "BertForSequenceClassification"


def load_any(folder: str | Path, quant: QuantConfig | None = None) -> QuantBert:
    """A model in eval mode from a packed checkpoint, a saved QuantBert, or a stock BERT that `quant` quantizes.

    A quantized stock model has unset steps: calibrate it.  Raises InputError naming file and tensor for whatever
    cannot be loaded.
    """
    folder = files.checked_folder(folder)
    if (folder / files.PACKED_FILE).exists():
        return QuantBert.of_packed(folder)
    held = Tensors.of_weights(folder)
    if files.read_config(folder).get("model_type") == QuantBertConfig.model_type:
        model = library.empty_model(folder, lambda values: QuantBert(QuantBertConfig.from_dict(values)), fields.check)
        return _filled(model, held, steps=True)
    if quant is None:
        raise InputError(f"{folder}: bits must be given to quantize a stock BERT, not left out")
    return _from_stock(folder, held, quant)


def load_stock(folder: Path) -> Stock:
    """The full-precision model, in eval mode: with a classifier where the checkpoint has one, with a pooler where it is used."""
    return stock_model(_from_stock(folder, Tensors.of_weights(folder), QuantConfig()))


def _from_stock(folder: Path, held: Tensors, quant: QuantConfig) -> QuantBert:
    held.rename(lambda name: renamed(_modern(name)) or name)
    host = host_of(folder, held)

    def make(values: dict) -> QuantBert:
        return QuantBert(quantized_config(BertConfig.from_dict(values), quant, **host))

    return _filled(library.empty_model(folder, make, fields.check), held, steps=False)


def _modern(name: str) -> str:
    """Without the prefix; the first checkpoints have other names for a LayerNorm's parameters."""
    return (
        name.removeprefix("bert.")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
    )


def host_of(folder: Path, held: Tensors) -> dict[str, Any]:
    """What the host makes of the result: a label where there is a classifier of texts; else an embedding, pooled as sentence-transformers'
    files say, or by the pooler where there is one, or by the mean."""
    kinds = files.read_config(folder).get("architectures") or [CLASSIFIES]
    if "classifier.weight" in held and CLASSIFIES in kinds:
        return dict(head="label")
    pooling = "pooler" if "pooler.weight" in held else "mean"
    if (folder / POOLING_FILE).exists():
        pooling = _pooling(folder / POOLING_FILE)
    normalize = (folder / "modules.json").exists() and NORMALIZE in (folder / "modules.json").read_text(
        encoding="utf-8"
    )
    return dict(head="embedding", pooling=pooling, normalize=normalize)


def _pooling(path: Path) -> str:
    """Of the modes that are set in the file, the one that this family knows."""
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    chosen = [
        name for name, value in files.read_json(path).items() if name.startswith("pooling_mode") and value is True
    ]
    if len(chosen) != 1 or chosen[0] not in names:
        raise InputError(f"{path}: pooling must be {' or '.join(POOLINGS[:2])}, not {', '.join(chosen) or 'none'}")
    return names[chosen[0]]


def _filled(model: QuantBert, held: Tensors, *, steps: bool) -> QuantBert:
    """`model`, which is without storage, with the tensors; without `steps` these are unset."""
    for name, old in model.state_dict(keep_vars=True).items():
        unset = name.endswith(".alpha") and not steps
        assign(model, name, torch.zeros(()) if unset else held.take(name, tuple(old.shape)))
    held.done([*IGNORED, *([] if model.pooler else [r"^(bert\.)?pooler\."])])
    return model.eval()
