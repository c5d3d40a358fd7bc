"""Which points of a space are looked at, and in which order; the same for the same space, whatever evaluates them."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from ternbin.errors import MissingToolError
from ternbin.explore.evaluate import Record
from ternbin.explore.point import Point
from ternbin.explore.space import RANKED, Space

CHUNK = 1024  # points of a grid at a time


class Sampler(Protocol):
    """Gives points batch by batch, and is told the records of one batch before it gives the next."""

    total: int

    def batches(self) -> Iterator[list[Point]]: ...

    def tell(self, records: Sequence[Record]) -> None: ...


def sampler_of(space: Space) -> Sampler:
    """Raises MissingToolError where Optuna is asked for and not there."""
    if space.sampling.kind in ("nsga2", "tpe"):
        return Adaptive(space)
    numbers = range(space.size) if space.sampling.kind == "grid" else drawn(space)
    return Listed(space, numbers)


def drawn(space: Space) -> Sequence[int]:
    """Numbers of random points, each once; more points add to those of fewer."""
    wanted, rng = space.sampling.points, random.Random(space.sampling.seed)
    if 2 * wanted >= space.size:
        everything = list(range(space.size))
        rng.shuffle(everything)
        return everything[:wanted]
    found: dict[int, None] = {}
    while len(found) < wanted:
        found[rng.randrange(space.size)] = None
    return list(found)


class Listed:
    """Points that are known from the start, by their numbers in the grid."""

    def __init__(self, space: Space, numbers: Sequence[int]):
        self.space, self.numbers, self.total = space, numbers, len(numbers)

    def batches(self) -> Iterator[list[Point]]:
        for first in range(0, self.total, CHUNK):
            yield [self.space.point(self.space.chosen(number)) for number in self.numbers[first : first + CHUNK]]

    def tell(self, records: Sequence[Record]) -> None:
        pass


class Adaptive:
    """Optuna's multi-objective samplers. Each batch follows from the records of those before, in their order, and from nothing else."""

    def __init__(self, space: Space):
        try:
            import optuna
        except ImportError:
            raise MissingToolError(
                f"sampler.kind {space.sampling.kind!r} needs Optuna: pip install 'ternbin[explore]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.total = space, space.sampling.points
        self._failed = optuna.trial.TrialState.FAIL
        self._axes: dict[str, Any] = {
            axis.name: optuna.distributions.CategoricalDistribution(range(len(axis.values)))
            if isinstance(axis.values[0], bool | str)
            else optuna.distributions.IntDistribution(0, len(axis.values) - 1)
            for axis in space.axes
        }
        sampling = space.sampling
        makers: dict[str, Callable[[], Any]] = {
            "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=max(2, sampling.batch), seed=sampling.seed),
            "tpe": lambda: optuna.samplers.TPESampler(seed=sampling.seed, multivariate=True, constant_liar=True),
        }
        directions: Any = ["maximize" if RANKED[name] > 0 else "minimize" for name in space.objectives]
        self._study = optuna.create_study(sampler=makers[sampling.kind](), directions=directions)
        self._asked: list[Any] = []

    def batches(self) -> Iterator[list[Point]]:
        left = self.total
        while left > 0:
            self._asked = [self._study.ask(self._axes) for _ in range(min(left, self.space.sampling.batch))]
            left -= len(self._asked)
            yield [self.space.point(self._chosen(trial.params)) for trial in self._asked]

    def tell(self, records: Sequence[Record]) -> None:
        for trial, record in zip(self._asked, records, strict=True):
            figures = record.get("figures")
            if figures is None:
                self._study.tell(trial, state=self._failed)
                continue
            for number, violated in enumerate(violations(self.space, figures)):
                trial.set_constraint(str(number), violated)
            self._study.tell(trial, [figures[name] for name in self.space.objectives])

    def _chosen(self, params: dict[str, int]) -> dict[str, Any]:
        return {axis.name: axis.values[params[axis.name]] for axis in self.space.axes}


def violations(space: Space, figures: dict[str, float]) -> list[float]:
    """By how much each bound is missed; negative where it is kept."""
    found: list[float] = []
    for name, bound in space.constraints.items():
        found += [bound.min - figures[name]] if bound.min is not None else []
        found += [figures[name] - bound.max] if bound.max is not None else []
    return found


def groups(points: Iterable[Point], key: Callable[[Point], object], most: int) -> Iterator[list[Point]]:
    """Points that have the same key together, in the order in which keys first came; at most ``most`` a group."""
    found: dict[object, list[Point]] = {}
    for point in points:
        found.setdefault(key(point), []).append(point)
    for members in found.values():
        for first in range(0, len(members), most):
            yield members[first : first + most]
