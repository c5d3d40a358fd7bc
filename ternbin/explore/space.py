"""A design space, read from a TOML file: axes, what is fixed, constraints, objectives, how to sample. docs/explore.md shows one."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from typing_extensions import TypedDict

from ternbin.contract.hw import KINDS, NAMED, HwConfig, load_hw
from ternbin.energy.figures import read_characterisation
from ternbin.errors import InputError
from ternbin.explore.evaluate import FIGURES, MORE
from ternbin.explore.models import BUNDLED, METRICS, SHAPED, digest, own_scores
from ternbin.explore.point import HARDWARE, OWN, Point, Value
from ternbin.schema import Range, read_bytes, read_toml, validated

Scalar = bool | int | float | str
FIELD_TYPES = get_type_hints(HwConfig, include_extras=True) | get_type_hints(Point, include_extras=True)
READY = Path(__file__).with_name("spaces")
MOST_POINTS = 10_000_000
RANKED = {
    **dict.fromkeys(FIGURES, -1),
    **dict.fromkeys(MORE, 1),
    **METRICS,
}  # figure -> 1 where more is better, -1 where less is


@dataclass(frozen=True, kw_only=True)
class Span:
    """From ``low`` to at most ``high`` in steps, or each ``times`` the one before."""

    low: int | float
    high: int | float
    step: Annotated[int | float, Range(above=0)] | None = None
    times: Annotated[int | float, Range(above=1)] | None = None

    def values(self, where: str) -> list[int | float]:
        if (self.step is None) == (self.times is None):
            raise InputError(f"{where} must have a step or times, one of them")
        if not 0 < self.low <= self.high:
            raise InputError(f"{where}.high must be at least low ({self.low}), not {self.high}")
        found, value = [], self.low
        while value <= self.high:
            found.append(value)
            value = value + self.step if self.step is not None else value * (self.times or 0)
            if len(found) > 100_000:
                raise InputError(f"{where} must have at most 100,000 values, not more")
        return found


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a figure must reach, or must not exceed."""

    min: Annotated[float, Range()] | None = None
    max: Annotated[float, Range()] | None = None

    def holds(self, value: float) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """``points``: how many at most, but for the grid, which has all. ``batch``: how many an Optuna sampler asks for at a time."""

    kind: Literal["grid", "random", "nsga2", "tpe"] = "grid"
    points: Annotated[int, Range(1, MOST_POINTS)] = 1000
    seed: Annotated[int, Range(0, (1 << 32) - 1)] = 0
    batch: Annotated[int, Range(1, 10_000)] = 50


@dataclass(frozen=True, kw_only=True)
class SpaceFile:
    """What the TOML file holds."""

    name: str = ""
    hw: str = "small"
    objectives: list[str]
    space: dict[str, Scalar | list[Scalar] | Span] = field(default_factory=dict)
    constraints: dict[str, Bound] = field(default_factory=dict)
    sampler: Sampling = field(default_factory=Sampling)
    scores: list[dict[str, Scalar]] = field(default_factory=list)


@dataclass(frozen=True)
class Axis:
    """A field that varies, with its values in order."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Space:
    """A checked design space. ``fixed``: fields with one value, ``axes``: those with several, the outermost of a grid first."""

    name: str
    objectives: tuple[str, ...]
    axes: tuple[Axis, ...]
    fixed: Mapping[str, Value]
    constraints: Mapping[str, Bound]
    sampling: Sampling
    scores: Sequence[Mapping[str, Value]]
    characterisation: str | None = None

    @property
    def size(self) -> int:
        """Points of the whole grid."""
        size = 1
        for axis in self.axes:
            size *= len(axis.values)
        return size

    def chosen(self, number: int) -> dict[str, Value]:
        """The values of the axes at point ``number`` of the grid; the last axis changes first."""
        found: dict[str, Value] = {}
        for axis in reversed(self.axes):
            number, place = divmod(number, len(axis.values))
            found[axis.name] = axis.values[place]
        return dict(reversed(found.items()))

    def point(self, chosen: Mapping[str, Value]) -> Point:
        """With the axes set so."""
        return Point.of({**self.fixed, **chosen}, self.characterisation)

    def scored(self, point: Mapping[str, Value]) -> dict[str, float]:
        """The scores of a point's model: of the first entry of ``scores`` that agrees with it for each metric."""
        found: dict[str, float] = {}
        for entry in self.scores:
            if all(point[name] == value for name, value in entry.items() if name not in METRICS):
                found = {name: float(value) for name, value in entry.items() if name in METRICS} | found
        return found

    @property
    def digest(self) -> str:
        """Changes with whatever the records depend on; not with the number of points, which may grow."""
        models = {str(name): digest(str(name)) for name in self.values_of("model")}
        how: list[Any] = [self.sampling.kind, self.sampling.seed]
        if self.sampling.kind in ("nsga2", "tpe"):
            bounds = {name: (bound.min, bound.max) for name, bound in self.constraints.items()}
            how += [self.sampling.batch, self.objectives, bounds, [dict(entry) for entry in self.scores]]
        axes = [(axis.name, axis.values) for axis in self.axes]
        text = json.dumps([axes, sorted(self.fixed.items()), how, models, self._figures])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def _figures(self) -> str | None:
        """Of the gate-level figures, where they are not the stored ones."""
        return None if self.characterisation is None else hashlib.sha256(read_bytes(self.characterisation)).hexdigest()

    def values_of(self, name: str) -> tuple[Value, ...]:
        """All values of a field."""
        found = [axis.values for axis in self.axes if axis.name == name]
        return found[0] if found else (self.fixed[name],)


