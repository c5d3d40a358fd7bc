"""A quantized model beside the smaller models that score as it does: what those need at equal quality.

Sizes of a model at one precision are points of energy a token and a score. Between two sizes the logarithm of the energy is a straight
line over the score; sizes that need more than another and score no better are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ternbin.energy import uncertainty
from ternbin.energy.uncertainty import Spread, Spreads
from ternbin.explore.quality import Score, Scored

AGAINST = "INT8"  # what a quantized model must beat
METRICS: dict[str, Callable[[Score], float]] = {  # more is better
    "nats": lambda score: -score.nats,
    "rouge_1": lambda score: score.rouge_1,
}


@dataclass(frozen=True)
class Size:
    """A model at a precision in one phase: ``score`` (more is better) and the energy of a token by source."""

    system: str
    score: float
    spreads: Spreads

    @property
    def pj(self) -> float:
        return sum(own.pj for own in self.spreads.values())


def frontier(sizes: Sequence[Size]) -> list[Size]:
    """Those that score better than all that need less, least energy first."""
    found: list[Size] = []
    for size in sorted(sizes, key=lambda size: (size.pj, -size.score)):
        if not found or size.score > found[-1].score:
            found.append(size)
    return found


def at_equal_score(own: Size, sizes: Sequence[Size]) -> dict[str, Any]:
    """What a model of ``sizes`` (a frontier) that scores as ``own`` does needs over what ``own`` does: ``value`` with its interval, of
    energy alone; ``bound``: none between two sizes, "at most" where the smallest scores better, "at least" where none scores as well.
    ``between``: the sizes that it follows from."""
    for below, above in pairwise(sizes):
        if below.score <= own.score <= above.score:
            part = (own.score - below.score) / (above.score - below.score)
            return _over(own, "", below, above, part)
    if own.score < sizes[0].score:
        return _over(own, "at most", sizes[0], sizes[0], 0.0)
    return _over(own, "at least", sizes[-1], sizes[-1], 0.0)


def _over(own: Size, bound: str, below: Size, above: Size, part: float) -> dict[str, Any]:
    """``part`` of the way from ``below`` to ``above``."""
    systems = list(dict.fromkeys((below.system, above.system)))
    ratio = uncertainty.between(below.spreads, above.spreads, part, own.spreads)
    return {"bound": bound, "between": systems} | ratio


def equal_quality(models: Sequence[Scored]) -> list[dict[str, Any]]:
    """Each quantized setting of the first model against all models in ``AGAINST``, by phase and metric; nothing where there is one size
    alone."""
    if len(models) < 2:
        return []
    phases = [phase["name"] for phase in models[0][1][AGAINST]["phases"]]
    result: list[dict[str, Any]] = []
    for metric, scored_by in METRICS.items():
        for number, phase in enumerate(phases):
            found = [
                (score, _size(score, records[score.precision]["phases"][number], scored_by(score)))
                for scores, records in models
                for score in scores
                if score.precision in records
            ]
            sizes = frontier([size for score, size in found if score.precision == AGAINST])
            result += [
                {"case": score.precision, "reference": AGAINST, "phase": phase, "metric": metric}
                | {"score": getattr(score, metric)}
                | at_equal_score(size, sizes)
                for score, size in found
                if score.precision.startswith("W")
            ]
    return result


def _size(score: Score, phase: dict[str, Any], value: float) -> Size:
    tokens = phase["tokens"]
    spreads = {
        source: Spread(own["pj"] / tokens, own["low"] / tokens, own["high"] / tokens)
        for source, own in phase["by_source"]["system"].items()
    }
    return Size(score.system, value, spreads)
