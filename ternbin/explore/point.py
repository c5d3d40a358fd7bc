"""A point of a design space: a model, what it is asked to do, and the accelerator and memory that do it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from ternbin.contract.hw import MAX_BEAMS, NAMED, HwConfig
from ternbin.counting.external import MemoryModel
from ternbin.schema import Range

Value = int | float | str | bool
Bits = Literal["1-1", "2-2", "1-8", "2-8"]
Tokens = Annotated[int, Range(1, 4095)]  # what the instruction fields hold
Dram = Literal["lpddr4", "hbm2", "ddr3"]

# Fields of HwConfig that are no setting of a point: its name, and the beams, which follow from those of the search.
UNSET = ("name", "beams")
HARDWARE: dict[str, type] = {
    field.name: type(getattr(NAMED["small"], field.name)) for field in fields(HwConfig) if field.name not in UNSET
}


@dataclass(frozen=True)
class Task:
    """What a program is for. ``lengths``: source tokens of each text; ``anywhere``: keys and values may be kept in external memory where
    they do not fit on chip."""

    model: str
    bits: str
    lengths: tuple[int, ...]
    new_tokens: int
    beams: int
    anywhere: bool


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is evaluated. ``model``: "bundled", "bart-base" (its shapes) or the folder of a checkpoint; ``bits``: weights-activations.

    ``texts`` of ``source_len`` tokens each are done together, ``new_tokens`` generated for each, by a search of ``beams``. ``latency`` and
    ``bandwidth``: of external memory, as :class:`MemoryModel` has them; ``dram``: its energy figure. ``hardware``: the fields of HwConfig
    but ``UNSET``; without ``kv_external``, keys and values are kept on chip where they fit. ``characterisation``: a file of gate-level
    figures in place of the stored ones.
    """

    model: str = "bundled"
    bits: Bits = "2-2"
    source_len: Tokens = 39
    new_tokens: Tokens = 10
    texts: Annotated[int, Range(1, MAX_BEAMS)] = 1
    beams: Annotated[int, Range(1, MAX_BEAMS)] = 1
    latency: Annotated[int, Range(1, 1 << 20)] = 40
    bandwidth: Annotated[float, Range(1 / 64, 1)] = 1.0
    dram: Dram = "lpddr4"
    hardware: tuple[tuple[str, Value], ...] = ()
    characterisation: str | None = None

    @staticmethod
    def of(values: Mapping[str, Value], characterisation: str | None = None) -> "Point":
        """From fields of a point and of HwConfig in one mapping."""
        own: dict[str, Any] = {name: value for name, value in values.items() if name not in HARDWARE}
        hardware = tuple(sorted((name, value) for name, value in values.items() if name in HARDWARE))
        return Point(**own, hardware=hardware, characterisation=characterisation)

    def values(self) -> dict[str, Value]:
        """The inverse of :func:`of`."""
        own = asdict(self)
        del own["characterisation"]
        return own | dict(own.pop("hardware"))

    @property
    def id(self) -> str:
        """16 hexadecimal digits that no other point has."""
        text = json.dumps(self.values() | {"characterisation": self.characterisation}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def config(self) -> HwConfig:
        """The accelerator, made for the beams of all texts. Raises InputError for one that cannot be built."""
        values: dict[str, Any] = dict(self.hardware)
        return HwConfig(name=self.id, **values).searching(self.beams, self.texts)

    @property
    def memory(self) -> MemoryModel:
        """Raises InputError for a memory that cannot be."""
        return MemoryModel(latency=self.latency, bandwidth=self.bandwidth)

    @property
    def task(self) -> Task:
        """What its program is for."""
        anywhere = "kv_external" not in dict(self.hardware)
        return Task(self.model, self.bits, (self.source_len,) * self.texts, self.new_tokens, self.beams, anywhere)


OWN = tuple(field.name for field in fields(Point) if field.name not in ("hardware", "characterisation"))
