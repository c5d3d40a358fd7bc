"""How far a run is, how far it goes, and the learning rate along the way."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from ternbin.errors import InputError


class Budget:
    """Progress of a run in [0, 1], by minutes of wall-clock time or by steps (exactly one is given)."""

    def __init__(self, minutes: float | None, steps: int | None):
        if (minutes is None) == (steps is None):
            raise InputError(f"budget must be either minutes or steps, not minutes={minutes!r} and steps={steps!r}")
        self.by_steps = steps is not None
        self.total = float(steps if steps is not None else minutes or 0)
        if self.total <= 0:
            raise InputError(f"budget must be positive, not {minutes if steps is None else steps!r}")
        self.spent, self.step = 0.0, 0
        self._clock = time.monotonic()

    def start(self) -> None:
        """Count seconds from now on."""
        self._clock = time.monotonic()

    def tick(self) -> None:
        """Count one step and the seconds since the last call."""
        now = time.monotonic()
        self.spent += now - self._clock
        self._clock = now
        self.step += 1

    @property
    def progress(self) -> float:
        return min(1.0, (self.step if self.by_steps else self.spent / 60) / self.total)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Optimiser settings shared by teacher and student; `warmup` is a fraction of the budget."""

    lr: float = 1.2e-3
    warmup: float = 0.02
    floor: float = 0.01
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0

    def factor(self, progress: float) -> float:
        """Linear warm-up, then linear decay to `floor`."""
        if progress < self.warmup:
            return max(self.floor, progress / self.warmup)
        return max(self.floor, (1 - progress) / (1 - self.warmup))


@dataclass
class Progress:
    """Where a run is: what a resume goes on from, beside weights and budget.

    `batch`: batches of the pass `epoch` that are done; `begun`: the budget's progress when that pass began.
    """

    epoch: int = 0
    batch: int = 0
    begun: float = 0.0
    best: float = math.inf
    waited: int = 0
