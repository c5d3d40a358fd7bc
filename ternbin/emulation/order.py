"""In which order the units of the functional model take their instructions: that of the program, or any that the tokens allow."""

import random
from collections.abc import Callable, Sequence

from ternbin.contract.isa import UNIT_OF, ErrorCode, Instruction, Op, Unit
from ternbin.contract.pipeline import MAX_TOKENS
from ternbin.emulation.state import MachineError

Order = Callable[[list[Unit]], Unit | None]  # the unit that goes next, of those that can


class Tokens:
    """Tokens that one unit has given another. Raises MachineError (TOKEN) where a counter overflows or tokens are left."""

    def __init__(self) -> None:
        self._held = {(giver, taker): 0 for giver in Unit for taker in Unit}

    def there(self, unit: Unit, wait: frozenset[Unit]) -> bool:
        return all(self._held[other, unit] > 0 for other in wait - {unit})

    def take(self, unit: Unit, wait: frozenset[Unit]) -> None:
        for other in wait - {unit}:
            self._held[other, unit] -= 1

    def give(self, unit: Unit, signal: frozenset[Unit]) -> None:
        for other in signal - {unit}:
            self._held[unit, other] += 1
            if self._held[unit, other] > MAX_TOKENS:
                raise MachineError(ErrorCode.TOKEN, f"{unit.name} to {other.name}")

    def check_none_left(self) -> None:
        if any(self._held.values()):
            raise MachineError(ErrorCode.TOKEN, f"tokens left at the end: {self._held}")


def program_order(instructions: Sequence[Instruction]) -> Order:
    units = iter([UNIT_OF[i.op] for i in instructions if i.op != Op.END])
    return lambda ready: next(units)


def random_order(rng: random.Random) -> Order:
    """Favours one order of units for a while, so that units run far ahead of each other."""
    favour = list(Unit)

    def choose(ready: list[Unit]) -> Unit | None:
        if rng.random() < 0.05:
            rng.shuffle(favour)
        return min(ready, key=favour.index) if ready else None

    return choose
