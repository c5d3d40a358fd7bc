"""Progress on the terminal: shown only on a terminal, and only for work that takes longer than two seconds."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from tqdm import tqdm


def bar(items: Iterable | None = None, *, total: int | None = None, label: str = "", unit: str = "it") -> tqdm:
    """A tqdm bar on stderr that stays silent where stderr is not a terminal, and for the first two seconds."""
    return tqdm(items, total=total, desc=label, unit=unit, delay=2, leave=False, disable=not sys.stderr.isatty())


@contextmanager
def stage(label: str) -> Iterator[None]:
    """Names a step on stderr with its seconds once it is done; silent where stderr is not a terminal."""
    start = perf_counter()
    if sys.stderr.isatty():
        print(f"  {label} ...", end="\r", file=sys.stderr, flush=True)
    yield
    if sys.stderr.isatty():
        print(f"  {label}: {perf_counter() - start:.1f} s\033[K", file=sys.stderr, flush=True)
