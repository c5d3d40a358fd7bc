"""A result's ops by layer or by kind: work, bytes on the bus, and the cycles in which something of it was in progress."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

KINDS = ("self-attention", "cross-attention", "feed-forward", "LM head")


@dataclass(frozen=True)
class Part:
    """What the ops of one group did in one phase. ``cycles``: those in which at least one of its instructions was in progress;
    groups overlap."""

    phase: str
    name: str
    macs: int
    bytes: int
    cycles: int


def layer(op: str) -> str:
    """The layer "enc.0" of "enc.0.self.q"; what belongs to no layer by its first part: "enc" (the embedding), "lm_head"."""
    first, *rest = op.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first


def kind(op: str) -> str | None:
    """One of KINDS, or None for ops that multiply nothing."""
    for name, mark in zip(KINDS, (".self.", ".cross.", ".fc", "lm_head"), strict=True):
        if mark in op:
            return name
    return None


def parts(result: dict, group: Callable[[str], str | None]) -> list[Part]:
    """The groups of each phase in the order of their first op; without those that multiply nothing or are never in progress."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for op in result["ops"]:
        name = group(op["name"])
        if name is not None:
            total = sums[op["phase"], name]
            total[0] += op["macs"]
            total[1] += op["bytes"]
    spans: dict[tuple[str, str, int], list[tuple[int, int]]] = defaultdict(list)
    for entry in result["timeline"]:
        phase, name = result["phases"][entry["call"] >= result["phases"][0]["calls"]]["name"], group(entry["op"])
        if name is not None:
            spans[phase, name, entry["call"]].append((entry["start"], entry["end"]))
    cycles: dict[tuple[str, str], int] = defaultdict(int)
    for (phase, name, _), intervals in spans.items():
        cycles[phase, name] += covered(intervals)
    return [Part(*key, macs, size, cycles[key]) for key, (macs, size) in sums.items() if macs and cycles[key]]


def covered(intervals: list[tuple[int, int]]) -> int:
    """Cycles inside at least one of the [start, end)."""
    total = reached = 0
    for start, end in sorted(intervals):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
