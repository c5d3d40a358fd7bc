"""On-chip memories: shape of every one of them."""

from dataclasses import dataclass
from functools import cache

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Mem

CODE_MEMORIES = (Mem.ABUF, Mem.WBUF, Mem.KBUF)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class Geometry:
    """One memory: ``words`` per bank of ``bits`` bits; ``elements`` a word (lanes of codes, values)."""

    banks: int
    words: int
    bits: int
    elements: int

    @property
    def word_bytes(self) -> int:
        """Bytes of a word in a dump: little end first, filled up with zero bits."""
        return ceil_div(self.bits, 8)


@cache
def geometry(hw: HwConfig, mem: Mem) -> Geometry:
    code = (hw.code_word_bits, hw.lanes)
    return {
        Mem.ABUF: Geometry(hw.cols, hw.abuf_words, *code),
        Mem.WBUF: Geometry(hw.rows, hw.wbuf_words, *code),
        Mem.KBUF: Geometry(hw.rows, hw.kbuf_words, *code),
        Mem.RBUF: Geometry(1, hw.rbuf_words, hw.res_word_bits, hw.rows),
        Mem.SBUF: Geometry(hw.cols, hw.sbuf_words, hw.score_word_bits, hw.rows),
        Mem.PBUF: Geometry(1, hw.pbuf_words, hw.param_word_bits, hw.rows),
        Mem.IDBUF: Geometry(1, hw.idbuf_words, 32 + 64, 1),
        Mem.LUTV: Geometry(1, 256, 16, 1),
        Mem.LUTX: Geometry(1, 256, 16, 1),
    }[mem]


ID_WORD_BITS = 96  # id (32 bits), then logit (64 bits)


def memory_banks(hw: HwConfig) -> dict[str, tuple[int, int, int]]:
    """Memory name -> (banks, words, word bits) of the on-chip memories that are SRAM."""
    return {
        "abuf": (hw.cols, hw.abuf_words, hw.code_word_bits),
        "wbuf": (hw.rows, hw.wbuf_words, hw.code_word_bits),
        "kbuf": (hw.rows, hw.kbuf_words, hw.code_word_bits),
        "rbuf": (1, hw.rbuf_words, hw.res_word_bits),
        "sbuf": (hw.cols, hw.sbuf_words, hw.score_word_bits),
        "pbuf": (1, hw.pbuf_words, hw.param_word_bits),
        "idbuf": (1, hw.idbuf_words, 96),
    }
