"""Folding into codes: residual to codes, accumulators to codes by thresholds or by 8-bit requantization."""

from fractions import Fraction

import torch

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS, Activation
from ternbin.graph.ir import Ints, Node, Residual, WeightName, Weights
from ternbin.graph.ops.attention import Context, ContextCodes, ContextCodes8
from ternbin.graph.ops.codes import LinearCodes, LinearCodes8, Quant, Quantize
from ternbin.graph.ops.linear import Act, Affine, Matmul, Snap, magnitude
from ternbin.graph.ops.registry import typed
from ternbin.graph.qtypes import KINDS
from ternbin.graph.rewrite import Match, Pattern, Rule, chain
from ternbin.passes import steps
from ternbin.passes.base import RulePass, enter
from ternbin.passes.fixed import fixed_point, fixed_scale, reach, saturated

FAR = 1 << 22  # no residual reaches it
CODES = 1 << 8  # no code of 8 bits reaches it


def fold_quant(match: Match, weights: Weights) -> Node[Quant] | None:
    """Residual to codes (rule 4)."""
    node, (x,) = match[Quantize].op, match[Quantize].src
    if not isinstance(x.type, Residual):
        return None
    if node.kind not in ("ternary", "binary", "int8") or node.zero:
        raise InputError(
            f"{node.name}: a residual must become ternary, binary or int8 codes with zero 0, "
            f"not {node.kind} with {node.zero}"
        )
    grid, mul, shift = Fraction(1, 2) ** x.type.frac, 0, 0
    exact: list[int] = []
    if node.kind == "int8":
        mul, shift = fixed_scale(grid / Fraction(node.alpha))
    else:
        wanted = steps.steps(node.alpha, 0.0, node.kind)[: 1 if node.kind == "binary" else 2]
        exact = [steps.first_integer(step, grid, Fraction(0)) for step in wanted]
    thresholds = tuple(min(max(t, -FAR), FAR) for t in exact)
    return typed(weights, Quant(name=node.name, kind=node.kind, thresholds=thresholds, mul=mul, shift=shift), x)


def fold_linear(match: Match, weights: Weights) -> Node[LinearCodes] | Node[LinearCodes8]:
    """Product with weights, scale, bias, activation function and quantizer to integers (rules 5 and 6)."""
    node, product = match[Quantize].op, match[Matmul]
    weight, weight_kind = product.op.weight, product.op.weight_kind
    if not KINDS[node.kind].eight_bit:
        name, folded = thresholds(match, weights)
        codes = LinearCodes(
            name=node.name,
            weight=weight,
            weight_kind=weight_kind,
            thresholds=name,
            base=folded.base,
            dirs=folded.dirs,
            kind=node.kind,
        )
        return typed(weights, codes, *product.src)
    step, zero, fn = requantizer(match)
    swing = reach(weights, weight, magnitude(product.src[0]))
    mul, bias, shift = requantization(match, weights, step, zero, swing)
    codes8 = LinearCodes8(
        name=node.name,
        weight=weight,
        weight_kind=weight_kind,
        mul=mul,
        bias=bias,
        shift=shift,
        kind=node.kind,
        lut=enter(weights, f"{node.name}.lut", table(fn, step, node)) if fn is not None and fn.smooth else None,
    )
    return typed(weights, codes8, *product.src)


def fold_context(match: Match, weights: Weights) -> Node[ContextCodes] | Node[ContextCodes8]:
    """Product with values, scale and quantizer to integers (rules 5, 6 and 9)."""
    node, product, scale = match[Quantize].op, match[Context], match[Affine].op.scale
    if weights[scale].numel() != 1:
        raise InputError(f"{node.name}: scale of a context must be one number, not {scale!r}")
    heads = product.op.heads
    if not KINDS[node.kind].eight_bit:
        name, folded = thresholds(match, weights)
        codes = ContextCodes(
            name=node.name, heads=heads, thresholds=name, base=folded.base, dirs=folded.dirs, kind=node.kind
        )
        return typed(weights, codes, *product.src)
    swing = torch.tensor([product.expect(Ints).limit])
    mul, bias, shift = requantization(match, weights, node.alpha, node.zero, swing)
    codes8 = ContextCodes8(name=node.name, heads=heads, mul=mul, bias=bias, shift=shift, kind=node.kind)
    return typed(weights, codes8, *product.src)


