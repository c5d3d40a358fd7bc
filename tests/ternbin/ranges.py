"""Small packed models with values at the ends of ranges in chosen tensors."""

import copy
import re
from functools import lru_cache
from typing import Any

import torch

from ternbin.graph.ir import Lowered
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold

BITS = ("2-2", "1-1", "2-8", "1-8")
ACTIVATION = {"2-2": "relu", "1-1": "gelu", "2-8": "gelu", "1-8": "relu"}
patterns = ("all", "one")


@lru_cache
def packed(bits: str) -> Any:
    """A packed model of one layer a stack; its state holds row scales as `<module>.row_scale`."""
    return random_quant_bart(bits, activation=ACTIVATION[bits], vocab=41, seed=3).pack()


def kinds(model: Any) -> list[str]:
    """Floating-point tensors by the names of a packed checkpoint, one of each kind."""
    found: dict[str, str] = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not name.startswith(tuple(model.tied)):
            name = name.replace(".row_scale", ".scale")
            found.setdefault(re.sub(r"\d+", "N", name), name)
    return sorted(found.values())


def change(tensor: torch.Tensor, pattern: str, value: float) -> torch.Tensor:
    """The tensor with `value` everywhere or in its middle element."""
    if pattern == "all":
        return torch.full_like(tensor, value)
    new = tensor.clone()
    new.view(-1)[new.numel() // 2] = value
    return new


def lower_changed(bits: str, changes: dict[str, tuple[str, float]]) -> Lowered:
    """Folded graphs of the packed model with these tensors changed: name -> (pattern, value); row scales lose their sign."""
    model = copy.deepcopy(packed(bits))
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, (pattern, value) in changes.items():
            scale = name.endswith(".scale")
            tensor = state[
                name.replace(".scale", ".row_scale") if scale else name
            ]  # modules that share it hold the same
            tensor.copy_(change(tensor, pattern, abs(value) if scale else value))
    return fold(lower(model.eval()))
