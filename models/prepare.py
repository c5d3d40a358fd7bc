"""From a user's words to a lowered model and token ids: checkpoints of any layout, texts or raw ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import TypedDict

from ternbin.errors import InputError
from ternbin.graph.given import IDS, PLACES, Given
from ternbin.graph.ir import HEAD, Lowered
from ternbin.graph.shape import draw_source, ranges
from ternbin.models.calibrate import resize_stream
from ternbin.models.config import BITS, QuantConfig
from ternbin.models.families import family_in, family_of
from ternbin.models.family import Family
from ternbin.models.fidelity import Agreement, Pair, losing
from ternbin.models.fields import MAX_VOCAB
from ternbin.models.files import CONFIG_FILE, read_config
from ternbin.models.model import QuantModel
from ternbin.models.quantizers import MAX_STEP, ActQuantizer
from ternbin.models.tokenizer import TOKENIZER, PlainTokenizer, plain_tokenizer
from ternbin.passes import fold
from ternbin.progress import warn
from ternbin.schema import check_regular, read_json, shown, validated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Tokenizer = PreTrainedTokenizerBase | PlainTokenizer

VOCABULARIES = ("vocab.json", "sentencepiece.bpe.model", "source.spm", "spiece.model", "vocab.txt")  # of other layouts
CALIBRATION_TEXTS = 16
CHECK_TEXTS, CHECK_TOKENS = 4, 32  # on which `quantize` compares integers with floating point
DEMO_FILE = "demo_texts.json"
SUMMARISATION = "summarisation"
BUNDLED = {SUMMARISATION: "", "translation": "translation"}
"""The bundled models by name: their folders under `bundled`."""


class _Text(TypedDict):
    package: str
    source: str
    target: str


class _Demo(TypedDict):
    texts: list[_Text]
    default: str


def bundled_dir(name: str = SUMMARISATION, bits: str | None = None) -> Path:
    """Folder of a bundled checkpoint; ``bits``: of that setting, which may lie within. Raises InputError where there is none yet."""
    there = bundled_settings(name)
    if bits is None:
        return next(iter(there.values()))
    if bits not in there:
        raise InputError(
            f"--bits of the bundled {name} model must be {' or '.join(there)}, not {bits}: a checkpoint folder (--model DIR) "
            "can be quantized to any"
        )
    return there[bits]


def bundled_settings(name: str = SUMMARISATION) -> dict[str, Path]:
    """Folders of a bundled model by bits, first its own; the others lie in it and share its tokenizer and texts."""
    root = Path(str(resources.files("ternbin.models").joinpath("bundled"))) / BUNDLED[name]
    own = str((read_config(root).get("quant") or {}).get("bits"))
    return {own: root} | {bits: root / bits for bits in BITS if (root / bits / CONFIG_FILE).exists()}


def model_dir(model: str | Path | None, bits: str | None = None) -> Path:
    """Folder of a checkpoint: a bundled one by its name (of summaries, where None) and ``bits``, else the folder itself."""
    name = SUMMARISATION if model is None else str(model)
    return bundled_dir(name, bits) if name in BUNDLED else Path(name)


def home(folder: str | Path) -> Path:
    """Where a checkpoint's tokenizer and texts are: in its folder, or in that of the bundled model whose setting it is."""
    folder = Path(folder)
    shared = folder.name in BITS and any(folder.resolve().parent == bundled_dir(name).resolve() for name in BUNDLED)
    return folder.parent if shared else folder


def demo_texts(folder: Path | None = None) -> list[dict[str, str]]:
    """Real texts that come with a checkpoint, or else with the bundled one: ``package``, ``source``, ``target``."""
    return _demo(folder)["texts"]


def default_text(folder: Path | None = None) -> str:
    """What is run when the user gives no text: a test text on which the bundled model does well."""
    return _demo(folder)["default"]


def _demo(folder: Path | None) -> dict[str, Any]:
    path = bundled_dir() / DEMO_FILE
    if folder is not None and (home(folder) / DEMO_FILE).exists():
        path = home(folder) / DEMO_FILE
    found: Any = validated(_Demo, read_json(path), path, unknown=True)
    return found


def reader(folder: str | Path) -> Tokenizer | None:
    """As :func:`load_tokenizer`, for texts to ids and back: without the library where the folder allows that."""
    return plain_tokenizer(home(folder)) or load_tokenizer(folder)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a checkpoint folder, or None where it has none. Raises InputError for a broken one; faulty settings beside it
    (``tokenizer_config.json`` and others) are left out, with a warning.

    Folders without ``tokenizer.json`` have vocabulary files (``VOCABULARIES``), which the library's class for the model type reads. Code
    of a checkpoint is never run.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = home(folder)
    path = folder / TOKENIZER
    vocabularies = [folder / name for name in VOCABULARIES if (folder / name).exists()]
    if not path.exists() and not vocabularies:
        return None
    try:
        for beside in {*folder.glob("*token*.json"), *vocabularies}:
            check_regular(beside)
        if path.exists():
            return _usable(PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True))
        kind = str(read_config(folder).get("model_type")).removeprefix("ternbin_")
        return _usable(
            AutoTokenizer.from_pretrained(
                str(folder), tokenizer_type=kind, local_files_only=True, trust_remote_code=False
            )
        )
    except InputError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        reason = " ".join(str(error).split())[:200]
    try:
        tokenizer = _usable(PreTrainedTokenizerFast(tokenizer_file=str(path)))
    except Exception:
        raise InputError(f"{path if path.exists() else folder}: not a usable tokenizer: {reason}") from None
    warn(f"{folder}: settings of the tokenizer are left out: {reason}")
    return tokenizer


