"""Attention relations: how alike the queries, keys and values of a text are among themselves, in student and teacher.

After Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation", ACL Findings 2021: softmax(A A^T / sqrt(d))
a head for A of queries, keys, values; the student's is pulled to the teacher's by the Kullback-Leibler divergence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PARTS = ("q_proj", "k_proj", "v_proj")


class Relations:
    """Watches the self-attention of the last layer of encoder and decoder in two models of the same module names."""

    def __init__(self, student: nn.Module, teacher: nn.Module):
        self._seen: list[dict[str, Tensor]] = [{}, {}]
        self.blocks = {name: _last_attention(teacher, name) for name in ("encoder", "decoder")}
        for model, seen in zip((student, teacher), self._seen, strict=True):
            for path in self.blocks.values():
                for part in PARTS:
                    name = f"{path}.{part}"
                    model.get_submodule(name).register_forward_hook(_keeper(seen, name))
        blocks: dict[str, Any] = {name: teacher.get_submodule(path) for name, path in self.blocks.items()}
        self.heads = {name: int(block.num_heads) for name, block in blocks.items()}

    def divergence(self, source: Tensor, target: Tensor) -> Tensor:
        """Mean over the parts and both stacks; `source`, `target` [B, T]: which tokens count."""
        student, teacher = self._seen
        every = [
            _divergence(student[f"{path}.{part}"], teacher[f"{path}.{part}"], self.heads[name], valid)
            for (name, path), valid in zip(self.blocks.items(), (source, target), strict=True)
            for part in PARTS
        ]
        return torch.stack(every).mean()


def _keeper(seen: dict[str, Tensor], name: str) -> Any:
    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        seen[name] = output

    return keep


def _last_attention(model: Any, stack: str) -> str:
    return f"model.{stack}.layers.{len(model.get_submodule(f'model.{stack}').layers) - 1}.self_attn"


def _relation(x: Tensor, heads: int, valid: Tensor) -> Tensor:
    """Logarithm of the relation [B, heads, T, T] of x [B, T, d]."""
    split = x.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    split = nn.functional.layer_norm(
        split, split.shape[-1:]
    )  # a student's codes have another unit than the teacher's values
    scores = split @ split.transpose(2, 3) / split.shape[-1] ** 0.5
    return scores.masked_fill(~valid[:, None, None], -1e4).log_softmax(-1)


def mean_of_copies(x: Tensor, width: int) -> Tensor:
    """[.., width] of x [.., copies * width]: a student may have several copies of every channel (`ternbin.models.bart.widen`)."""
    return x.unflatten(-1, (-1, width)).mean(-2)


def _divergence(student: Tensor, teacher: Tensor, heads: int, valid: Tensor) -> Tensor:
    student = mean_of_copies(student, teacher.shape[-1])
    own, wanted = _relation(student, heads, valid), _relation(teacher.detach(), heads, valid)
    each = (wanted.exp() * (wanted - own)).sum(-1).transpose(1, 2)  # [B, T, heads]
    return each[valid].mean()
