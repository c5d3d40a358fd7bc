"""The training loop: a budget of minutes or steps, resumable, logged.

The learning rate follows the spent fraction of the budget, so a run ends on time whatever the machine
does.  A second call with the same folder continues where the first one stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from ternbin.errors import InputError
from ternbin.models.task.batches import Batch
from ternbin.storage import replacing

STATE_FILE = "state.pt"
LOG_FILE = "log.jsonl"


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


def make_optimizer(groups: list[dict], schedule: Schedule) -> torch.optim.AdamW:
    """AdamW over `groups` (dicts of "params", "lr", "weight_decay"); their rates are the peaks."""
    groups = [group | {"peak": group["lr"]} for group in groups if group["params"]]
    return torch.optim.AdamW(groups, betas=schedule.betas, fused=True)


def save_state(folder: Path, model, optimizer, budget: Budget, epoch: int) -> None:
    """Write the resume state; an interrupted write leaves the old one in place."""
    state = dict(model=model.state_dict(), optimizer=optimizer.state_dict())
    state |= dict(spent=budget.spent, step=budget.step, epoch=epoch)
    with replacing(folder / STATE_FILE) as fresh:
        torch.save(state, fresh)


def load_state(folder: Path, model, optimizer, budget: Budget) -> int:
    """Restore a saved run, if there is one, and return the epoch to go on with."""
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    peaks = [group["peak"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["peak"] = peak
    budget.spent, budget.step = state["spent"], state["step"]
    return state["epoch"] + 1


def fit(
    model,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Batch], torch.Tensor],
    batches_of: Callable[[int], Iterator[Batch]],
    *,
    out_dir: Path,
    schedule: Schedule,
    budget: Budget,
    checkpoint: Callable[[Path], None],
    validate: Callable[[], float],
    save_every: float = 180.0,
) -> None:
    """Train `model` until `budget` is spent.

    `batches_of(epoch)` yields one pass.  Every `save_every` seconds and at the end the validation
    score is logged, the resume state saved and `checkpoint(out_dir)` called.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    epoch = load_state(out_dir, model, optimizer, budget)
    bar = tqdm(total=100, unit="%", disable=None, initial=int(100 * budget.progress))
    saved, losses = budget.spent, []
    while budget.progress < 1:
        for batch in batches_of(epoch):
            losses.append(step(model, optimizer, loss_of, batch, schedule, schedule.factor(budget.progress)))
            budget.tick()
            bar.update(int(100 * budget.progress) - bar.n)
            if budget.spent - saved >= save_every or budget.progress >= 1:
                log(out_dir, budget, epoch, sum(losses) / len(losses), validate())
                save_state(out_dir, model, optimizer, budget, epoch)
                checkpoint(out_dir)
                saved, losses = budget.spent, []
            if budget.progress >= 1:
                break
        epoch += 1
    bar.close()


def step(model, optimizer, loss_of, batch: Batch, schedule: Schedule, factor: float) -> float:
    """One update with every group's peak rate times `factor`; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    model.train()
    loss = loss_of(batch)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
    optimizer.step()
    return loss.item()


def log(folder: Path, budget: Budget, epoch: int, loss: float, validation_nll: float) -> None:
    """Append one line to the run's log."""
    entry = dict(step=budget.step, minutes=round(budget.spent / 60, 2), epoch=epoch)
    entry |= dict(loss=round(loss, 4), validation_nll=round(validation_nll, 4))
    with (folder / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
