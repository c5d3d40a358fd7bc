"""Driver of a ternbin accelerator in Python, for memory-mapped registers and a buffer that the accelerator can reach.

Objects of PYNQ fit, and so does anything of the same shape:

    core = Accelerator(overlay.ternbin.mmio, pynq.allocate(memory_bytes(image), "u1"), image)
    tokens = core.generate(ids)

or, with an image of a batch, ``core.generate_texts([ids, others])``. Whether a text is decoded greedily or by a search with beams is the
image's.
"""

import math
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ternbin.integration.constants import (
    CHECK,
    CHECK_BIT,
    CTRL_CLEAR,
    CTRL_IRQ_ENABLE,
    CTRL_START,
    DEAD_SCORE,
    DRAM_BIT,
    DRAM_BITS,
    EARLY_FULL,
    EARLY_NEVER,
    ERRORS,
    ID_VALUE,
    IMAGE_ADDRESS_BITS,
    IMAGE_BEAMS,
    IMAGE_BEAT,
    IMAGE_BYTES,
    IMAGE_CALLS,
    IMAGE_CANDIDATES,
    IMAGE_EARLY,
    IMAGE_ENDS,
    IMAGE_LAST,
    IMAGE_LENGTH_PENALTY,
    IMAGE_LISTED,
    IMAGE_LISTS,
    IMAGE_LOGIT_SCALE,
    IMAGE_LOGIT_SHIFT,
    IMAGE_MAGIC,
    IMAGE_MASKS,
    IMAGE_MAX_NEW_TOKENS,
    IMAGE_NUMBERS,
    IMAGE_PROMPT,
    IMAGE_SOURCE,
    IMAGE_SOURCE_LIMIT,
    IMAGE_TARGET,
    IMAGE_TEXTS,
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
    SUM_POINT,
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
    lists = 2 * numbers[IMAGE_CALLS] + numbers[IMAGE_PROMPT] + numbers[IMAGE_ENDS] + numbers[IMAGE_TEXTS]
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
        prompt, ends, texts = (self._numbers[number] for number in (IMAGE_PROMPT, IMAGE_ENDS, IMAGE_TEXTS))
        lists = list(_words(image, start, 2 * calls + prompt + ends + texts))
        self._calls = list(zip(lists[:calls], lists[calls : 2 * calls], strict=True))
        self._prompt, self._ends = lists[2 * calls : 2 * calls + prompt], lists[2 * calls + prompt : -texts]
        self._lengths = lists[-texts:]
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
        """The tokens after the start token, for one text; else as :meth:`generate_texts`."""
        return self.generate_texts([ids], max_new_tokens)[0]

    def generate_texts(self, texts: Sequence[Sequence[int]], max_new_tokens: int | None = None) -> list[list[int]]:
        """The tokens after the start token of each text: as many texts, each of as many ids, as the program was lowered for. Raises
        ValueError for texts or a number of tokens that the program does not take, and what :meth:`call` raises."""
        numbers = self._numbers
        most = numbers[IMAGE_MAX_NEW_TOKENS] if max_new_tokens is None else max_new_tokens
        if not 1 <= most <= numbers[IMAGE_MAX_NEW_TOKENS]:
            raise ValueError(f"max_new_tokens must be from 1 to {numbers[IMAGE_MAX_NEW_TOKENS]}, not {most}")
        if [len(ids) for ids in texts] != self._lengths:
            lengths = (" and ".join(map(str, each)) for each in (self._lengths, [len(ids) for ids in texts]))
            raise ValueError("ids must be {}, not {}".format(*lengths))
        for place, token in enumerate(token for ids in texts for token in ids):
            if not 0 <= token < numbers[IMAGE_SOURCE_LIMIT]:
                raise ValueError(f"token id must be from 0 to {numbers[IMAGE_SOURCE_LIMIT] - 1}, not {token}")
            self._put(numbers[IMAGE_SOURCE] + place * numbers[IMAGE_BEAT], token)
        for text in range(len(texts)):
            self.call(text)
        last = None if numbers[IMAGE_LAST] == NONE else numbers[IMAGE_LAST]
        policy = _Policy(self._prompt, self._ends, last, most)
        return self._together(policy) if numbers[IMAGE_LISTED] else [self._single(policy)]

    def _single(self, policy: "_Policy") -> list[int]:
        """One text, greedily, by the token that each call gives."""
        running, position = _greedy(policy), 0
        try:
            tokens, _ = next(running)
            while True:
                self._put(self._numbers[IMAGE_TARGET] + position * self._numbers[IMAGE_BEAT], tokens[0])
                self.call(1 + position)
                position += 1
                tokens, _ = running.send([[(self._slot(position), 0.0)]])
        except StopIteration as stop:
            return stop.value

    def _slot(self, position: int) -> int:
        beat = self._numbers[IMAGE_BEAT]
        return self._read(self._numbers[IMAGE_TARGET] + position * beat, min(4, beat))

    def _read(self, place: int, size: int) -> int:
        return int.from_bytes(self._memory[place : place + size], "little")

    def _together(self, policy: "_Policy") -> list[list[int]]:
        """All texts at a time, by the lists that a call gives for the beams of all. Those of a text that is done go on being fed."""
        numbers = self._numbers
        count, beams, position = numbers[IMAGE_TEXTS], numbers[IMAGE_BEAMS], 0
        (penalty,) = struct.unpack("<d", numbers[IMAGE_LENGTH_PENALTY].to_bytes(8, "little"))
        running = [
            _search(policy, beams, penalty, numbers[IMAGE_EARLY]) if beams > 1 else _greedy(policy)
            for _ in range(count)
        ]
        same = list(range(beams))
        feeds: list[_Fed] = [([policy.prompt[-1]] * beams, same)] * count
        found: list[list[int] | None] = [None] * count
        parents: list[list[int]] = []  # of all beams, by position

        def advance(text: int, lists: list[_List] | None) -> None:
            try:
                feeds[text] = next(running[text]) if lists is None else running[text].send(lists)
            except StopIteration as stop:
                found[text], feeds[text] = stop.value, (feeds[text][0], same)

        for text in range(count):
            advance(text, None)
        while None in found:
            parents.append([text * beams + parent for text, (_, own) in enumerate(feeds) for parent in own])
            self._feed(position, [token for tokens, _ in feeds for token in tokens], parents)
            self.call(count + position)
            lists = [self._listed(position, beam) for beam in range(count * beams)]
            position += 1
            for text in range(count):
                if found[text] is None:
                    advance(text, lists[text * beams : (text + 1) * beams])
        return [tokens for tokens in found if tokens is not None]

    def _feed(self, position: int, tokens: Sequence[int], parents: Sequence[Sequence[int]]) -> None:
        """A token for each beam, and which keys each sees: its own of this position and, back along its parents, those before."""
        count, beat = len(tokens), self._numbers[IMAGE_BEAT]
        masks = [0] * (count * len(parents))
        for beam, token in enumerate(tokens):
            self._put(self._numbers[IMAGE_TARGET] + (position * count + beam) * beat, token)
            slot = beam
            for earlier in reversed(range(len(parents))):
                masks[earlier * count + slot] |= 1 << beam
                slot = parents[earlier][slot]
        data, place = struct.pack(f"<{len(masks)}H", *masks), self._numbers[IMAGE_MASKS]
        self._memory[place : place + len(data)] = data

    def _listed(self, position: int, beam: int) -> "_List":
        """The best tokens of a beam with their log-probabilities, best first."""
        numbers = self._numbers
        beat, listed = numbers[IMAGE_BEAT], numbers[IMAGE_LISTED]
        count = numbers[IMAGE_TEXTS] * numbers[IMAGE_BEAMS]
        start = numbers[IMAGE_LISTS] + (position * count + beam) * (listed + 1) * 3 * beat
        entries = [
            (_signed(self._read(at, 4), 32), _signed(self._read(at + beat, 4) | self._read(at + 2 * beat, 4) << 32, 64))
            for at in range(start, start + (listed + 1) * 3 * beat, 3 * beat)
        ]
        exponent, total = entries.pop()
        normaliser = (exponent + math.log2(total) - SUM_POINT) * math.log(2)
        unit = 2.0 ** -numbers[IMAGE_LOGIT_SCALE]
        return [
            (token, (logit >> numbers[IMAGE_LOGIT_SHIFT]) * unit - normaliser)
            for token, logit in entries[: numbers[IMAGE_CANDIDATES]]
        ]


# ---- which token follows ----------------------------------------------------------------------------------------------------

_List = list[tuple[int, float]]  # tokens with their log-probabilities, best first
_Fed = tuple[list[int], list[int]]  # a token for each beam, and the beam before that each goes on from
_Running = Generator[_Fed, list[_List], list[int]]  # yields what to feed, is sent the lists, returns the tokens


@dataclass(frozen=True)
class _Policy:
    prompt: list[int]
    ends: list[int]
    last: int | None  # what the last possible token must be
    most: int  # new tokens


@dataclass(frozen=True)
class _Text:
    tokens: list[int]
    score: float
    ended: bool = False


def _signed(value: int, bits: int) -> int:
    return value - (value >> bits - 1 << bits)


def _greedy(policy: _Policy) -> _Running:
    tokens, feed = policy.prompt[1:], policy.prompt
    while len(tokens) < policy.most and not (tokens and tokens[-1] in policy.ends):
        token = policy.last
        if token is None or len(tokens) < policy.most - 1:
            lists: list[_List] = []
            for each in feed:
                lists = yield [each], [0]
            token = lists[0][0][0]
        tokens.append(token)
        feed = [token]
    return tokens


def _search(policy: _Policy, beams: int, penalty: float, early: int) -> _Running:
    """Beam search as Hugging Face's ``generate`` does it."""
    prompt, length, most = policy.prompt, len(policy.prompt), policy.most + 1
    if length >= most:
        return prompt[1:]
    parents, open_ended = list(range(beams)), True
    texts = [_Text(prompt, 0.0 if beam == 0 else -float(DEAD_SCORE)) for beam in range(beams)]
    finished = [_Text([], -float(DEAD_SCORE))] * beams
    for token in prompt[:-1]:
        yield [token] * beams, parents
    while length < most and open_ended and not (early == EARLY_FULL and all(text.ended for text in finished)):
        if policy.last is not None and length == most - 1:
            lists = [[(policy.last, 0.0)]] * beams
        else:
            lists = yield [text.tokens[-1] for text in texts], parents
        length += 1
        ranked = sorted(
            (-(text.score + logp), beam, token) for beam, text in enumerate(texts) for token, logp in lists[beam]
        )
        chosen = [
            (_Text([*texts[beam].tokens, token], -cost, token in policy.ends or length == most), beam)
            for cost, beam, token in ranked[: max(2, 1 + len(policy.ends)) * beams]
        ]
        divisor = float(length - 1) ** penalty
        new = [_Text(text.tokens, text.score / divisor, True) for text, _ in chosen[:beams] if text.ended]
        finished = sorted(finished + new, key=lambda text: -text.score)[:beams]
        going = [(text, beam) for text, beam in chosen if not text.ended] or chosen
        going += [(_Text(going[-1][0].tokens, -float(DEAD_SCORE)), going[-1][1])] * (beams - len(going))
        texts, parents = [text for text, _ in going[:beams]], [beam for _, beam in going[:beams]]
        expected = most - 1 if early == EARLY_NEVER and penalty > 0 else length - 1
        worst = finished[-1].score if all(text.ended for text in finished) else -float(DEAD_SCORE)
        open_ended = texts[0].score / float(expected) ** penalty > worst
    return finished[0].tokens[1:]
