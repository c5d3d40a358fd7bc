"""From a user's words to a lowered model and token ids: checkpoints of any layout, texts or raw ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from ternbin.errors import InputError
from ternbin.graph.given import IDS, PLACES, Given
from ternbin.graph.ir import Lowered
from ternbin.models.config import QuantConfig
from ternbin.models.families import family_in, family_of
from ternbin.models.fidelity import Agreement, Pair
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


def lower(model: QuantModel) -> Lowered:
    """The graphs of a calibrated model, not folded."""
    return family_of(model).lower(model)


def compare(model: QuantModel, lowered: Lowered, pairs: Sequence[Pair]) -> list[Agreement]:
    """Agreement of the folded graphs with the model, op by op, over (source, decoder input ids)."""
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


def encode_given(
    tokenizer: PreTrainedTokenizerFast | None, text: str, pair: str | None, meta: dict[str, Any]
) -> tuple[list[int], str, Given]:
    """Ids and text, and what prefill is given: of a pair the places say which token is of which text. Raises as :func:`encode_text`."""
    if pair is None:
        ids = encode_text(tokenizer, text, meta["max_positions"])
        return ids, text, ids
    if tokenizer is None:
        raise InputError("the model has no tokenizer.json: a pair must be texts")
    encoded = tokenizer(text.strip(), pair.strip(), return_token_type_ids=True)
    ids, types = encoded["input_ids"], encoded["token_type_ids"]
    if len(ids) > meta["max_positions"]:
        raise InputError(f"the pair must be at most {meta['max_positions']} tokens long for this model, not {len(ids)}")
    chosen = [kind * meta["max_positions"] + position for position, kind in enumerate(types)]
    return ids, f"{text} / {pair}", {IDS: ids, PLACES: chosen}


def listen(model: QuantModel, path: str | Path | None) -> Given:
    """What prefill is given of a sound file; without one, of a made-up sound.  Raises InputError."""
    return family_of(model).listen(model, path)


def answers(
    model: QuantModel, folder: Path, sources: Sequence[Given], streams: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What the host makes of the streams that a model without decoder gave for each text, and how near that is to what it makes of the
    fake-quant model's and, where ``folder`` holds one, of the full-precision model's."""
    family, is_stock = family_in(folder)
    stock = family.load_stock(folder) if is_stock else None
    found: list[dict[str, Any]] = []
    for source, given in zip(sources, streams, strict=True):
        own = family.answer(model, {name: torch.as_tensor(values) for name, values in given.items()})
        near = {"fake_quant": own.agreement(family.answer(model, family.streams(model, source)))}
        if stock is not None:
            full = family.answer(model, family.stock_streams(model, stock, source))
            near["full_precision"] = own.agreement(full)
        found.append(own.asdict() | {"agreement": near})
    return found


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
