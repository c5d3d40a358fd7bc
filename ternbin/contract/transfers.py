"""What LOAD and STORE move: words and banks on chip, rows and beats in external memory. docs/instruction-set.md, "LOAD, STORE"."""

from typing import Any

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Mem
from ternbin.contract.memories import CODE_MEMORIES, TABLES, ceil_div, memories

TRITS = 5  # codes in a byte of packed trits
LOADABLE = tuple(mem for mem in Mem if mem != Mem.SBUF)
STORABLE = (Mem.ABUF, Mem.KBUF, Mem.RBUF, Mem.PBUF, Mem.IDBUF)


def transfer_words(hw: HwConfig, mem: Mem) -> int:
    """Addressable words of a bank as LOAD and STORE count them (tables: beats)."""
    memory = memories(hw)[mem]
    return ceil_div(memory.words * memory.bits, hw.axi_data_bits) if mem in TABLES else memory.words


def bank_words(hw: HwConfig, mem: Mem, expand: bool) -> int:
    """Words, of as many consecutive banks, that LOAD moves as one: it sees WBUF as fewer banks of wider words."""
    return (hw.sign_words if expand else hw.load_words) if mem == Mem.WBUF else 1


def transfer_banks(hw: HwConfig, mem: Mem, expand: bool) -> int:
    """Banks of a memory as LOAD and STORE count them; a power of two."""
    return memories(hw)[mem].banks // bank_words(hw, mem, expand)


def transfer_bits(hw: HwConfig, mem: Mem, expand: bool) -> int:
    """Bits in external memory of one word of a LOAD or STORE: a power of two."""
    if mem == Mem.IDBUF or mem in TABLES:
        return hw.axi_data_bits
    return memories(hw)[mem].bits * bank_words(hw, mem, expand) // (2 if expand else 1)


def word_beats(hw: HwConfig, mem: Mem, expand: bool) -> int:
    """Beats of one word, a power of two; 1 also where a beat holds several."""
    return max(1, transfer_bits(hw, mem, expand) // hw.axi_data_bits)


def beat_words(hw: HwConfig, mem: Mem, expand: bool) -> int:
    """Words of one beat, a power of two; 1 also where a word takes several."""
    return max(1, hw.axi_data_bits // transfer_bits(hw, mem, expand))


def row_bytes(hw: HwConfig, mem: Mem, inner: int, expand: bool = False) -> int:
    """Bytes in external memory of a row of ``inner`` words: whole beats."""
    return ceil_div(inner * transfer_bits(hw, mem, expand), hw.axi_data_bits) * hw.axi_bytes


def expand_words(hw: HwConfig, mem: Mem, words: int) -> int:
    """The least ``inner`` from ``words`` on that a LOAD with ``expand`` can move: whole beats."""
    step = beat_words(hw, mem, True)
    return ceil_div(words, step) * step


def can_expand(hw: HwConfig, mem: Mem) -> bool:
    """Whether 1-bit codes can be expanded on their way to ``mem``."""
    return hw.is_ternary and mem in CODE_MEMORIES


def packs_trits(hw: HwConfig, mem: Any, expand: Any) -> Any:
    """Whether a LOAD reads five codes from a byte; of integers or, in the RTL, values."""
    return (mem == Mem.WBUF) & (expand == 0) if hw.weight_pack == "5trit" else False


def tile_rows(hw: HwConfig) -> int:
    """``outer`` of a LOAD of packed trits is a multiple of this, a power of two: one row in external memory for each row tile."""
    return transfer_banks(hw, Mem.WBUF, False)


def external_rows(hw: HwConfig, mem: Mem, inner: int, outer: int, expand: bool) -> tuple[int, int]:
    """Rows in external memory of a LOAD or STORE, and the bytes of each: of packed trits one for each row tile."""
    if not packs_trits(hw, mem, expand):
        return outer, row_bytes(hw, mem, inner, expand)
    return outer // tile_rows(hw), ceil_div(inner * hw.rows * hw.lanes, TRITS * hw.axi_bytes) * hw.axi_bytes
