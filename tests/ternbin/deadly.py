"""What goes wrong in a worker, in a module of its own: every worker that is begun imports it."""

import os
import signal
from pathlib import Path
from typing import NoReturn

from ternbin.errors import InputError
from ternbin.explore.point import Point


class Deadly:
    """Kills the worker the first ``times`` times."""

    def __init__(self, mark: Path, times: int):
        self.mark, self.times = mark, times

    def __call__(self, points: list[Point]) -> list[dict]:
        for number in range(1, self.times + 1):
            path = Path(f"{self.mark}{number}")
            if not path.exists():
                path.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return [{"id": point.id} for point in points]


def refused() -> NoReturn:
    """Of a subject of the audit."""
    raise InputError("this model cannot be audited")


def killed() -> NoReturn:
    """As if memory had run out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit
