"""How much of a student's gradient is left in bf16: its angle to that of float32, batch by batch.

    python benchmarks/gradient_precision.py data/s22 debian --teacher data/teacher

Codes are the signs and roundings of what a layer gives: where that lies near a threshold, another rounding gives another code, and layers
after it see other inputs. Beside bf16 stands float32 with weights changed by a millionth.
"""

import argparse
import copy
import random
from itertools import islice
from pathlib import Path
from typing import Any

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


@torch.no_grad()
def disturbed(model: Any) -> Any:
    """A copy of other weights, by NOISE of each."""
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.mul_(1 + NOISE * torch.randn_like(parameter))
    return copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("data")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=6)
    args = parser.parse_args()
    torch.manual_seed(0)
    _, teacher = full_precision_in(args.teacher, "teacher")
    student = load_model(args.student / LATENT).train()
    student.set_fracs({})
    tokenizer, room = tokenizer_in(args.student), Room.of(student.config)
    encoded = encode_set(open_dataset(args.data), ["validation"], tokenizer, room, carried=carried_task(args.student))
    loss_of = Distillation(student, teacher, StudentRecipe())
    changed = disturbed(student)

    def gradient(model: Any, batch: Batch, precision: str) -> tuple[float, list[Tensor]]:
        model.zero_grad()
        with Machine(precision=precision).autocast():
            loss = loss_of(model, batch)
        loss.backward()
        return float(loss), [p.grad.clone() for p in model.parameters() if p.ndim > 1 and p.grad is not None]

    print("| loss in fp32 | in bf16 | with noise | cosine of bf16 | of noise |\n| --- | --- | --- | --- | --- |")
    batches = epoch_batches(encoded.texts["validation"].rows, 1200, ends=Ends.of(teacher.config), rng=random.Random(0))
    for batch in islice(batches, args.batches):
        (loss, own), (other_loss, other) = gradient(student, batch, "fp32"), gradient(student, batch, "bf16")
        noisy_loss, noisy = gradient(changed, batch, "fp32")
        print(
            f"| {loss:.3f} | {other_loss:.3f} | {noisy_loss:.3f} | {cosine(own, other):.2f} | {cosine(own, noisy):.2f} |"
        )


if __name__ == "__main__":
    main()