def _usable(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer itself; some faulty settings show only when it is used."""
    tokenizer("a")
    return tokenizer


def family(folder: str | Path) -> Family:
    """The family of a checkpoint folder. Raises InputError."""
    return family_in(folder)[0]


def limits(folder: str | Path) -> dict[str, int]:
    """``vocab_size`` and ``max_positions`` of a checkpoint, from its config.json alone. Raises InputError."""
    family, _ = family_in(folder)
    return family.limits(Path(folder))


def load_model(folder: str | Path, bits: str | None = None, head_bits: int | None = None) -> QuantModel:
    """A calibrated model of any family and layout; ``bits`` quantizes a full-precision model, or a quantized one anew; ``head_bits``:
    the weights of the LM head to others.

    Quantizing without training gives a model that runs and is exact, but whose texts mean nothing.
    """
    family, _ = family_in(folder)
    model = family.load(Path(folder), QuantConfig(bits=bits) if bits else None)
    if bits and model.quant_config.bits != bits:
        model = family.requantize(model, bits)
    if head_bits is not None:
        model.set_head_bits(head_bits)
    if not model.quant_config.fracs:
        tokenizer = load_tokenizer(folder)
        if tokenizer is None:
            warn(f"{folder}: calibrated on random ids, for it has no tokenizer ({TOKENIZER}, {VOCABULARIES[0]})")
        family.calibrate(model, calibration_batches(model, tokenizer, demo_texts(Path(folder))))
    return model.eval()


def load_lowerable(folder: str | Path, bits: str | None = None) -> QuantModel:
    """As :func:`load_model`, packed, but perhaps of modules alone: a model to be lowered and compared."""
    family, is_stock = family_in(folder)
    own = read_config(Path(folder)).get("quant")
    if is_stock or not isinstance(own, dict) or not own.get("fracs") or bits not in (None, own.get("bits")):
        return load_model(folder, bits).pack()
    return family.load_bare(Path(folder)).pack()


def calibration_batches(
    model: QuantModel, tokenizer: PreTrainedTokenizerBase | None, texts: Sequence[dict[str, str]] = ()
) -> list[dict]:
    """Inputs for calibration: the first of the texts, or seeded random ids where there is no tokenizer."""
    chosen = [] if tokenizer is None else texts[:CALIBRATION_TEXTS]
    pairs = [(token_ids(tokenizer, text["source"]), token_ids(tokenizer, text["target"])) for text in chosen]
    vocab = min(model.config.vocab_size, getattr(model.config, "decoder_vocab_size", None) or MAX_VOCAB)
    for ids in (ids for pair in pairs for ids in pair):
        check_known(ids, vocab)
    return family_of(model).batches(model, pairs)


def generation(model: QuantModel) -> dict[str, Any]:
    """What the meta of the lowered model will say of generating."""
    return family_of(model).generation(model)


def lower(model: QuantModel) -> Lowered:
    """The graphs of a calibrated model, not folded."""
    return family_of(model).lower(model)


def compare(model: QuantModel, lowered: Lowered, pairs: Sequence[Pair]) -> list[Agreement]:
    """Agreement of the folded graphs with the model, op by op, over (source, decoder input ids)."""
    return family_of(model).compare(model, lowered, pairs)


def save(model: QuantModel, folder: str | Path, tokenizer: str | Path | PreTrainedTokenizerBase | None = None) -> None:
    """Write the packed checkpoint; ``tokenizer`` is one, or a folder that may hold one."""
    family_of(model).save(model, Path(folder), tokenizer)


@dataclass(frozen=True)
class Quantized:
    """What `quantize` found: agreement op by op of integers with floating point, and the steps that stand at the end of their range.

    `notes` says in a line each where precision was lost.
    """

    agreements: list[Agreement]
    limited: list[str]
    notes: list[str]

    @property
    def head(self) -> Agreement | None:
        """The agreement of the LM head, whose results are tokens; None of a model without."""
        return next((a for a in self.agreements if a.name == HEAD), None)


def quantize(folder: str | Path, out: str | Path, bits: str, head_bits: int | None = None) -> Quantized:
    """Quantize a checkpoint folder, check that it lowers and how well, then write it to `out`.

    `head_bits`: of the weights of the LM head, if others than the rest.  Raises InputError, before anything is written,
    for what `lowered_model` would refuse of it.
    """
    model, tokenizer = load_model(folder, bits, head_bits), load_tokenizer(folder)
    lowered = fold(lower(model))
    agreements = compare(model, lowered, _check_pairs(lowered, tokenizer, demo_texts(Path(folder))))
    quantizers = [(name, m) for name, m in model.named_modules() if isinstance(m, ActQuantizer)]
    limited = [f"{name}.alpha" for name, q in quantizers if not q.least < q.step.item() < MAX_STEP]
    notes = [f"{name} stands at the end of its range, {model.get_parameter(name).item():g}" for name in limited]
    for a in losing(agreements):
        origin = next(
            (lowered.origins[key] for key in (f"{a.name}.scale", f"{a.name}.gamma") if key in lowered.origins), ""
        )
        notes.append(
            f"{a.name} agrees with floating point in {a.rate:.1%} only"
            + (f": look for outliers in {origin}" if origin else "")
        )
    save(model, out, folder if tokenizer is None or (Path(folder) / TOKENIZER).exists() else tokenizer)
    return Quantized(agreements, limited, notes)


def _check_pairs(
    lowered: Lowered, tokenizer: PreTrainedTokenizerBase | None, texts: Sequence[dict[str, str]]
) -> list[Pair]:
    """A few (source, decoder input ids): of the texts, or seeded random ones where there is no tokenizer or the model listens."""
    meta, length = lowered.meta, min(CHECK_TOKENS, lowered.meta["max_positions"])
    start, vocab = meta.get("decoder_start_id"), meta.get("target_vocab_size", meta["vocab_size"])
    if tokenizer is None or any(own.width for own in ranges(lowered).values()):
        rng = Random(1)
        pairs = [
            (draw_source(rng, lowered, length), [rng.randrange(vocab) for _ in range(length)])
            for _ in range(CHECK_TEXTS)
        ]
    else:
        chosen = texts[:CHECK_TEXTS]
        pairs = [(token_ids(tokenizer, t["source"])[:length], token_ids(tokenizer, t["target"])) for t in chosen]
    if start is None:
        return [(source, []) for source, _ in pairs]
    return [(s, [start, *(token for token in t if token < vocab)][:length]) for s, t in pairs]


def lowered_model(folder: str | Path, bits: str | None = None, res_bits: int | None = None) -> Lowered:
    """Load, lower and fold; ``res_bits``: with a residual stream of another width."""
    return fold(lower(resized(load_lowerable(folder, bits), res_bits)))


def resized(model: QuantModel, res_bits: int | None) -> QuantModel:
    """The same model with a residual stream of ``res_bits``; None: of its own width."""
    if res_bits is not None and res_bits != model.quant_config.res_bits:
        resize_stream(model, res_bits)
    return model


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, special ones included."""
    return tokenizer(text).input_ids


def check_known(ids: Sequence[int], vocab: int) -> None:
    """Raises InputError for a tokenizer that is not the model's."""
    if max(ids, default=0) >= vocab:
        raise InputError(f"tokenizer.json: ids must be below vocab_size of config.json ({vocab}), not {max(ids)}")


def encode_text(
    tokenizer: Tokenizer | None,
    text: str,
    positions: int,
    vocab: int | None = None,
    *,
    truncate: bool = False,
) -> list[int]:
    """Token ids of a text; one longer than the positions is cut with ``truncate``, which is said.

    Raises InputError for an empty text, a longer one without ``truncate``, no tokenizer or that of another model.
    """
    if tokenizer is None:
        raise InputError("the model has no tokenizer.json: give token ids with --ids instead of a text")
    if not text.strip():
        raise InputError("the text must not be empty")
    ids = token_ids(tokenizer, text.strip())
    if vocab is not None:
        check_known(ids, vocab)
    if len(ids) <= positions:
        return ids
    if not truncate:
        raise InputError(
            f"the text must be at most {positions} tokens long for this model, not {len(ids)} (--truncate cuts it)"
        )
    warn(f"the text is cut to the first {positions} of its {len(ids)} tokens")
    return tokenizer(text.strip(), truncation=True, max_length=positions).input_ids


def encode_pair(tokenizer: Tokenizer | None, text: str, other: str, positions: int) -> dict[str, list[int]]:
    """Ids of two texts, and the places that say which token is of which. Raises InputError for what is too long, or no tokenizer."""
    if tokenizer is None:
        raise InputError("the model has no tokenizer: a pair must be texts")
    encoded = tokenizer(text.strip(), other.strip(), return_token_type_ids=True)
    ids, types = list(encoded.input_ids), encoded.token_type_ids
    if len(ids) > positions:
        raise InputError(f"the pair must be at most {positions} tokens long for this model, not {len(ids)}")
    return {IDS: ids, PLACES: [kind * positions + position for position, kind in enumerate(types)]}


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
            raise InputError(f"--ids must be from 0 to {vocab - 1}, not {shown(value)}")
    return list(ids)
