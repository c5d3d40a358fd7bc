"""Progress on the terminal: shown only on a terminal, and only for work that takes longer than two seconds."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from tqdm import tqdm


def warn(line: str) -> None:
    """Something that the user should know of, though the work goes on."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def bar(
    items: Iterable | None = None, *, total: int | None = None, label: str = "", unit: str = "it", scale: bool = False
) -> tqdm:
    """A tqdm bar on stderr that stays silent where stderr is not a terminal, and for the first two seconds.

    ``scale``: numbers as 12.3k, 4.56M.
    """
    return tqdm(
        items,
        total=total,
        desc=label,
        unit=unit,
        unit_scale=scale,
        delay=2,
        leave=False,
        disable=not sys.stderr.isatty(),
    )


@contextmanager
def stage(label: str) -> Iterator[None]:
    """Names a step on stderr with its seconds once it is done; silent where stderr is not a terminal."""
    start = perf_counter()
    if sys.stderr.isatty():
        print(f"  {label} ...", end="\r", file=sys.stderr, flush=True)
    yield
    if sys.stderr.isatty():
        print(f"  {label}: {perf_counter() - start:.1f} s\033[K", file=sys.stderr, flush=True)


class Forecast:
    """Cycles of a whole run of calls, while it goes: those ``predicted`` of each call, by the ratio that earlier calls took of theirs.

    ``instructions`` of each call tell when it is over.
    """

    def __init__(self, predicted: Sequence[float], instructions: Sequence[int]):
        self.predicted, self.instructions = predicted, instructions
        self.cycles = [0] * len(predicted)

    def __call__(self, call: int, cycles: int, done: int) -> tuple[int, int]:
        """(cycles so far, cycles expected in all) when ``done`` instructions of ``call`` took ``cycles``."""
        self.cycles[call] = cycles
        over = done == self.instructions[call]
        known = call + over
        ratio = sum(self.cycles[:known]) / sum(self.predicted[:known]) if known else 1
        before = sum(self.cycles[:call])
        now = cycles if over else max(cycles, ratio * self.predicted[call])
        return before + cycles, round(before + now + ratio * sum(self.predicted[call + 1 :]))