# ---- reading --------------------------------------------------------------------------------------------------------

# A grid's inner axes: what points that differ in nothing else share most of their evaluation with.
_INNER = ("burst_beats", "latency", "bandwidth", "clock_mhz", "dram")


def ready_spaces() -> dict[str, Path]:
    """The spaces that come along, by name."""
    return {path.stem: path for path in sorted(READY.glob("*.toml"))}


def read_space(spec: str | Path, characterisation: str | None = None) -> Space:
    """A space that comes along, or one from a TOML file. Raises InputError, naming the file and the field, for one that is none."""
    if characterisation is not None:
        read_characterisation(characterisation)
    path = ready_spaces().get(str(spec), Path(spec))
    if path.suffix != ".toml":
        raise InputError(f"SPACE must be one of {', '.join(ready_spaces())} or a .toml file, not {str(spec)!r}")
    raw = validated(SpaceFile, read_toml(path), path)
    try:
        return _space(raw, path, characterisation)
    except InputError as error:
        raise InputError(f"{path}: {error}" if not str(error).startswith(str(path)) else str(error)) from None


def _space(raw: SpaceFile, path: Path, characterisation: str | None) -> Space:
    hw = load_hw(raw.hw if not raw.hw.endswith(".toml") else str(path.parent / raw.hw))
    given: dict[str, Any] = {name: getattr(hw, name) for name in HARDWARE if name != "kv_external" or hw.kv_external}
    given |= {name: getattr(Point(), name) for name in OWN}
    axes: list[Axis] = []
    for name, wanted in raw.space.items():
        first, *others = _values(name, wanted, path)
        if others:
            axes.append(Axis(name, (first, *others)))
            given.pop(name, None)
        else:
            given[name] = first
    axes.sort(key=lambda axis: _INNER.index(axis.name) if axis.name in _INNER else -1)
    space = Space(
        name=raw.name or path.stem,
        objectives=tuple(raw.objectives),
        axes=tuple(axes),
        fixed=given,
        constraints=raw.constraints,
        sampling=raw.sampler,
        scores=(),
        characterisation=characterisation,
    )
    _check_figures(space)
    space = replace(space, scores=_scores(raw, path, space.values_of("model")))
    _check_scores(space)
    if space.sampling.kind == "grid" and space.size > MOST_POINTS:
        raise InputError(f"a grid must have at most {MOST_POINTS:,} points, not {space.size:,}: use another sampler")
    return space


def _values(name: str, wanted: Scalar | list[Scalar] | Span, path: Path) -> tuple[Value, ...]:
    """The checked values of a field, in order. Raises InputError for none, one twice, or one of another kind."""
    if name not in HARDWARE and name not in OWN:
        raise InputError(f"unknown field 'space.{name}'")
    found: list[Any] = (
        wanted.values(f"space.{name}") if isinstance(wanted, Span) else wanted if isinstance(wanted, list) else [wanted]
    )
    if not found:
        raise InputError(f"space.{name} must have at least one value, not an empty list")
    checked = _checked(name, found, path, listed=isinstance(wanted, list))
    twice = [value for number, value in enumerate(checked) if value in checked[:number]]
    if twice:
        raise InputError(f"space.{name} must have each value once, not {twice[0]!r} twice")
    return checked


