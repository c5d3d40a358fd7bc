"""How a model is quantized, whatever its family: the `quant` entry of a config.json.  Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ternbin.graph.fixedpoint import GRID_BITS, GRID_FRAC
from ternbin.schema import OneOf, Range, check_fields, validated

BITS = {"1-1": (1, 1), "2-2": (2, 2), "1-8": (1, 8), "2-8": (2, 8)}
SIGNED_KIND = {1: "binary", 2: "ternary", 8: "int8"}
WEIGHT_KIND = {1: "binary", 2: "ternary", 8: "odd8"}
NONNEGATIVE_KIND = {1: "binary_nn", 2: "ternary_nn", 8: "uint8"}


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How a model is quantized.

    `bits`: weights-activations.  `head_weight_bits`: of the LM head's weights, None: as those of all others; a head of
    other bits that shares its weight with an embedding has codes of its own.  `res_bits`: width of the residual stream.
    `fracs`: frac of every residual site (`ternbin.models.calibrate`); empty means not calibrated, the stream is then not
    rounded.  `form`: "deploy" can be lowered to integers, "paper" has run-time ranges, no residual grids and a
    full-precision LM head.  `center_weights` subtracts the row mean of the weights first.
    """

    bits: Annotated[str, OneOf(*BITS)] = "2-2"
    head_act_bits: Annotated[int, OneOf(1, 2, 8)] = 8
    head_weight_bits: Annotated[int, OneOf(1, 2, 8)] | None = None
    res_bits: Annotated[int, Range(*GRID_BITS)] = 16
    form: Annotated[str, OneOf("deploy", "paper")] = "deploy"
    center_weights: bool = False
    fracs: dict[str, Annotated[int, Range(*GRID_FRAC)]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, "")

    @property
    def weight_bits(self) -> int:
        return BITS[self.bits][0]

    @property
    def act_bits(self) -> int:
        return BITS[self.bits][1]

    @property
    def head_bits(self) -> int:
        """Of the LM head's weights."""
        return self.head_weight_bits or self.weight_bits

    @classmethod
    def from_dict(cls, values: dict) -> QuantConfig:
        """From the `quant` entry of a config.json.  Raises InputError."""
        return validated(cls, values, "quant")
