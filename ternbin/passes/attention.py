"""Folding the softmax: scores to probability codes without real numbers (rules 7 and 8)."""

from fractions import Fraction

from ternbin.errors import InputError
from ternbin.graph import golden
from ternbin.graph.fixedpoint import PROBABILITY_STEP
from ternbin.graph.ir import Ints, Node, Weights
from ternbin.graph.ops.attention import RealSoftmax, SoftmaxCodes
from ternbin.graph.ops.codes import Quantize
from ternbin.graph.ops.registry import typed
from ternbin.graph.rewrite import Match, Rule, chain
from ternbin.passes.base import RulePass, enter
from ternbin.passes.fixed import OutOfRange, rne

POWER_LUT = "exp2.lut"  # one table for all layers
DIRECT_ENTRIES = 256


def fold_softmax(match: Match, weights: Weights) -> Node[SoftmaxCodes]:
    """Tables and constants of softmax and quantizer.

    Direct mode where the distance between two scores stays below the table's length, power mode elsewhere.
    """
    node, softmax, (scores,) = match[Quantize].op, match[RealSoftmax].op, match[RealSoftmax].src
    name, exact = node.name, Fraction(node.alpha)
    if node.zero:
        raise InputError(f"{name}: zero of probabilities must be 0, not {node.zero}")
    power = 2 * scores.expect(Ints).limit >= DIRECT_ENTRIES
    if power:
        lut = enter(weights, POWER_LUT, golden.exp_lut_power())
        mul, shift = golden.exp_power_constants(softmax.scale)
    else:
        lut, mul, shift = enter(weights, f"{name}.lut", golden.exp_lut_direct(softmax.scale)), 0, 0
    least = PROBABILITY_STEP.get(node.kind, 0.0)
    if node.alpha < least:
        raise OutOfRange(name, f"{name}.alpha", f"at least {least:g} for {node.kind} probabilities", node.alpha)
    c1, c2, recip = rne(exact * 2**15), rne(3 * exact * 2**15), rne(2**36 / exact)
    c1, c2 = (min(max(c, 1), (1 << 20) - 1) for c in (c1, c2))  # beyond 2^20 no probability reaches a code above 0
    recip = min(max(recip, 1), (1 << 48) - 1)
    codes = SoftmaxCodes(
        name=name,
        kind=node.kind,
        causal=softmax.causal,
        lut=lut,
        power=power,
        mul=mul,
        shift=shift,
        c1=c1,
        c2=c2,
        recip=recip,
    )
    return typed(weights, codes, scores)


FOLD_SOFTMAX = RulePass("fold-softmax", (Rule(chain(Quantize, RealSoftmax), fold_softmax),))
