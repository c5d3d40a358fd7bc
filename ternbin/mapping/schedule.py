"""The order of a call's instructions: computations as they come, loads of constants as early as their space is free.

WBUF, PBUF and tables hold the constants of one computation after another. A *lease* is one stay there. Its load may move
ahead of earlier computations, up to the last one that uses what was there before; so the load unit fills one part of a
memory while the array works from another.
"""

from dataclasses import dataclass, field

from ternbin.contract.isa import Instruction
from ternbin.contract.program import Region, View
from ternbin.mapping.allocator import BlockError


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
    """One stay of constants at ``addr``; ``last`` is the number of the last computation that used it.

    Once a later lease has taken over some of its words it is ``gone``, and no computation may use it any more.
    """

    addr: int
    earlier: frozenset[int]  # numbers, in the ring, of the leases whose words it takes over
    content: object = None
    last: int = -1
    gone: bool = False


@dataclass
class Ring:
    """``words`` words of the memory ``name`` leased in turn. No lease crosses the middle, so one of up to half never meets the one
    before it."""

    name: str
    words: int
    leases: list[Lease] = field(default_factory=list)
    next: int = 0

    def __post_init__(self) -> None:
        self.owner = [-1] * self.words  # number of the lease that had each word last

    @property
    def most(self) -> int:
        """The largest lease beside which another one fits."""
        return self.words // 2

    def lease(self, words: int, content: object = None) -> Lease:
        """Room for ``words`` words; a lease with the same non-None content as the latest is that one again. Raises BlockError."""
        if words > self.words:
            raise BlockError(
                f"{self.name} words must be at most {self.words}, not {words}", f"{self.name.lower()}_words", words
            )
        if content is not None and self.leases and self.leases[-1].content == content:
            return self.leases[-1]
        start, half = self.next, self.most
        if start < half < start + words <= half + words:
            start = half
        if start + words > self.words:
            start = 0
        self.next = start + words
        earlier = frozenset(self.owner[start : start + words]) - {-1}
        self.owner[start : start + words] = [len(self.leases)] * words
        for number in earlier:
            self.leases[number].gone = True
        self.leases.append(Lease(start, earlier, content))
        return self.leases[-1]

    def free_before(self, lease: Lease, number: int) -> bool:
        """Whether computations from ``number`` on no longer use what ``lease`` replaces."""
        return all(self.leases[n].last < number for n in lease.earlier)


@dataclass(frozen=True)
class Load:
    """A load for computation ``task``; without ``room`` it stays in its place just before it."""

    item: Item
    task: int
    room: tuple[Ring, Lease] | None = None

    def early(self, number: int) -> bool:
        """Whether its room is free before computation ``number``."""
        return self.room is not None and self.room[0].free_before(self.room[1], number)


@dataclass
class Schedule:
    """Computations in order, each with the loads it needs. At most ``ahead`` loads stand before they must.

    More would fill the queue of the load unit, and fetch, which is in order, would keep the other units waiting.
    """

    ahead: int
    tasks: list[Item] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def load(self, item: Item, room: tuple[Ring, Lease] | None = None) -> None:
        """A load for the next computation."""
        self.loads.append(Load(item, len(self.tasks), room))

    def compute(self, item: Item, *leases: Lease) -> None:
        """The next computation, with the leases it reads. Raises RuntimeError for one that is gone: a program in which it is read would
        compute something else."""
        for lease in leases:
            if lease.gone:
                raise RuntimeError(f"{item.op}: constants must be on chip when they are read, not be replaced")
            lease.last = len(self.tasks)
        self.tasks.append(item)

    def items(self) -> list[Item]:
        """All instructions in program order."""
        result: list[Item] = []
        issued = due = 0
        for number, task in enumerate(self.tasks):
            while due < len(self.loads) and self.loads[due].task <= number:
                due += 1
            while issued < len(self.loads) and (
                issued < due or (issued < due + self.ahead and self.loads[issued].early(number))
            ):
                load = self.loads[issued]
                if load.room is not None and not load.early(load.task):
                    raise RuntimeError(f"{load.item.op}: room must be free when a load needs it, not in use")
                result.append(load.item)
                issued += 1
            result.append(task)
        if issued != len(self.loads):
            raise RuntimeError(f"every load must belong to a computation, not {len(self.loads) - issued} to none")
        return result
