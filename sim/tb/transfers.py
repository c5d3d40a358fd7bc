"""LOAD and STORE as pure functions on dictionaries, written from the text of docs/architecture.md alone.

On-chip contents are ``words[mem, bank, addr]`` (table entries: one bus beat each), external memory is a bytearray.
"""

from collections.abc import Iterator

from ternbin.hw import HwConfig
from ternbin.isa import Mem

CODE = (Mem.ABUF, Mem.WBUF, Mem.KBUF)


def banks(hw: HwConfig, mem: Mem) -> int:
    return {Mem.ABUF: hw.cols, Mem.WBUF: hw.rows, Mem.KBUF: hw.rows}.get(mem, 1)


def beats(hw: HwConfig, mem: Mem) -> int:
    """Bus beats of a word."""
    if mem in CODE:
        return hw.code_word_bits // hw.axi_data_bits
    return {Mem.RBUF: hw.res_word_bits, Mem.PBUF: hw.param_word_bits}.get(mem, hw.axi_data_bits) // hw.axi_data_bits


def row_bytes(hw: HwConfig, fields: dict) -> int:
    """Bytes of external memory that one row takes."""
    return fields["inner"] * beats(hw, fields["mem"]) * hw.axi_bytes // (2 if fields.get("expand") else 1)


def places(hw: HwConfig, fields: dict) -> Iterator[tuple[int, tuple]]:
    """(row, (mem, bank, addr)) of every word, in order."""
    mem, inner, count = fields["mem"], fields["inner"], banks(hw, fields["mem"])
    for o in range(fields["outer"]):
        for i in range(inner):
            at = fields.get("bank", 0) + o
            yield o, (mem, at % count, fields["addr"] + at // count * inner + i)


def word_of(hw: HwConfig, mem: Mem, parts: list[int]) -> int:
    """The word whose beats are ``parts``."""
    bits = hw.axi_data_bits
    if mem == Mem.IDBUF:
        return parts[0] & 0xFFFFFFFF
    if mem in CODE and hw.kind == "ternary":
        half = bits // 2
        low = sum((part & (1 << half) - 1) << s * half for s, part in enumerate(parts))
        return low | sum((part >> half) << s * half for s, part in enumerate(parts)) << hw.lanes
    return sum(part << s * bits for s, part in enumerate(parts))


def parts_of(hw: HwConfig, mem: Mem, word: int) -> list[int]:
    """The beats of a word: inverse of word_of (an id keeps its low 32 bits)."""
    bits, count = hw.axi_data_bits, beats(hw, mem)
    if mem == Mem.IDBUF:
        return [word & 0xFFFFFFFF]
    if mem in CODE and hw.kind == "ternary":
        half = bits // 2
        ones = (1 << half) - 1
        return [word >> s * half & ones | (word >> hw.lanes + s * half & ones) << half for s in range(count)]
    return [word >> s * bits & (1 << bits) - 1 for s in range(count)]


def _row_beats(hw: HwConfig, fields: dict, row: bytes) -> list[int]:
    """A row as on-chip beats; ``expand`` makes two of each."""
    size = hw.axi_bytes
    plain = [int.from_bytes(row[at:at + size], "little") for at in range(0, len(row), size)]
    if not fields.get("expand"):
        return plain
    half = hw.axi_data_bits // 2
    ones = (1 << half) - 1
    return [ones | (~(beat >> part * half) & ones) << half for beat in plain for part in (0, 1)]


def load(hw: HwConfig, words: dict, external: bytearray, fields: dict) -> None:
    per_word, size = beats(hw, fields["mem"]), row_bytes(hw, fields)
    queue: dict[int, list[int]] = {}
    for o, place in places(hw, fields):
        if o not in queue:
            step = words[Mem.IDBUF, 0, fields["index"] + o] & 0xFFFFFFFF if fields.get("indirect") else o
            at = fields["dram"] + step * fields["stride"]
            queue[o] = _row_beats(hw, fields, bytes(external[at:at + size]))
        words[place] = word_of(hw, fields["mem"], queue[o][:per_word])
        del queue[o][:per_word]


def store(hw: HwConfig, words: dict, external: bytearray, fields: dict) -> None:
    at = {}
    for o, place in places(hw, fields):
        position = at.setdefault(o, fields["dram"] + o * fields["stride"])
        for part in parts_of(hw, fields["mem"], words[place]):
            external[position:position + hw.axi_bytes] = part.to_bytes(hw.axi_bytes, "little")
            position += hw.axi_bytes
        at[o] = position
