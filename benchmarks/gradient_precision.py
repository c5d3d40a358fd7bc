"""How much of a student's gradient is left in bf16: its angle to that of float32, batch by batch.

    python benchmarks/gradient_precision.py data/s22 debian --teacher data/teacher

Codes are the signs and roundings of what a layer gives: where that lies near a threshold, another rounding gives another code, and layers
after it see other inputs. Beside bf16 stands float32 with weights changed by a millionth.
"""

import argparse
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ternbin.models.task.batches import Batch, Ends, epoch_batches
from ternbin.models.task.checkpoint import full_precision_in
from ternbin.models.task.dataset import Room, encode_set
from ternbin.models.task.evaluate import load_model
from ternbin.models.task.machine import Machine
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.student import LATENT, Distillation, StudentRecipe
from ternbin.models.task.task import carried_task
from ternbin.models.task.tokenizer import tokenizer_in

NOISE = 1e-6


def cosine(first: list[Tensor], second: list[Tensor]) -> float:
    """Mean over the matrices."""
    each = [
        torch.cosine_similarity(a.flatten().float(), b.flatten().float(), 0) for a, b in zip(first, second, strict=True)
    ]
    return float(torch.stack(each).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("data")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=6)
    args = parser.parse_args()
    _, teacher = full_precision_in(args.teacher, "teacher")
    student = load_model(args.student / LATENT).train()
    student.set_fracs({})
    room = Room.of(student.config)
    rows = (
        encode_set(
            open_dataset(args.data),
            ["validation"],
            tokenizer_in(args.student),
            room,
            carried=carried_task(args.student),
        )
        .texts["validation"]
        .rows
    )
    loss_of = Distillation(student, teacher, StudentRecipe())
    matrices = [p for p in student.parameters() if p.ndim > 1]

    def gradient(batch: Batch, precision: str) -> tuple[float, list[Tensor]]:
        student.zero_grad()
        with Machine(precision=precision).autocast():
            loss = loss_of(student, batch)
        loss.backward()
        return float(loss), [p.grad.clone() for p in matrices if p.grad is not None]

    @torch.no_grad()
    def changed(call: Callable[[], tuple[float, list[Tensor]]]) -> tuple[float, list[Tensor]]:
        kept = [p.clone() for p in student.parameters()]
        for parameter in student.parameters():
            parameter.mul_(1 + NOISE * torch.randn_like(parameter))
        with torch.enable_grad():
            found = call()
        for parameter, value in zip(student.parameters(), kept, strict=True):
            parameter.copy_(value)
        return found

    print("| loss in fp32 | in bf16 | with noise | cosine of bf16 | of noise |\n| --- | --- | --- | --- | --- |")
    batches = epoch_batches(rows, 1200, ends=Ends.of(teacher.config), rng=random.Random(0))
    for batch in islice(batches, args.batches):
        (loss, own), (other_loss, other) = gradient(batch, "fp32"), gradient(batch, "bf16")
        noisy_loss, noisy = changed(lambda batch=batch: gradient(batch, "fp32"))
        print(
            f"| {loss:.3f} | {other_loss:.3f} | {noisy_loss:.3f} | {cosine(own, other):.2f} | {cosine(own, noisy):.2f} |"
        )


if __name__ == "__main__":
    main()
