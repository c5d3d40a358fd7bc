"""Checkpoints of BERT: packed, saved, or stock ones, with what their folder says of the host's part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig

from ternbin.errors import InputError
from ternbin.models import files, packed
from ternbin.models.bert.qbert import (
    POOLINGS,
    QuantBert,
    QuantBertConfig,
    Stock,
    filled_stock,
    quantized_config,
    renamed,
)
from ternbin.models.config import QuantConfig
from ternbin.models.files import Tensors

POOLING_FILE = "1_Pooling/config.json"  # as sentence-transformers writes it
NORMALIZE = "2_Normalize"  # a folder that holds nothing, of the same library; its modules.json names it
UNUSED = ("cls.", "position_ids", "token_type_ids")  # pretraining heads, and buffers of older versions


def load_any(folder: str | Path, quant: QuantConfig | None = None) -> QuantBert:
    """A model in eval mode from a packed checkpoint, a saved QuantBert, or a stock BERT that `quant` quantizes.

    A quantized stock model has unset steps: calibrate it.  Raises InputError naming file and tensor for whatever
    cannot be loaded.
    """
    folder = files.checked_folder(folder)
    if (folder / files.PACKED_FILE).exists():
        return packed.load_packed(QuantBert, folder)
    if files.read_config(folder).get("model_type") == QuantBertConfig.model_type:
        model = files.empty_model(folder, lambda values: QuantBert(QuantBertConfig.from_dict(values)))
        return _filled(folder, model, files.read_weights(folder), stock=False)
    if quant is None:
        raise InputError(f"{folder}: bits must be given to quantize a stock BERT, not left out")
    tensors = _stock_tensors(folder)
    host = host_of(folder, tensors)
    model = files.empty_model(
        folder, lambda values: QuantBert(quantized_config(BertConfig.from_dict(values), quant, **host))
    )
    return _filled(folder, model, tensors, stock=True)


def load_stock(folder: Path) -> Stock:
    """The full-precision model, in eval mode: with a classifier where the checkpoint has one, with a pooler where it is used."""
    tensors, config = _stock_tensors(folder), BertConfig.from_dict(files.read_config(folder))
    host = host_of(folder, tensors)
    state = {name: files.take(tensors, name, tuple(tensor.shape), folder) for name, (tensor, _) in tensors.items()}
    return filled_stock(config, host["head"], host.get("pooling") == "pooler", state)


def host_of(folder: Path, tensors: Tensors) -> dict[str, Any]:
    """What the host makes of the result: a label where there is a classifier; else an embedding, pooled as sentence-transformers' files
    say, or by the pooler where there is one, or by the mean."""
    if "classifier.weight" in tensors:
        return dict(head="label")
    pooling = "pooler" if "pooler.weight" in tensors else "mean"
    if (folder / POOLING_FILE).exists():
        pooling = _pooling(folder / POOLING_FILE)
    normalize = (folder / "modules.json").exists() and NORMALIZE in (folder / "modules.json").read_text()
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


def _stock_tensors(folder: Path) -> Tensors:
    """The tensors of a stock checkpoint under the names of this model. Raises InputError for one that no BERT has."""
    found: Tensors = {}
    for name, (tensor, path) in files.read_weights(folder).items():
        bare = name.removeprefix("bert.")
        ours = renamed(bare.replace(".gamma", ".weight").replace(".beta", ".bias"))
        if ours is not None:
            found[ours] = tensor, path
        elif not bare.startswith(UNUSED) and not bare.endswith(UNUSED):
            raise InputError(f"{path}: tensor must be one of a BERT, not {name!r}")
    return found


def _filled(folder: Path, model: QuantBert, tensors: Tensors, *, stock: bool) -> QuantBert:
    """`model`, which is without storage, with the tensors; a stock checkpoint has no steps."""
    for name, old in model.state_dict(keep_vars=True).items():
        if stock and name.endswith(".alpha"):
            files.assign(model, name, torch.zeros(()))
        else:
            files.assign(model, name, files.take(tensors, name, tuple(old.shape), folder))
    return files.finish(model, folder)
