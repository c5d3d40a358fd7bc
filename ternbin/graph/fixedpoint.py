"""Widths of the fields that a model's numbers become (docs/numerics.md, "Ranges"), and constants and tables of the exponential sum
(rule 11): what interpreter and hardware share."""

import math

MUL_BITS, BIAS_BITS = 24, 40  # a multiplier M and a bias B, signed, of one feature
GRID_BITS, GRID_FRAC = (8, 20), (-20, 30)  # of residuals: least and most
EMBED_SCALE_BITS = 32  # the scale of a row of the embedding, signed
EXP_BITS = 15  # exp(0) is 2^15 in the tables
LOG2_E = round(math.log2(math.e) * 2**20)
NATS_BITS, OCTAVE_BITS, TOTAL_POINT = 16, 12, 31  # fractional bits of a logit, of its base-2 form, of the sum
RECIP_POINT = 36  # fractional bits of the reciprocal that makes uint8 probabilities (rule 8)
KEPT = 20  # logits of a token that a search looks at, at most
PROBABILITY_STEP = {"uint8": 2.0**-12, "ternary_nn": 2.0**-15, "binary_nn": 2.0**-15}  # the least, by kind (rule 8)
NO_EXPONENT = -(1 << 20)  # below that of every logit


def exp2_luts() -> tuple[list[int], list[int]]:
    """The two factors of ``2^15 * 2^f`` for f in [0, 1): 64 entries for its upper 6 bits, 64 for the lower 6, taken mid-step."""
    one = 2**EXP_BITS
    return [round(one * 2 ** (i / 64)) for i in range(64)], [round(one * 2 ** ((i + 0.5) / 4096)) for i in range(64)]
