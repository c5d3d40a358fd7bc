"""Checkpoints: packed codes for inference, and loading of every supported folder layout with validation.

A packed checkpoint is `config.json` and `packed.safetensors`: `<module>.codes` (uint8, rows of `qtypes.pack`) and
`<module>.scale` (float32 [rows]) for every quantized weight, the shared embedding once, and the remaining parameters
as float32; tokenizer and generation files as the library writes them.  Pickle files are never read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import BartConfig, GenerationConfig
from transformers.initialization import no_init_weights

from ternbin.errors import InputError
from ternbin.graph import qtypes
from ternbin.models.bart.qbart import (
    QuantBartConfig,
    QuantBartForConditionalGeneration,
    QuantConfig,
    QuantWeight,
    quantized_config,
)
from ternbin.models.quantizers import SIGNED_KIND, ActQuantizer

PACKED_FILE = "packed.safetensors"
STOCK_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
FORMAT = {"format": "ternbin-packed", "version": "1"}
SHARED = "model.shared"
TIED = ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")

Tensors = dict[str, tuple[Tensor, Path]]


# -- saving ------------------------------------------------------------------------------------


def save_packed(model: QuantBartForConditionalGeneration, folder: str | Path, tokenizer=None) -> Path:
    """Write the packed checkpoint of a `deploy` model; returns the folder.

    `tokenizer` is a tokenizer, or a folder whose tokenizer files are copied, or None.
    """
    if model.quant_config.form != "deploy":
        raise InputError(f"form must be 'deploy' to pack a model, not {model.quant_config.form!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in _packed_tensors(model)}
    save_file(tensors, folder / PACKED_FILE, metadata=FORMAT)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    if isinstance(tokenizer, (str, Path)):
        for name in TOKENIZER_FILES:
            if (Path(tokenizer) / name).exists() and Path(tokenizer).resolve() != folder.resolve():
                shutil.copyfile(Path(tokenizer) / name, folder / name)
    elif tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def quantized_weights(model: QuantBartForConditionalGeneration) -> dict[str, QuantWeight]:
    """The modules whose weights are stored as codes, by name; the shared embedding once."""
    modules = {name: module for name, module in model.named_modules() if isinstance(module, QuantWeight)}
    return {name: module for name, module in modules.items() if name not in TIED}


def _packed_tensors(model: QuantBartForConditionalGeneration) -> Iterator[tuple[str, Tensor]]:
    kind = SIGNED_KIND[model.quant_config.weight_bits]
    for name, module in quantized_weights(model).items():
        codes, scale = module.weight_parts()
        yield f"{name}.codes", torch.from_numpy(qtypes.pack(codes.cpu().numpy(), kind))
        yield f"{name}.scale", scale.detach().flatten().float().cpu()
    for name, tensor in _plain_tensors(model).items():
        yield name, tensor.detach().float().cpu()


def _plain_tensors(model: QuantBartForConditionalGeneration) -> dict[str, Tensor]:
    """Parameters and buffers that are not quantized weights."""
    owned = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if isinstance(module, QuantWeight)
        for part in ("weight", "codes", "row_scale")
    }
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in tensors.items() if name not in owned}


# -- loading -----------------------------------------------------------------------------------


def load_any(folder: str | Path, quant: QuantConfig | None = None) -> QuantBartForConditionalGeneration:
    """A model in eval mode from a packed checkpoint, a saved QuantBart, or a stock BART that `quant` quantizes.

    A quantized stock model has unset steps: calibrate it.  Raises InputError naming file and tensor for whatever
    cannot be loaded.
    """
    folder = _checked_folder(folder)
    if (folder / PACKED_FILE).exists():
        return load_packed(folder)
    values = _read_json(folder / CONFIG_FILE)
    kind = values.get("model_type")
    if kind not in ("bart", QuantBartConfig.model_type):
        raise InputError(f"{folder / CONFIG_FILE}: model_type must be 'bart' or 'ternbin_bart', not {kind!r}")
    stock = kind == "bart"
    if stock and quant is None:
        raise InputError(f"{folder}: bits must be given to quantize a stock BART, not left out")
    model = _empty_model(folder, values, quant if stock else None)
    tensors = _renamed(_read_weights(folder))
    wanted = {name: t for name, t in model.state_dict(keep_vars=True).items() if not _is_tied(name)}
    for name, old in wanted.items():
        if stock and name.endswith(".alpha"):
            _assign(model, name, torch.zeros(()))
        elif name == "final_logits_bias" and name not in tensors:
            _assign(model, name, torch.zeros(tuple(old.shape)))
        else:
            _assign(model, name, _take(tensors, name, old.shape, folder))
    for name in TIED:
        model.get_submodule(name).weight = model.model.shared.weight
    return _finish(model, folder)


def load_packed(folder: str | Path) -> QuantBartForConditionalGeneration:
    """The fake-quant model of a packed checkpoint, in eval mode; its outputs equal those of the model saved."""
    folder = _checked_folder(folder)
    path = folder / PACKED_FILE
    model = _empty_model(folder, _read_json(folder / CONFIG_FILE), None)
    tensors = _read_file(path)
    kind = SIGNED_KIND[model.quant_config.weight_bits]
    for name, module in quantized_weights(model).items():
        rows, width = module.weight.shape
        scale = _take(tensors, f"{name}.scale", (rows,), folder).unsqueeze(1)
        if (scale < 0).any():
            raise InputError(f"{path}: {name}.scale must not be negative, not {scale.min().item()!r}")
        module.set_packed(_unpack(tensors, f"{name}.codes", kind, rows, width, folder), scale)
    shared = model.model.shared
    for name in TIED:
        model.get_submodule(name).set_packed(shared.codes, shared.row_scale)
    for name, old in _plain_tensors(model).items():
        _assign(model, name, _take(tensors, name, old.shape, folder))
    return _finish(model, folder)


def _finish(model: QuantBartForConditionalGeneration, folder: Path) -> QuantBartForConditionalGeneration:
    """Eval mode, and the generation settings of the folder; older checkpoints keep them in config.json."""
    path = folder / "generation_config.json"
    try:
        if path.exists():
            model.generation_config = GenerationConfig.from_dict(_read_json(path))
        else:
            path = folder / CONFIG_FILE
            options = dict(config_file_name=CONFIG_FILE, _from_model_config=True, local_files_only=True)
            model.generation_config = GenerationConfig.from_pretrained(folder, **options)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error
    return model.eval()


def _checked_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"checkpoint must be a folder, not {str(folder)!r}")
    return folder


def _read_json(path: Path) -> dict:
    if not path.exists():
        raise InputError(f"{path}: file must exist in a checkpoint")
    try:
        values = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: file must be JSON, not broken ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: file must hold a JSON object, not {type(values).__name__}")
    return values


def _empty_model(folder: Path, values: dict, quant: QuantConfig | None) -> QuantBartForConditionalGeneration:
    """The model of a config.json, without storage; `quant` is given for a stock config."""
    try:
        if quant is None:
            config = QuantBartConfig.from_dict(values)
        else:
            config = quantized_config(BartConfig.from_dict(values), quant)
        if not config.tie_word_embeddings:
            raise InputError("tie_word_embeddings must be true, not false")
        with torch.device("meta"), no_init_weights():
            return QuantBartForConditionalGeneration(config)
    except (InputError, StrictDataclassError, ValueError, TypeError) as error:
        raise InputError(f"{folder / CONFIG_FILE}: {' '.join(str(error).split())}") from error


def _read_weights(folder: Path) -> Tensors:
    """Every tensor of `model.safetensors` or of its shards."""
    if (folder / STOCK_FILE).exists():
        return _read_file(folder / STOCK_FILE)
    if not (folder / INDEX_FILE).exists():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        if pickles:
            raise InputError(f"{folder / pickles[0]}: weights must be safetensors, not a pickle file")
        raise InputError(f"{folder}: checkpoint must hold {STOCK_FILE}, {INDEX_FILE} or {PACKED_FILE}")
    index = _read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise InputError(f"{folder / INDEX_FILE}: weight_map must map tensors to files, not {type(index).__name__}")
    tensors: Tensors = {}
    for name in sorted(set(index.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{folder / INDEX_FILE}: shard must be a safetensors file of the folder, not {name!r}")
        tensors |= _read_file(folder / name)
    return tensors


def _read_file(path: Path) -> Tensors:
    if not path.exists():
        raise InputError(f"{path}: file must exist in a checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: (file.get_tensor(name), path) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: file must be complete safetensors, not broken ({error})") from error


def _renamed(tensors: Tensors) -> Tensors:
    """Names as in the conditional-generation model: the bare model lacks the prefix, a tied copy may stand for all."""
    named = {}
    for name, value in tensors.items():
        bare = not name.startswith(("model.", "lm_head.", "final_logits_bias"))
        named[f"model.{name}" if bare else name] = value
    for name in TIED:
        if f"{name}.weight" in named:
            named.setdefault(f"{SHARED}.weight", named[f"{name}.weight"])
    return named


def _is_tied(name: str) -> bool:
    return name in {f"{module}.weight" for module in TIED}


def _take(tensors: Tensors, name: str, shape: tuple[int, ...], folder: Path) -> Tensor:
    """The float32 tensor `name`, checked."""
    if name not in tensors:
        raise InputError(f"{folder}: checkpoint must hold the tensor {name}")
    tensor, path = tensors[name]
    if tensor.shape != torch.Size(shape):
        raise InputError(f"{path}: {name} must have shape {list(shape)}, not {list(tensor.shape)}")
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {name} must be floating point, not {tensor.dtype}")
    if not torch.isfinite(tensor).all():
        raise InputError(f"{path}: {name} must be finite, not inf or nan")
    return tensor.float()


def _unpack(tensors: Tensors, name: str, kind: str, rows: int, width: int, folder: Path) -> Tensor:
    """Codes (int8, [rows, width]) of a packed tensor, checked."""
    if name not in tensors:
        raise InputError(f"{folder}: checkpoint must hold the tensor {name}")
    tensor, path = tensors[name]
    bits = qtypes.KINDS[kind].bits
    shape = [rows, bits * ((width + 7) // 8)]
    if tensor.dtype != torch.uint8 or list(tensor.shape) != shape:
        raise InputError(f"{path}: {name} must be uint8 {shape}, not {tensor.dtype} {list(tensor.shape)}")
    data = tensor.numpy()
    half = data.shape[1] // 2
    if bits == 2 and (data[:, half:] & ~data[:, :half]).any():
        raise InputError(f"{path}: {name} must hold ternary codes, not a negative zero")
    return torch.from_numpy(qtypes.unpack(data, kind, width)).char()


def _assign(model: torch.nn.Module, name: str, tensor: Tensor) -> None:
    """Give the parameter or buffer `name`, which is without storage, its values."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._parameters:
        module._parameters[leaf] = torch.nn.Parameter(tensor)
    else:
        module._buffers[leaf] = tensor
    if isinstance(module, ActQuantizer):
        module.ready = False
