"""Worker processes that do not outlive the process that wants their results."""

import contextlib
import ctypes
import signal
import sys

_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux's prctl


def begin_worker() -> None:
    """Initializer of a worker: it ends with its parent, even one that was killed, and leaves an interrupt to the parent.

    A pool's workers hold each other's pipes open, so without this they would wait for work for ever. Elsewhere than on Linux they do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
