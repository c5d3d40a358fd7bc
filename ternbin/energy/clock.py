"""The clock that a configuration meets: static timing of the characterised cores, and the access of its slowest memory by the table.

Derived: a core's own path grows with the logarithm of its rows times lanes, on the line from the smallest characterised one to the
largest; it was timed with a memory access of ``ASSUMED_NS``, and what a bank takes longer comes on top. Without placement, of typical
cells.
"""

import math
from dataclasses import dataclass

from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import made_of
from ternbin.energy import figures as tables

ASSUMED_NS = 0.8  # of the cell library's facts (ternbin/energy/library.py)


@dataclass(frozen=True)
class Clock:
    """``core_ns``: longest path of the core as it was timed; ``access_ns``: of the slowest memory, by name."""

    core_ns: float
    memory: str
    access_ns: float

    @property
    def period_ns(self) -> float:
        return self.core_ns + max(0.0, self.access_ns - ASSUMED_NS)

    @property
    def meets_mhz(self) -> float:
        return 1e3 / self.period_ns

    def asdict(self) -> dict[str, float | str]:
        return {
            "meets_mhz": self.meets_mhz,
            "core_ns": self.core_ns,
            "memory": self.memory,
            "access_ns": self.access_ns,
        }


def _core_ns(hw: HwConfig) -> float:
    core = tables.characterisation()["core"]
    timed = [
        (_size(HwConfig(**one["hardware"])), one["critical_path_ns"])
        for one in (*core["cores"], *core.get("blind", ()))
    ]
    (small, short), (large, long) = min(timed), max(timed)
    return short + (long - short) * (_size(hw) - small) / (large - small)


def _size(hw: HwConfig) -> float:
    return math.log2(hw.rows * hw.lanes)


def clock(hw: HwConfig) -> Clock:
    access = {name: tables.sram(memory.words, memory.bits).access_ns for name, memory in made_of(hw).items()}
    slowest = max(access, key=access.__getitem__)
    return Clock(_core_ns(hw), slowest, access[slowest])
