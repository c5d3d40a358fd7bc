"""What LOAD and STORE move: words, banks and rows in external memory."""

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Mem
from ternbin.contract.memories import ceil_div, geometry

TRITS = 5  # codes in a byte of packed trits


def transfer_words(hw: HwConfig, mem: Mem) -> int:
    """Addressable words of a bank as LOAD and STORE count them (tables: beats)."""
    return geometry(hw, mem).words if mem not in (Mem.LUTV, Mem.LUTX) else ceil_div(256 * 16, hw.axi_data_bits)


def bank_words(hw: HwConfig, mem: Mem) -> int:
    """Words, of as many consecutive banks, that LOAD moves as one: it sees WBUF as fewer banks of wider words."""
    return hw.load_words if mem == Mem.WBUF else 1


def transfer_banks(hw: HwConfig, mem: Mem) -> int:
    """Banks of a memory as LOAD and STORE count them."""
    return geometry(hw, mem).banks // bank_words(hw, mem)


def transfer_bits(hw: HwConfig, mem: Mem) -> int:
    """Bits in external memory of one word of a LOAD or STORE without ``expand``."""
    return hw.axi_data_bits if mem in (Mem.IDBUF, Mem.LUTV, Mem.LUTX) else geometry(hw, mem).bits * bank_words(hw, mem)


def row_bytes(hw: HwConfig, mem: Mem, inner: int, expand: bool = False) -> int:
    """Bytes in external memory of a row of ``inner`` words: whole beats."""
    bits = inner * transfer_bits(hw, mem) // (2 if expand else 1)
    return ceil_div(bits, hw.axi_data_bits) * hw.axi_bytes


def packs_trits(hw: HwConfig, mem: Mem, expand: bool) -> bool:
    """Whether a LOAD reads five codes from a byte."""
    return mem == Mem.WBUF and hw.weight_pack == "5trit" and not expand


def external_rows(hw: HwConfig, mem: Mem, inner: int, outer: int, expand: bool) -> tuple[int, int]:
    """Rows in external memory of a LOAD or STORE, and the bytes of each: of packed trits one for each row tile."""
    if not packs_trits(hw, mem, expand):
        return outer, row_bytes(hw, mem, inner, expand)
    return outer // transfer_banks(hw, mem), ceil_div(inner * hw.rows * hw.lanes, TRITS * hw.axi_bytes) * hw.axi_bytes


def expand_words(hw: HwConfig, mem: Mem, words: int) -> int:
    """The least ``inner`` from ``words`` on that a LOAD with ``expand`` can move: whole beats of 1-bit codes."""
    step = max(1, 2 * hw.axi_data_bits // transfer_bits(hw, mem))
    return ceil_div(words, step) * step
