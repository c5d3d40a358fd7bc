"""Activation functions."""

import math

import torch
from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """``x * Phi(x)`` without cancellation for negative x."""
    return 0.5 * x * torch.special.erfc(-x * math.sqrt(0.5))
