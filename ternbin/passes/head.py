"""Folding the language model head: arg-max over integer logits (rule 10)."""

from ternbin.graph.ir import Node, Weights
from ternbin.graph.ops.ends import Argmax, LmHead
from ternbin.graph.ops.linear import Affine, Matmul
from ternbin.graph.ops.registry import typed
from ternbin.graph.rewrite import Match, Rule, chain
from ternbin.passes.base import RulePass, enter
from ternbin.passes.fixed import fixed_point


def fold_head(match: Match, weights: Weights) -> Node[LmHead]:
    """Logits in units of 2^-F, one F for all rows."""
    name, affine, matmul = match[Argmax].op.name, match[Affine].op, match[Matmul]
    mul, bias, log2 = fixed_point(weights[affine.scale], weights[affine.bias], name)
    head = LmHead(
        name=name,
        weight=matmul.op.weight,
        weight_kind=matmul.op.weight_kind,
        mul=enter(weights, f"{name}.M", mul),
        bias=enter(weights, f"{name}.B", bias),
        logit_scale_log2=log2,
    )
    return typed(weights, head, *matmul.src)


FOLD_HEAD = RulePass("fold-head", (Rule(chain(Argmax, Affine, Matmul), fold_head),))
