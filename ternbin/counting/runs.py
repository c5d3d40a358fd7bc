"""What a simulated call leaves behind."""

from dataclasses import dataclass, field

from ternbin.contract.isa import Unit
from ternbin.decoding.search import Fed, Found

PHASES = ("prefill", "decode")  # what the calls of a run belong to; a model that does not generate has the first alone


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


@dataclass(frozen=True)
class RunResult:
    """What a run gave. ``tokens``: after the start token, forced ones and eos included. Of a beam search, or of several texts, ``found``
    holds every text, ``tokens`` is that of the first, and ``trace`` says what the beams of all were fed. ``calls[i]`` is program call i;
    a run that stopped early has fewer calls than the program. ``memory``: external memory afterwards. ``sim_seconds``: without the
    build."""

    tokens: list[int]
    calls: list[CallRun] = field(repr=False)
    memory: bytearray = field(repr=False)
    sim_seconds: float
    build_seconds: float
    found: list[Found] = field(default_factory=list[Found])
    trace: list[Fed] = field(default_factory=list[Fed], repr=False)

    @property
    def cycles(self) -> int:
        return sum(call.cycles for call in self.calls)

    @property
    def steps(self) -> list[int]:
        """Decode calls of each text until it was done."""
        return [len(text.trace) for text in self.found] or [len(self.calls) - 1 if self.tokens else 0]

    @property
    def cycles_per_second(self) -> float:
        return self.cycles / self.sim_seconds
