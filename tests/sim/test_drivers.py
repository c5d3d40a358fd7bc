"""The drivers, in Python and in C, run programs on the RTL over its buses, from memory that does not begin at 0."""

import ctypes
import json
import os
import socket
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from driven import BASE, READ, Core, Io, accelerator, compiled, imported, io_of, put

from ternbin.contract.hw import NAMED
from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.decoding.greedy import reference_run
from ternbin.decoding.search import Policy
from ternbin.errors import InputError
from ternbin.graph.ir import Lowered
from ternbin.integration import constants
from ternbin.integration.image import image as image_of
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.sim.bench import run_bench
from ternbin.sim.generated import generated
from ternbin.sim.runner import run

torch.set_num_threads(1)
TEXTS = [3, 7, 9, 11, 5], [12, 4, 4, 30, 8]
NEW = 3


@pytest.fixture(scope="module")
def job() -> tuple[Lowered, Program]:
    lowered = fold(lower(random_quant_bart("2-2")))
    return lowered, map_model(lowered, NAMED["tiny"], len(TEXTS[0]), NEW)


@pytest.fixture(scope="module")
def image(job) -> bytes:
    return image_of(job[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return put(tmp_path_factory.mktemp("drivers"))


@pytest.fixture(scope="module")
def python(folder):
    return imported(folder / "ternbin_driver.py")


@pytest.fixture(scope="module")
def c(folder):
    return compiled(folder)


@pytest.fixture(scope="module")
def cycles(job) -> int:
    """Of the last call of the second text."""
    lowered, program = job
    plain = run(program, ids=TEXTS[1], policy=Policy.of(lowered.meta, NEW), memory=MemoryModel(latency=4))
    return plain.calls[-1].counters["cycles"]


@pytest.fixture
def core(job, cycles):
    with accelerator(job[1]) as found:
        yield found


def test_python(job, image, python, core, cycles):
    lowered, program = job
    simulator, buffer = core
    assert python.memory_bytes(image) == len(program.image)
    accelerator = python.Accelerator(simulator, buffer, image)
    for ids in TEXTS:
        assert accelerator.generate(ids) == reference_run(lowered, ids, NEW)[0]
    assert accelerator.counter(0) == cycles
    assert accelerator.generate(TEXTS[0], 2) == reference_run(lowered, TEXTS[0], 2)[0]


def test_python_hears_of_errors(job, image, python, core):
    simulator, buffer = core
    accelerator = python.Accelerator(simulator, buffer, image)
    place = job[1].calls[1].address + 3 * constants.INSTRUCTION_BYTES
    buffer[place + 9] ^= 4
    with pytest.raises(python.AcceleratorError, match=f"stopped with CHECK at {BASE + place:#x}$"):
        accelerator.generate(TEXTS[0])
    buffer[place + 9] ^= 4
    assert accelerator.generate(TEXTS[0]) == reference_run(job[0], TEXTS[0], NEW)[0]


def test_python_refuses(image, python, core):
    simulator, buffer = core
    accelerator = python.Accelerator(simulator, buffer, image)
    shorter = image[:-5] + struct.pack("<I", zlib.crc32(image[:-5]))
    for message, call in {
        "^ids must be 5, not 2$": lambda: accelerator.generate([1, 2]),
        "^token id must be from 0 to ": lambda: accelerator.generate([1, 2, 3, 4, 1 << 20]),
        "^max_new_tokens must be from 1 to 3, not 4$": lambda: accelerator.generate(TEXTS[0], 4),
        "^checksum of the image": lambda: python.memory_bytes(image[:-9] + image[-8:]),
        f"^image must have {len(image)} bytes, not {len(image) - 1}$": lambda: python.memory_bytes(shorter),
        "^image must begin with": lambda: python.memory_bytes(b"ternbin program 3\n" + bytes(200)),
        f"^buffer must have {len(buffer)} bytes, not {len(buffer) - 1}$": lambda: python.Accelerator(
            simulator, buffer[:-1], image
        ),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    for address in (BASE + 64, 1 << NAMED["tiny"].axi_addr_bits):
        buffer.device_address = address
        with pytest.raises(ValueError, match="^address of the buffer must be a multiple of 4096 below "):
            python.Accelerator(simulator, buffer, image)


def _generate(library, core: Core, ids: list[int], most: int = NEW) -> tuple[int, list[int]]:
    tokens, found = (ctypes.c_uint32 * most)(), ctypes.c_size_t()
    given = (ctypes.c_uint32 * len(ids))(*ids)
    status = library.ternbin_generate(
        ctypes.byref(core), given, ctypes.c_size_t(len(ids)), tokens, ctypes.c_size_t(most), ctypes.byref(found)
    )
    return status, tokens[: found.value]


@pytest.mark.build
def test_c(job, image, c, core, cycles):
    lowered, program = job
    simulator, buffer = core
    assert c.ternbin_memory_bytes(image, len(image)) == len(program.image)
    io, own = io_of(simulator, buffer), Core()
    assert c.ternbin_open(ctypes.byref(own), ctypes.byref(io), image, len(image)) == 0
    for ids in TEXTS:
        assert _generate(c, own, ids) == (0, reference_run(lowered, ids, NEW)[0])
    assert c.ternbin_counter(ctypes.byref(own), 0) == cycles
    assert _generate(c, own, TEXTS[0], 2) == (0, reference_run(lowered, TEXTS[0], 2)[0])
    place = program.calls[1].address + 3 * constants.INSTRUCTION_BYTES
    buffer[place + 9] ^= 4
    status, _ = _generate(c, own, TEXTS[0])
    assert c.ternbin_text(status) == b"CHECK" and own.error_address == BASE + place
    buffer[place + 9] ^= 4
    assert _generate(c, own, TEXTS[0])[0] == 0


@pytest.mark.build
def test_c_refuses(image, c, core):
    io, own = io_of(*core), Core()

    def opened(data: bytes = image, **changes: object) -> bytes:
        changed = Io.from_buffer_copy(io)
        for name, value in changes.items():
            setattr(changed, name, value)
        return c.ternbin_text(c.ternbin_open(ctypes.byref(own), ctypes.byref(changed), data, len(data)))

    body = image[:-5]
    assert (
        opened(image[:100]) == opened(image[:-1] + b"?") == opened(b"ternbin program 3\n" + bytes(200)) == b"bad image"
    )
    assert opened(body + struct.pack("<I", zlib.crc32(body))) == b"bad image"
    assert opened(bytes=io.bytes - 1) == opened(address=BASE + 64) == b"memory that does not fit"
    assert opened(address=1 << NAMED["tiny"].axi_addr_bits) == b"memory that does not fit"
    nothing = READ(lambda *_: 0)
    assert opened(read32=nothing) == b"no accelerator"
    assert opened() == b"good"
    for ids, most in ((TEXTS[0][:2], NEW), ([1, 2, 3, 4, 1 << 20], NEW), (TEXTS[0], NEW + 1)):
        assert c.ternbin_text(_generate(c, own, ids, most)[0]) == b"bad input"


@pytest.mark.build
@pytest.mark.skipif(sys.platform != "linux", reason="generic-uio is Linux's")
def test_c_maps_what_uio_offers(c, tmp_path):
    """Registers and memory are files that can be mapped; here they are plain ones."""
    registers, memory = tmp_path / "uio0", tmp_path / "udmabuf0"
    registers.write_bytes(struct.pack("<I", constants.ID_VALUE) + bytes(4092))
    memory.write_bytes(bytes(8192))
    uio = (ctypes.c_char * 256)()
    io = Io.from_buffer(uio)
    arguments = (ctypes.c_uint64(BASE), ctypes.c_size_t(8192))
    assert c.ternbin_uio_open(uio, os.fsencode(registers), os.fsencode(tmp_path / "none"), *arguments) == -1
    assert c.ternbin_uio_open(uio, os.fsencode(registers), os.fsencode(memory), *arguments) == 0
    assert io.read32(io.context, constants.REG_ID) == constants.ID_VALUE and io.address == BASE
    io.write32(io.context, constants.REG_PROGRAM, 0x12345678)
    ctypes.memset(io.memory + 4096, 7, 3)
    c.ternbin_uio_close(uio)
    assert registers.read_bytes()[constants.REG_PROGRAM :][:4] == bytes.fromhex("78563412")
    assert memory.read_bytes()[4096:4100] == b"\7\7\7\0"


@pytest.mark.build
@pytest.mark.skipif(sys.platform != "linux", reason="generic-uio is Linux's")
def test_an_interrupt_that_does_not_come_is_not_waited_for_without_end(c, tmp_path):
    for name in ("uio0", "udmabuf0"):
        (tmp_path / name).write_bytes(bytes(4096))
    uio = (ctypes.c_char * 256)()
    files = [os.fsencode(tmp_path / name) for name in ("uio0", "udmabuf0")]
    assert c.ternbin_uio_open(uio, *files, ctypes.c_uint64(BASE), ctypes.c_size_t(4096)) == 0
    io, fields = (
        Io.from_buffer(uio),
        (ctypes.c_int * 3).from_buffer(uio, ctypes.sizeof(Io) + ctypes.sizeof(ctypes.c_void_p)),
    )
    assert fields[2] == 60000
    driver, kernel = socket.socketpair()
    plain, fields[0], fields[2] = fields[0], driver.fileno(), 20
    wait = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(io.wait)
    assert wait(io.context) == -1  # none has come
    kernel.send(struct.pack("<I", 1))
    assert wait(io.context) == 0
    assert kernel.recv(8) == struct.pack("<II", 1, 1)  # asked for each time
    fields[0] = plain
    c.ternbin_uio_close(uio)


@pytest.mark.build
def test_python_with_the_interrupt(tmp_path, folder):
    """Under cocotb, with somebody else's models of the buses; tests/sim/test_cocotb.py has the same simulator."""
    hw, ids = replace(NAMED["tiny"], kv_external=True), TEXTS[0][:3]
    lowered = fold(lower(random_quant_bart("2-2")))
    program = map_model(lowered, hw, len(ids), 2)
    (tmp_path / "program.img").write_bytes(image_of(program))
    parameters = {
        "image": str(tmp_path / "program.img"),
        "driver": str(folder / "ternbin_driver.py"),
        "base": BASE,
        "ids": ids,
        "result": str(tmp_path / "result.json"),
    }
    run_bench(
        generated(hw).verilog,
        "ternbin.sim.tb.tb_top",
        name="ternbin",
        parameters=parameters,
        testcase="bench_driver",
        fast="-O0",
    )
    found = json.loads((tmp_path / "result.json").read_text())
    tokens = reference_run(lowered, ids, 2)[0]
    assert found["tokens"] == tokens and found["irq"] == 0
    assert 2 <= found["interrupts"] <= 1 + len(tokens)


def test_what_has_no_image(job):
    lowered, program = job
    with pytest.raises(InputError, match="^program of an image must decode without rules, not with min_length$"):
        image_of(replace(program, info=program.info | {"search": {"min_length": 3}}))
    with pytest.raises(InputError, match="^program of an image must read token ids alone, not ids$"):
        image_of(replace(program, inputs=(replace(program.inputs[0], width=4),)))
