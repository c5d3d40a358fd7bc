"""Seconds a step of the student's training: the loop of ternbin train beside the same step written out in plain PyTorch.

    python benchmarks/train_speed.py data/debian data/teacher --steps 20
    python benchmarks/train_speed.py data/debian data/teacher --precision bf16 --compile

Both take the same batches of the bundled recipe in turn, on one thread; on a CPU the seconds are those of the thread, so that other
processes disturb little.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from ternbin.models.task.batches import Batch, Ends
from ternbin.models.task.checkpoint import full_precision_in
from ternbin.models.task.dataset import Room, encode_set
from ternbin.models.task.fit import make_optimizer, update
from ternbin.models.task.machine import PRECISIONS, Machine
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.student import (
    Distillation,
    StudentRecipe,
    first_student,
    student_batches,
    student_groups,
)
from ternbin.models.task.tokenizer import tokenizer_in


def plain(student, optimizer, loss_of, batch: Batch, clip: float) -> float:
    """The step without accelerate."""
    student.train()
    loss = loss_of(student, batch)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), clip)
    optimizer.step()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--bits", default="2-2")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    machine, recipe = Machine(precision=args.precision), StudentRecipe()
    device = machine.accelerator.device
    family, teacher = full_precision_in(args.teacher, "teacher")
    encoded = encode_set(
        open_dataset(args.data), ["train"], tokenizer_in(args.teacher), Room.of(teacher.config), limit=4096
    )
    student = first_student(family, teacher, args.bits, None).to(device)
    teacher.to(device)
    loss_of = Distillation(student, teacher, recipe)
    optimizer = make_optimizer(student_groups(student, recipe), recipe.schedule)
    model, prepared = machine.accelerator.prepare(student, optimizer)
    forward = torch.compile(model, dynamic=True) if args.compile else model
    batches = student_batches(
        encoded.task, encoded.texts["train"].rows, recipe, 1.0, Ends.of(teacher.config), random.Random(0)
    )
    ways: dict[str, Callable[[Batch], object]] = {
        "plain": lambda batch: plain(student, optimizer, loss_of, batch, recipe.schedule.clip),
        "train": lambda batch: update(forward, prepared, loss_of, batch, recipe.schedule, 0.1, machine),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    rows = []
    for number, batch in enumerate(islice(batches, args.steps + 2)):
        rows.append(len(batch.source))
        for name, step in list(ways.items())[:: 1 if number % 2 else -1]:  # neither is always the first
            begun = time.thread_time() if device.type == "cpu" else time.perf_counter()
            step(batch.to(device))
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent = (time.thread_time() if device.type == "cpu" else time.perf_counter()) - begun
            if number >= 2:
                took[name].append(spent)
    print(f"{device}, {args.precision}{', compiled' if args.compile else ''}: {statistics.mean(rows):.0f} rows a step")
    for name, times in took.items():
        print(
            f"{name:6} {statistics.median(times) * 1000:7.1f} ms a step (median of {len(times)}, least {min(times) * 1000:.1f})"
        )
    ratios = [train / own for own, train in zip(took["plain"], took["train"], strict=True)]
    print(f"train / plain, the same batches: {statistics.median(ratios):.3f} (median)")


if __name__ == "__main__":
    main()
