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
