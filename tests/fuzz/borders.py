"""Every reader of what comes from outside, with good inputs to start from: what the fuzz tests and ``python tests/fuzz/fuzz.py`` feed.

A border takes the bytes of a file and does what a verb does with it before its long work. It must end, and return or raise a typed
error of one line; the caller counts which.
"""

import contextlib
import functools
import hashlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import mutations
import torch
from hypothesis import strategies as st
from mapped import START, differences
from transformers import BartConfig, BartForConditionalGeneration

from ternbin import results
from ternbin.cli import VERBS, options, parser
from ternbin.contract import program
from ternbin.contract.hw import NAMED, load_hw
from ternbin.energy import figures, library
from ternbin.errors import InputError
from ternbin.explore.space import read_space, ready_spaces
from ternbin.flow import evaluation
from ternbin.mapping.mapper import map_model
from ternbin.models import prepare
from ternbin.report import tables
from ternbin.report.html import page

ROOT = Path(__file__).parents[2]
IDS = [0, 5, 9, 2]
ROOMY = replace(NAMED["tiny"], name="roomy", abuf_words=4096, kbuf_words=4096, rbuf_words=4096, pbuf_words=4096)


@dataclass
class Border:
    """``good``: a good input, which ``wrong`` makes bad ones of; ``read``: the reader, given the path of ``file``, in which the input
    stands; ``fixed``: a folder with the other files there."""

    name: str
    file: str
    good: Callable[[], bytes]
    wrong: Callable[[bytes], st.SearchStrategy[bytes]]
    read: Callable[[Path], object]
    fixed: Callable[[], Path] | None = None
    counts: dict[str, int] = field(default_factory=lambda: {"accepted": 0, "refused": 0})

    @property
    def inputs(self) -> st.SearchStrategy[bytes]:
        return st.deferred(lambda: self.wrong(self.good()))

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
        """Forget the folder; the next input gets a new one."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        del self.folder


def _check_message(message: str) -> None:
    if not message or "\n" in message.strip() or len(message) > 600:
        raise AssertionError(f"the message must be one line of at most 600 characters, not {message[:700]!r}")


# ---- good inputs ----------------------------------------------------------------------------------------------------


@functools.cache
def stock() -> Path:
    """A random full-precision BART of one layer each."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-stock-"))
    torch.manual_seed(3)
    config = BartConfig(
        vocab_size=97,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=32,
    )
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


def _header(data: bytes) -> bytes:
    start = len(program.MAGIC) + 8
    return data[start : start + int.from_bytes(data[start - 8 : start], "little")]


def _wrong_headers(data: bytes) -> st.SearchStrategy[bytes]:
    return mutations.json_files(_header(data)).map(_with_header)


# ---- readers --------------------------------------------------------------------------------------------------------


def _checkpoint_read(path: Path) -> None:
    """What `run` does with a checkpoint; one that is taken computes what the interpreter says."""
    model = prepare.lowered_model(path.parent, "2-2")
    if model.meta["vocab_size"] <= max(START, *IDS) or model.meta["max_positions"] < len(IDS):
        return
    wrong, seen = differences(model, map_model(model, ROOMY, len(IDS), 2), IDS)
    assert seen and not wrong, wrong


def _tokenizer(path: Path) -> None:
    tokenizer = prepare.load_tokenizer(path.parent)
    prepare.encode_text(tokenizer, "A library to parse files.", 32)


def _evaluation(path: Path) -> None:
    evaluation(path.parent)


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


