"""From a user's words to a lowered model and token ids: checkpoints of any layout, texts or raw ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ternbin.errors import InputError
from ternbin.graph.ir import Lowered
from ternbin.models.config import QuantConfig
from ternbin.models.families import family_in, family_of
from ternbin.models.fidelity import Agreement, Pair
from ternbin.models.lowering import describe_generation
from ternbin.models.model import QuantModel
from ternbin.passes import fold

CALIBRATION_TEXTS = 16
DEFAULT_PACKAGE = "ejabberd-mod-irc"


def bundled_dir() -> Path:
    """Folder of the bundled checkpoint."""
    return Path(str(resources.files("ternbin.models").joinpath("bundled")))


def demo_texts() -> list[dict[str, str]]:
    """Bundled real texts: ``package``, ``source``, ``target``."""
    return json.loads((bundled_dir() / "demo_texts.json").read_text())["texts"]


def default_text() -> str:
    """The text that is summarised when the user gives none: a test text on which the bundled model does well."""
    return next(text["source"] for text in demo_texts() if text["package"] == DEFAULT_PACKAGE)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast | None:
    """The tokenizer of a checkpoint folder, or None where it has none. Raises InputError for a broken one."""
    path = Path(folder) / "tokenizer.json"
    if not path.exists():
        return None
    try:
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise InputError(f"{path}: not a usable tokenizer: {error}") from None


def load_model(folder: str | Path, bits: str | None = None) -> QuantModel:
    """A calibrated model of any family and layout; ``bits`` quantizes a full-precision model, or a quantized one anew.

    Quantizing without training gives a model that runs and is exact, but whose texts mean nothing.
    """
    family, _ = family_in(folder)
    model = family.load(Path(folder), QuantConfig(bits=bits) if bits else None)
    if bits and model.quant_config.bits != bits:
        model = family.requantize(model, bits)
    if not model.quant_config.fracs:
        family.calibrate(model, calibration_batches(model, load_tokenizer(folder)))
    return model.eval()


def calibration_batches(model: QuantModel, tokenizer: PreTrainedTokenizerFast | None) -> list[dict]:
    """Inputs for calibration: the bundled texts, or seeded random ids where there is no tokenizer."""
    texts = [] if tokenizer is None else demo_texts()[:CALIBRATION_TEXTS]
    pairs = [(token_ids(tokenizer, text["source"]), token_ids(tokenizer, text["target"])) for text in texts]
    return family_of(model).batches(model, pairs)


def generation(model: QuantModel) -> dict[str, Any]:
    """What the meta of the lowered model will say of generating."""
    return describe_generation(model.config, model.generation_config) if model.can_generate() else {}


def lower(model: QuantModel) -> Lowered:
    """The graphs of a calibrated model, not folded."""
    return family_of(model).lower(model)


def compare(model: QuantModel, lowered: Lowered, pairs: Sequence[Pair]) -> list[Agreement]:
    """Agreement of the folded graphs with the model, op by op, over (source ids, decoder input ids)."""
    return family_of(model).compare(model, lowered, pairs)


def save(model: QuantModel, folder: str | Path, tokenizer: str | Path | PreTrainedTokenizerFast | None = None) -> None:
    """Write the packed checkpoint; ``tokenizer`` is one, or a folder that may hold one."""
    family_of(model).save(model, Path(folder), tokenizer)


def lowered_model(folder: str | Path, bits: str | None = None) -> Lowered:
    """Load, lower and fold."""
    return fold(lower(load_model(folder, bits).pack()))


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, special ones included."""
    return tokenizer(text).input_ids


def encode_text(tokenizer: PreTrainedTokenizerFast | None, text: str, positions: int) -> list[int]:
    """Token ids of a text. Raises InputError for an empty text, one longer than the positions, or no tokenizer."""
    if tokenizer is None:
        raise InputError("the model has no tokenizer.json: give token ids with --ids instead of a text")
    if not text.strip():
        raise InputError("the text must not be empty")
    ids = token_ids(tokenizer, text.strip())
    if len(ids) > positions:
        raise InputError(f"the text must be at most {positions} tokens long for this model, not {len(ids)}")
    return ids


def check_ids(ids: Sequence[int], vocab: int, positions: int) -> list[int]:
    """The ids themselves. Raises InputError for none, too many, or one outside the vocabulary."""
    if not ids:
        raise InputError("--ids must hold at least one token id")
    if len(ids) > positions:
        raise InputError(f"--ids must hold at most {positions} ids for this model, not {len(ids)}")
    for value in ids:
        if not 0 <= value < vocab:
            raise InputError(f"--ids must be from 0 to {vocab - 1}, not {value}")
    return list(ids)
