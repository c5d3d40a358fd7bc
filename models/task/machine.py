"""How a run uses the machine: devices, precision, batches per step, and when it saves and stops."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from accelerate import Accelerator

PRECISIONS = ("auto", "fp32", "tf32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`precision` "auto": fp32 on a CPU, bf16 on a GPU; "tf32" is fp32 on a CPU.  `accumulate`: batches whose gradients make one step.

    `patience`: validations without a better score after which a run ends; None: never.  `save_every`: seconds.
    `threads`: of the CPU.
    """

    precision: str = "auto"
    accumulate: int = 1
    patience: int | None = None
    compile: bool = False
    tensorboard: bool = False
    save_every: float = 180.0
    threads: int = 1

    @cached_property
    def accelerator(self) -> Accelerator:
        """The device and the other processes of the run; sets threads, and on a GPU the form of float32 products."""
        torch.set_num_threads(self.threads)
        made = Accelerator(gradient_accumulation_steps=self.accumulate)
        if made.device.type == "cuda":
            torch.set_float32_matmul_precision("highest" if self.precision == "fp32" else "high")
        return made

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass."""
        kind = self.accelerator.device.type
        bf16 = self.precision == "bf16" or (self.precision == "auto" and kind == "cuda")
        return torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext()
