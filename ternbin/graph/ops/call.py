"""What an op is given to compute with, besides its node and the tensors of its sources."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ternbin.graph import golden
from ternbin.graph.ir import Node, Weights


@dataclass
class Call:
    """One evaluation of a graph."""

    weights: Weights
    inputs: dict[str, Tensor]
    past: int = 0
    caches: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    lengths: Tensor | None = None  # valid source tokens of each sequence, [batch]; None: all
    saturation: dict[str, golden.Saturation] | None = None
    mask: Tensor | None = None  # the tokens are beams at position ``past``: keys that each sees, bool [T, N]
    # the source tokens are those of several texts: which of them each token sees, bool [T, S]
    sources: Tensor | None = None
    top: int = 0  # best tokens of the language model head, with the normaliser; 0: the best one alone

    def count(self, node: Node[Any]) -> golden.Saturation | None:
        """Where the elements that a node clips are counted."""
        return None if self.saturation is None else self.saturation.setdefault(node.name, golden.Saturation())

    def valid(self, causal: bool, scores: Tensor) -> Tensor:
        """How many keys each query sees, broadcastable to ``scores.shape[:-1]``, or which ones, bool, to ``scores.shape``."""
        if causal and self.mask is not None:
            return self.mask
        if not causal and self.sources is not None:
            return self.sources
        if causal:
            return golden.causal_valid(scores.shape[-2], self.past, scores.device)
        if self.lengths is None:
            return torch.tensor(scores.shape[-1], device=scores.device)
        return self.lengths[:, None, None]
