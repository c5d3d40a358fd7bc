"""Uncertainty by source: what is not known about a figure is one factor shared by everything that figures of the same source price.

Each source has one variable, uniform from -1 to 1 and independent of the others. At 0 its figures have their values, at -1 their low
ends, at 1 their high ends, on straight lines between. A total is then linear in what each source contributes, and both sides of a ratio
move together where they share a source. Intervals hold ``COVERED`` of ``DRAWS`` draws; those of a source depend on its name and ``SEED``
alone, so that figures computed at different places agree.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from zlib import crc32

import numpy as np

SEED, DRAWS, COVERED = 1, 2000, 0.9


@cache
def draws(source: str) -> np.ndarray:
    """The variable of a source in every draw, each stratum of -1 to 1 once."""
    order = np.random.default_rng([SEED, crc32(source.encode())]).permutation(DRAWS)
    return (order + 0.5) / DRAWS * 2 - 1


@dataclass(frozen=True)
class Spread:
    """Picojoules that figures of one source add up to: value, all at their low ends, all at their high ends."""

    pj: float
    low: float
    high: float

    def __add__(self, other: "Spread") -> "Spread":
        return Spread(self.pj + other.pj, self.low + other.low, self.high + other.high)

    def values(self, source: str) -> np.ndarray:
        at = draws(source)
        return self.pj + np.where(at < 0, at * (self.pj - self.low), at * (self.high - self.pj))


Spreads = Mapping[str, Spread]  # source -> what it adds


def gathered(parts: Iterable[tuple[str, Spread]]) -> dict[str, Spread]:
    """Sums by source."""
    result: dict[str, Spread] = {}
    for source, part in parts:
        result[source] = result[source] + part if source in result else part
    return result


def values(spreads: Spreads) -> np.ndarray:
    """The total in every draw."""
    return sum((own.values(source) for source, own in spreads.items()), np.zeros(DRAWS))


def interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return float(low), float(high)


def total(spreads: Spreads) -> dict[str, float]:
    """Picojoules: value and interval."""
    low, high = interval(values(spreads))
    return {"pj": sum(own.pj for own in spreads.values()), "low": low, "high": high}


def ratio(theirs: Spreads, ours: Spreads) -> dict[str, float]:
    """One total over another, with its interval."""
    low, high = interval(values(theirs) / values(ours))
    value = sum(own.pj for own in theirs.values()) / sum(own.pj for own in ours.values())
    return {"value": value, "low": low, "high": high}


def between(below: Spreads, above: Spreads, part: float, ours: Spreads) -> dict[str, float]:
    """A total ``part`` of the way from one to another, on the logarithm, over a third, with its interval."""
    low, high = interval(values(below) ** (1 - part) * values(above) ** part / values(ours))
    at = [sum(own.pj for own in side.values()) for side in (below, above, ours)]
    return {"value": at[0] ** (1 - part) * at[1] ** part / at[2], "low": low, "high": high}


def leading(theirs: Spreads, ours: Spreads) -> dict[str, dict[str, float]]:
    """What each source alone does to a ratio: its interval where all others have their values."""
    result: dict[str, dict[str, float]] = {}
    for source in {**theirs, **ours}:
        moved: list[np.ndarray] = []
        for side in (theirs, ours):
            fixed = sum(own.pj for name, own in side.items() if name != source)
            moved.append(fixed + (side[source].values(source) if source in side else np.zeros(DRAWS)))
        low, high = interval(moved[0] / moved[1])
        result[source] = {"low": low, "high": high}
    return result
