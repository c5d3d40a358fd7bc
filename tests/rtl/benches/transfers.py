"""LOAD and STORE as pure functions on dictionaries, written from the text of docs/instruction-set.md alone.

On-chip contents are ``words[mem, bank, addr]`` (table entries: one bus beat each), external memory is a bytearray.
"""

from collections.abc import Iterator

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Mem

CODE = (Mem.ABUF, Mem.WBUF, Mem.KBUF)


def wide(hw: HwConfig) -> int:
    """Code words of a beat (G), 1 where the bus is not wider than one."""
    return max(hw.axi_data_bits // hw.code_word_bits, 1)


def load_words(hw: HwConfig) -> int:
    """Code words, of as many consecutive banks, that are written to WBUF in a cycle."""
    return wide(hw) if hw.weight_pack == "2bit" else max(2 * hw.axi_data_bits // hw.code_word_bits, 1)


def group(hw: HwConfig, fields: dict) -> int:
    """Banks that a word of a transfer is one word each of."""
    if fields["mem"] != Mem.WBUF:
        return 1
    return max(hw.axi_data_bits // hw.lanes, 1) if fields.get("expand") else load_words(hw)


def packed(hw: HwConfig, fields: dict) -> bool:
    """Whether a byte holds five trits."""
    return hw.weight_pack == "5trit" and fields["mem"] == Mem.WBUF and not fields.get("expand")


def banks(hw: HwConfig, mem: Mem) -> int:
    """Banks of a memory as it is built."""
    return {Mem.ABUF: hw.cols, Mem.WBUF: hw.rows, Mem.KBUF: hw.rows}.get(mem, 1)


def transfer_banks(hw: HwConfig, fields: dict) -> int:
    """Banks as the fields of LOAD and STORE count them."""
    return banks(hw, fields["mem"]) // group(hw, fields)


def rows(hw: HwConfig, fields: dict) -> int:
    """Rows in external memory."""
    return fields["outer"] // (transfer_banks(hw, fields) if packed(hw, fields) else 1)


def beats(hw: HwConfig, mem: Mem) -> int:
    """Bus beats of a word that takes at least one."""
    if mem in CODE:
        return hw.code_word_bits // hw.axi_data_bits
    return {Mem.RBUF: hw.res_word_bits, Mem.PBUF: hw.param_word_bits}.get(mem, hw.axi_data_bits) // hw.axi_data_bits


def row_beats(hw: HwConfig, fields: dict) -> int:
    """Beats of a row as the memories see them."""
    mem, inner = fields["mem"], fields["inner"]
    if packed(hw, fields):
        return (inner * hw.rows * hw.lanes + 5 * hw.axi_bytes - 1) // (5 * hw.axi_bytes)
    if mem in CODE:
        bits = inner * hw.code_word_bits * group(hw, fields)
        return (bits + hw.axi_data_bits - 1) // hw.axi_data_bits
    return inner * beats(hw, mem)


def whole_beats(hw: HwConfig, fields: dict) -> bool:
    """Whether a row of code words can be expanded."""
    return fields["inner"] * hw.code_word_bits * group(hw, fields) % (2 * hw.axi_data_bits) == 0


def row_bytes(hw: HwConfig, fields: dict) -> int:
    """Bytes of external memory that one row takes."""
    return row_beats(hw, fields) * hw.axi_bytes // (2 if fields.get("expand") else 1)


def places(hw: HwConfig, fields: dict) -> Iterator[tuple[int, tuple]]:
    """(row, (mem, bank, addr)) of every word, in order."""
    mem, inner, count = fields["mem"], fields["inner"], transfer_banks(hw, fields)
    size = group(hw, fields)
    per_row = fields["outer"] // rows(hw, fields)
    for o in range(fields["outer"]):
        for i in range(inner):
            at = fields.get("bank", 0) + o
            for g in range(size):
                yield o // per_row, (mem, at % count * size + g, fields["addr"] + at // count * inner + i)


def word_of(hw: HwConfig, mem: Mem, parts: list[int]) -> int:
    """The word whose beats are ``parts``."""
    bits = hw.axi_data_bits
    if mem == Mem.IDBUF:
        return parts[0] & 0xFFFFFFFF
    if mem in CODE and hw.kind == "ternary" and wide(hw) == 1:
        half = bits // 2
        low = sum((part & (1 << half) - 1) << s * half for s, part in enumerate(parts))
        return low | sum((part >> half) << s * half for s, part in enumerate(parts)) << hw.lanes
    return sum(part << s * bits for s, part in enumerate(parts))


def parts_of(hw: HwConfig, mem: Mem, word: int) -> list[int]:
    """The beats of a word: inverse of word_of (an id keeps its low 32 bits)."""
    bits, count = hw.axi_data_bits, beats(hw, mem)
    if mem == Mem.IDBUF:
        return [word & 0xFFFFFFFF]
    if mem in CODE and wide(hw) > 1:
        return [word]
    if mem in CODE and hw.kind == "ternary":
        half = bits // 2
        ones = (1 << half) - 1
        return [word >> s * half & ones | (word >> hw.lanes + s * half & ones) << half for s in range(count)]
    return [word >> s * bits & (1 << bits) - 1 for s in range(count)]


def _row_parts(hw: HwConfig, fields: dict, row: bytes) -> list[int]:
    """A row as on-chip beats, or where these hold several code words as words; ``expand`` makes two beats of each."""
    if packed(hw, fields):
        trits = [min(byte, 242) // 3**place % 3 - 1 for byte in row for place in range(5)]
        parts = []
        for at in range(0, len(trits) - hw.lanes + 1, hw.lanes):
            nz = sum((trits[at + lane] != 0) << lane for lane in range(hw.lanes))
            parts.append(nz | sum((trits[at + lane] < 0) << lane for lane in range(hw.lanes)) << hw.lanes)
        return parts
    bits = hw.code_word_bits if wide(hw) > 1 and fields["mem"] in CODE else hw.axi_data_bits
    value = int.from_bytes(row, "little")
    if not fields.get("expand"):
        return [value >> at & (1 << bits) - 1 for at in range(0, 8 * len(row), bits)]
    half = bits // 2
    ones = (1 << half) - 1
    return [ones | (~(value >> at) & ones) << half for at in range(0, 8 * len(row), half)]


def load(hw: HwConfig, words: dict, external: bytearray, fields: dict) -> None:
    per_word, size = 1 if packed(hw, fields) else max(1, beats(hw, fields["mem"])), row_bytes(hw, fields)
    queue: dict[int, list[int]] = {}
    for o, place in places(hw, fields):
        if o not in queue:
            step = words[Mem.IDBUF, 0, fields["index"] + o] & 0xFFFFFFFF if fields.get("indirect") else o
            at = fields["dram"] + step * fields["stride"]
            queue[o] = _row_parts(hw, fields, bytes(external[at : at + size]))
        parts = queue[o][:per_word]
        words[place] = parts[0] if packed(hw, fields) else word_of(hw, fields["mem"], parts)
        del queue[o][:per_word]


def store(hw: HwConfig, words: dict, external: bytearray, fields: dict) -> None:
    rows: dict[int, list[int]] = {}
    for o, place in places(hw, fields):
        rows.setdefault(o, []).extend(parts_of(hw, fields["mem"], words[place]))
    bits, size = (
        hw.code_word_bits if wide(hw) > 1 and fields["mem"] in CODE else hw.axi_data_bits,
        row_bytes(hw, fields),
    )
    for o, parts in rows.items():
        at = fields["dram"] + o * fields["stride"]
        external[at : at + size] = sum(part << k * bits for k, part in enumerate(parts)).to_bytes(size, "little")
