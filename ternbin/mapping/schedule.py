"""The order of a call's instructions: computations as they come, loads of constants as early as their space is free.

A *slot* is a part of a memory that holds the constants of one computation after another (half of WBUF, half of PBUF,
a table). A *lease* is one stay in a slot. Its load may move ahead of earlier computations, up to the last one that uses
the slot's previous contents; so the load unit fills one half while the array works from the other.
"""

from dataclasses import dataclass, field

from ternbin.isa import Instruction
from ternbin.program import Region, View


@dataclass(frozen=True)
class Sight:
    """A probe before its instruction is numbered: what can be seen once the instruction is done."""

    tensor: str
    region: Region
    view: View
    part: tuple[tuple[int, int], ...]


@dataclass
class Item:
    """One instruction, the graph op it belongs to, and what can be seen after it."""

    instruction: Instruction
    op: str
    sights: list[Sight] = field(default_factory=list)


@dataclass
class Lease:
    """One stay in a slot from word ``addr``; ``last`` is the number of the last computation that used it."""

    addr: int
    words: int
    previous: "Lease | None"
    content: object = None
    last: int = -1


@dataclass
class Slots:
    """``count`` slots of ``words`` words, used in turn."""

    words: int
    count: int
    leases: list[Lease] = field(default_factory=list)

    def lease(self, content: object = None) -> Lease:
        """The next slot; a lease with the same non-None content as the latest is that one again."""
        if content is not None and self.leases and self.leases[-1].content == content:
            return self.leases[-1]
        number = len(self.leases)
        previous = self.leases[number - self.count] if number >= self.count else None
        self.leases.append(Lease(number % self.count * self.words, self.words, previous, content))
        return self.leases[-1]


@dataclass(frozen=True)
class Load:
    """A load for computation ``task``; without ``lease`` it stays in its place just before it."""

    item: Item
    task: int
    lease: Lease | None


@dataclass
class Schedule:
    """Computations in order, each with the loads it needs."""

    tasks: list[Item] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def load(self, item: Item, lease: Lease | None = None) -> None:
        """A load for the next computation."""
        self.loads.append(Load(item, len(self.tasks), lease))

    def compute(self, item: Item, *leases: Lease) -> None:
        for lease in leases:
            lease.last = len(self.tasks)
        self.tasks.append(item)

    def items(self) -> list[Item]:
        """All instructions in program order."""
        result, waiting = [], 0
        for number, task in enumerate(self.tasks):
            while waiting < len(self.loads) and self._may_issue(self.loads[waiting], number):
                result.append(self.loads[waiting].item)
                waiting += 1
            result.append(task)
        assert waiting == len(self.loads), "every load belongs to a computation"
        return result

    @staticmethod
    def _may_issue(load: Load, number: int) -> bool:
        """Whether the load may stand before computation ``number``, and must if it is its own."""
        free = load.lease is not None and (load.lease.previous is None or load.lease.previous.last < number)
        assert free or load.task != number or load.lease is None, "a slot must be free when its load is due"
        return free or load.task <= number