def _arguments(path: Path) -> None:
    """The command line, up to what the options alone can say."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            args = parser().parse_args(json.loads(path.read_bytes()))
    except SystemExit as end:
        assert end.code in (0, 2), end.code
        if end.code:
            raise InputError("refused by the parser of the command line") from None
        return
    if hasattr(args, "ids"):
        options.sources(args)
    if hasattr(args, "generation"):
        options.search_settings(args, args.beams)


def _wrong_arguments(good: bytes) -> st.SearchStrategy[bytes]:
    words = st.one_of(
        st.sampled_from(
            [
                *VERBS,
                *OPTIONS,
                *ODD_IDS,
                "tiny",
                "2-2",
                "nan",
                "-1",
                "1e9",
                "true",
                "min_length=3",
                "x={",
                "/dev/null",
            ]
        ),
        st.text(st.characters(blacklist_categories=("Cs",)), max_size=8),
    )
    texts = st.lists(words, max_size=8)
    verbs = st.tuples(st.sampled_from(sorted(VERBS)), texts).map(lambda both: [both[0], *both[1]])
    return st.one_of(verbs, verbs, texts).map(lambda words: json.dumps(words).encode())


OPTIONS = sorted(
    set(re.findall(r"--[a-z-]+", "".join(path.read_text("utf-8") for path in (ROOT / "ternbin/cli").glob("*.py"))))
)
HARDWARE = mutations.toml(NAMED["tiny"].asdict())
CELLS = mutations.toml(
    {"node_nm": 45.0, "ram_access_ns": 0.8, "wire_load": "5K_hvratio_1_1", "full_adder": "FA_X1", "buffer": "BUF_X2"}
)
ODD_IDS = ["0", "5", "-1", "97", "1e3", " 7", "\u0663", "", "9" * 40, "0x1", "1_000"]


def _wrong_ids(good: bytes) -> st.SearchStrategy[bytes]:
    lists = st.lists(st.sampled_from(ODD_IDS), max_size=40).map(",".join)
    return st.one_of(st.text(max_size=30), lists).map(lambda text: text.encode("utf-8", "surrogatepass"))


def _wrong_texts(good: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=100),
        st.integers(0, 400).map(lambda n: b"word " * n),
    )


def _of(folder: Callable[[], Path], name: str) -> Callable[[], bytes]:
    return lambda: (folder() / name).read_bytes()


def _checkpoint(folder: Callable[[], Path], file: str, wrong: Callable[[bytes], st.SearchStrategy[bytes]]) -> Border:
    return Border(f"{folder.__name__} {file}", file, _of(folder, file), wrong, _checkpoint_read, folder)


BORDERS = [
    Border("hardware TOML", "hw.toml", lambda: HARDWARE, mutations.toml_files, _hardware),
    Border("cells TOML", "x.cells.toml", lambda: CELLS, mutations.toml_files, library.read_declared),
    _checkpoint(stock, "config.json", mutations.json_files),
    _checkpoint(stock, "generation_config.json", mutations.json_files),
    _checkpoint(stock, "model.safetensors", mutations.damaged),
    _checkpoint(packed, "config.json", mutations.json_files),
    _checkpoint(packed, "packed.safetensors", mutations.damaged),
    Border("tokenizer.json", "tokenizer.json", _of(packed, "tokenizer.json"), mutations.json_files, _tokenizer, packed),
    Border(
        "tokenizer_config.json",
        "tokenizer_config.json",
        _of(packed, "tokenizer_config.json"),
        mutations.json_files,
        _tokenizer,
        packed,
    ),
    Border("eval.json", "eval.json", _of(packed, "eval.json"), mutations.json_files, _evaluation, packed),
    Border("program", "program.tbn", program_file, mutations.damaged, _program),
    Border("program header", "program.tbn", program_file, _wrong_headers, _program),
    Border(
        "result.json", "result.json", (ROOT / "reports/example/result.json").read_bytes, mutations.json_files, _report
    ),
    Border(
        "characterisation", "gates.json", figures.STORED.read_bytes, mutations.json_files, figures.read_characterisation
    ),
    Border("space TOML", "space.toml", ready_spaces()["bundled"].read_bytes, mutations.toml_files, read_space),
    Border(
        "arguments", "argv.json", lambda: b'["run", "--hw", "tiny", "--ids", "0,5,2"]', _wrong_arguments, _arguments
    ),
    Border("ids", "ids.txt", lambda: b"0,5,9,2", _wrong_ids, _ids),
    Border("texts", "text.txt", lambda: b"A library.", _wrong_texts, _texts),
]
