"""Folding the language model head: arg-max over integer logits (rule 10)."""

import torch
from torch import Tensor

from ternbin.graph.fixedpoint import KEPT
from ternbin.graph.ir import Node, Weights
from ternbin.graph.ops.ends import Argmax, LmHead
from ternbin.graph.ops.linear import Affine, Matmul, magnitude
from ternbin.graph.ops.registry import typed
from ternbin.graph.rewrite import Match, Rule, chain
from ternbin.passes.base import RulePass, enter
from ternbin.passes.fixed import BIAS_LIMIT, MAX_SHIFT, MUL_LIMIT, fixed_point, largest, reach, rounded

LOWEST = -(1 << 37)  # the bias of a token that is never among the best
MARGIN = 64  # what its logit stays below them, at least: e^-64 of the sum of rule 11


def fold_head(match: Match, weights: Weights) -> Node[LmHead]:
    """Logits in units of 2^-F, one F for all rows; the bias of a token that is never among the best saturates."""
    name, affine, matmul = match[Argmax].op.name, match[Affine].op, match[Matmul]
    scale, bias = weights[affine.scale], weights[affine.bias]
    swing = reach(weights, matmul.op.weight, magnitude(matmul.src[0]))
    mul, offset, log2 = _logits(scale, bias, swing) or fixed_point(scale, bias, name, affine)
    head = LmHead(
        name=name,
        weight=matmul.op.weight,
        weight_kind=matmul.op.weight_kind,
        mul=enter(weights, f"{name}.M", mul),
        bias=enter(weights, f"{name}.B", offset),
        logit_scale_log2=log2,
    )
    return typed(weights, head, *matmul.src)


def _logits(scale: Tensor, bias: Tensor, swing: Tensor) -> tuple[Tensor, Tensor, int] | None:
    """``(M, B, F)`` of rule 10, F the largest that fits; None where none does."""
    for log2 in range(MAX_SHIFT, -1, -1):
        mul, offset = rounded(scale * 2.0**log2), rounded(bias * 2.0**log2)
        if largest(mul) < MUL_LIMIT:
            offset = torch.where(_never_best(mul * swing, offset, log2), LOWEST, offset)
            if largest(offset) < BIAS_LIMIT:
                return mul, offset, log2
    return None


def _never_best(swing: Tensor, offset: Tensor, log2: int) -> Tensor:
    """Which rows lie below LOWEST and can stay there: KEPT others are larger by MARGIN, whatever the input; bool [rows]."""
    low, offset = (offset < LOWEST).expand_as(swing), offset.expand_as(swing)
    others = (offset - swing)[~low]
    if len(others) < KEPT:
        return torch.zeros_like(low)
    floor = others.topk(KEPT).values[-1]
    return low & (LOWEST + swing < floor - (MARGIN << log2))


FOLD_HEAD = RulePass("fold-head", (Rule(chain(Argmax, Affine, Matmul), fold_head),))
