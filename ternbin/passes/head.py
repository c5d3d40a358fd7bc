"""Folding the language model head: arg-max over integer logits (rule 10)."""

from ternbin.graph.ir import Node, Weights
from ternbin.graph.ops.registry import typed
from ternbin.graph.rewrite import Match, Rule, chain
from ternbin.passes.base import RulePass, attrs_of, enter
from ternbin.passes.fixed import fixed_point


def fold_head(match: Match, weights: Weights) -> Node:
    """Logits in units of 2^-F, one F for all rows."""
    node, affine, matmul = match["argmax"], match["affine"], match["matmul"]
    name = node["name"]
    mul, bias, log2 = fixed_point(weights[affine["scale"]], weights[affine["bias"]], name)
    return typed(
        weights,
        "lm_head",
        matmul.src,
        dict(
            name=name,
            mul=enter(weights, f"{name}.M", mul),
            bias=enter(weights, f"{name}.B", bias),
            logit_scale_log2=log2,
            **attrs_of(matmul, "weight", "weight_kind"),
        ),
    )


FOLD_HEAD = RulePass("fold-head", (Rule(chain("argmax", "affine", "matmul"), fold_head),))
