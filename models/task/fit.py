"""The training loop: a budget of minutes or steps, resumable at the exact step, logged, on whatever accelerate finds.

The learning rate follows the spent fraction of the budget, so a run ends on time whatever the machine
does.  A second call with the same folder continues where the first one stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from ternbin.errors import InputError
from ternbin.models.task.batches import Batch
from ternbin.models.task.budget import Budget, Progress, Schedule
from ternbin.models.task.machine import Machine
from ternbin.models.task.records import Records, load_state, save_checkpoint, save_state
from ternbin.progress import bar, say

CHECKED = 16  # steps between looks at the loss, each of which waits for the device


def make_optimizer(groups: list[dict], schedule: Schedule) -> torch.optim.AdamW:
    """AdamW over `groups` (dicts of "params", "lr", "weight_decay"); their rates are the peaks."""
    groups = [group | {"peak": group["lr"]} for group in groups if group["params"]]
    return torch.optim.AdamW(groups, betas=schedule.betas, fused=True)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained.

    `loss_of(model, batch)`; `batches_of(epoch, progress)` yields one pass, the same for the same arguments.
    `checkpoint(folder)` writes the model; `validate()` gives nats a token; `measure()` figures of tensors by name.
    `score()`, where there is one, is what the best checkpoint has most of; else it has the fewest nats.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    loss_of: Callable[[Any, Batch], torch.Tensor]
    batches_of: Callable[[int, float], Iterator[Batch]]
    checkpoint: Callable[[Path], None]
    validate: Callable[[], float]
    measure: Callable[[], dict[str, dict[str, float]]] = field(default=dict)
    score: Callable[[], float] | None = None


def fit(job: Job, *, out_dir: Path, schedule: Schedule, budget: Budget, machine: Machine) -> None:
    """Train until `budget` is spent, or for `machine.patience` validations without a better score.

    Every `machine.save_every` seconds and at the end validation is logged, the resume state saved and, where it is the
    best so far, a checkpoint written to `out_dir`.  Raises InputError where the loss is no longer
    finite or a file cannot be written; what was saved before stays.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    accelerator = machine.accelerator
    model, optimizer = accelerator.prepare(job.model, job.optimizer)
    at = load_state(out_dir, job.model, optimizer, budget)
    forward = torch.compile(model, dynamic=True) if machine.compile else model
    shown = bar(total=100, unit="%", label="training")
    records = Records(out_dir, tensorboard=machine.tensorboard, main=accelerator.is_main_process)
    saved, total, count = budget.spent, torch.zeros((), device=accelerator.device), 0
    budget.start()
    try:
        while budget.progress < 1 and not _spent(at, machine):
            before = budget.step
            for batch in _mine(job.batches_of(at.epoch, at.begun), at.batch, accelerator):
                total += update(
                    forward, optimizer, job.loss_of, batch, schedule, schedule.factor(budget.progress), machine
                )
                count += 1
                at.batch += accelerator.num_processes
                if not accelerator.sync_gradients:
                    continue
                _tick(budget, accelerator)
                shown.update(int(100 * budget.progress) - shown.n)
                over = budget.progress >= 1
                due = budget.spent - saved >= machine.save_every or over
                if due or budget.step % CHECKED == 0:
                    _finite(float(total), budget, out_dir)
                if due:
                    _save(job, records, at, budget, float(total) / count, optimizer)
                    saved, count = budget.spent, 0
                    total.zero_()
                if over or _spent(at, machine):
                    break
            else:
                if budget.step == before and at.batch == 0 and budget.progress == at.begun:
                    raise InputError("training data must give at least one batch a process, not none")
                at.epoch, at.batch, at.begun = at.epoch + 1, 0, budget.progress
    finally:
        shown.close()
        records.close()


def _mine(batches: Iterator[Batch], done: int, accelerator: Accelerator) -> Iterator[Batch]:
    """The batches of this process that are still to be done, on its device; all processes have as many."""
    count, rank = accelerator.num_processes, accelerator.process_index
    rest = islice(batches, done, None)
    while len(group := list(islice(rest, count))) == count:
        yield group[rank].to(accelerator.device)


def update(
    model: Any,
    optimizer: Any,
    loss_of: Callable[[Any, Batch], torch.Tensor],
    batch: Batch,
    schedule: Schedule,
    factor: float,
    machine: Machine,
) -> torch.Tensor:
    """One batch, and where its gradients are complete one step at every group's peak rate times `factor`; returns the loss."""
    with machine.accelerator.accumulate(model):
        set_rates(optimizer, factor)
        model.train()
        with machine.autocast():
            loss = loss_of(model, batch)
        machine.accelerator.backward(loss)
        if machine.accelerator.sync_gradients:
            machine.accelerator.clip_grad_norm_(model.parameters(), schedule.clip)
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach()


def set_rates(optimizer: Any, factor: float) -> None:
    """Every group's peak rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _tick(budget: Budget, accelerator: Accelerator) -> None:
    """Count a step; the first process has the clock."""
    budget.tick()
    if accelerator.num_processes > 1:
        budget.spent = float(broadcast(torch.tensor(budget.spent, device=accelerator.device)))


def _spent(at: Progress, machine: Machine) -> bool:
    """Whether patience is at its end."""
    return machine.patience is not None and at.waited >= machine.patience


def _finite(loss: float, budget: Budget, out_dir: Path, what: str = "loss") -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"{what} must be a finite number, not {loss:g}, as it is at step {budget.step}: what {out_dir} holds is of "
            "before; try a smaller --lr"
        )


def _save(job: Job, records: Records, at: Progress, budget: Budget, loss: float, optimizer: Any) -> None:
    """Validate, log, save.  Every process validates; the first one writes."""
    nats = job.validate()
    _finite(nats, budget, records.folder, "validation likelihood")
    score = job.score() if job.score else None
    worth = nats if score is None else -score
    better = worth < at.best
    at.best, at.waited = (worth, 0) if better else (at.best, at.waited + 1)
    if not records.main:
        return
    records.log(budget, at.epoch, loss, nats, score, better, job.measure())
    save_state(records.folder, job.model, optimizer, budget, at)
    if better:
        save_checkpoint(records.folder, job.checkpoint)
    else:
        say(
            f"step {budget.step}: validation {abs(worth):.4f}, no better than {abs(at.best):.4f}: the checkpoint stays as it is"
        )
