"""Values of chosen signals in a VCD file at every rising clock edge."""

from collections.abc import Callable
from pathlib import Path

from ternbin.errors import InputError


def sample(path: str | Path, clock: str, wanted: Callable[[str], bool]) -> tuple[dict[str, int], list[tuple[int, ...]]]:
    """Widths of the signals (dotted path, without the range) that ``wanted`` accepts, and their values just before each
    rising edge of ``clock``, in the same order. Unknown bits read as 0."""
    widths: dict[str, int] = {}
    places: dict[str, list[int]] = {}
    scope: list[str] = []
    clock_id = None
    rows: list[tuple[int, ...]] = []
    with open(path) as file:
        for line in file:
            words = line.split()
            if not words:
                continue
            if words[0] == "$scope":
                scope.append(words[2])
            elif words[0] == "$upscope":
                scope.pop()
            elif words[0] == "$var":
                name = ".".join([*scope, words[4].partition("[")[0]])
                if name == clock:
                    clock_id = words[3]
                if wanted(name) and name not in widths:
                    places.setdefault(words[3], []).append(len(widths))
                    widths[name] = int(words[2])
            elif words[0] == "$enddefinitions":
                break
        if clock_id is None:
            raise InputError(f"{path} must contain the clock {clock}")
        current, edge = [0] * len(widths), "1" + clock_id
        late: list[tuple[list[int], int]] = []  # changes at the time of the edge itself
        rising, time_started = False, False
        for line in file:
            first = line[0]
            if first == "#":
                if rising:
                    rows.append(tuple(current))
                for where, value in late:
                    for i in where:
                        current[i] = value
                late.clear()
                rising, time_started = False, True
            elif first in "bB":
                bits, _, name = line[1:].rstrip().partition(" ")
                if name in places:
                    late.append((places[name], int(bits.replace("x", "0").replace("z", "0"), 2)))
            elif first in "01xzXZ":
                name = line[1:].rstrip()
                if name in places:
                    late.append((places[name], int(first == "1")))
                if time_started and line.rstrip() == edge:
                    rising = True
        if rising:
            rows.append(tuple(current))
    return widths, rows
