"""Worker processes that do not outlive the process that wants their results."""

import contextlib
import ctypes
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Task = TypeVar("Task")
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


def start(workers: int, *modules: str) -> ProcessPoolExecutor:
    """So many workers; each has ``modules`` imported from the start."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)


def end(pool: ProcessPoolExecutor) -> None:
    """Ends the workers, whatever they are at."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()


@contextlib.contextmanager
def started(workers: int, *modules: str) -> Iterator[ProcessPoolExecutor]:
    """As :func:`start`; they end with the block."""
    pool = start(workers, *modules)
    try:
        yield pool
    finally:
        end(pool)


def shared(
    pool: ProcessPoolExecutor, there: Callable[[Task], Result], here: Callable[[Task], Result], tasks: Sequence[Task]
) -> list[Result]:
    """What each task gives, in order: the workers begin with the first, this process with the last, until they meet."""
    given = [pool.submit(there, task) for task in tasks]
    own: dict[int, Result] = {}
    for number in reversed(range(len(tasks))):
        if not given[number].cancel():
            break
        own[number] = here(tasks[number])
    return [own[number] if number in own else future.result() for number, future in enumerate(given)]
