"""The lists of the best tokens that a backend delivers, in natural units."""

import numpy as np
from torch import Tensor

from ternbin.decoding.rules import Candidate, Candidates
from ternbin.graph import golden


def candidates(top: Tensor | np.ndarray, log2_scale: int) -> list[Candidates]:
    """The lists from what rule 11 gives, ``[beams, top + 1, 2]``, for logits in units of ``2^-log2_scale``."""
    result: list[Candidates] = []
    for *best, (exponent, total) in top.tolist():
        normaliser = golden.log_total(exponent, total)
        scaled = [(token, logit * 2.0**-log2_scale) for token, logit in best]
        result.append([Candidate(token, logit - normaliser, logit) for token, logit in scaled])
    return result
