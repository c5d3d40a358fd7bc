"""Folding into the residual stream: embedding, projections, LayerNorm."""

from fractions import Fraction

import torch

from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.ir import Node, Weights
from ternbin.graph.ops.registry import typed
from ternbin.graph.rewrite import Match, Pattern, Rule, chain
from ternbin.passes.base import RulePass, attrs_of, enter
from ternbin.passes.fixed import MUL_LIMIT, fixed_point, rne, rounded

BETA_LIMIT, MAX_GAMMA_BITS = 1 << 39, 20


def fold_embed(match: Match, weights: Weights) -> Node:
    """Row scales and positions on the grid of the embedding sum (rule 1)."""
    node = match["real_embed"]
    grid, name = 2.0 ** node["frac"], node["name"]
    scale, pos = rounded(weights[node["scale"]] * grid), rounded(weights[node["pos"]] * grid)
    if scale.abs().max() >= 1 << 31:
        raise InputError(f"{name}: scale must be below 2^31 grid steps, not {int(scale.abs().max())}")
    attrs = dict(node.attrs) | {
        "scale": enter(weights, f"{name}.scale_int", scale),
        "pos": enter(weights, f"{name}.pos_int", golden.sat(pos, node["bits"])),
    }
    return typed(weights, "embed", node.src, attrs)


def fold_linear_residual(match: Match, weights: Weights) -> Node:
    """Scale and bias of a projection as M, B, S on the grid of the residual (rule 2)."""
    node, affine, matmul = match["add_sat"], match["affine"], match["matmul"]
    name, grid = node["name"], 2.0 ** match["to_grid"]["frac"]
    mul, bias, shift = fixed_point(weights[affine["scale"]] * grid, weights[affine["bias"]] * grid, name)
    return typed(
        weights,
        "linear_residual",
        (matmul.src[0], node.src[0]),
        dict(
            name=name,
            mul=enter(weights, f"{name}.M", mul),
            bias=enter(weights, f"{name}.B", bias),
            shift=shift,
            **attrs_of(matmul, "weight", "weight_kind"),
        ),
    )


def fold_layernorm(match: Match, weights: Weights) -> Node:
    """G, Bt, E and S of rule 3."""
    node = match["real_layernorm"]
    x, name = node.src[0], node["name"]
    n, gamma, beta = x.type.shape[-1], weights[node["gamma"]], weights[node["beta"]]
    bits = next((g for g in range(MAX_GAMMA_BITS, -MAX_GAMMA_BITS, -1) if _fits(gamma, beta, g)), None)
    if bits is None or not 0 <= 20 + bits - node["frac"]:
        raise InputError(
            f"{name}: gamma and beta must fit the LayerNorm's multiplier at 2^-{node['frac']}, not "
            f"{float(gamma.abs().max()):g} and {float(beta.abs().max()):g}"
        )
    eps = max(1, rne(Fraction(node["eps"]) * n * n * Fraction(4) ** x.type.frac))
    return typed(
        weights,
        "layernorm",
        (x,),
        dict(
            name=name,
            gamma=enter(weights, f"{name}.G", rounded(gamma * 2.0**bits)),
            beta=enter(weights, f"{name}.Bt", rounded(beta * 2.0 ** (12 + bits))),
            eps=eps,
            shift=20 + bits - node["frac"],
            **attrs_of(node, "frac", "bits"),
        ),
    )


def _fits(gamma: torch.Tensor, beta: torch.Tensor, g: int) -> bool:
    return rounded(gamma * 2.0**g).abs().max() < MUL_LIMIT and rounded(beta * 2.0 ** (12 + g)).abs().max() < BETA_LIMIT


FOLD_RESIDUAL = RulePass(
    "fold-residual",
    (
        Rule(Pattern("real_embed"), fold_embed),
        Rule(Pattern("real_layernorm"), fold_layernorm),
        Rule(Pattern("add_sat", (None, chain("to_grid", "affine", "matmul"))), fold_linear_residual),
    ),
)
