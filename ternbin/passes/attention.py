"""Folding the softmax: scores to probability codes without real numbers (rules 7 and 8)."""

from fractions import Fraction

from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.ir import Node, Weights
from ternbin.graph.ops.registry import typed
from ternbin.graph.rewrite import Match, Rule, chain
from ternbin.passes.base import RulePass, attrs_of, enter
from ternbin.passes.fixed import rne

POWER_LUT = "exp2.lut"  # one table for all layers
DIRECT_ENTRIES = 256


def fold_softmax(match: Match, weights: Weights) -> Node:
    """Tables and constants of softmax and quantizer.

    Direct mode where the distance between two scores stays below the table's length, power mode elsewhere.
    """
    node, softmax = match["quantize"], match["real_softmax"]
    scores, name, alpha = softmax.src[0], node["name"], node["alpha"]
    if node["zero"]:
        raise InputError(f"{name}: zero of probabilities must be 0, not {node['zero']}")
    power = 2 * scores.type.limit >= DIRECT_ENTRIES
    if power:
        lut = enter(weights, POWER_LUT, golden.exp_lut_power())
        mul, shift = golden.exp_power_constants(softmax["scale"])
    else:
        lut, mul, shift = enter(weights, f"{name}.lut", golden.exp_lut_direct(softmax["scale"])), 0, 0
    exact = Fraction(alpha)
    c1, c2, recip = rne(exact * 2**15), rne(3 * exact * 2**15), rne(2**36 / exact)
    if not (1 <= c1 and c2 < 1 << 20 and recip < 1 << 48):
        raise InputError(f"{name}: alpha of probabilities must be in (2^-12, 10), not {alpha!r}")
    return typed(
        weights,
        "softmax_codes",
        (scores,),
        dict(
            lut=lut,
            power=power,
            mul=mul,
            shift=shift,
            c1=c1,
            c2=c2,
            recip=recip,
            **attrs_of(softmax, "causal"),
            **attrs_of(node, "name", "kind"),
        ),
    )


FOLD_SOFTMAX = RulePass("fold-softmax", (Rule(chain("quantize", "real_softmax"), fold_softmax),))