def _checked(
    name: str, values: Sequence[Any], path: Path, *, listed: bool = False, table: str = "space"
) -> tuple[Value, ...]:
    """Values of a field, within the bounds of its type; ``listed``: whether the file has a list."""
    if isinstance(_example(name), float):
        values = [float(value) if type(value) is int else value for value in values]
    kind: Any = FIELD_TYPES[name]
    if listed:
        validated(_nested(table, name, list[kind]), {table: {name: values}}, path)
    else:
        for value in values:
            validated(_nested(table, name, kind), {table: {name: value}}, path)
    return tuple(_known(name, value, path, table) for value in values)


@cache
def _nested(table: str, name: str, kind: Any) -> Any:
    """The type of a table that holds one field."""
    typed: Any = TypedDict  # of names that are known at run time only
    return typed("table", {table: typed("fields", {name: kind})})


def _known(name: str, value: Any, path: Path, table: str) -> Value:
    """What a type does not say of a value: kinds that are built, models that are there."""
    if name == "kind" and value not in KINDS:
        raise InputError(f"{table}.kind must be of {', '.join(KINDS)}, not {value!r}")
    if name == "model" and value not in (BUNDLED, SHAPED):
        folder = path.parent / value
        if not (folder / "config.json").is_file():
            raise InputError(f"{table}.model must be {BUNDLED}, {SHAPED} or the folder of a checkpoint, not {value!r}")
        return str(folder)
    return value


def _example(name: str) -> Value:
    """A value of the field's type."""
    return getattr(Point(), name) if name in OWN else getattr(NAMED["small"], name)


def _check_figures(space: Space) -> None:
    """Raises InputError for figures that there are not, twice the same objective, and bounds that nothing can keep."""
    if not space.objectives:
        raise InputError("objectives must name at least one figure")
    for where, names in (("objectives", space.objectives), ("constraints", tuple(space.constraints))):
        for name in names:
            if name not in RANKED:
                raise InputError(f"{where} must be of {', '.join(RANKED)}, not {name!r}")
        if len(set(names)) < len(names):
            raise InputError(f"{where} must name each figure once")
    for name, bound in space.constraints.items():
        if bound.min is None and bound.max is None:
            raise InputError(f"constraints.{name} must have a min or a max")
        if bound.min is not None and bound.max is not None and bound.min > bound.max:
            raise InputError(f"constraints.{name}.max must be at least min ({bound.min:g}), not {bound.max:g}")


def _scores(raw: SpaceFile, path: Path, models: Sequence[Value]) -> list[Mapping[str, Value]]:
    """What the file says of models, then what checkpoints say of themselves."""
    found: list[Mapping[str, Value]] = []
    for number, entry in enumerate(raw.scores):
        own: dict[str, Value] = {}
        for name, value in entry.items():
            if name in METRICS:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise InputError(f"scores[{number}].{name} must be a number, not {value!r}")
                own[name] = value
            elif name in HARDWARE or name in OWN:
                own[name] = _checked(name, [value], path, table=f"scores[{number}]")[0]
            else:
                raise InputError(f"unknown field 'scores[{number}].{name}'")
        found.append(own)
    for model in models:
        for (bits, res_bits), scores in own_scores(str(model)).items():
            found.append({"model": model, "bits": bits, "res_bits": res_bits, **scores})
    return found


def _check_scores(space: Space) -> None:
    """Raises InputError where an objective or a constraint is a score that some model of the space does not have."""
    needed = [name for name in (*space.objectives, *space.constraints) if name in METRICS]
    named = {name for entry in space.scores for name in entry if name not in METRICS}
    for point in _combinations(space, sorted({"model", "bits", "res_bits"} | named)):
        missing = [name for name in needed if name not in space.scored({**space.fixed, **point})]
        if missing:
            setting = ", ".join(f"{name} {point[name]}" for name in point)
            raise InputError(f"scores of {missing[0]} must be there for every model, not missing for {setting}")


def _combinations(space: Space, names: Sequence[str]) -> Iterator[dict[str, Value]]:
    if not names:
        yield {}
        return
    for rest in _combinations(space, names[1:]):
        for value in space.values_of(names[0]):
            yield {names[0]: value, **rest}
