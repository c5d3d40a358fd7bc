"""Ports of memories: who has them in which cycles."""

from collections.abc import Sequence

import numpy as np

Spans = list[tuple[int, int]]  # cycles first <= cycle < end, in order
PORTS = 5
CODES, READS, WRITES, PARAMETERS, SCORES = range(
    PORTS
)  # where others come before the vector unit: ABUF, RBUF, RBUF, PBUF, SBUF
Held = tuple[bytes, ...]  # for each port a byte a cycle: 1 where others have it
NOBODY: Held = (b"",) * PORTS


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


def next_free(held: bytes, cycle: int) -> int:
    """The first cycle from ``cycle`` on in which nobody has the port."""
    if cycle >= len(held) or not held[cycle]:
        return cycle
    found = held.find(0, cycle)
    return found if found >= 0 else len(held)


def mark(flags: np.ndarray, begun: np.ndarray, cycles: int) -> None:
    """Sets the flags, of those there are, for accesses of ``cycles`` cycles each."""
    taken = np.add.outer(begun, np.arange(cycles)).ravel()
    flags[taken[(taken >= 0) & (taken < len(flags))]] = 1
