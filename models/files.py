"""Files of checkpoint folders, read and checked: every reader of a config.json is here; `tensors.py` reads safetensors.

Each raises InputError that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ternbin.errors import InputError

PACKED_FILE = "packed.safetensors"
STOCK_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"

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
