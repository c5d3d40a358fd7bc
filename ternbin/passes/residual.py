"""Folding into the residual stream: embedding, projections, LayerNorm."""

from fractions import Fraction

import torch

from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.ir import Node, Residual, Weights, features
from ternbin.graph.ops.ends import Embed, EmbedAt, RealEmbed, RealEmbedAt
from ternbin.graph.ops.linear import Affine, Matmul
from ternbin.graph.ops.registry import typed
from ternbin.graph.ops.stream import AddSat, Layernorm, LinearResidual, RealLayernorm, ToGrid
from ternbin.graph.rewrite import Match, Pattern, Rule, chain
from ternbin.passes.base import RulePass, enter
from ternbin.passes.fixed import MUL_LIMIT, fixed_point, rne, rounded

BETA_LIMIT, MAX_GAMMA_BITS = 1 << 39, 20


def fold_embed(real: type[RealEmbed | RealEmbedAt], final: type[Embed | EmbedAt]) -> Rule:
    """Row scales and positions on the grid of the embedding sum (rule 1)."""

    def build(match: Match, weights: Weights) -> Node[Embed | EmbedAt]:
        node = match[real].op
        grid, name = 2.0**node.frac, node.name
        scale, pos = rounded(weights[node.scale] * grid), rounded(weights[node.pos] * grid)
        if scale.abs().max() >= 1 << 31:
            raise InputError(f"{name}: scale must be below 2^31 grid steps, not {int(scale.abs().max())}")
        attrs = node.attributes()
        attrs["scale"] = enter(weights, f"{name}.scale_int", scale)
        attrs["pos"] = enter(weights, f"{name}.pos_int", golden.sat(pos, node.bits))
        return typed(weights, final(**attrs), *match[real].src)

    return Rule(Pattern(real), build)


def fold_linear_residual(match: Match, weights: Weights) -> Node[LinearResidual]:
    """Scale and bias of a projection as M, B, S on the grid of the residual (rule 2)."""
    node, affine, matmul = match[AddSat], match[Affine].op, match[Matmul]
    name, grid = node.op.name, 2.0 ** match[ToGrid].op.frac
    mul, bias, shift = fixed_point(weights[affine.scale] * grid, weights[affine.bias] * grid, name)
    linear = LinearResidual(
        name=name,
        weight=matmul.op.weight,
        weight_kind=matmul.op.weight_kind,
        mul=enter(weights, f"{name}.M", mul),
        bias=enter(weights, f"{name}.B", bias),
        shift=shift,
    )
    return typed(weights, linear, matmul.src[0], node.src[0])


def fold_layernorm(match: Match, weights: Weights) -> Node[Layernorm]:
    """G, Bt, E and S of rule 3."""
    node, (x,) = match[RealLayernorm].op, match[RealLayernorm].src
    name, n, gamma, beta = node.name, features(x.type), weights[node.gamma], weights[node.beta]
    bits = next((g for g in range(MAX_GAMMA_BITS, -MAX_GAMMA_BITS, -1) if _fits(gamma, beta, g)), None)
    if bits is None or not 0 <= 20 + bits - node.frac:
        raise InputError(
            f"{name}: gamma and beta must fit the LayerNorm's multiplier at 2^-{node.frac}, not "
            f"{float(gamma.abs().max()):g} and {float(beta.abs().max()):g}"
        )
    norm = Layernorm(
        name=name,
        gamma=enter(weights, f"{name}.G", rounded(gamma * 2.0**bits)),
        beta=enter(weights, f"{name}.Bt", rounded(beta * 2.0 ** (12 + bits))),
        eps=max(1, rne(Fraction(node.eps) * n * n * Fraction(4) ** x.expect(Residual).frac)),
        shift=20 + bits - node.frac,
        frac=node.frac,
        bits=node.bits,
    )
    return typed(weights, norm, x)


def _fits(gamma: torch.Tensor, beta: torch.Tensor, g: int) -> bool:
    largest = [int(rounded(x).abs().max()) for x in (gamma * 2.0**g, beta * 2.0 ** (12 + g))]
    return largest[0] < MUL_LIMIT and largest[1] < BETA_LIMIT


FOLD_RESIDUAL = RulePass(
    "fold-residual",
    (
        fold_embed(RealEmbed, Embed),
        fold_embed(RealEmbedAt, EmbedAt),
        Rule(Pattern(RealLayernorm), fold_layernorm),
        Rule(Pattern(AddSat, (None, chain(ToGrid, Affine, Matmul))), fold_linear_residual),
    ),
)
