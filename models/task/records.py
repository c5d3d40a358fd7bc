"""What a run keeps in its folder: the resume state, the log, figures of tensors, the best checkpoint, a page of pictures."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ternbin.errors import InputError, MissingToolError
from ternbin.models.task.budget import Budget, Progress
from ternbin.models.task.page import LOG_FILE, TENSORS_FILE, write_page
from ternbin.progress import warn
from ternbin.storage import replacing

STATE_FILE = "state.pt"
COMMAND_FILE = "command.txt"  # a line each time that training was started from the command line


# -- resume state ------------------------------------------------------------------------------


def save_state(folder: Path, model: Any, optimizer: Any, budget: Budget, at: Progress) -> None:
    """Write the resume state; an interrupted write leaves the old one in place."""
    state = dict(model=model.state_dict(), optimizer=optimizer.state_dict())
    state |= dict(spent=budget.spent, step=budget.step, epoch=at.epoch, progress=asdict(at))
    state |= dict(random=torch.get_rng_state())
    with (
        replacing(folder / STATE_FILE) as fresh,
        fresh.open("wb") as file,
    ):  # a file object: errors of the disk stay its own
        torch.save(state, file)


def load_state(folder: Path, model: Any, optimizer: Any, budget: Budget) -> Progress:
    """Restore a saved run, if there is one, and return where it goes on.  Raises InputError for the state of another model."""
    path = folder / STATE_FILE
    if not path.exists():
        return Progress()
    state = _read(path)
    try:
        model.load_state_dict(state["model"])
        peaks = [group["peak"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
        budget.spent, budget.step, epoch = state["spent"], state["step"], state["epoch"]
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: must be of the same model to go on from, not: {_line(error)}") from None
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["peak"] = peak
    if "random" in state:
        torch.set_rng_state(state["random"].cpu())
    if "progress" in state:
        return Progress(**state["progress"])
    return Progress(epoch=epoch + 1, begun=budget.progress)  # of a version that began a new pass


def _read(path: Path) -> dict:
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # pickle, zip and torch each have their own
        raise InputError(f"{path}: not a readable state of a run: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


# -- checkpoint --------------------------------------------------------------------------------


def save_checkpoint(folder: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a fresh folder, and move what it wrote to `folder` once all of it is there.

    Raises InputError where it cannot be written; the checkpoint that was there stays.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fresh-") as name:
            write(Path(name))
            for path in sorted(Path(name).rglob("*")):
                target = folder / path.relative_to(name)
                if path.is_dir():
                    target.mkdir(exist_ok=True)
                else:
                    os.replace(path, target)
    except OSError as error:
        raise InputError(f"{folder}: checkpoint cannot be written: {error.strerror or error}") from None
    except SafetensorError as error:
        raise InputError(f"{folder}: checkpoint cannot be written: {_line(error)}") from None


# -- log ---------------------------------------------------------------------------------------


class Records:
    """The logs of a run in `folder`; of several processes only the `main` one writes."""

    def __init__(self, folder: Path, *, tensorboard: bool, main: bool):
        self.folder, self.main, self.board = folder, main, None
        if tensorboard and main:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise MissingToolError(
                    "tensorboard must be installed for --tensorboard: pip install 'ternbin[tensorboard]'"
                ) from None
            self.board = SummaryWriter(str(folder / "tensorboard"))

    def log(
        self,
        budget: Budget,
        epoch: int,
        loss: float,
        nats: float,
        score: float | None,
        better: bool,
        tensors: dict[str, dict[str, float]],
    ) -> None:
        """Append a line to the log, and one of figures of tensors."""
        entry = dict(step=budget.step, minutes=round(budget.spent / 60, 2), epoch=epoch)
        entry |= dict(loss=round(loss, 4), validation_nll=round(nats, 4), best=better)
        if score is not None:
            entry["validation_score"] = score
        self._append(LOG_FILE, entry)
        if tensors:
            self._append(TENSORS_FILE, dict(step=budget.step, tensors=tensors))
        if self.board is not None:
            self.board.add_scalar("loss", loss, budget.step)
            self.board.add_scalar("validation, nats a token", nats, budget.step)
            for name, figures in tensors.items():
                for figure, value in figures.items():
                    self.board.add_scalar(f"{figure}/{name}", value, budget.step)

    def _append(self, name: str, entry: dict) -> None:
        path = self.folder / name
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Draw the page of the whole run."""
        if self.board is not None:
            self.board.close()
        if self.main and (self.folder / LOG_FILE).exists():
            try:
                write_page(self.folder)
            except InputError as error:  # such as a full disk, which the training itself has met or will
                warn(f"{error}; the curves are not drawn")
