"""The families of models there are: one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS
from ternbin.models import files
from ternbin.models.bart.family import Bart
from ternbin.models.bert.family import Bert
from ternbin.models.family import Family
from ternbin.models.marian.family import Marian
from ternbin.models.mbart.family import MBart
from ternbin.models.model import QuantModel
from ternbin.models.whisper.family import Whisper
from ternbin.schema import shown

FAMILIES: tuple[Family[Any], ...] = (Bart(), MBart(), Marian(), Bert(), Whisper())


def supported() -> str:
    """What checkpoints there may be, in words."""
    families = ", ".join(name for family in FAMILIES for name in family.stock_types)
    return f"families (model_type of config.json): {families}; activation_function: {', '.join(ACTIVATIONS)}"


def family_named(model_type: object) -> Family[Any]:
    """The family of a `model_type`.  Raises InputError for one that none takes."""
    for family in FAMILIES:
        if model_type in (*family.stock_types, family.quant_type):
            return family
    known = [name for family in FAMILIES for name in (*family.stock_types, family.quant_type)]
    raise InputError(f"model_type must be {' or '.join(map(repr, known))}, not {shown(model_type)}")


def family_in(folder: str | Path) -> tuple[Family[Any], bool]:
    """The family of a checkpoint folder, and whether it holds a full-precision model.  Raises InputError."""
    folder = files.checked_folder(folder)
    model_type = files.read_config(folder).get("model_type")
    try:
        family = family_named(model_type)
    except InputError as error:
        raise InputError(f"{folder / files.CONFIG_FILE}: {error}") from None
    return family, model_type in family.stock_types


def family_of(model: QuantModel) -> Family[Any]:
    """The family of a quantized model."""
    return family_named(model.config.model_type)
