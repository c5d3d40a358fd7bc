"""The protocol of a model family: all that preparing, running and checking ask of it.

A family is a folder of `models/` with a subclass of Family and a line in `ternbin.models.families`.  Docs: docs/add-a-model-family.md.
"""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph.given import Given
from ternbin.graph.ir import Lowered
from ternbin.models import calibrate, fidelity, packed
from ternbin.models.answer import Answer
from ternbin.models.config import QuantConfig
from ternbin.models.fidelity import Agreement, Pair
from ternbin.models.lowering import describe_generation
from ternbin.models.model import QuantModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Model = TypeVar("Model", bound=QuantModel)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a random model.  `layers`: of each stack.  `options`: what else the family varies."""

    heads: int
    head_dim: int
    ffn: int
    layers: tuple[int, ...]
    vocab: int
    activation: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        layers = "+".join(map(str, self.layers))
        sizes = (
            f"{self.activation} d={self.heads * self.head_dim} heads={self.heads} ffn={self.ffn} layers={layers} "
            f"vocab={self.vocab}"
        )
        return " ".join([sizes, *(f"{name}={value}" for name, value in self.options.items())])


class Family(ABC, Generic[Model]):
    """`stock_types` and `quant_type`: the `model_type` of the config.json files of full-precision and of quantized models.

    `generates`: it writes tokens, else the host makes an answer of its stream.  `listens`: it reads sound.  `pairs`: it tells two texts
    apart.
    """

    stock_types: tuple[str, ...]
    quant_type: str
    generates: bool = True
    listens: bool = False
    pairs: bool = False

    # -- models --------------------------------------------------------------------------------

    @abstractmethod
    def load_stock(self, folder: Path) -> PreTrainedModel:
        """The full-precision model of a folder, in eval mode."""

    @abstractmethod
    def limits(self, folder: Path) -> dict[str, int]:
        """`vocab_size` and `max_positions` as in `meta`, from config.json alone.  Raises InputError for values that no model can have."""

    @abstractmethod
    def load(self, folder: Path, quant: QuantConfig | None = None) -> Model:
        """The quantized model of a folder: packed, saved, or a full-precision one that `quant` quantizes.  Raises InputError."""

    def load_bare(self, folder: Path) -> Model:
        """As `load`, of a quantized model, but perhaps of modules alone: all that is asked of it is to be lowered and compared."""
        return self.load(folder)

    @abstractmethod
    def quantize(self, stock: PreTrainedModel, quant: QuantConfig) -> Model:
        """A quantized copy of a full-precision model, its steps not yet set."""

    @abstractmethod
    def stock(self, model: Model) -> PreTrainedModel:
        """The full-precision model with the weights of a quantized one."""

    @abstractmethod
    def batches(self, model: Model, pairs: Sequence[Pair]) -> list[dict]:
        """Arguments of forward to calibrate on: (source, target) ids, cut to length; without pairs, seeded random ids."""

    # -- graphs --------------------------------------------------------------------------------

    @abstractmethod
    def lower(self, model: Model) -> Lowered:
        """The graphs of a calibrated model.  Running needs these keys of `meta`: those of
        `lowering.describe_quantization`, `vocab_size` and `max_positions` of the source, and where it generates those of
        `lowering.describe_generation`.  Reports show all that are numbers or words."""

    @abstractmethod
    def node_modules(self, model: Model) -> dict[str, Any]:
        """The module that each checked node of the folded graphs was, by the node's name (`fidelity.Reference`)."""

    # -- on the host: of a model that listens, of one that does not generate ---------------------

    def answer(self, model: Model, streams: dict[str, Tensor]) -> Answer:
        """What the host makes of the outputs of the residual stream, real values [S, d] by name, of one text."""
        raise NotImplementedError(f"{type(self).__name__} generates")

    def listen(self, model: Model, path: str | Path | None) -> Given:
        """What prefill is given of a sound file, of a model that reads sound; without one, of a made-up sound.  Raises InputError."""
        raise NotImplementedError(f"{type(self).__name__} reads text")

    def streams(self, model: Model, source: Given) -> dict[str, Tensor]:
        """These outputs, of the fake-quant model."""
        raise NotImplementedError(f"{type(self).__name__} generates")

    def stock_streams(self, model: Model, stock: PreTrainedModel, source: Given) -> dict[str, Tensor]:
        """These outputs, of the full-precision model `stock` that `model` was quantized from."""
        raise NotImplementedError(f"{type(self).__name__} generates")

    # -- random models -------------------------------------------------------------------------

    @abstractmethod
    def draw(self, rng: random.Random, activation: str) -> Sizes:
        """Small random sizes with that activation function, such that no tile divides them more often than not."""

    @abstractmethod
    def random(self, bits: str, sizes: Sizes, *, seed: int, res_bits: int = 16) -> Model:
        """A calibrated model of random weights, in eval mode."""

    # -- the same for most ---------------------------------------------------------------------

    def generation(self, model: Model) -> dict[str, Any]:
        """What the meta of the lowered model says of generating; nothing where it does not."""
        return describe_generation(model.config, model.generation_config) if self.generates else {}

    def requantize(self, model: Model, bits: str) -> Model:
        """The model's weights in another bit setting, steps and grids unset; packed ones of as many bits stay what they are."""
        new = self.quantize(self.stock(model), replace(model.quant_config, bits=bits, fracs={}))
        packed.keep_codes(model, new)
        return new

    def widen(self, model: Model, bits: str, seed: int) -> Model:
        """A student of binary activations, twice as wide, that begins as `model`, of ternary ones.  Raises InputError."""
        raise InputError(f"model to widen must be of another family, not {self.quant_type.removeprefix('ternbin_')}")

    def calibrate(self, model: Model, batches: Iterable[dict]) -> None:
        """Set the steps that are unset, and the residual grids."""
        calibrate.calibrate(model, batches)

    def save(self, model: Model, folder: Path, tokenizer: Any = None) -> None:
        """Write the packed checkpoint; `tokenizer` is one, or a folder that holds one."""
        packed.save_packed(model, folder, tokenizer)

    def compare(self, model: Model, lowered: Lowered, pairs: Sequence[Pair]) -> list[Agreement]:
        """Agreement of the folded graphs with the model, op by op, over (source, decoder input ids)."""
        # packed first: row scales stay those of the float32 weights; codes that are there are not copied
        codes = {id(buffer): buffer for buffer in model.buffers() if not buffer.is_floating_point()}
        double = copy.deepcopy(model, codes).pack().double().eval()
        return fidelity.compare(fidelity.Reference(self.node_modules(double)), lowered, pairs)
