"""A whole exploration: points from a sampler, records from an engine, all kept in a file as they come."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from ternbin.errors import InputError
from ternbin.explore.engines import Engine, code
from ternbin.explore.evaluate import Record, program_key
from ternbin.explore.front import scored
from ternbin.explore.point import Point
from ternbin.explore.records import RecordFile
from ternbin.explore.samplers import groups, sampler_of
from ternbin.explore.space import Space

MOST = 16  # points of one program that a worker gets at a time
PROBED = 1000  # points of which one at least must be buildable
Told = Callable[[int, int], None]  # points so far, points in all


@dataclass(frozen=True, kw_only=True)
class Explored:
    """Records in the order of the sampler, each once, with the scores of their models; ``fresh`` of them evaluated now, in ``seconds``."""

    space: Space
    records: list[Record] = field(repr=False)
    fresh: int
    seconds: float

    @property
    def rate(self) -> float:
        """Points a second."""
        return self.fresh / self.seconds if self.seconds else 0.0


def _silent(_done: int, _total: int) -> None:
    pass


def header(space: Space) -> dict[str, Any]:
    """The first line of a record file: of what space and version the records are, and what all points have in common."""
    axes = {axis.name: list(axis.values) for axis in space.axes}
    return {"space": space.digest, "code": code(), "name": space.name, "axes": axes, "fixed": dict(space.fixed)}


def explore(
    space: Space, records: Path, engine: Engine, *, restart: bool = False, told: Told = _silent, probe: bool = True
) -> Explored:
    """Evaluates what the sampler asks for and the file ``records`` does not have yet.

    Raises InputError where the file is not this space's, or where no point can be built; MissingToolError.
    """
    sampler = sampler_of(space)
    if probe:
        check_buildable(islice((point for batch in sampler_of(space).batches() for point in batch), PROBED))
    axes = [axis.name for axis in space.axes]
    file = RecordFile(records, header(space), restart=restart)
    found: dict[str, Record] = {}
    fresh, begun, before = 0, perf_counter(), 0
    try:
        for batch in sampler.batches():
            new = [point for point in dict.fromkeys(batch) if point.id not in file.records]
            done = before + len(batch) - len(new)
            told(done, sampler.total)
            for got in engine.run(groups(new, program_key, MOST)):
                for record in got:
                    file.add(record | {"point": {name: record["point"][name] for name in axes}})
                fresh, done = fresh + len(got), done + len(got)
                told(done, sampler.total)
            before += len(batch)
            sampler.tell([found.setdefault(point.id, scored(space, file.records[point.id])) for point in batch])
    finally:
        file.close()
    return Explored(space=space, records=list(found.values()), fresh=fresh, seconds=perf_counter() - begun)


def check_buildable(points: Iterable[Point]) -> None:
    """Raises InputError, with the first one's reason, unless one of them can be built."""
    reason = None
    for point in points:
        try:
            _ = point.config, point.memory
            return
        except InputError as error:
            reason = reason or str(error)
    raise InputError(f"the space must have a point that can be built, but none of the first {PROBED} can: {reason}")
