"""What follows from records alone: which points keep the bounds, the front, an order of its points, what binds each."""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any

from ternbin.explore.evaluate import Record
from ternbin.explore.space import RANKED, Space

HALF = 0.5  # a phase in which no part is busy for half of the time waits: for answers of the memory, or part for part


def scored(space: Space, record: Record) -> Record:
    """With the scores of its model, and all its values in place of those of the axes."""
    point = {**space.fixed, **record["point"]}
    record = record | {"point": point}
    if "figures" in record:
        record["figures"] = record["figures"] | space.scored(point)
    return record


def feasible(space: Space, records: Iterable[Record]) -> list[Record]:
    """Those that could be evaluated and keep every bound."""
    return [record for record in records if "figures" in record and not broken(space, record)]


def broken(space: Space, record: Record) -> list[str]:
    """The figures that do not keep their bounds."""
    return [name for name, bound in space.constraints.items() if not bound.holds(record["figures"][name])]


def front(space: Space, records: Sequence[Record]) -> list[Record]:
    """The feasible points that no other one betters in one objective without being worse in another; of equal ones the first. Best
    first, as :func:`distance` says."""
    costs = {record["id"]: cost(space.objectives, record) for record in feasible(space, records)}
    kept: list[tuple[Record, tuple[float, ...]]] = []
    order = sorted((r for r in records if r["id"] in costs), key=lambda record: costs[record["id"]])
    for record in order:  # none of those that follow can be better than one before it
        own = costs[record["id"]]
        if not any(all(a <= b for a, b in zip(other, own, strict=True)) for _, other in kept):
            kept.append((record, own))
    found = [record for record, _ in kept]
    return sorted(found, key=lambda record: distance(space.objectives, record, found))


def cost(objectives: Sequence[str], record: Record) -> tuple[float, ...]:
    """The objectives, less being better in each."""
    return tuple(-RANKED[name] * record["figures"][name] for name in objectives)


def distance(objectives: Sequence[str], record: Record, among: Sequence[Record]) -> float:
    """By how many times an objective is worse than the best of it ``among`` these, multiplied over all objectives, as a logarithm."""
    return sum(abs(log(record["figures"][name] / best)) for name, best in bests(objectives, among).items())


def bests(objectives: Sequence[str], records: Sequence[Record]) -> dict[str, float]:
    """The best value of each objective."""
    return {
        name: (max if RANKED[name] > 0 else min)(record["figures"][name] for record in records) for name in objectives
    }


def binds(busy: Mapping[str, float]) -> str:
    """The part that is busy longest, or "waiting" where none is for half of the time."""
    name, share = max(busy.items(), key=lambda item: item[1])
    return name if share >= HALF else "waiting"


def summary(space: Space, records: Sequence[Record]) -> dict[str, Any]:
    """How many points there are of each kind."""
    evaluated = [record for record in records if "figures" in record]
    return {
        "points": len(records),
        "evaluated": len(evaluated),
        "impossible": len(records) - len(evaluated),
        "feasible": len(feasible(space, evaluated)),
    }
