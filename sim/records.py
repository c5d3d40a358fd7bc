"""What a simulated call leaves behind."""

from dataclasses import dataclass, field

from ternbin.isa import Unit


@dataclass(frozen=True)
class Record:
    """One instruction of a call: number ``index`` of ``unit``; issued in cycle ``start``, done in cycle ``done`` of the call.

    ``counters``: growth of the unit's own counters (names that start with the unit's) since its previous instruction was done.
    """

    unit: Unit
    index: int
    start: int
    done: int
    counters: dict[str, int]


@dataclass(frozen=True)
class CallRun:
    """One call: cycles from start to interrupt, counters as the registers gave them, records in order of completion, and the
    raw words of each probe (in the order of ``Program.probes_of_call``)."""

    cycles: int
    counters: dict[str, int]
    records: tuple[Record, ...] = field(repr=False)
    raw: tuple[bytes, ...] = field(repr=False)
