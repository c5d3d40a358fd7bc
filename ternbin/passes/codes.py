"""Folding into codes: residual to codes, accumulators to codes by thresholds or by 8-bit requantization."""

from fractions import Fraction

import torch

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS, Activation
from ternbin.graph.ir import Node, Residual, Weights
from ternbin.graph.ops.registry import typed
from ternbin.graph.qtypes import KINDS
from ternbin.graph.rewrite import Match, Pattern, Rule, chain
from ternbin.passes import steps
from ternbin.passes.base import RulePass, attrs_of, enter
from ternbin.passes.fixed import fixed_point, fixed_scale

FAR = 1 << 22  # no residual reaches it


def fold_quant(match: Match, weights: Weights) -> Node | None:
    """Residual to codes (rule 4)."""
    node = match["quantize"]
    x, name, kind, alpha = node.src[0], node["name"], node["kind"], node["alpha"]
    if not isinstance(x.type, Residual):
        return None
    if kind not in ("ternary", "binary", "int8") or node["zero"]:
        raise InputError(
            f"{name}: a residual must become ternary, binary or int8 codes with zero 0, not {kind} with {node['zero']}"
        )
    thresholds, mul, shift = (), 0, 0
    if kind == "int8":
        mul, shift = fixed_scale(_grid(x) / Fraction(alpha), name)
    else:
        wanted = steps.steps(alpha, 0.0, kind)[: 1 if kind == "binary" else 2]
        exact = (steps.first_integer(step, _grid(x), Fraction(0)) for step in wanted)
        thresholds = tuple(min(max(t, -FAR), FAR) for t in exact)
    return typed(weights, "quant", (x,), dict(name=name, kind=kind, thresholds=thresholds, mul=mul, shift=shift))


def _grid(x: Node) -> Fraction:
    return Fraction(1, 2) ** x.type.frac


def fold_codes(match: Match, weights: Weights) -> Node:
    """Product, scale, bias, activation function and quantizer to integers (rules 5 and 6)."""
    node, affine = match["quantize"], match["affine"]
    acc = match.get("matmul") or match["context"]
    if KINDS[node["kind"]].eight_bit:
        op, attrs = _requantized(match, weights)
    else:
        op, attrs = _thresholds(match, weights)
    attrs |= attrs_of(node, "name", "kind")
    if acc.op == "matmul":
        return typed(weights, f"linear_{op}", acc.src, attrs | attrs_of(acc, "weight", "weight_kind"))
    if affine["scale"] not in weights or weights[affine["scale"]].numel() != 1:
        raise InputError(f"{node['name']}: scale of a context must be one number, not {affine['scale']!r}")
    return typed(weights, f"context_{op}", acc.src, attrs | attrs_of(acc, "heads"))


def _thresholds(match: Match, weights: Weights) -> tuple[str, dict[str, object]]:
    node, affine = match["quantize"], match["affine"]
    if "snap" in match:
        raise InputError(f"{node['name']}: a snapped activation must become 8-bit codes, not {node['kind']}")
    fn = _activation(match)
    folded = steps.fold(
        weights[affine["scale"]],
        weights[affine["bias"]],
        affine.src[0].type.limit,
        fn,
        node["alpha"],
        node["zero"],
        node["kind"],
    )
    name = enter(weights, f"{node['name']}.T", folded.thresholds)
    return "codes", dict(thresholds=name, base=folded.base, dirs=folded.dirs)


def _activation(match: Match) -> Activation | None:
    return ACTIVATIONS[match["act"]["fn"]] if "act" in match else None


def _requantized(match: Match, weights: Weights) -> tuple[str, dict[str, object]]:
    node, affine = match["quantize"], match["affine"]
    name, fn = node["name"], _activation(match)
    smooth = fn is not None and fn.smooth
    if smooth != ("snap" in match):
        raise InputError(
            f"{name}: 8-bit codes must be of a smooth function after a snap, of another without one, or of none, not of "
            f"{fn and fn.name} {'with' if 'snap' in match else 'without'} snap"
        )
    step, zero = (match["snap"]["delta"], 0.0) if smooth else (node["alpha"], node["zero"])
    if fn is not None and not smooth and (zero != fn.minimum or node["kind"] != "uint8"):
        raise InputError(
            f"{name}: {fn.name} must become uint8 codes with zero {fn.minimum:g}, not {node['kind']} with {zero}"
        )
    mul, bias, shift = fixed_point(weights[affine["scale"]] / step, (weights[affine["bias"]] - zero) / step, name)
    attrs = dict(mul=enter(weights, f"{name}.M", mul), bias=enter(weights, f"{name}.B", bias), shift=shift)
    if affine.src[0].op == "matmul":
        attrs["lut"] = enter(weights, f"{name}.lut", table(fn, step, node)) if fn is not None and smooth else None
    return "codes8", attrs


def table(fn: Activation, delta: float, node: Node) -> torch.Tensor:
    """Codes of the smooth function at ``delta * z`` for z from -128 to 127, decided exactly."""
    rises = steps.steps(node["alpha"], node["zero"], node["kind"])
    at = torch.tensor([float(step.at) for step in rises], dtype=torch.float64)
    z = torch.arange(-128, 128, dtype=torch.float64)
    excess = fn.exact(z * delta)[:, None] - at
    lut = KINDS[node["kind"]].lo + (excess > 0).sum(1)
    for row in (excess.abs() <= steps.MARGIN * (1 + z.abs() * delta)[:, None]).any(1).nonzero().flatten().tolist():
        x = Fraction(delta) * (row - 128)
        lut[row] = KINDS[node["kind"]].lo + sum(steps.reached(fn, x, step) for step in rises)
    return lut


FOLD_CODES = RulePass(
    "fold-codes",
    (
        Rule(chain("quantize", "affine", "matmul"), fold_codes),
        Rule(chain("quantize", "act", "affine", "matmul"), fold_codes),
        Rule(chain("quantize", "act", "snap", "affine", "matmul"), fold_codes),
        Rule(chain("quantize", "affine", "context"), fold_codes),
        Rule(Pattern("quantize"), fold_quant),
    ),
)
