"""Every reader of what comes from outside, with good inputs to start from: what the fuzz tests and ``python tests/fuzz/fuzz.py`` feed.

A border takes the bytes of a file and does what a verb does with it before its long work. It must end, and return or raise a typed
error of one line; the caller counts which.
"""

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mutations
import torch
from hypothesis import strategies as st
from transformers import BartConfig, BartForConditionalGeneration

from ternbin import results
from ternbin.cli import options
from ternbin.contract import program
from ternbin.contract.hw import NAMED, load_hw
from ternbin.energy import figures, library
from ternbin.errors import InputError, TernbinError
from ternbin.mapping.mapper import map_model
from ternbin.models import prepare
from ternbin.models.families import family_in
from ternbin.report import tables
from ternbin.report.html import page

ROOT = Path(__file__).parents[2]


@dataclass
class Border:
    """``inputs``: what is fed; ``read``: the reader, from a folder in which the input stands as ``file``; ``fixed``: other files there."""

    name: str
    file: str
    inputs: st.SearchStrategy[bytes]
    read: Callable[[Path], object]
    fixed: Callable[[], Path] | None = None
    counts: dict[str, int] = field(default_factory=lambda: {"accepted": 0, "refused": 0})

    @functools.cached_property
    def folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-")) / "m"
        if self.fixed is None:
            folder.mkdir()
        else:
            shutil.copytree(self.fixed(), folder)
        return folder

    def feed(self, data: bytes) -> None:
        """Raises what is no typed error of one line."""
        path = self.folder / self.file
        path.write_bytes(data)
        try:
            self.read(path)
        except InputError as error:
            _check_message(str(error))
            self.counts["refused"] += 1
        else:
            self.counts["accepted"] += 1

    def close(self) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def _check_message(message: str) -> None:
    if not message or "\n" in message.strip() or len(message) > 600:
        raise AssertionError(f"the message must be one line of at most 600 characters, not {message[:700]!r}")


# ---- good inputs ----------------------------------------------------------------------------------------------------


@functools.cache
def stock() -> Path:
    """A random full-precision BART of one layer each."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-stock-"))
    torch.manual_seed(3)
    sizes = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    config = BartConfig(vocab_size=97, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=32, **sizes)
    BartForConditionalGeneration(config).save_pretrained(folder)
    shutil.copy(prepare.bundled_dir() / "eval.json", folder)
    return folder


@functools.cache
def packed() -> Path:
    """The same model quantized and packed, with the tokenizer of the bundled one."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-packed-"))
    prepare.save(prepare.load_model(stock(), "2-2"), folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "eval.json"):
        shutil.copy(prepare.bundled_dir() / name, folder)
    return folder


def _json_of(folder: Callable[[], Path], name: str) -> st.SearchStrategy[bytes]:
    return st.deferred(lambda: json_files(json.loads((folder() / name).read_bytes())))


def json_files(good: Any) -> st.SearchStrategy[bytes]:
    return mutations.json_files(good)


@functools.cache
def program_file() -> bytes:
    """A program of the small model for the smallest accelerator."""
    path = packed() / "program.tbn"
    program.save(map_model(prepare.lowered_model(packed()), NAMED["tiny"], 4, 2), path)
    data = path.read_bytes()
    path.unlink()
    return data


def _with_header(header: bytes) -> bytes:
    """A program file with another header and a checksum that fits, so that only the header can be what is wrong."""
    data = program_file()
    start = len(program.MAGIC)
    image = data[start + 8 + int.from_bytes(data[start : start + 8], "little") : -32]
    body = program.MAGIC + len(header).to_bytes(8, "little") + header + image
    return body + hashlib.sha256(body).digest()


def _headers() -> st.SearchStrategy[bytes]:
    data = program_file()
    start = len(program.MAGIC) + 8
    header = json.loads(data[start : start + int.from_bytes(data[start - 8 : start], "little")])
    for name in ("probes", "calls", "names"):
        header[name] = header[name][:]
    return mutations.json_files(header).map(_with_header)


# ---- readers --------------------------------------------------------------------------------------------------------


def _model(path: Path) -> None:
    """What `run` does with a checkpoint before it maps it."""
    prepare.load_model(path.parent, "2-2")


def _packed_model(path: Path) -> None:
    prepare.lowered_model(path.parent)


def _program(path: Path) -> None:
    loaded = program.load(path)
    loaded.with_ids([0] * loaded.source_len, 0)
    program.listing(loaded, [0])


def _report(path: Path) -> None:
    result = results.load(path)
    page(result)
    tables.terminal(result)


def _texts(path: Path) -> None:
    tokenizer = prepare.load_tokenizer(packed())
    prepare.encode_text(tokenizer, options.read_text(str(path)), 32)


def _ids(path: Path) -> None:
    prepare.check_ids(options.parse_ids(path.read_text("utf-8", "surrogateescape")), 97, 32)


def _hardware(path: Path) -> None:
    hw = load_hw(str(path))
    assert load_hw(str(path)) == hw


HARDWARE = NAMED["tiny"].asdict()
CELLS = {"node_nm": 45.0, "ram_access_ns": 0.8, "wire_load": "5K_hvratio_1_1", "full_adder": "FA_X1", "buffer": "BUF_X2"}
IDS = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from(["0", "5", "-1", "97", "1e3", " 7", "٣", "", "9" * 40, "0x1", "1_000"]), max_size=40).map(",".join),
).map(lambda text: text.encode("utf-8", "surrogatepass"))
TEXTS = st.one_of(
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=100),
    st.integers(0, 400).map(lambda n: b"word " * n),
)

BORDERS = [
    Border("hardware TOML", "hw.toml", mutations.toml_files(HARDWARE), _hardware),
    Border("cells TOML", "x.cells.toml", mutations.toml_files(CELLS), library.read_declared),
    Border("model config.json", "config.json", _json_of(stock, "config.json"), _model, stock),
    Border("generation_config.json", "generation_config.json", _json_of(stock, "generation_config.json"), _model, stock),
    Border("weights", "model.safetensors", st.deferred(lambda: mutations.damaged((stock() / "model.safetensors").read_bytes())), _model, stock),
    Border("packed config.json", "config.json", _json_of(packed, "config.json"), _packed_model, packed),
    Border("packed weights", "packed.safetensors", st.deferred(lambda: mutations.damaged((packed() / "packed.safetensors").read_bytes())), _packed_model, packed),
    Border("program", "program.tbn", st.deferred(lambda: mutations.damaged(program_file())), _program),
    Border("program header", "program.tbn", st.deferred(_headers), _program),
    Border("result.json", "result.json", st.deferred(lambda: json_files(json.loads((ROOT / "reports/example/result.json").read_bytes()))), _report),
    Border("characterisation", "gates.json", st.deferred(lambda: json_files(json.loads(figures.STORED.read_bytes()))), figures.read_characterisation),
    Border("ids", "ids.txt", IDS, _ids),
    Border("texts", "text.txt", TEXTS, _texts),
]
