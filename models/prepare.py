"""From a user's words to a lowered model and token ids: checkpoints of any layout, texts or raw ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import torch
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from ternbin.errors import InputError
from ternbin.graph.ir import Lowered
from ternbin.models.bart.calibrate import calibrate
from ternbin.models.bart.checkpoint import load_any, quantized_weights
from ternbin.models.bart.lower import lower
from ternbin.models.bart.qbart import QuantBartForConditionalGeneration, QuantConfig, quantize_model
from ternbin.passes import fold

CALIBRATION_TEXTS = 16
CALIBRATION_LENGTH = 64
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


def load_model(folder: str | Path, bits: str | None = None) -> QuantBartForConditionalGeneration:
    """A calibrated model of any supported layout; ``bits`` quantizes a stock BART, or a quantized model anew.

    Quantizing without training gives a model that runs and is exact, but whose texts mean nothing.
    """
    quant = QuantConfig(bits=bits) if bits else None
    model = load_any(folder, quant)
    if bits and model.quant_config.bits != bits:
        model = requantize(model, bits)
    if not model.quant_config.fracs:
        calibrate(model, calibration_batches(model, load_tokenizer(folder)))
    return model.eval()


@torch.no_grad()
def requantize(model: QuantBartForConditionalGeneration, bits: str) -> QuantBartForConditionalGeneration:
    """The model's weights (of a packed one: scale times code) in another bit setting, steps and grids unset."""
    config = BartConfig.from_dict(model.config.to_dict() | {"model_type": "bart"})
    stock = BartForConditionalGeneration(config).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if name in stock.state_dict()}
    state |= {f"{name}.weight": module.quantized_weight() for name, module in quantized_weights(model).items()}
    stock.load_state_dict(state, strict=False)
    stock.tie_weights()
    stock.generation_config = model.generation_config
    return quantize_model(stock, replace(model.quant_config, bits=bits, fracs={}))


def calibration_batches(model: QuantBartForConditionalGeneration, tokenizer) -> list[dict]:
    """Inputs for calibration: the bundled texts, or seeded random ids where there is no tokenizer."""
    vocab, limit = model.config.vocab_size, min(CALIBRATION_LENGTH, model.config.max_position_embeddings)
    if tokenizer is None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, vocab, (CALIBRATION_TEXTS, limit), generator=generator)
        return [dict(input_ids=ids, decoder_input_ids=ids.flip(0))]
    batches = []
    for text in demo_texts()[:CALIBRATION_TEXTS]:
        source = torch.tensor([tokenizer(text["source"]).input_ids[:limit]])
        batches.append(dict(input_ids=source, labels=torch.tensor([tokenizer(text["target"]).input_ids[:limit]])))
    return batches


def lowered_model(folder: str | Path, bits: str | None = None) -> Lowered:
    """Load, lower and fold."""
    return fold(lower(load_model(folder, bits).pack()))


def encode_text(tokenizer: PreTrainedTokenizerFast | None, text: str, positions: int) -> list[int]:
    """Token ids of a text. Raises InputError for an empty text, one longer than the positions, or no tokenizer."""
    if tokenizer is None:
        raise InputError("the model has no tokenizer.json: give token ids with --ids instead of a text")
    if not text.strip():
        raise InputError("the text must not be empty")
    ids = tokenizer(text.strip()).input_ids
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
