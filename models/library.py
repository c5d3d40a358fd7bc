"""Quantized models as models of the library: trained, saved, and generating with it.

Importing the library takes longer than a short simulation: only this module and the families' own classes do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self, TypeVar

from torch import nn
from transformers import AttentionInterface, GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from ternbin.errors import InputError
from ternbin.models import files
from ternbin.models.model import QuantModel
from ternbin.models.modules import ATTENTION, QuantWeight, quant_attention
from ternbin.models.packed import load_packed, save_packed
from ternbin.models.quantizers import ActQuantizer, weight_codes

Model = TypeVar("Model", bound=PreTrainedModel)


def empty_model(folder: Path, make: Callable[[dict], Model], check: Callable[[dict, Path], None]) -> Model:
    """As `files.empty_model`, of a model that the library would draw weights for."""

    def made(values: dict) -> Model:
        with no_init_weights():
            return make(values)

    return files.empty_model(folder, made, check)


def finish(model: Model, folder: Path) -> Model:
    """Eval mode, and for a model that generates the settings in the folder."""
    if not model.can_generate():
        return model.eval()
    values, path = files.generation_values(folder)
    model.generation_config = files.built(
        path,
        lambda: (
            GenerationConfig.from_pretrained(
                folder, config_file_name=files.CONFIG_FILE, _from_model_config=True, local_files_only=True
            )
            if path.name == files.CONFIG_FILE
            else GenerationConfig.from_dict(values)
        ),
    )
    return model.eval()


class LibraryModel(QuantModel, PreTrainedModel):
    """Mixin before the library's class; `save_pretrained` and `from_pretrained` take packed checkpoints too."""

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """As the library's; a packed model is written by `save_packed`."""
        if self.is_packed:
            save_packed(self, save_directory)
        else:
            super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As the library's; a folder with a packed checkpoint gives the packed model."""
        if (Path(pretrained_model_name_or_path) / files.PACKED_FILE).exists():
            return cls.of_packed(Path(pretrained_model_name_or_path))
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def of_packed(cls, folder: str | Path) -> Self:
        """As `packed.load_packed`."""
        config_class = cls.config_class
        if config_class is None:
            raise TypeError(f"{cls.__name__} must say its config_class")
        folder = files.checked_folder(folder)
        model = empty_model(folder, lambda values: cls(config_class.from_dict(values)), cls.check_values)
        return finish(load_packed(model, folder), folder)

    def set_head_bits(self, bits: int) -> None:
        """Quantize the weights of the LM head to `bits`, from what `QuantWeight.value` is, in the modules and in the config.

        Raises InputError for a model without a quantized head.
        """
        head = self.get_output_embeddings()
        if not isinstance(head, QuantWeight):
            raise InputError(f"bits of the LM head must be left out for a model without one, not {bits}")
        if head.bits == bits:
            return
        weight = head.value
        head.use_quantization(bits, head.center)
        if head.is_packed:
            head.set_packed(*weight_codes(weight, bits))
        self.config.quant = asdict(replace(self.quant_config, head_weight_bits=bits))

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, ActQuantizer) and module.alpha is not None:
            nn.init.zeros_(module.alpha)
            module.ready = False


AttentionInterface.register(ATTENTION, quant_attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)
