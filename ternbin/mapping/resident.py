"""Constants that stay on chip from the first decoder call on: which of them, and where.

What a decoder call loads is seen in a call that is built without any (``Seen``). :func:`choose` keeps the row tiles that save most
external traffic for the words they take; the first decoder call loads them where it comes to them, and later calls read them in place.
They lie at the end of their memory. The words before them go round, as all do where nothing stays.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Mem
from ternbin.contract.memories import memories

HOLDERS = (Mem.WBUF, Mem.PBUF)
RING_TILES = 16  # of the largest op that does not stay: what goes round should hold two parts of 8


@dataclass(frozen=True)
class Constant:
    """Weights or parameters of an op, at ``address`` of external memory on: ``tiles`` pieces of ``tile_bytes`` that take ``words`` words
    of ``mem`` each."""

    mem: Mem
    address: int
    tile_bytes: int
    words: int
    tiles: int = 1


def parameters(hw: HwConfig, address: int, words: int) -> Constant:
    """Words of PBUF that are read all together."""
    return Constant(Mem.PBUF, address, words * hw.param_word_bits // 8, words)


@dataclass
class Seen:
    """What a call loaded: tiles of constants, and the most words of WBUF or PBUF that something else took at a time."""

    tiles: Counter[Constant] = field(default_factory=Counter[Constant])
    other: dict[Mem, int] = field(default_factory=dict[Mem, int])


@dataclass(frozen=True)
class Residents:
    """Constant -> address on chip and how many of its first tiles stay there; ``words`` of each memory that all of them take."""

    places: Mapping[Constant, tuple[int, int]] = field(default_factory=dict[Constant, tuple[int, int]])
    words: Mapping[Mem, int] = field(default_factory=dict[Mem, int])

    def tiles(self, constant: Constant) -> int:
        """How many of its tiles, from the first on, stay."""
        return self.places.get(constant, (0, 0))[1]

    def address(self, constant: Constant, tile: int) -> int | None:
        """Of a tile on chip, None where it does not stay."""
        start, tiles = self.places.get(constant, (0, 0))
        return start + tile * constant.words if tile < tiles else None

    def ring(self, hw: HwConfig, mem: Mem) -> int:
        """Words of a memory that go round."""
        return memories(hw)[mem].words - self.words.get(mem, 0)


NOTHING = Residents()


def choose(hw: HwConfig, first: Seen, last: Seen) -> Residents:
    """What stays of the constants of decoding, given the ``first`` decoder call and the ``last``, which needs most room for the rest."""
    places: dict[Constant, tuple[int, int]] = {}
    taken: dict[Mem, int] = {}
    for mem in HOLDERS:
        depth = memories(hw)[mem].words
        own = [constant for constant in first.tiles if constant.mem == mem]
        late = [constant.words for constant in last.tiles if constant.mem == mem and constant not in first.tiles]
        least = 2 * max(first.other.get(mem, 0), last.other.get(mem, 0), *late, 0)
        if sum(c.words * c.tiles for c in own) + least > depth:
            largest = max(c.words for c in own)
            least = max(least, 2 * largest, min(RING_TILES * largest, depth // 2))
        room = depth - least
        for constant in sorted(own, key=lambda c: -_saved(c, first.tiles[c])):
            tiles = min(constant.tiles, max(0, room) // constant.words)
            if tiles:
                room -= tiles * constant.words
                places[constant] = (least + room, tiles)
        taken[mem] = depth - least - max(0, room) if depth > least else 0
    return Residents(places, taken)


def _saved(constant: Constant, loaded: int) -> float:
    """Bytes of a call that a word saves; ``loaded``: tiles in that call."""
    return loaded / constant.tiles * constant.tile_bytes / constant.words
