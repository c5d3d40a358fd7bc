"""How well each precision of a subject scores, from the evaluations beside its checkpoint."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ternbin.schema import DATA_BYTES, read_json

_STUDENT = re.compile(r"W\dA\d")
_BITS = re.compile(r"\d-\d")  # folders of further checkpoints, by their bits
UNQUANTIZED = {
    "FP32": "measured",
    "BF16": "projected",
    "INT8": "projected",
}  # a precision that the teacher runs at -> tier of its score


@dataclass(frozen=True)
class Score:
    """``nats`` a token and ROUGE-L of greedy decoding on held-out texts. ``tier``: projected where another precision was scored."""

    system: str
    precision: str
    nats: float
    rouge_l: float
    tier: str


def scores(folder: Path) -> tuple[Score, ...]:
    """Of the evaluation in ``folder`` and in those below it that are named after bits. A student's integer model where there is one: that
    is what runs; the teacher as FP32, and for BF16 and INT8 as if they kept all of it. Evaluations of another number of texts than
    the first are left out: their scores do not compare."""
    files = [
        folder / "eval.json",
        *sorted(path / "eval.json" for path in folder.iterdir() if _BITS.fullmatch(path.name)),
    ]
    found: dict[tuple[str, str], Score] = {}
    evaluations: list[Any] = [read_json(path, DATA_BYTES) for path in files if path.exists()]
    for evaluation in evaluations:
        if evaluation["texts"] != evaluations[0]["texts"]:
            continue
        for system, own in evaluation["models"].items():
            for score in _of(system, own):
                found.setdefault((score.system, score.precision), score)
    return tuple(found.values())


def _of(system: str, own: dict[str, Any]) -> list[Score]:
    student = _STUDENT.search(system)
    best = own.get("integer") or {"nll": own["nll"], **own["model"]}
    nats, rouge_l = best["nll"]["test"], best["greedy"]["rougeL"]
    if student:
        return [Score(system, student[0], nats, rouge_l, "measured")]
    return [Score(system, precision, nats, rouge_l, tier) for precision, tier in UNQUANTIZED.items()]


def quality(scored: tuple[Score, ...], records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores beside the energy of a token in each phase, best first."""
    rows = [
        {
            "system": score.system,
            "precision": score.precision,
            "nats": score.nats,
            "rouge_l": score.rouge_l,
            "tier": score.tier,
            "per_token_pj": {p["name"]: p["per_token_pj"] for p in records[score.precision]["phases"]},
        }
        for score in scored
        if score.precision in records
    ]
    return sorted(rows, key=lambda row: (row["nats"], list(records).index(row["precision"])))
