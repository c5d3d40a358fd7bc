"""Worker processes that do not outlive the process that wants their results."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux's prctl


def begin_worker() -> None:
    """Initializer of a worker: it ends with its parent, even one that was killed, and leaves an interrupt to the parent.

    A pool's workers hold each other's pipes open, so without this they would wait for work for ever. Elsewhere than on Linux they do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class _Forked:
    """What forked workers find where they begin."""

    function: Callable[[Any], Any]


def _one_thread() -> None:
    begin_worker()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # a fork has none of the threads that its parent's products may have started


def _call(item: Any) -> Any:
    return _Forked.function(item)


def forked(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """``function`` of each item, in their order: in a process for each processor, which sees everything that this one sees.

    Items and results are pickled. An error of ``function`` is raised here. Where there are no forks, or only one processor or item, all
    runs in this process.
    """
    workers = min(processors(), len(items))
    if workers < 2 or sys.platform != "linux":
        yield from map(function, items)
        return
    _Forked.function = function
    with ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=_one_thread) as pool:
        yield from pool.map(_call, items)
