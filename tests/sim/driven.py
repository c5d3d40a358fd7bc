"""What runs programs by the drivers: the drivers as they are handed out, and a simulated accelerator behind its buses."""

import contextlib
import ctypes
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.integration.software import drivers
from ternbin.sim.build import build
from ternbin.sim.simulator import Simulator

BASE = 0x5000
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Werror"]


class Buffer(np.ndarray):
    """As pynq.allocate gives it: an array that knows where the accelerator finds it."""

    device_address = BASE


@contextlib.contextmanager
def accelerator(program: Program) -> Iterator[tuple[Simulator, Buffer]]:
    """The simulated accelerator with memory on both sides of BASE, and the part of it that is the driver's."""
    memory = bytearray(BASE + len(program.image) + 0x1000)
    with Simulator(program.hw, build(program.hw), memory, MemoryModel(latency=4)) as simulator:
        buffer = np.frombuffer(memory, np.uint8)[BASE : BASE + len(program.image)].view(Buffer)
        yield simulator, buffer
    assert not any(memory[:BASE]) and not any(memory[-0x1000:])


READ = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
WRITE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)


class Io(ctypes.Structure):
    _fields_ = [
        ("context", ctypes.c_void_p),
        ("read32", READ),
        ("write32", WRITE),
        ("wait", ctypes.c_void_p),
        ("flush", ctypes.c_void_p),
        ("invalidate", ctypes.c_void_p),
        ("memory", ctypes.c_void_p),
        ("address", ctypes.c_uint64),
        ("bytes", ctypes.c_size_t),
    ]


class Core(ctypes.Structure):
    _fields_ = [("io", Io), ("image", ctypes.c_void_p), ("error_address", ctypes.c_uint64)]


def put(folder: Path) -> Path:
    """The files of a package."""
    for name, text in drivers().items():
        (folder / name).write_text(text)
    return folder


def imported(path: Path) -> Any:
    """The driver in Python as it is handed out: without ternbin."""
    assert "ternbin.integration" not in path.read_text()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def compiled(folder: Path) -> Any:
    """The driver in C, compiled as strictly as a project may."""
    sources = ["ternbin.c", "ternbin_search.c", "ternbin_uio.c"]
    command = ["cc", *FLAGS, "-fPIC", "-shared", "-o", "driver.so", *sources, "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(folder / "driver.so"))
    library.ternbin_memory_bytes.restype = library.ternbin_counter.restype = ctypes.c_uint64
    library.ternbin_memory_bytes.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    library.ternbin_open.argtypes = [ctypes.POINTER(Core), ctypes.POINTER(Io), ctypes.c_char_p, ctypes.c_size_t]
    library.ternbin_text.restype = ctypes.c_char_p
    library.ternbin_texts.restype = library.ternbin_search_bytes.restype = ctypes.c_size_t
    return library


def io_of(simulator: Any, buffer: Buffer) -> Io:
    read, write = READ(lambda _, offset: simulator.read(offset)), WRITE(lambda _, *what: simulator.write(*what))
    return Io(None, read, write, None, None, None, buffer.ctypes.data, BASE, len(buffer))


def generate_texts(library: Any, core: Core, texts: Sequence[Sequence[int]], most: int) -> tuple[int, list[list[int]]]:
    """Status and tokens by ``ternbin_generate_texts``."""
    count, ids = len(texts), [token for text in texts for token in text]
    assert library.ternbin_texts(ctypes.byref(core)) == count
    size = library.ternbin_search_bytes(ctypes.byref(core))
    room = (ctypes.c_uint64 * (size // 8 + 2))()
    room[size // 8 + 1] = 0x0123456789ABCDEF  # not the driver's
    tokens, found = (ctypes.c_uint32 * (count * most))(), (ctypes.c_size_t * count)()
    given = (ctypes.c_uint32 * len(ids))(*ids)
    status = library.ternbin_generate_texts(
        ctypes.byref(core), room, given, ctypes.c_size_t(len(ids)), tokens, ctypes.c_size_t(most), found
    )
    assert room[size // 8 + 1] == 0x0123456789ABCDEF
    return status, [tokens[text * most : text * most + found[text]] for text in range(count)]
