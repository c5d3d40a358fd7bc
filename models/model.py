"""What every quantized model is, whatever its family: modules with residual sites and packable weights.

Lowering and comparing need no more; `ternbin.models.library` makes a model of the library of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from ternbin.errors import InputError
from ternbin.graph.ir import code_type
from ternbin.models.config import QuantConfig
from ternbin.models.modules import QuantWeight
from ternbin.models.quantizers import ResidualSite


class QuantModel(nn.Module):
    """`config.quant` is a QuantConfig as a dict.

    `sites`: the places of the residual stream, by name, whose grids calibration sets.
    `tied`: modules that share the weight of another one, by name; empty where no weight is shared.
    """

    config: Any  # the family's, with a field `quant`; the library's classes give it types that exclude each other
    generation_config: Any
    can_generate: Any  # -> bool
    sites: dict[str, ResidualSite]

    @classmethod
    def check_values(cls, values: dict, where: Path) -> None:
        """Raise InputError for values of a config.json that no model of the class can have."""

    @property
    def tied(self) -> Mapping[str, str]:
        return {}

    @property
    def quant_config(self) -> QuantConfig:
        return QuantConfig.from_dict(self.config.quant or {})

    def weights(self) -> Iterator[tuple[str, QuantWeight]]:
        """Every module with quantized weights and its name, those of `tied` too."""
        for name, module in self.named_modules():
            if isinstance(module, QuantWeight):
                yield name, module

    @property
    def is_packed(self) -> bool:
        return any(module.is_packed for _, module in self.weights())

    def set_fracs(self, fracs: dict[str, int]) -> None:
        """Set the frac of every residual site, in the modules and in the config."""
        if fracs and set(fracs) != set(self.sites):
            wrong = sorted(set(fracs) ^ set(self.sites))[0]
            raise InputError(f"fracs must name exactly the residual sites of the model, not differ at {wrong!r}")
        self.config.quant = asdict(self.quant_config) | {"fracs": dict(fracs)}
        for name, site in self.sites.items():
            site.frac = fracs.get(name)

    def pack(self) -> Self:
        """Replace every latent weight by its codes and row scales, in place; the outputs do not change."""
        packed: dict[tuple[nn.Parameter, int], tuple[torch.Tensor, torch.Tensor]] = {}  # tied weights stay one
        for _, module in self.weights():
            weight = module.latent
            if weight is not None:
                if (weight, module.bits) not in packed:
                    codes, row_scale = module.weight_parts()
                    packed[weight, module.bits] = codes.to(code_type(module.kind)), row_scale
                module.set_packed(*packed[weight, module.bits])
        return self
