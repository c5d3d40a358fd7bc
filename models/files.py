"""Files of checkpoint folders, read and checked: every reader of a config.json is here; `tensors.py` reads safetensors.

Each raises InputError that names the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ternbin import schema
from ternbin.errors import InputError
from ternbin.models.fields import GenerationFields
from ternbin.schema import shown, validated

PACKED_FILE = "packed.safetensors"
STOCK_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"

Model = TypeVar("Model", bound=nn.Module)
Made = TypeVar("Made")


# -- folder and JSON ---------------------------------------------------------------------------


def checked_folder(folder: str | Path) -> Path:
    """The folder, which must exist."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"checkpoint must be a folder, not {str(folder)!r}")
    return folder


def read_json(path: Path, limit: int = schema.SETTINGS_BYTES) -> dict:
    """The JSON object of a file."""
    if not path.exists():
        raise InputError(f"{path}: file must exist in a checkpoint")
    values = schema.read_json(path, limit)
    if not isinstance(values, dict):
        raise InputError(f"{path}: file must hold a JSON object, not {shown(values)}")
    return values


def read_config(folder: Path) -> dict:
    """The values of a checkpoint's config.json."""
    return read_json(folder / CONFIG_FILE)


def empty_model(folder: Path, make: Callable[[dict], Model], check: Callable[[dict, Path], None]) -> Model:
    """The model that `make` builds from the values of config.json, without storage; `check` first refuses what no model can have.

    Whatever the library makes of the values that are left, the error names the file.
    """
    path, values = folder / CONFIG_FILE, read_config(folder)
    check(values, path)
    with torch.device("meta"):
        return built(path, lambda: make(values))


def built(path: Path, make: Callable[[], Made]) -> Made:
    """What `make` makes of a file; classes of the library check values as they like, by assertions or attributes that are not there."""
    try:
        return make()
    except Exception as error:
        raise InputError(f"{path}: {_one_line(error)}") from error


def generation_values(folder: Path) -> tuple[dict, Path]:
    """Settings of generating, checked, and the file they are in: one of their own, or config.json of older checkpoints."""
    path = folder / GENERATION_FILE
    path = path if path.exists() else folder / CONFIG_FILE
    values = read_json(path)
    validated(GenerationFields, values, path, unknown=True)
    return values, path


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:290]}..."
