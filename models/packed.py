"""Packed checkpoints: the codes of a model instead of its weights, for inference.

A packed checkpoint is `config.json` and `packed.safetensors`: `<module>.codes` (uint8, rows of `qtypes.pack`) and
`<module>.scale` (float32 [rows]) for every quantized weight, a shared one once for each number of bits, and the remaining parameters
as float32; tokenizer and generation files as the library writes them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from ternbin import formats
from ternbin.errors import InputError
from ternbin.graph import qtypes
from ternbin.models import files
from ternbin.models.files import PACKED_FILE
from ternbin.models.model import QuantModel
from ternbin.models.modules import QuantWeight
from ternbin.models.quantizers import latent_weight
from ternbin.models.tensors import Tensors, assign, format_of
from ternbin.storage import replacing

FORMAT = {"format": formats.PACKED}  # one entry: safetensors writes several in any order
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")

Model = TypeVar("Model", bound=QuantModel)


def save_packed(model: QuantModel, folder: str | Path, tokenizer: Any = None) -> Path:
    """Write the packed checkpoint of a `deploy` model; returns the folder.

    `tokenizer` is a tokenizer, or a folder whose tokenizer files are copied, or None.
    """
    if model.quant_config.form != "deploy":
        raise InputError(f"form must be 'deploy' to pack a model, not {model.quant_config.form!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in _packed_tensors(model)}
    with replacing(folder / PACKED_FILE) as fresh:
        save_file(tensors, fresh, metadata=FORMAT)
    model.config.save_pretrained(folder)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    if isinstance(tokenizer, (str, Path)):
        for name in TOKENIZER_FILES:
            if (Path(tokenizer) / name).exists() and Path(tokenizer).resolve() != folder.resolve():
                shutil.copyfile(Path(tokenizer) / name, folder / name)
    elif tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def load_packed(model: Model, folder: Path) -> Model:
    """The fake-quant model of a packed checkpoint, in eval mode; its outputs equal those of the model saved. `model`: the one of
    `files.empty_model`."""
    if model.quant_config.form != "deploy":
        raise InputError(
            f"{folder / files.CONFIG_FILE}: quant.form must be 'deploy' in a packed checkpoint, not 'paper'"
        )
    held = Tensors.of_file(folder, PACKED_FILE)
    formats.refuse_newer(format_of(folder / PACKED_FILE), formats.PACKED, str(folder / PACKED_FILE))
    stored = stored_weights(model)
    for name, module in stored.items():
        if module.latent is None:
            raise RuntimeError(f"{name}: a model to be loaded must not be packed already")
        rows, width = module.latent.shape
        scale = held.take_scale(f"{name}.scale", rows)
        module.set_packed(held.take_codes(f"{name}.codes", module.kind, rows, width), scale)
    share_packed(model, stored)
    for name, old in plain_tensors(model).items():
        assign(model, name, held.take(name, tuple(old.shape)))
    held.done()
    return model.eval()


def share_packed(model: QuantModel, stored: Mapping[str, QuantWeight]) -> None:
    """Give the modules that share a weight the codes of the `stored` one."""
    for name, module in model.weights():
        if name not in stored:
            owner = stored[model.tied[name]]
            module.set_packed(owner.codes, owner.row_scale)


def stored_weights(model: QuantModel) -> dict[str, QuantWeight]:
    """The modules whose weights are stored as codes, by name; a shared weight once for each number of bits."""
    modules = dict(model.weights())
    own = {name for name, owner in model.tied.items() if name in modules and modules[name].bits != modules[owner].bits}
    return {name: module for name, module in modules.items() if name not in model.tied or name in own}


def weight_values(model: QuantModel) -> dict[str, Tensor]:
    """What the weights are in a full-precision model, by the module that owns each: of codes of several bits those of most."""
    stored = stored_weights(model)
    values = {name: module.value for name, module in stored.items() if name not in model.tied}
    finer = [name for name in stored if name in model.tied and stored[name].bits > stored[model.tied[name]].bits]
    return values | {model.tied[name]: stored[name].value for name in finer}


@torch.no_grad()
def keep_codes(old: QuantModel, new: QuantModel) -> None:
    """Give `new`, made of the weights of `old`, such latent weights that what is packed in `old` has its codes and scales again.

    Weights of another number of bits, or centred, are left: what they were quantized from is gone.
    """
    stored = stored_weights(old)
    for name, module in stored_weights(new).items():
        known = stored.get(name)
        if known is not None and known.is_packed and module.latent is not None and name not in new.tied:
            if known.bits == module.bits and not module.center:
                module.latent.copy_(latent_weight(known.codes, known.row_scale, module.bits))


def _packed_tensors(model: QuantModel) -> Iterator[tuple[str, Tensor]]:
    for name, module in stored_weights(model).items():
        codes, scale = module.weight_parts()
        yield f"{name}.codes", torch.from_numpy(qtypes.pack(codes.cpu().numpy(), module.kind))
        yield f"{name}.scale", scale.detach().flatten().float().cpu()
    for name, tensor in plain_tensors(model).items():
        yield name, tensor.detach().float().cpu()


def plain_tensors(model: QuantModel) -> dict[str, Tensor]:
    """Parameters and buffers that are not quantized weights."""
    owned = {f"{name}.{part}" for name, _ in model.weights() for part in ("weight", "codes", "row_scale")}
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in tensors.items() if name not in owned}
