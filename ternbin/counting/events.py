"""Event counters of a program without simulating it: what the hardware counts, from the effects of its instructions.

Everything that follows from the instructions alone is exact (``contract.effects``). Cycles, and those in which a unit is busy, follow
from when instructions start and are done, which the cycle model says. Stalls, waits and saturations are not here: they depend on
timing and values.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from ternbin.contract.counters import countable
from ternbin.contract.effects.table import counts
from ternbin.contract.isa import INSTRUCTION_BYTES, UNIT_OF, Instruction, Unit
from ternbin.contract.program import Program
from ternbin.counting.cycles import CallPrediction
from ternbin.counting.cycles.call import INTERRUPT


def add(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Sums by name."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def busy(spans: Sequence[tuple[int, int]]) -> int:
    """Cycles in which a unit has work, from (start, done) of its instructions in order: from the cycle after an instruction's
    issue to the one in which it is done."""
    total = reached = 0
    for start, done in spans:
        total += max(0, done - max(start, reached))
        reached = max(reached, done)
    return total


def call_events(
    program: Program,
    number: int,
    timing: CallPrediction,
    instructions: Sequence[Instruction],
    known: dict[int, dict[str, int]] | None = None,
) -> dict[str, int]:
    """All counters of a call that are known without simulation; those of TIMED as exact as ``timing``. ``instructions``: the call's;
    ``known`` keeps what each adds for the next call, for equal ones are one object."""
    units = [UNIT_OF.get(i.op) for i in instructions]
    times = list(zip(timing.start.tolist(), timing.done.tolist(), strict=True))
    spans = {unit: [time for time, own in zip(times, units, strict=True) if own == unit] for unit in Unit}
    timed = {f"{unit.name.lower()}_busy": busy(own) for unit, own in spans.items()}
    timed |= {
        "cycles": timing.cycles - INTERRUPT,
        "axi_fetch_beats": timing.fetched * INSTRUCTION_BYTES // program.hw.axi_bytes,
    }
    known = {} if known is None else known
    known |= {id(i): counts(program.hw, i) for i in instructions if id(i) not in known}
    counted = add(known[id(i)] for i in instructions)
    return dict.fromkeys(countable(program.hw), 0) | counted | timed
