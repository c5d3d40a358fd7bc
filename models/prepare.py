"""From a user's words to a lowered model and token ids: checkpoints of any layout, texts or raw ids."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from typing_extensions import TypedDict

from ternbin.errors import InputError
from ternbin.graph.ir import Lowered
from ternbin.models.config import QuantConfig
from ternbin.models.families import family_in, family_of
from ternbin.models.fidelity import Agreement, Pair
from ternbin.models.fields import MAX_VOCAB
from ternbin.models.model import QuantModel
from ternbin.passes import fold
from ternbin.progress import warn
from ternbin.schema import check_regular, read_json, shown, validated

CALIBRATION_TEXTS = 16
DEFAULT_PACKAGE = "ejabberd-mod-irc"


class _Text(TypedDict):
    package: str
    source: str
    target: str


class _Texts(TypedDict):
    texts: list[_Text]


def bundled_dir() -> Path:
    """Folder of the bundled checkpoint."""
    return Path(str(resources.files("ternbin.models").joinpath("bundled")))


def demo_texts() -> list[dict[str, str]]:
    """Bundled real texts: ``package``, ``source``, ``target``."""
    path = bundled_dir() / "demo_texts.json"
    return validated(_Texts, read_json(path), path, unknown=True)["texts"]


def default_text() -> str:
    """The text that is summarised when the user gives none: a test text on which the bundled model does well."""
    return next(text["source"] for text in demo_texts() if text["package"] == DEFAULT_PACKAGE)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast | None:
    """The tokenizer of a checkpoint folder, or None where it has none. Raises InputError for a broken one; faulty settings beside it
    (``tokenizer_config.json`` and others) are left out, with a warning."""
    path = Path(folder) / "tokenizer.json"
    if not path.exists():
        return None
    check_regular(path)
    try:
        for beside in Path(folder).glob("*token*.json"):
            check_regular(beside)
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        reason = " ".join(str(error).split())[:200]
    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    except Exception:
        raise InputError(f"{path}: not a usable tokenizer: {reason}") from None
    warn(f"{folder}: settings of the tokenizer are left out: {reason}")
    return tokenizer


def limits(folder: str | Path) -> dict[str, int]:
    """``vocab_size`` and ``max_positions`` of a checkpoint, from its config.json alone. Raises InputError."""
    family, _ = family_in(folder)
    return family.limits(Path(folder))


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
    for pair in pairs:
        for ids in pair:
            check_known(
                ids, min(model.config.vocab_size, getattr(model.config, "decoder_vocab_size", None) or MAX_VOCAB)
            )
    return family_of(model).batches(model, pairs)


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


def check_known(ids: Sequence[int], vocab: int) -> None:
    """Raises InputError for a tokenizer that is not the model's."""
    if max(ids, default=0) >= vocab:
        raise InputError(f"tokenizer.json: ids must be below vocab_size of config.json ({vocab}), not {max(ids)}")


def encode_text(
    tokenizer: PreTrainedTokenizerFast | None, text: str, positions: int, vocab: int | None = None
) -> list[int]:
    """Token ids of a text. Raises InputError for an empty text, one longer than the positions, no tokenizer or that of another model."""
    if tokenizer is None:
        raise InputError("the model has no tokenizer.json: give token ids with --ids instead of a text")
    if not text.strip():
        raise InputError("the text must not be empty")
    ids = token_ids(tokenizer, text.strip())
    if vocab is not None:
        check_known(ids, vocab)
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
            raise InputError(f"--ids must be from 0 to {vocab - 1}, not {shown(value)}")
    return list(ids)
