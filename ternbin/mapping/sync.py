"""Tokens: which instruction waits for which, from the memory words and external bytes that instructions touch.

Instructions come in program order; every pair of conflicting accesses must happen in that order. Units complete in
order, so one wait covers everything before it on the other unit, and what that instruction itself had waited for.
Units may begin an instruction before they have completed the one before it. The execute unit then writes in order, and only
after all reads of earlier instructions: there, only a read of what an earlier instruction writes must wait.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ternbin.contract.effects.access import WRITE, Access
from ternbin.contract.effects.table import touches
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import UNIT_OF, Instruction, Unit
from ternbin.contract.memories import memories
from ternbin.contract.pipeline import MAX_TOKENS
from ternbin.errors import InputError

_UNITS = [frozenset(unit for unit in Unit if mask >> unit & 1) for mask in range(1 << len(Unit))]
_NONE = np.zeros(0, dtype=np.int64)
Clock = list[int]  # of each unit the last instruction, counted within it, that something is sure to follow; -1: none


@dataclass(frozen=True)
class Touched:
    """Accesses of an instruction, as places of a :class:`History`: what it must ``follow``, of which the first are writes of what it
    ``reads``; what it ``leaves`` for later ones; and external bytes (low, high, READ or WRITE)."""

    follow: np.ndarray
    reads: np.ndarray
    leaves: np.ndarray
    external: list[tuple[int, int, int]]


class History:
    """For every word, the last instruction (counted within its unit) of each unit that read and that wrote it.

    A place is a word, of all memories one after the other, of reads; places of writes follow.
    """

    def __init__(self, hw: HwConfig):
        self.first, self.size = {}, 0
        for mem, memory in memories(hw).items():
            self.first[mem], self.size = self.size, self.size + memory.words
        self.last = np.full((len(Unit), 2 * self.size), -1, dtype=np.int32)
        self.bytes: list[tuple[int, int, int, int, int]] = []  # low, high, kind, unit, number

    def touched(self, accesses: Iterable[Access]) -> Touched:
        """Of another history of the same configuration, too."""
        reads, writes, external = [_NONE], [_NONE], []
        for access in accesses:
            if access.mem is None:
                external.append((int(access.words[0]), int(access.words[1]), access.kind))
            else:
                (writes if access.kind == WRITE else reads).append(access.words + self.first[access.mem])
        read, written = np.concatenate(reads), np.concatenate(writes)
        follow = np.concatenate([read + self.size, written + self.size, written])
        return Touched(follow, follow[: len(read)], np.concatenate([read, written + self.size]), external)

    def conflicts(self, touched: Touched, own: Unit) -> Clock:
        """Per unit the last instruction that one of unit ``own`` with these accesses must follow, -1 for none."""
        result: Clock = np.maximum.reduce(self.last.take(touched.follow, axis=1), axis=1, initial=-1).tolist()
        if own == Unit.EXECUTE:
            result[own] = int(np.maximum.reduce(self.last[own].take(touched.reads), initial=-1))
        for first, end, access in touched.external:
            for low, high, kind, unit, number in self.bytes:
                if (kind or access) and low < end and first < high:
                    result[unit] = max(result[unit], number)
        return result

    def note(self, touched: Touched, unit: Unit, number: int, constant: tuple[int, int] | None = None) -> None:
        """Enter the accesses of an instruction. Reads of the ``constant`` bytes need not be remembered."""
        self.last[unit][touched.leaves] = number
        for low, high, kind in touched.external:
            if kind == WRITE or constant is None or low < constant[0] or high > constant[1]:
                self.bytes.append((low, high, kind, unit, number))


def insert_tokens(
    hw: HwConfig,
    instructions: Sequence[Instruction],
    constant: tuple[int, int] | None = None,
    memo: dict[tuple, Touched] | None = None,
) -> list[Instruction]:
    """The instructions of one call (no END) with ``wait`` and ``signal`` set; all counters end at 0.

    ``constant`` is a byte range of external memory that no instruction writes; ``memo`` keeps the accesses of instructions for
    the next call. Raises InputError where a token counter could overflow.
    """
    history, memo, units = History(hw), {} if memo is None else memo, range(len(Unit))
    place: list[list[int]] = [[] for _ in units]  # of each unit's instructions
    known: list[Clock] = [[-1] * len(Unit) for _ in units]  # what a unit's next instruction is sure to follow
    after: list[list[Clock]] = [[] for _ in units]  # what is sure to be done once an instruction of a unit is done
    waits, signals = [0] * len(instructions), [0] * len(instructions)  # a bit a unit
    for position, instruction in enumerate(instructions):
        key = instruction.op, tuple(instruction.fields), tuple(instruction.fields.values())
        if key not in memo:
            memo[key] = history.touched(touches(hw, instruction))
        unit, touched = UNIT_OF[instruction.op], memo[key]
        number, clock = len(place[unit]), known[unit]
        latest = history.conflicts(touched, unit)
        late = [u for u in units if u != unit and latest[u] > clock[u]]
        # the most far-reaching waits first, for they may imply others
        for other in sorted(late, key=lambda u: -place[u][latest[u]]):
            if latest[other] > clock[other]:
                waits[position] |= 1 << other
                signals[place[other][latest[other]]] |= 1 << unit
                _follow(clock, after[other][latest[other]])
        if latest[unit] > clock[unit]:  # not even implied by what the others waited for
            waits[position] |= 1 << unit
            _follow(clock, after[unit][-1])
        history.note(touched, unit, number, constant)
        done = clock.copy()
        done[unit] = number
        after[unit].append(done)
        place[unit].append(position)
    result = [
        Instruction(i.op, i.fields, _UNITS[wait], _UNITS[signal])
        for i, wait, signal in zip(instructions, waits, signals, strict=True)
    ]
    _check_counters(result, hw.queue_depth)
    return result


def _follow(clock: Clock, other: Clock) -> None:
    """What follows ``clock`` follows ``other``, too."""
    for unit, number in enumerate(other):
        clock[unit] = max(clock[unit], number)


def _check_counters(instructions: Sequence[Instruction], depth: int) -> None:
    """Tokens given but not taken, were every unit to run as far ahead as the queues allow."""
    held = {(sender, receiver): 0 for sender in Unit for receiver in Unit}
    for i in instructions:
        unit = UNIT_OF[i.op]
        for sender in i.wait - {unit}:
            held[sender, unit] -= 1
        for receiver in i.signal:
            held[unit, receiver] += 1
            if held[unit, receiver] + depth + 1 > MAX_TOKENS:
                raise InputError(
                    f"tokens from {unit.name} to {receiver.name} must be at most {MAX_TOKENS}, "
                    f"not {held[unit, receiver]}"
                )


def find_races(hw: HwConfig, instructions: Sequence[Instruction], touched: Sequence[Sequence[Access]]) -> list[str]:
    """Conflicting accesses that the tokens do not order, given what every instruction (no END) really touched."""
    history, count = History(hw), [0] * len(Unit)
    known: list[Clock] = [[-1] * len(Unit) for _ in Unit]
    last: dict[Unit, Clock] = {}
    sent: dict[tuple[Unit, Unit], list[Clock]] = {(a, b): [] for a in Unit for b in Unit}
    races = []
    for position, (instruction, access) in enumerate(zip(instructions, touched, strict=True)):
        unit, own = UNIT_OF[instruction.op], history.touched(access)
        for other in instruction.wait - {unit}:
            _follow(known[unit], sent[other, unit].pop(0))
        if unit in instruction.wait and count[unit]:
            _follow(known[unit], last[unit])
        late = [u.name for u, number in zip(Unit, history.conflicts(own, unit), strict=True) if number > known[unit][u]]
        if late:
            races.append(f"instruction {position} ({instruction.op.name}) is not ordered after {late}")
        history.note(own, unit, count[unit])
        done = known[unit].copy()
        done[unit] = count[unit]
        last[unit] = done
        count[unit] += 1
        for other in instruction.signal - {unit}:
            sent[unit, other].append(done)
    return races
