"""Energy lines: what is counted, how often an event happens for each count, and the energy of each event."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ternbin.contract.hw import HwConfig
from ternbin.energy import figures as tables
from ternbin.energy.figures import Figure, Record
from ternbin.energy.uncertainty import Spread, gathered, total

Basis = Literal[
    "counters", "traffic"
]  # what a line counts with: hardware counters, or external bytes by what they carry
Group = Literal["arithmetic", "on-chip", "external"]


@dataclass(frozen=True)
class Precision:
    """What the array computes with: ``mac`` names a characterised block, bits of one weight and one activation as they are stored, and of
    an activation in a column's operand register."""

    mac: str
    weight_bits: float
    act_bits: float
    column_bits: float

    @property
    def whole(self) -> bool:
        """Whether a step takes whole codes, as the references' elements do, and not one bit plane of each."""
        return self.mac in tables.MAC_BITS

    @staticmethod
    def of(hw: HwConfig) -> "Precision":
        return Precision(
            tables.ELEMENT.get(hw.kind, hw.kind), hw.weight_planes, hw.planes, hw.column_word_bits / hw.lanes
        )

    @staticmethod
    def reference(name: str) -> "Precision":
        weight_bits, act_bits = tables.MAC_BITS[name]
        return Precision(name, weight_bits, act_bits, act_bits)


@dataclass(frozen=True)
class Rate:
    """One kind of event on one configuration: it happens ``factor`` times for each count of ``counter`` and takes ``energy``."""

    unit: str
    event: str
    group: Group
    basis: Basis
    counter: str
    factor: float
    energy: Figure

    def pj_of(self, counted: float) -> float:
        """Picojoules of a span in which the counter grew by ``counted``."""
        return self.factor * counted * self.energy.pj

    def line(self, counted: float) -> "Line":
        """The energy line of a span in which the counter grew by ``counted``."""
        return Line(
            self.unit, self.event, self.group, self.basis, self.counter, self.factor, self.energy, counted=counted
        )


@dataclass(frozen=True)
class Line(Rate):
    """A rate and what its counter counted."""

    counted: float

    @property
    def record(self) -> Record:
        return self.energy.record

    @property
    def count(self) -> float:
        """Events."""
        return self.factor * self.counted

    @property
    def pj(self) -> float:
        return self.pj_of(self.counted)

    def asdict(self) -> dict[str, str | float]:
        """The fields of docs/result-schema.md."""
        e = self.energy
        return {
            "unit": self.unit,
            "event": self.event,
            "group": self.group,
            "basis": self.basis,
            "counter": self.counter,
            "factor": self.factor,
            "count": self.count,
            "pj_each": e.pj,
            "pj": self.pj,
            "pj_low": self.count * e.low,
            "pj_high": self.count * e.high,
            "tier": e.tier,
            "varies": e.varies,
            "table": e.record.table,
            "record": e.record.name,
            "source": e.source,
        }


def spreads(lines: Iterable[Line], group: str | None = None) -> dict[str, Spread]:
    """What each source of uncertainty adds to all lines (of one group)."""
    return gathered(
        (line.energy.varies, Spread(line.pj, line.count * line.energy.low, line.count * line.energy.high))
        for line in lines
        if group in (None, line.group)
    )


def value_pj(lines: Iterable[Line], group: str | None = None) -> float:
    """Picojoules of all lines (of one group)."""
    return sum(line.pj for line in lines if group in (None, line.group))


def total_pj(lines: Iterable[Line], group: str | None = None) -> dict[str, float]:
    """Picojoules of all lines (of one group): value, low, high (ternbin/energy/uncertainty.py)."""
    return total(spreads(lines, group))
