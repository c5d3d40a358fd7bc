"""Energy lines: events of one kind, counted, with the energy of each."""

from dataclasses import dataclass

from ternbin.contract.hw import HwConfig
from ternbin.energy import figures as tables
from ternbin.energy.figures import Figure


@dataclass(frozen=True)
class Precision:
    """What the array computes with: ``mac`` names a characterised block, bits of one weight and one activation operand."""

    mac: str
    weight_bits: float
    act_bits: float

    @staticmethod
    def of(hw: HwConfig) -> "Precision":
        return Precision(hw.kind, hw.planes, hw.planes)

    @staticmethod
    def reference(name: str) -> "Precision":
        bits = tables.MAC_BITS[name]
        return Precision(name, bits, bits)


@dataclass(frozen=True)
class Line:
    """One kind of event: ``count`` events of ``energy`` each; ``group`` is arithmetic, on-chip or external."""

    unit: str
    event: str
    group: str
    count: float
    energy: Figure

    @property
    def pj(self) -> float:
        return self.count * self.energy.pj

    def asdict(self) -> dict:
        e = self.energy
        return {
            "unit": self.unit,
            "event": self.event,
            "group": self.group,
            "count": self.count,
            "pj_each": e.pj,
            "pj": self.pj,
            "pj_low": self.count * e.low,
            "pj_high": self.count * e.high,
            "tier": e.tier,
            "source": e.source,
        }
