"""Ports of memories: who has them in which cycles."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Spans = list[tuple[int, int]]  # cycles first <= cycle < end, in order
PORTS = 5
CODES, READS, WRITES, PARAMETERS, SCORES = range(
    PORTS
)  # where others come before the vector unit: ABUF, RBUF, RBUF, PBUF, SBUF
Held = tuple[frozenset[int], ...]  # for each port: cycles in which others have it


@dataclass(frozen=True, eq=False)
class Busy:
    """Cycles from its issue in which a vector instruction that nothing holds up uses its ports; ``columns``: it reads ABUF, and
    comes before the array."""

    ports: tuple[Spans, ...] = field(default_factory=lambda: tuple([] for _ in range(PORTS)))
    columns: Spans = field(default_factory=list[tuple[int, int]])


def take(spans: Spans, first: int, end: int) -> None:
    if spans and spans[-1][1] >= first:
        spans[-1] = spans[-1][0], end
    else:
        spans.append((first, end))


def free_cycle(spans: Sequence[tuple[int, int]], cycle: int, number: int) -> int:
    """The ``number``-th free cycle from ``cycle`` on."""
    left, at = number, cycle
    for first, end in spans:
        if end > at:
            if at + left <= first:
                break
            left -= max(0, first - at)
            at = end
    return at + left - 1


def next_free(held: frozenset[int], cycle: int) -> int:
    """The first cycle from ``cycle`` on that is not in ``held``."""
    while cycle in held:
        cycle += 1
    return cycle
