"""What is said while work goes on: progress on a terminal, for work that takes longer than two seconds, and lines of the log.

All of it goes through the logger ``ternbin``: the command line shows warnings and information, with ``--quiet`` warnings alone, with
``--verbose`` also details and every step. From Python the logger is set up as any other.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from tqdm import tqdm

LOG = logging.getLogger("ternbin")
CLEAR = "\033[K"  # to the end of the line


def warn(line: str) -> None:
    """Something that the user should know of, though the work goes on."""
    LOG.warning(line)


def say(line: str) -> None:
    """Information, such as where a run goes on from."""
    LOG.info(line)


def detail(line: str) -> None:
    """What only helps to find a fault: commands of tools."""
    LOG.debug(line)


def _quiet() -> bool:
    return LOG.level > logging.INFO


def _verbose() -> bool:
    return 0 < LOG.level <= logging.DEBUG


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
        disable=_quiet() or not sys.stderr.isatty(),
    )


@contextmanager
def stage(label: str) -> Iterator[None]:
    """Names a step on stderr with its seconds once it is done: on a terminal, or where every step is to be shown."""
    start = perf_counter()
    terminal = sys.stderr.isatty() and not _quiet()
    if terminal:
        print(f"  {label} ...", end="\r", file=sys.stderr, flush=True)
    yield
    if terminal or _verbose():
        print(f"  {label}: {perf_counter() - start:.1f} s{CLEAR * terminal}", file=sys.stderr, flush=True)


def passing(step: str) -> None:
    """Names a step on a terminal until the next one is named; none: the last one was done."""
    if sys.stderr.isatty() and not _quiet():
        print(f"  {step} ...{CLEAR}" if step else CLEAR, end="\r", file=sys.stderr, flush=True)
    elif step and _verbose():
        print(f"  {step}", file=sys.stderr, flush=True)


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
