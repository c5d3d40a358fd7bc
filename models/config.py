"""How a model is quantized, whatever its family: the `quant` entry of a config.json.  Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ternbin.errors import InputError

BITS = {"1-1": (1, 1), "2-2": (2, 2), "1-8": (1, 8), "2-8": (2, 8)}
SIGNED_KIND = {1: "binary", 2: "ternary", 8: "int8"}
NONNEGATIVE_KIND = {1: "binary_nn", 2: "ternary_nn", 8: "uint8"}


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How a model is quantized.

    `bits`: weights-activations.  `res_bits`: width of the residual stream.  `fracs`: frac of every residual site
    (`ternbin.models.calibrate`); empty means not calibrated, the stream is then not rounded.  `form`: "deploy" can be
    lowered to integers, "paper" has run-time ranges, no residual grids and a full-precision LM head.
    `center_weights` subtracts the row mean of the weights first.
    """

    bits: str = "2-2"
    head_act_bits: int = 8
    res_bits: int = 16
    form: str = "deploy"
    center_weights: bool = False
    fracs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise InputError(f"bits must be one of {', '.join(BITS)}, not {self.bits!r}")
        if self.form not in ("deploy", "paper"):
            raise InputError(f"form must be 'deploy' or 'paper', not {self.form!r}")
        if self.head_act_bits not in SIGNED_KIND:
            raise InputError(f"head_act_bits must be 1, 2 or 8, not {self.head_act_bits!r}")
        if not (isinstance(self.res_bits, int) and 8 <= self.res_bits <= 20):
            raise InputError(f"res_bits must be 8 to 20, not {self.res_bits!r}")

    @property
    def weight_bits(self) -> int:
        return BITS[self.bits][0]

    @property
    def act_bits(self) -> int:
        return BITS[self.bits][1]

    @classmethod
    def from_dict(cls, values: dict) -> QuantConfig:
        """From the `quant` entry of a config.json."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise InputError(f"quant config must not have the unknown field {sorted(unknown)[0]!r}")
        return cls(**values)
