"""Files of checkpoint folders, read and checked: every reader of a config.json or of safetensors is here.

Each raises InputError that names the file, and the tensor where it is about one.  Pickle files are never read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ternbin.errors import InputError
from ternbin.graph import qtypes
from ternbin.models.quantizers import ActQuantizer

PACKED_FILE = "packed.safetensors"
STOCK_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"

Tensors = dict[str, tuple[Tensor, Path]]
"""Every tensor by its name, with the file it stands in."""

Model = TypeVar("Model", bound=PreTrainedModel)


# -- folder and JSON ---------------------------------------------------------------------------


def checked_folder(folder: str | Path) -> Path:
    """The folder, which must exist."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"checkpoint must be a folder, not {str(folder)!r}")
    return folder


def read_json(path: Path) -> dict:
    """The JSON object of a file."""
    if not path.exists():
        raise InputError(f"{path}: file must exist in a checkpoint")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: file must be JSON, not broken ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: file must hold a JSON object, not {type(values).__name__}")
    return values


def read_config(folder: Path) -> dict:
    """The values of a checkpoint's config.json."""
    return read_json(folder / CONFIG_FILE)


def empty_model(folder: Path, make: Callable[[dict], Model]) -> Model:
    """The model that `make` builds from the values of config.json, without storage; what it refuses names the file."""
    values = read_config(folder)
    try:
        with torch.device("meta"), no_init_weights():
            return make(values)
    except (InputError, StrictDataclassError, ValueError, TypeError) as error:
        raise InputError(f"{folder / CONFIG_FILE}: {_one_line(error)}") from error


def finish(model: Model, folder: Path) -> Model:
    """Eval mode, and for a model that generates its settings in the folder; older checkpoints keep them in config.json."""
    if not model.can_generate():
        return model.eval()
    path = folder / GENERATION_FILE
    try:
        if path.exists():
            model.generation_config = GenerationConfig.from_dict(read_json(path))
        else:
            path = folder / CONFIG_FILE
            model.generation_config = GenerationConfig.from_pretrained(
                folder, config_file_name=CONFIG_FILE, _from_model_config=True, local_files_only=True
            )
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {_one_line(error)}") from error
    return model.eval()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# -- tensors -----------------------------------------------------------------------------------


def read_weights(folder: Path) -> Tensors:
    """Every tensor of `model.safetensors` or of its shards."""
    if (folder / STOCK_FILE).exists():
        return read_tensors(folder / STOCK_FILE)
    if not (folder / INDEX_FILE).exists():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        if pickles:
            raise InputError(f"{folder / pickles[0]}: weights must be safetensors, not a pickle file")
        raise InputError(f"{folder}: checkpoint must hold {STOCK_FILE}, {INDEX_FILE} or {PACKED_FILE}")
    index = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise InputError(f"{folder / INDEX_FILE}: weight_map must map tensors to files, not {type(index).__name__}")
    tensors: Tensors = {}
    for name in sorted(set(index.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{folder / INDEX_FILE}: shard must be a safetensors file of the folder, not {name!r}")
        tensors |= read_tensors(folder / name)
    return tensors


def read_tensors(path: Path) -> Tensors:
    """Every tensor of one safetensors file."""
    if not path.exists():
        raise InputError(f"{path}: file must exist in a checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: (file.get_tensor(name), path) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: file must be complete safetensors, not broken ({error})") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of one safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: file must be complete safetensors, not broken ({error})") from error


def take(tensors: Tensors, name: str, shape: tuple[int, ...], folder: Path) -> Tensor:
    """The float32 tensor `name`: of that shape and finite."""
    if name not in tensors:
        raise InputError(f"{folder}: checkpoint must hold the tensor {name}")
    tensor, path = tensors[name]
    if tensor.shape != torch.Size(shape):
        raise InputError(f"{path}: {name} must have shape {list(shape)}, not {list(tensor.shape)}")
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {name} must be floating point, not {tensor.dtype}")
    if not torch.isfinite(tensor).all():
        raise InputError(f"{path}: {name} must be finite, not inf or nan")
    return tensor.float()


def take_codes(tensors: Tensors, name: str, kind: str, rows: int, width: int, folder: Path) -> Tensor:
    """Codes (int8, [rows, width]) of the packed tensor `name`."""
    if name not in tensors:
        raise InputError(f"{folder}: checkpoint must hold the tensor {name}")
    tensor, path = tensors[name]
    bits = qtypes.KINDS[kind].bits
    shape = [rows, bits * ((width + 7) // 8)]
    if tensor.dtype != torch.uint8 or list(tensor.shape) != shape:
        raise InputError(f"{path}: {name} must be uint8 {shape}, not {tensor.dtype} {list(tensor.shape)}")
    data = tensor.numpy()
    half = data.shape[1] // 2
    if bits == 2 and (data[:, half:] & ~data[:, :half]).any():
        raise InputError(f"{path}: {name} must hold ternary codes, not a negative zero")
    return torch.from_numpy(qtypes.unpack(data, kind, width)).char()


def take_scale(tensors: Tensors, name: str, rows: int, folder: Path) -> Tensor:
    """Row scales ([rows, 1]) of the packed tensor `name`."""
    scale = take(tensors, name, (rows,), folder).unsqueeze(1)
    if (scale < 0).any():
        raise InputError(f"{tensors[name][1]}: {name} must not be negative, not {scale.min().item()!r}")
    return scale


def assign(model: torch.nn.Module, name: str, tensor: Tensor) -> None:
    """Give the parameter or buffer `name`, which is without storage, its values."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._parameters:
        module._parameters[leaf] = torch.nn.Parameter(tensor)
    else:
        module._buffers[leaf] = tensor
    if isinstance(module, ActQuantizer):
        module.ready = False
