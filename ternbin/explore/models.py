"""The models of a design space by name: "bundled", "bart-base" or the folder of a checkpoint."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.graph.ir import Lowered

BUNDLED, SHAPED = "bundled", "bart-base"
METRICS = {"rouge1": 1, "rouge2": 1, "rougeL": 1, "nll": -1}  # scores of a model; 1: more is better


@lru_cache(maxsize=8)
def lowered_model(name: str, bits: str, res_bits: int) -> Lowered:
    """The folded graphs of a model; of "bart-base" its shapes, with weights that mean nothing. Raises InputError."""
    from ternbin.models import prepare

    if name == SHAPED:
        from ternbin.models.bart.shape import BART_BASE, shape_model

        dims: dict[str, Any] = BART_BASE
        return shape_model(bits, res_bits=res_bits, **dims)
    folders = folders_of(name)
    return prepare.lowered_model(folders.get(bits, folders[""]), bits, res_bits)


def folders_of(name: str) -> dict[str, Path]:
    """Folders of a model that has some: its own as "", and where it comes in several settings theirs by bits."""
    from ternbin.models import prepare

    return {"": prepare.bundled_dir()} | prepare.bundled_settings() if name == BUNDLED else {"": Path(name)}


def digest(name: str) -> str:
    """Changes with the files of a model."""
    if name == SHAPED:
        return SHAPED
    found = hashlib.sha256()
    for folder in dict.fromkeys(folders_of(name).values()):
        files = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])
        if not files:
            raise InputError(f"{folder}: must be the folder of a checkpoint, with config.json")
        for path in files:
            found.update(path.name.encode())
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def own_scores(name: str) -> dict[tuple[str, int], dict[str, float]]:
    """(bits, width of the residual stream) -> metric -> score: what a model's eval.json, one for each setting it comes in, says of that;
    empty without one.

    Of the integer model where it was scored, greedily decoded. Raises InputError for a broken file.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}
    for folder in () if name == SHAPED else folders_of(name).values():
        found |= _own(folder)
    return found


def _own(folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    scores, config = _read(folder / "eval.json"), _read(folder / "config.json")
    quant = config.get("quant") if config else None
    if scores is None or not isinstance(quant, dict):
        return {}
    found = _metrics(_scored(scores, quant.get("bits", "")))
    return {(quant["bits"], quant.get("res_bits", 16)): found} if found else {}


def _read(path: Path) -> dict[str, Any] | None:
    from ternbin.schema import read_json

    found = read_json(path) if path.exists() else None
    if found is not None and not isinstance(found, dict):
        raise InputError(f"{path}: must be an object, not {type(found).__name__}")
    return found


def _scored(scores: dict[str, Any], bits: str) -> dict[str, Any]:
    """The entry of one model: ``ternbin eval --json`` has nothing else, a bundle one a model, named by its bits (W2A2)."""
    if not isinstance(scores.get("models"), dict):
        return scores
    label = "W{}A{}".format(*bits.split("-")) if bits else ""
    entries = [entry for title, entry in scores["models"].items() if label and label in title]
    return entries[0] if entries and isinstance(entries[0], dict) else {}


def _metrics(entry: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in (entry.get("integer"), entry.get("model")):
        greedy = part.get("greedy") if isinstance(part, dict) else None
        for metric, value in (greedy or {}).items() if isinstance(greedy, dict) else ():
            if metric in METRICS and isinstance(value, int | float):
                found.setdefault(metric, value)
    nll = entry.get("nll")
    if isinstance(nll, dict) and isinstance(nll.get("test"), int | float):
        found["nll"] = nll["test"]
    return found
