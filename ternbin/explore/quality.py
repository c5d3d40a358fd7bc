"""How well each precision of a subject scores, from the evaluations beside its checkpoint."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ternbin.errors import InputError
from ternbin.schema import DATA_BYTES, read_json

_STUDENT = re.compile(r"W\dA\d")
_BITS = re.compile(r"\d-\d")  # folders of further checkpoints, by their bits
SHAPE = {  # what a model needs follows from these: of ternbin.models.bart.shape.shape_model, and what a configuration calls them
    "d_model": "d_model",
    "heads": "encoder_attention_heads",
    "ffn": "encoder_ffn_dim",
    "layers": "encoder_layers",
    "vocab": "vocab_size",
    "activation": "activation_function",
    "positions": "max_position_embeddings",
    "scale_embedding": "scale_embedding",
}
UNQUANTIZED = {
    "FP32": "measured",
    "BF16": "projected",
    "INT8": "projected",
}  # a precision that the teacher runs at -> tier of its score


@dataclass(frozen=True)
class Score:
    """``nats`` a token and ROUGE-1 and -L of greedy decoding on held-out texts. ``tier``: projected where another precision was scored."""

    system: str
    precision: str
    nats: float
    rouge_1: float
    rouge_l: float
    tier: str


def scores(folder: Path) -> tuple[Score, ...]:
    """Of the evaluation in ``folder`` and of its settings of the same shape. A student's integer model where there is one: that
    is what runs; the teacher as FP32, and for BF16 and INT8 as if they kept all of it. Evaluations of another number of texts than
    the first are left out: their scores do not compare."""
    found: dict[tuple[str, str], Score] = {}
    for path, evaluation in _evaluations(folder).items():
        if not _other_shape(path, folder):
            for system, own in evaluation["models"].items():
                for score in _of(system, own):
                    found.setdefault((score.system, score.precision), score)
    return tuple(found.values())


def _evaluations(folder: Path) -> dict[Path, Any]:
    """By folder: this one, then those in it that are named after bits, where they have as many texts."""
    folders = [folder, *sorted(path for path in folder.iterdir() if _BITS.fullmatch(path.name))]
    found = {path: read_json(path / "eval.json", DATA_BYTES) for path in folders if (path / "eval.json").exists()}
    texts = next((evaluation["texts"] for evaluation in found.values()), None)
    return {path: evaluation for path, evaluation in found.items() if evaluation["texts"] == texts}


def _other_shape(setting: Path, folder: Path) -> dict[str, Any]:
    """The fields of SHAPE in which a setting differs from the model in ``folder``, which may be that model itself."""
    if setting == folder:
        return {}
    own, first = (read_json(path / "config.json", DATA_BYTES) for path in (setting, folder))
    return {name: own[name] for name in SHAPE.values() if own[name] != first[name]}


def _of(system: str, own: dict[str, Any]) -> list[Score]:
    student = _STUDENT.search(system)
    best = own.get("integer") or {"nll": own["nll"], **own["model"]}
    figures = best["nll"]["test"], best["greedy"]["rouge1"], best["greedy"]["rougeL"]
    if student:
        return [Score(system, student[0], *figures, "measured")]
    return [Score(system, precision, *figures, tier) for precision, tier in UNQUANTIZED.items()]


@dataclass(frozen=True)
class Other:
    """A model of the same task in another shape: ``config``, fields of a BART configuration that differ from the subject's."""

    name: str
    config: dict[str, Any]
    scores: tuple[Score, ...]


def others(folder: Path) -> tuple[Other, ...]:
    """Smaller full-precision models, which ``smaller.json`` beside a checkpoint lists, their scores as :func:`scores` gives a teacher's,
    and the checkpoint's settings of another shape. Raises InputError for scores on another number of texts than the checkpoint's own,
    which do not compare."""
    found: list[Other] = []
    path = folder / "smaller.json"
    if path.exists():
        data, own = read_json(path, DATA_BYTES), read_json(folder / "eval.json", DATA_BYTES)
        if data["texts"] != own["texts"]:
            raise InputError(f"{path}: texts must be {own['texts']}, not {data['texts']}")
        found += [Other(name, model["config"], tuple(_of(name, model))) for name, model in data["models"].items()]
    for setting, evaluation in _evaluations(folder).items():
        if config := _other_shape(setting, folder):
            found += [
                Other(system, config, tuple(_of(system, own)))
                for system, own in evaluation["models"].items()
                if _STUDENT.search(system)
            ]
    return tuple(found)


Records = dict[str, dict[str, Any]]  # of a model, by precision
Scored = tuple[tuple[Score, ...], Records]  # a model's scores, and what it needs


def quality(models: Sequence[Scored]) -> list[dict[str, Any]]:
    """Scores of a model, and of smaller ones, beside the energy of a token in each phase, best first."""
    rows = [row for scored, records in models for row in _rows(scored, records)]
    order = list(models[0][1])
    return sorted(rows, key=lambda row: (row["nats"], order.index(row["precision"])))


def _rows(scored: tuple[Score, ...], records: Records) -> list[dict[str, Any]]:
    return [
        {
            "system": score.system,
            "precision": score.precision,
            "nats": score.nats,
            "rouge_1": score.rouge_1,
            "rouge_l": score.rouge_l,
            "tier": score.tier,
            "per_token_pj": {p["name"]: p["per_token_pj"] for p in records[score.precision]["phases"]},
            "hardware": {p["name"]: p["hardware"] for p in records[score.precision]["phases"]},
        }
        for score in scored
        if score.precision in records
    ]
