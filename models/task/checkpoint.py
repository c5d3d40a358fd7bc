"""Checkpoints that a task can be done with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.models.families import family_in
from ternbin.models.family import Family


def writer_in(folder: Path, what: str) -> tuple[Family[Any], bool]:
    """Family of the encoder-decoder that reads text in `folder`, and whether it is a full-precision one.

    Raises InputError, with `what` it is to be, for any other model.
    """
    family, full_precision = family_in(folder)
    if not family.generates or family.listens:
        raise InputError(f"{what} must be an encoder-decoder that reads text, not the model in {str(folder)!r}")
    return family, full_precision


def full_precision_in(folder: Path, what: str) -> tuple[Family[Any], Any]:
    """Family and model of a full-precision encoder-decoder.  Raises InputError for any other model."""
    family, full_precision = writer_in(folder, what)
    if not full_precision:
        raise InputError(f"{what} must be a full-precision model, not the quantized one in {str(folder)!r}")
    return family, family.load_stock(folder)


def start_in(folder: Path) -> Any:
    """The full-precision model that training goes on from: of a quantized one, with the weights that it stands for. Raises InputError
    for what is no encoder-decoder that reads text."""
    family, full_precision = writer_in(folder, "--start")
    return family.load_stock(folder) if full_precision else family.stock(family.load(folder))
