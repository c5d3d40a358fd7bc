"""The sum of exponentials of a search (rule 11 of docs/architecture.md): constants and tables on which hardware and reference agree."""

from ternbin.graph.fixedpoint import (
    EXP_BITS,
    LOG2_E,
    NATS_BITS,
    NO_EXPONENT,
    OCTAVE_BITS,
    TOTAL_POINT,
    exp2_luts,
)

__all__ = ["EXP_BITS", "LOG2_E", "NATS_BITS", "NO_EXPONENT", "OCTAVE_BITS", "TOTAL_POINT", "exp2_luts"]