def activation(match: Match) -> Activation | None:
    act = match.get(Act)
    return ACTIVATIONS[act.op.fn] if act else None


def thresholds(match: Match, weights: Weights) -> tuple[WeightName, steps.Folded]:
    """Name and value of the thresholds of what is between the accumulator and its 1- or 2-bit codes."""
    node, affine = match[Quantize].op, match[Affine]
    if Snap in match.nodes:
        raise InputError(f"{node.name}: a snapped activation must become 8-bit codes, not {node.kind}")
    scale, bias, limit = weights[affine.op.scale], weights[affine.op.bias], affine.src[0].expect(Ints).limit
    folded = steps.fold(scale, bias, limit, activation(match), node.alpha, node.zero, node.kind)
    return enter(weights, f"{node.name}.T", folded.thresholds), folded


def requantizer(match: Match) -> tuple[float, float, Activation | None]:
    """Step and zero of the 8-bit integers that the accumulator becomes, and the function in between."""
    node, fn, snap = match[Quantize].op, activation(match), match.get(Snap)
    if (fn is not None and fn.smooth) != (snap is not None):
        raise InputError(
            f"{node.name}: 8-bit codes must be of a smooth function after a snap, of another without one, or of none, "
            f"not of {fn and fn.name} {'with' if snap else 'without'} snap"
        )
    if snap is not None:
        return snap.op.delta, 0.0, fn
    if fn is not None and (node.zero != fn.minimum or node.kind != "uint8"):
        raise InputError(
            f"{node.name}: {fn.name} must become uint8 codes with zero {fn.minimum:g}, not {node.kind} with {node.zero}"
        )
    return node.alpha, node.zero, fn


def requantization(
    match: Match, weights: Weights, step: float, zero: float, swing: torch.Tensor
) -> tuple[WeightName, WeightName, int]:
    """Names of multipliers and biases, and the shift, that make the accumulator integers of this step and zero.

    ``swing``: largest magnitude of each row's accumulator.
    """
    name, affine = match[Quantize].op.name, match[Affine].op
    scale, bias = weights[affine.scale] / step, (weights[affine.bias] - zero) / step
    mul, bias, shift = fixed_point(scale, saturated(bias, scale * swing, CODES), name, affine)
    return enter(weights, f"{name}.M", mul), enter(weights, f"{name}.B", bias), shift


def table(fn: Activation, delta: float, node: Quantize) -> torch.Tensor:
    """Codes of the smooth function at ``delta * z`` for z from -128 to 127, decided exactly."""
    lo, rises = KINDS[node.kind].lo, steps.steps(node.alpha, node.zero, node.kind)
    at = torch.tensor([float(step.at) for step in rises], dtype=torch.float64)
    z = torch.arange(-128, 128, dtype=torch.float64)
    excess = fn.exact(z * delta)[:, None] - at
    lut = lo + (excess > 0).sum(1)
    for row in (excess.abs() <= steps.MARGIN * (1 + z.abs() * delta)[:, None]).any(1).nonzero().flatten().tolist():
        x = Fraction(delta) * (row - 128)
        lut[row] = lo + sum(steps.reached(fn, x, step) for step in rises)
    return lut


FOLD_CODES = RulePass(
    "fold-codes",
    (
        Rule(chain(Quantize, Affine, Matmul), fold_linear),
        Rule(chain(Quantize, Act, Affine, Matmul), fold_linear),
        Rule(chain(Quantize, Act, Snap, Affine, Matmul), fold_linear),
        Rule(chain(Quantize, Affine, Context), fold_context),
        Rule(Pattern(Quantize), fold_quant),
    ),
)
