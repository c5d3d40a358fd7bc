"""The families of models there are: one entry each, imported when a checkpoint needs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS
from ternbin.models import files
from ternbin.models.family import Family
from ternbin.models.model import QuantModel
from ternbin.schema import shown


def _bart() -> Family[Any]:
    from ternbin.models.bart.family import Bart

    return Bart()


def _mbart() -> Family[Any]:
    from ternbin.models.mbart.family import MBart

    return MBart()


def _marian() -> Family[Any]:
    from ternbin.models.marian.family import Marian

    return Marian()


def _bert() -> Family[Any]:
    from ternbin.models.bert.family import Bert

    return Bert()


def _whisper() -> Family[Any]:
    from ternbin.models.whisper.family import Whisper

    return Whisper()


_FAMILIES: dict[str, Callable[[], Family[Any]]] = {
    "bart": _bart,
    "mbart": _mbart,
    "marian": _marian,
    "bert": _bert,
    "whisper": _whisper,
}
"""By the `model_type` of full-precision models; that of quantized ones has QUANT before it."""
QUANT = "ternbin_"
_MODEL_TYPES = [model_type for name in _FAMILIES for model_type in (name, QUANT + name)]


@cache
def _family(name: str) -> Family[Any]:
    return _FAMILIES[name]()


def families() -> tuple[Family[Any], ...]:
    """All of them, always in the same order."""
    return tuple(_family(name) for name in _FAMILIES)


def supported() -> str:
    """What checkpoints there may be, in words."""
    return (
        f"families (model_type of config.json): {', '.join(_FAMILIES)}; activation_function: {', '.join(ACTIVATIONS)}"
    )


def family_named(model_type: object) -> Family[Any]:
    """The family of a `model_type`.  Raises InputError for one that none takes."""
    if model_type in _MODEL_TYPES:
        return _family(str(model_type).removeprefix(QUANT))
    raise InputError(f"model_type must be {' or '.join(map(repr, _MODEL_TYPES))}, not {shown(model_type)}")


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
