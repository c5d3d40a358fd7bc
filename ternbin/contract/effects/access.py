"""What the effects of instructions are said with: fields, rules, accesses."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from ternbin.contract.counters import single_plane
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Instruction, Kind, Mem
from ternbin.contract.memories import PLANES

READ, WRITE = 0, 1


class Fields(Protocol):
    """The fields of an instruction by name: integers of an ``Instruction``, or values of a view of its bits in the RTL."""

    def __getitem__(self, name: str, /) -> Any: ...


class Rule(NamedTuple):
    """What must hold of the fields, and whether it is ``broken``: an integer or, in the RTL, a value."""

    must: str
    broken: Any


@dataclass(frozen=True)
class Access:
    """Words of one memory, or for ``mem`` None bytes [words[0], words[1]) of external memory."""

    mem: Mem | None
    words: np.ndarray
    kind: int


@dataclass(frozen=True)
class Effect:
    """An operation.

    ``rules``: what the core refuses with FIELD when broken. They are made of ``& | == != < > + << >>`` alone, so that they take
    integers and hardware values alike; ``~`` and ``not`` are not among these.
    ``touches``: every word and external byte that a legal instruction reads and writes. A word outside its memory is refused with
    ADDRESS, as is an external address beyond those of the bus; bytes beyond the external memory with BUS_READ or BUS_WRITE.
    ``counts``: what it adds to the event counters. ``moves``: bytes on the bus, and what they carry (``counting.traffic``).
    """

    rules: Callable[[HwConfig, Fields], list[Rule]]
    touches: Callable[[HwConfig, Instruction], list[Access]]
    counts: Callable[[HwConfig, Instruction], dict[str, int]]
    moves: Callable[[HwConfig, Instruction], tuple[str, int]] | None = None


def grid(base: int, *axes: tuple[int, int]) -> np.ndarray:
    """Addresses ``base + sum of i*stride`` over all i of each axis (count, stride)."""
    return base + _offsets(axes)


@lru_cache(maxsize=256)  # few patterns, at many bases
def _offsets(axes: tuple[tuple[int, int], ...]) -> np.ndarray:
    total = np.zeros(1, dtype=np.int64)
    for count, stride in axes:
        total = (total[:, None] + np.arange(count) * stride).reshape(-1)
    return total


def planes(kind: int) -> int:
    """Words that a code word of ``kind`` is written as."""
    return 8 if kind in (Kind.INT8, Kind.UINT8) else 1


def code_words(name: str, words: int, planes: int) -> dict[str, int]:
    """A counter of ``CODE_WORDS``, and what it would be without bit planes."""
    return {name: words * planes, single_plane(name): words}


def abuf_words(hw: HwConfig, kind: str, words: int, planes: int, times: int = 1) -> dict[str, int]:
    """Counters of ``kind`` ("reads" or "writes") of ABUF for ``words`` codes of ``planes``, each ``times`` times."""
    name, others = f"abuf_{kind}", planes - 1 if hw.whole_columns else 0
    result = code_words(name, words, (planes - others) * times)
    return result | ({f"{PLANES}_{kind}": words * others * times} if hw.whole_columns else {})


def misplaced(hw: HwConfig, eight_bit: Any, plane: Any) -> list[Rule]:
    """Of an array that reads whole 8-bit codes: their planes in ABUF must lie where it reads them."""
    if not hw.whole_columns:
        return []
    return [Rule(f"planes of 8-bit codes must lie {hw.plane_words} words apart", eight_bit & (plane != hw.plane_words))]


def no_ternary(hw: HwConfig, kind: Any) -> Any:
    """Whether codes of ``kind`` are ternary ones that the array does not have."""
    return (kind == Kind.TERNARY) & (hw.kind == "binary")
