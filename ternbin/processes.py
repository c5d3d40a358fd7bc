"""Worker processes that do not outlive the process that wants their results."""

import contextlib
import ctypes
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

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
