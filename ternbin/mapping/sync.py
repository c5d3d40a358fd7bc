"""Tokens: which instruction waits for which, from the memory words and external bytes that instructions touch.

Instructions come in program order; every pair of conflicting accesses must happen in that order. Units complete in
order, so one wait covers everything before it on the other unit, and what that instruction itself had waited for.
Units may begin an instruction before they have completed the one before it. The execute unit then writes in order, and only
after all reads of earlier instructions: there, only a read of what an earlier instruction writes must wait.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ternbin.contract.effects.access import READ, WRITE, Access
from ternbin.contract.effects.table import touches
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import UNIT_OF, Instruction, Unit
from ternbin.contract.memories import memories
from ternbin.contract.pipeline import MAX_TOKENS
from ternbin.errors import InputError


class History:
    """For every word, the last instruction (counted within its unit) of each unit that read and that wrote it."""

    def __init__(self, hw: HwConfig):
        self.words = {
            mem: np.full((memory.words, 2, len(Unit)), -1, dtype=np.int32) for mem, memory in memories(hw).items()
        }
        self.bytes: list[tuple[int, int, int, Unit, int]] = []  # low, high, kind, unit, number

    def conflicts(self, touched: Iterable[Access], own: Unit) -> np.ndarray:
        """Per unit the last instruction that one of unit ``own`` with these accesses must follow, -1 for none."""
        latest = np.full(len(Unit), -1, dtype=np.int32)
        for access in touched:
            if access.mem is None:
                for low, high, kind, unit, number in self.bytes:
                    if (kind or access.kind) and low < access.words[1] and access.words[0] < high:
                        latest[unit] = max(latest[unit], number)
            elif access.words.size:
                table = self.words[access.mem][access.words].max(axis=0)
                last = table[WRITE] if access.kind == READ else table.max(axis=0)
                if access.kind == WRITE and own == Unit.EXECUTE:
                    last[own] = -1
                np.maximum(latest, last, out=latest)
        return latest

    def note(self, touched: Iterable[Access], unit: Unit, number: int, constant: tuple[int, int] | None = None) -> None:
        """Enter the accesses of an instruction. Reads of the ``constant`` bytes need not be remembered."""
        for access in touched:
            if access.mem is not None:
                self.words[access.mem][access.words, access.kind, unit] = number
            elif (
                access.kind == WRITE
                or constant is None
                or access.words[0] < constant[0]
                or access.words[1] > constant[1]
            ):
                self.bytes.append((int(access.words[0]), int(access.words[1]), access.kind, unit, number))


def insert_tokens(
    hw: HwConfig,
    instructions: Sequence[Instruction],
    constant: tuple[int, int] | None = None,
    memo: dict[tuple, list[Access]] | None = None,
) -> list[Instruction]:
    """The instructions of one call (no END) with ``wait`` and ``signal`` set; all counters end at 0.

    ``constant`` is a byte range of external memory that no instruction writes; ``memo`` keeps the accesses of instructions for
    the next call. Raises InputError where a token counter could overflow.
    """
    history, count, memo = History(hw), [0] * len(Unit), {} if memo is None else memo
    place: dict[tuple[Unit, int], int] = {}
    known = np.full(
        (len(Unit), len(Unit)), -1, dtype=np.int32
    )  # known[u][v]: last of v that u's next is sure to follow
    after: dict[tuple[Unit, int], np.ndarray] = {}  # what is sure to be done once this instruction is done
    waits: list[set[Unit]] = [set() for _ in instructions]
    signals: list[set[Unit]] = [set() for _ in instructions]
    for position, instruction in enumerate(instructions):
        key = instruction.op, *instruction.fields.items()
        if key not in memo:
            memo[key] = touches(hw, instruction)
        unit, touched = UNIT_OF[instruction.op], memo[key]
        number, clock = count[unit], known[unit]
        latest = history.conflicts(touched, unit)
        late = [u for u in Unit if u != unit and latest[u] > clock[u]]
        # the most far-reaching waits first, for they may imply others
        for other in sorted(late, key=lambda u: -place[u, int(latest[u])]):
            if latest[other] > clock[other]:
                key = (other, int(latest[other]))
                waits[position].add(other)
                signals[place[key]].add(unit)
                np.maximum(clock, after[key], out=clock)
        if latest[unit] > clock[unit]:  # not even implied by what the others waited for
            waits[position].add(unit)
            np.maximum(clock, after[unit, number - 1], out=clock)
        history.note(touched, unit, number, constant)
        done = clock.copy()
        done[unit] = number
        after[unit, number], place[unit, number] = done, position
        count[unit] += 1
    _check_counters(instructions, waits, signals, hw.queue_depth)
    return [
        replace(i, wait=frozenset(w), signal=frozenset(s)) for i, w, s in zip(instructions, waits, signals, strict=True)
    ]


def _check_counters(
    instructions: Sequence[Instruction], waits: list[set[Unit]], signals: list[set[Unit]], depth: int
) -> None:
    """Tokens given but not taken, were every unit to run as far ahead as the queues allow."""
    held = {(sender, receiver): 0 for sender in Unit for receiver in Unit}
    for i, wait, signal in zip(instructions, waits, signals, strict=True):
        unit = UNIT_OF[i.op]
        for sender in wait - {unit}:
            held[sender, unit] -= 1
        for receiver in signal:
            held[unit, receiver] += 1
            if held[unit, receiver] + depth + 1 > MAX_TOKENS:
                raise InputError(
                    f"tokens from {unit.name} to {receiver.name} must be at most {MAX_TOKENS}, "
                    f"not {held[unit, receiver]}"
                )


def find_races(hw: HwConfig, instructions: Sequence[Instruction], touched: Sequence[Sequence[Access]]) -> list[str]:
    """Conflicting accesses that the tokens do not order, given what every instruction (no END) really touched."""
    history, count = History(hw), [0] * len(Unit)
    known = np.full((len(Unit), len(Unit)), -1, dtype=np.int64)
    last: dict[Unit, np.ndarray] = {}
    sent: dict[tuple[Unit, Unit], list[np.ndarray]] = {(a, b): [] for a in Unit for b in Unit}
    races = []
    for position, (instruction, access) in enumerate(zip(instructions, touched, strict=True)):
        unit = UNIT_OF[instruction.op]
        for other in instruction.wait - {unit}:
            np.maximum(known[unit], sent[other, unit].pop(0), out=known[unit])
        if unit in instruction.wait and count[unit]:
            np.maximum(known[unit], last[unit], out=known[unit])
        late = [
            u.name for u, number in zip(Unit, history.conflicts(access, unit), strict=True) if number > known[unit][u]
        ]
        if late:
            races.append(f"instruction {position} ({instruction.op.name}) is not ordered after {late}")
        history.note(access, unit, count[unit])
        done = known[unit].copy()
        done[unit] = count[unit]
        last[unit] = done
        count[unit] += 1
        for other in instruction.signal - {unit}:
            sent[unit, other].append(done)
    return races
