"""Folding into the residual stream: embedding, projections, LayerNorm."""

import math
from fractions import Fraction

import torch

from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.fixedpoint import EMBED_SCALE_BITS
from ternbin.graph.ir import Node, Residual, Weights, features
from ternbin.graph.ops.ends import Embed, EmbedAt, RealEmbed, RealEmbedAt
from ternbin.graph.ops.linear import Affine, Matmul, magnitude
from ternbin.graph.ops.registry import typed
from ternbin.graph.ops.stream import AddSat, Layernorm, LinearResidual, RealLayernorm, ToGrid, most_eps
from ternbin.graph.rewrite import Match, Pattern, Rule, chain
from ternbin.passes.base import RulePass, enter
from ternbin.passes.fixed import MUL_LIMIT, OutOfRange, fixed_point, largest, reach, rne, rounded, saturated

BETA_LIMIT, MAX_GAMMA_BITS = 1 << 39, 20


def fold_embed(real: type[RealEmbed | RealEmbedAt], final: type[Embed | EmbedAt]) -> Rule:
    """Row scales and positions on the grid of the embedding sum (rule 1)."""

    def build(match: Match, weights: Weights) -> Node[Embed | EmbedAt]:
        node = match[real].op
        grid, name = 2.0**node.frac, node.name
        scale, pos = rounded(weights[node.scale] * grid), rounded(weights[node.pos] * grid)
        attrs = node.attributes()
        attrs["scale"] = enter(weights, f"{name}.scale_int", golden.sat(scale, EMBED_SCALE_BITS))
        attrs["pos"] = enter(weights, f"{name}.pos_int", golden.sat(pos, node.bits))
        return typed(weights, final(**attrs), *match[real].src)

    return Rule(Pattern(real), build)


def fold_linear_residual(match: Match, weights: Weights) -> Node[LinearResidual]:
    """Scale and bias of a projection as M, B, S on the grid of the residual (rule 2)."""
    node, affine, matmul = match[AddSat], match[Affine].op, match[Matmul]
    name, grid = node.op.name, 2.0 ** match[ToGrid].op.frac
    scale, width = weights[affine.scale] * grid, node.expect(Residual).bits
    swing = scale * reach(weights, matmul.op.weight, magnitude(matmul.src[0]))
    bias = saturated(weights[affine.bias] * grid, swing, 1 << width)
    mul, bias, shift = fixed_point(scale, bias, name, affine)
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
    name, n, source, gamma = node.name, features(x.type), x.expect(Residual), weights[node.gamma]
    top = 2.0 ** (node.bits - node.frac)
    beta = saturated(weights[node.beta], gamma.abs() * math.sqrt(n), math.ceil(top))
    least = max(node.frac - golden.XHAT_BITS, -MAX_GAMMA_BITS)
    bits = next((g for g in range(MAX_GAMMA_BITS, least - 1, -1) if _fits(gamma, beta, g)), None)
    if bits is None:
        if largest(rounded(gamma * 2.0**least)) >= MUL_LIMIT:
            raise OutOfRange(name, node.gamma, f"below 2^{23 - least}", largest(gamma))
        raise OutOfRange(name, node.beta, f"below 2^{27 - least}", largest(beta))
    eps, most = max(1, rne(Fraction(node.eps) * n * n * Fraction(4) ** source.frac)), most_eps(n, source.bits)
    if most < 1:
        raise InputError(f"{name}: width must be below {1 << 32 - source.bits} at {source.bits} bits, not {n}")
    if eps > most:
        limit = Fraction(most, n * n) / Fraction(4) ** source.frac
        raise OutOfRange(name, f"{name}.eps", f"at most {float(limit):g}", node.eps)
    norm = Layernorm(
        name=name,
        gamma=enter(weights, f"{name}.G", rounded(gamma * 2.0**bits)),
        beta=enter(weights, f"{name}.Bt", rounded(beta * 2.0 ** (12 + bits))),
        eps=eps,
        shift=golden.XHAT_BITS + bits - node.frac,
        frac=node.frac,
        bits=node.bits,
    )
    return typed(weights, norm, x)


def _fits(gamma: torch.Tensor, beta: torch.Tensor, g: int) -> bool:
    return largest(rounded(gamma * 2.0**g)) < MUL_LIMIT and largest(rounded(beta * 2.0 ** (12 + g))) < BETA_LIMIT


FOLD_RESIDUAL = RulePass(
    "fold-residual",
    (
        fold_embed(RealEmbed, Embed),
        fold_embed(RealEmbedAt, EmbedAt),
        Rule(Pattern(RealLayernorm), fold_layernorm),
        Rule(Pattern(AddSat, (None, chain(ToGrid, Affine, Matmul))), fold_linear_residual),
    ),
)
