"""The tensors of a checkpoint folder: every reader of safetensors is here, and none drops a tensor without a word.

Each raises InputError that names the file, and the tensor where it is about one.  Pickle files are never read.

    held = Tensors.of_weights(folder)
    weight = held.take("lm_head.weight", (97, 32))
    held.done()  # refuses what nobody took
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph import qtypes
from ternbin.graph.ir import code_type
from ternbin.models.fields import IndexFields
from ternbin.models.files import INDEX_FILE, PACKED_FILE, STOCK_FILE, read_json
from ternbin.models.quantizers import ActQuantizer
from ternbin.progress import warn
from ternbin.schema import DATA_BYTES, check_regular, validated

ADAPTER_FILE = "adapter_config.json"
OTHER_HEADS = ("classification_head.", "qa_outputs.", "classifier.", "score.", "cls.")
"""Heads of tasks that no family here does; the rest of their models is whole without them."""


class Held(NamedTuple):
    """A tensor, and where it came from: the file and its name there."""

    tensor: Tensor
    path: Path
    name: str


class Tensors:
    """The tensors of a folder by name.  Whatever is taken is checked; `done` refuses what was not taken."""

    def __init__(self, folder: Path, held: dict[str, Held]):
        self.folder, self._held = folder, held
        self._taken: set[str] = set()

    @classmethod
    def of_weights(cls, folder: Path) -> Tensors:
        """Those of `model.safetensors` or of its shards."""
        if (folder / ADAPTER_FILE).exists():
            raise InputError(f"{folder / ADAPTER_FILE}: adapters must be merged into the weights, not beside them")
        if (folder / STOCK_FILE).exists():
            return cls.of_file(folder, STOCK_FILE)
        if not (folder / INDEX_FILE).exists():
            pickles = sorted(path.name for path in folder.glob("*.bin"))
            if pickles:
                raise InputError(f"{folder / pickles[0]}: weights must be safetensors, not a pickle file")
            raise InputError(f"{folder}: checkpoint must hold {STOCK_FILE}, {INDEX_FILE} or {PACKED_FILE}")
        path = folder / INDEX_FILE
        index: dict[str, str] = validated(IndexFields, read_json(path, DATA_BYTES), path, unknown=True)["weight_map"]
        held: dict[str, Held] = {}
        for shard in sorted(set(index.values())):
            if Path(shard).name != shard or not shard.endswith(".safetensors"):
                raise InputError(
                    f"{folder / INDEX_FILE}: shard must be a safetensors file of the folder, not {shard!r}"
                )
            for name, tensor in _read(folder / shard).items():
                if name in held:
                    raise InputError(
                        f"{folder / shard}: {name} must be in one shard, not also in {held[name].path.name}"
                    )
                held[name] = tensor
        return cls(folder, held)

    @classmethod
    def of_file(cls, folder: Path, name: str) -> Tensors:
        """Those of one safetensors file of the folder."""
        return cls(folder, _read(folder / name))

    def __contains__(self, name: str) -> bool:
        return name in self._held

    # -- names ---------------------------------------------------------------------------------

    def rename(self, new: Callable[[str], str]) -> None:
        """Give every tensor the name that `new` makes of its own; two must not get the same."""
        named: dict[str, Held] = {}
        for name, held in self._held.items():
            if new(name) in named:
                other = named[new(name)].name
                raise InputError(f"{held.path}: {held.name} must be there once, not also as {other}")
            named[new(name)] = held
        self._held = named

    def share(self, owner: str, copies: Iterable[str]) -> None:
        """`owner` and its `copies` are one weight, under any of the names; where several are there, they must be equal."""
        names = [name for name in (owner, *copies) if name in self._held]
        if not names:
            return
        first = self._held.setdefault(owner, self._held[names[0]])
        for name in names[1:]:
            held = self._held[name]
            if not _equal(held.tensor, first.tensor):
                raise InputError(
                    f"{held.path}: {held.name} must equal {first.name}, whose weight it shares, not have values of its own"
                )
        self._taken.update(name for name in names if name != owner)

    # -- values --------------------------------------------------------------------------------

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The float32 tensor `name`: of that shape and finite."""
        held = self._take(name)
        tensor = held.tensor
        if tensor.shape != torch.Size(shape):
            raise InputError(f"{held.path}: {held.name} must have shape {list(shape)}, not {list(tensor.shape)}")
        if not tensor.is_floating_point():
            raise InputError(f"{held.path}: {held.name} must be floating point, not {tensor.dtype}")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{held.path}: {held.name} must be finite, not inf or nan")
        return tensor.float()

    def take_codes(self, name: str, kind: str, rows: int, width: int) -> Tensor:
        """Codes ([rows, width]) of the packed tensor `name`."""
        held = self._take(name)
        tensor = held.tensor
        bits = qtypes.KINDS[kind].bits
        shape = [rows, width if bits == 8 else bits * ((width + 7) // 8)]
        if tensor.dtype != torch.uint8 or list(tensor.shape) != shape:
            raise InputError(f"{held.path}: {name} must be uint8 {shape}, not {tensor.dtype} {list(tensor.shape)}")
        data = tensor.numpy()
        half = data.shape[1] // 2
        if bits == 2 and (data[:, half:] & ~data[:, :half]).any():
            raise InputError(f"{held.path}: {name} must hold ternary codes, not a negative zero")
        return torch.from_numpy(qtypes.unpack(data, kind, width)).to(code_type(kind))

    def take_scale(self, name: str, rows: int) -> Tensor:
        """Row scales ([rows, 1]) of the packed tensor `name`."""
        scale = self.take(name, (rows,)).unsqueeze(1)
        if (scale < 0).any():
            raise InputError(f"{self._held[name].path}: {name} must not be negative, not {scale.min().item()!r}")
        return scale

    def _take(self, name: str) -> Held:
        if name not in self._held:
            raise InputError(f"{self.folder}: checkpoint must hold the tensor {name}")
        self._taken.add(name)
        return self._held[name]

    # -- the rest ------------------------------------------------------------------------------

    def done(self, ignored: Iterable[str] | None = None) -> None:
        """Raise InputError unless every tensor was taken.

        `ignored`: patterns of names without meaning, as `_keys_to_ignore_on_load_unexpected` of the library's models.
        Heads of other tasks are named in a warning, as the library does.
        """
        patterns = [re.compile(pattern) for pattern in ignored or ()]
        rest = [held for name, held in self._held.items() if name not in self._taken]
        rest = [held for held in rest if not any(pattern.search(held.name) for pattern in patterns)]
        heads = [held for held in rest if held.name.startswith(OTHER_HEADS)]
        strange = [held for held in rest if not held.name.startswith(OTHER_HEADS)]
        if strange:
            raise InputError(f"{strange[0].path}: every tensor must be one that the model uses, not {_names(strange)}")
        if heads:
            warn(f"{heads[0].path}: {_names(heads)} not used: the head of another task")


def assign(model: torch.nn.Module, name: str, tensor: Tensor) -> None:
    """Give the parameter or buffer `name`, which is without storage, its values."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._parameters:
        module._parameters[leaf] = torch.nn.Parameter(tensor)
    else:
        module._buffers[leaf] = tensor
    if isinstance(module, ActQuantizer):
        module.ready = False


def format_of(path: Path) -> str | None:
    """What a safetensors file, which can be read, says of its format."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("format")


def _read(path: Path) -> dict[str, Held]:
    """Every tensor of one safetensors file."""
    if not path.exists():
        raise InputError(f"{path}: file must exist in a checkpoint")
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: Held(file.get_tensor(name), path, name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: file must be complete safetensors, not broken ({error})") from error


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and torch.equal(a.float(), b.float()))


def _names(held: list[Held]) -> str:
    """The first name, and how many more there are."""
    first = sorted(tensor.name for tensor in held)[0]
    return first if len(held) == 1 else f"{first} and {len(held) - 1} more"
