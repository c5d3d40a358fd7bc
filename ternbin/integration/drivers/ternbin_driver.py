"""Driver of a ternbin accelerator in Python, for memory-mapped registers and a buffer that the accelerator can reach.

Objects of PYNQ fit, and so does anything of the same shape:

    core = Accelerator(overlay.ternbin.mmio, pynq.allocate(memory_bytes(image), "u1"), image)
    tokens = core.generate(ids)
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from ternbin.integration.constants import (
    CHECK,
    CHECK_BIT,
    CTRL_CLEAR,
    CTRL_IRQ_ENABLE,
    CTRL_START,
    DRAM_BIT,
    DRAM_BITS,
    ERRORS,
    ID_VALUE,
    IMAGE_ADDRESS_BITS,
    IMAGE_BEAT,
    IMAGE_BYTES,
    IMAGE_CALLS,
    IMAGE_ENDS,
    IMAGE_LAST,
    IMAGE_MAGIC,
    IMAGE_MAX_NEW_TOKENS,
    IMAGE_NUMBERS,
    IMAGE_PROMPT,
    IMAGE_SOURCE,
    IMAGE_SOURCE_IDS,
    IMAGE_SOURCE_LIMIT,
    IMAGE_TARGET,
    INSTRUCTION_BYTES,
    NONE,
    OP_LOAD,
    OP_STORE,
    PAGE,
    REG_COUNTERS,
    REG_CTRL,
    REG_ERROR,
    REG_ERROR_ADDR,
    REG_ERROR_ADDR_HI,
    REG_ID,
    REG_PROGRAM,
    REG_PROGRAM_HI,
    REG_STATUS,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_ERROR,
)

BUSY_READS = 1000  # of STATUS after an error, until the bus is given up


class Registers(Protocol):
    """Registers of 32 bits by byte offset, as ``pynq.MMIO`` has them."""

    def read(self, offset: int, /) -> int: ...
    def write(self, offset: int, value: int, /) -> Any: ...


class AcceleratorError(Exception):
    """The accelerator stopped with an error: ``code``, its ``name``, and the byte ``address`` it reported, as the accelerator sees it."""

    def __init__(self, code: int, address: int):
        self.code, self.address = code, address
        self.name = ERRORS[code] if code < len(ERRORS) else "unknown"
        super().__init__(f"the accelerator stopped with {self.name} at {address:#x}")


def memory_bytes(image: bytes) -> int:
    """Length of the buffer that an image needs. Raises ValueError for what is no image, or a damaged one."""
    return _numbers(image)[IMAGE_BYTES]


def _numbers(image: bytes) -> list[int]:
    if not image.startswith(IMAGE_MAGIC) or len(image) < len(IMAGE_MAGIC) + 8 * IMAGE_NUMBERS + 4:
        raise ValueError(f"image must begin with {IMAGE_MAGIC!r}, not {image[: len(IMAGE_MAGIC)]!r}")
    if zlib.crc32(image[:-4]) != int.from_bytes(image[-4:], "little"):
        raise ValueError("checksum of the image must match its contents; it is truncated or damaged")
    numbers = list(_words(image, len(IMAGE_MAGIC), IMAGE_NUMBERS))
    lists = 2 * numbers[IMAGE_CALLS] + numbers[IMAGE_PROMPT] + numbers[IMAGE_ENDS]
    size = len(IMAGE_MAGIC) + 8 * (IMAGE_NUMBERS + lists) + numbers[IMAGE_BYTES] + 4
    if len(image) != size:
        raise ValueError(f"image must have {size} bytes, not {len(image)}")
    return numbers


def _words(image: bytes, start: int, count: int) -> Iterator[int]:
    return (int.from_bytes(image[start + 8 * i : start + 8 * i + 8], "little") for i in range(count))


class Accelerator:
    """One accelerator with one program in its memory.

    ``buffer``: writable bytes (at least ``memory_bytes(image)``) with ``device_address``, where the accelerator finds them, a multiple of
    4096; where it has ``flush`` and ``invalidate``, they are called for caches. ``wait()`` returns once the interrupt came; without it,
    STATUS is read until the program is done. Raises ValueError for an image or a buffer that does not fit, or registers of something else.
    """

    def __init__(self, registers: Registers, buffer: Any, image: bytes, wait: Callable[[], Any] | None = None):
        self.registers, self.buffer, self.wait = registers, buffer, wait
        self.base = int(buffer.device_address)
        self._numbers = _numbers(image)
        self._memory = memoryview(buffer).cast("B")
        size, calls = self._numbers[IMAGE_BYTES], self._numbers[IMAGE_CALLS]
        start = len(IMAGE_MAGIC) + 8 * IMAGE_NUMBERS
        prompt, ends = self._numbers[IMAGE_PROMPT], self._numbers[IMAGE_ENDS]
        lists = list(_words(image, start, 2 * calls + prompt + ends))
        self._calls = list(zip(lists[:calls], lists[calls : 2 * calls], strict=True))
        self._prompt, self._ends = lists[2 * calls : 2 * calls + prompt], lists[2 * calls + prompt :]
        if len(self._memory) < size:
            raise ValueError(f"buffer must have {size} bytes, not {len(self._memory)}")
        if self.base % PAGE or self.base + size > 1 << self._numbers[IMAGE_ADDRESS_BITS]:
            limit = 1 << self._numbers[IMAGE_ADDRESS_BITS]
            raise ValueError(
                f"address of the buffer must be a multiple of {PAGE} below {limit - size}, not {self.base:#x}"
            )
        found = registers.read(REG_ID)
        if found != ID_VALUE:
            raise ValueError(f"register ID must be {ID_VALUE:#x}, not {found:#x}")
        self._memory[:size] = image[start + 8 * len(lists) : -4]
        if self.base:
            for address, count in self._calls:
                for place in range(address, address + count * INSTRUCTION_BYTES, INSTRUCTION_BYTES):
                    self._move(place)

    def _move(self, place: int) -> None:
        """The instruction at ``place`` with its address of memory, where it has one, moved to where the buffer is."""
        if self._memory[place] not in (OP_LOAD, OP_STORE):
            return
        word = int.from_bytes(self._memory[place : place + INSTRUCTION_BYTES], "little")
        mask = (1 << DRAM_BITS) - 1
        moved = (word >> DRAM_BIT & mask) + self.base & mask
        word = word & ~(mask << DRAM_BIT) & ~(0xFFFF << CHECK_BIT) | moved << DRAM_BIT
        check = CHECK
        for low in range(0, 8 * INSTRUCTION_BYTES, 16):
            check ^= word >> low & 0xFFFF
        word |= check << CHECK_BIT
        self._memory[place : place + INSTRUCTION_BYTES] = word.to_bytes(INSTRUCTION_BYTES, "little")

    def _put(self, address: int, token: int) -> None:
        beat = self._numbers[IMAGE_BEAT]
        self._memory[address : address + beat] = token.to_bytes(beat, "little")

    def call(self, number: int) -> None:
        """Run one call of the program to its end. Raises AcceleratorError, after which the accelerator can be started again; and
        RuntimeError where it cannot be started, for it is busy."""
        if self.registers.read(REG_STATUS) & STATUS_BUSY:
            raise RuntimeError("the accelerator must not be busy: the bus did not answer, reset it")
        getattr(self.buffer, "flush", int)()
        address = self.base + self._calls[number][0]
        self.registers.write(REG_PROGRAM, address & 0xFFFFFFFF)
        self.registers.write(REG_PROGRAM_HI, address >> 32)
        self.registers.write(REG_CTRL, CTRL_START | CTRL_CLEAR | (CTRL_IRQ_ENABLE if self.wait else 0))
        if self.wait:
            self.wait()
        while not (status := self.registers.read(REG_STATUS)) & (STATUS_DONE | STATUS_ERROR):
            pass
        if status & STATUS_ERROR:
            self._stopped()
        self.registers.write(REG_STATUS, 1)
        getattr(self.buffer, "invalidate", int)()

    def _stopped(self) -> None:
        code = self.registers.read(REG_ERROR)
        address = self.registers.read(REG_ERROR_ADDR) | self.registers.read(REG_ERROR_ADDR_HI) << 32
        for _ in range(BUSY_READS):
            if not self.registers.read(REG_STATUS) & STATUS_BUSY:
                break
        self.registers.write(REG_STATUS, 1)
        raise AcceleratorError(code, address)

    def counter(self, number: int) -> int:
        """A counter of the last call, by its number in the manifest."""
        offset = REG_COUNTERS + 8 * number
        return self.registers.read(offset) | self.registers.read(offset + 4) << 32

    def generate(self, ids: Sequence[int], max_new_tokens: int | None = None) -> list[int]:
        """The tokens after the start token, for a text of as many ``ids`` as the program was lowered for. Raises ValueError for ids or a
        number of tokens that the program does not take, and what :meth:`call` raises."""
        numbers = self._numbers
        most = numbers[IMAGE_MAX_NEW_TOKENS] if max_new_tokens is None else max_new_tokens
        if not 1 <= most <= numbers[IMAGE_MAX_NEW_TOKENS]:
            raise ValueError(f"max_new_tokens must be from 1 to {numbers[IMAGE_MAX_NEW_TOKENS]}, not {most}")
        if len(ids) != numbers[IMAGE_SOURCE_IDS]:
            raise ValueError(f"ids must be {numbers[IMAGE_SOURCE_IDS]}, not {len(ids)}")
        for place, token in enumerate(ids):
            if not 0 <= token < numbers[IMAGE_SOURCE_LIMIT]:
                raise ValueError(f"token id must be from 0 to {numbers[IMAGE_SOURCE_LIMIT] - 1}, not {token}")
            self._put(numbers[IMAGE_SOURCE] + place * numbers[IMAGE_BEAT], token)
        self.call(0)
        tokens, feed, past = self._prompt[1:], self._prompt, 0
        while len(tokens) < most and not (tokens and tokens[-1] in self._ends):
            token = numbers[IMAGE_LAST]
            if token == NONE or len(tokens) < most - 1:
                token = self._step(feed, past)
                past += len(feed)
            tokens.append(token)
            feed = [token]
        return tokens

    def _step(self, feed: Sequence[int], past: int) -> int:
        """Feed tokens at positions ``past ..``; what follows the last one."""
        beat, target = self._numbers[IMAGE_BEAT], self._numbers[IMAGE_TARGET]
        for position, token in enumerate(feed, start=past):
            self._put(target + position * beat, token)
            self.call(1 + position)
        place = target + (past + len(feed)) * beat
        return int.from_bytes(self._memory[place : place + min(4, beat)], "little")
