"""Allocation: on-chip words, and the image of external memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ternbin.errors import InputError

ALIGNMENT = 64  # bytes; a multiple of every bus width


class CapacityError(InputError):
    """A memory is too small.  ``field`` of the hardware configuration must be at least ``need`` for what did not fit, if not more."""

    def __init__(self, message: str, field: str, need: int):
        super().__init__(message)
        self.field, self.need = field, need


class BlockError(CapacityError):
    """So is this one, but smaller blocks of tokens may fit."""


@dataclass
class Allocator:
    """Contiguous regions of one memory. Goes round, so that a freed region rests before it is used again."""

    name: str
    words: int
    taken: dict[int, int] = field(default_factory=dict)  # address -> words
    next: int = 0

    def take(self, words: int, what: str) -> int:
        """Address of ``words`` free words. Raises BlockError naming ``what``, the need and the limit."""
        for start in (self.next, 0):
            address = self._first_fit(start, words)
            if address is not None:
                self.taken[address] = words
                self.next = address + words
                return address
        most = self._largest()
        raise BlockError(
            f"{what}: {self.name} words must be at most {most} (of {self.words}), not {words}",
            f"{self.name.lower()}_words",
            self.words + words - most,
        )

    def _first_fit(self, start: int, words: int) -> int | None:
        for address, size in sorted(self.taken.items()):
            if address + size <= start:
                continue
            if start + words <= address:
                return start
            start = max(start, address + size)
        return start if start + words <= self.words else None

    def _largest(self) -> int:
        """Words of the largest free piece."""
        stops = [0, *(address + size for address, size in sorted(self.taken.items()))]
        return max(start - stop for stop, start in zip(stops, [*sorted(self.taken), self.words], strict=True))

    def free(self, address: int) -> None:
        del self.taken[address]

    def copy(self) -> "Allocator":
        return Allocator(self.name, self.words, dict(self.taken), self.next)


@dataclass
class Image:
    """External memory under construction; blocks entered under the same key are shared, and so are ``plans`` made with it.

    Without ``contents``, blocks whose size is told are left zero: such an image has the addresses of the real one, and instructions.
    """

    parts: list[bytes | int] = field(default_factory=list)  # one after the other; a number: so many bytes of zeros
    size: int = 0
    places: dict[object, int] = field(default_factory=dict)
    plans: dict[Any, Any] = field(default_factory=dict)
    contents: bool = True

    def reserve(self, size: int) -> int:
        """Address of ``size`` zero bytes."""
        return self._append(size)

    def put(self, key: object, make: Callable[[], "bytes | np.ndarray"], size: int = 0) -> int:
        """Address of the bytes ``make()`` (bytes or a uint8 array; ``size`` of them, where that is told), entered once under ``key``."""
        if key not in self.places:
            data = make() if self.contents or not size else size
            self.places[key] = self._append(data.tobytes() if isinstance(data, np.ndarray) else data)
        return self.places[key]

    def _append(self, data: bytes | int) -> int:
        address = self.size
        size = data if isinstance(data, int) else len(data)
        padding = -size % ALIGNMENT
        self.parts += [data, padding]
        self.size += size + padding
        return address

    def bytes(self) -> bytes | memoryview:
        """All of it. Without contents a view of zeros that take no memory where nothing else is written."""
        if self.contents:
            return b"".join(bytes(part) if isinstance(part, int) else part for part in self.parts)
        image, at = np.zeros(self.size, np.uint8).data, 0
        for part in self.parts:
            size = part if isinstance(part, int) else len(part)
            if not isinstance(part, int):
                image[at : at + size] = part
            at += size
        return image
