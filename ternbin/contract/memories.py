"""The on-chip memories: what each is made of, said once for mapper, machine, RTL, simulator and energy."""

from dataclasses import dataclass, replace
from functools import cache

from ternbin.contract.hw import BYTE_PLANES, HwConfig
from ternbin.contract.isa import Mem

CODE_MEMORIES = (Mem.ABUF, Mem.WBUF, Mem.KBUF)
TABLES = (
    Mem.LUTV,
    Mem.LUTX,
)  # registers of the units that look up; not made of RAM banks, their accesses are not counted
PLANES = "abuf_planes"  # what holds the further planes of 8-bit codes, where an array reads them whole
TABLE_ENTRIES, TABLE_BITS = 256, 16
ID_BITS, LOGIT_BITS = 32, 64  # of a word of IDBUF
ID_WORD_BITS = ID_BITS + LOGIT_BITS
PARAM_BITS = 16  # of an element of PBUF


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """``banks`` equal banks of ``words`` words of ``bits`` bits.

    ``elements`` are the parts of a word that can be written separately, ``planes`` how often the mask of elements repeats in it: bit e
    of the mask covers ``bits / (elements * planes)`` bits of every plane. One write brings ``write_words`` words: word w for the
    banks b with ``b % write_words == w``.
    """

    banks: int = 1
    words: int
    bits: int
    elements: int = 1
    planes: int = 1
    write_words: int = 1

    @property
    def word_bytes(self) -> int:
        """Bytes of a word in a dump: little end first, filled up with zero bits."""
        return ceil_div(self.bits, 8)


@cache
def memories(hw: HwConfig) -> dict[Mem, Memory]:
    """All memories of an accelerator, in the order of ``Mem``."""
    code = {"bits": hw.code_word_bits, "elements": hw.lanes, "planes": hw.planes}
    weights = {**code, "bits": hw.lanes * hw.weight_planes, "planes": hw.weight_planes}
    table = Memory(words=TABLE_ENTRIES, bits=TABLE_BITS)
    return {
        Mem.ABUF: Memory(banks=hw.cols, words=hw.abuf_words, **code),
        Mem.WBUF: Memory(banks=hw.rows, words=hw.wbuf_words, write_words=hw.sign_words, **weights),
        Mem.KBUF: Memory(banks=hw.rows, words=hw.kbuf_words, **code),
        Mem.RBUF: Memory(words=hw.rbuf_words, bits=hw.res_word_bits, elements=hw.rows),
        Mem.PBUF: Memory(words=hw.pbuf_words, bits=hw.param_word_bits, elements=hw.rows),
        Mem.IDBUF: Memory(words=hw.idbuf_words, bits=ID_WORD_BITS),
        Mem.LUTV: table,
        Mem.LUTX: table,
        Mem.SBUF: Memory(banks=hw.cols, words=hw.sbuf_words, bits=hw.score_word_bits, write_words=hw.cols),
    }


@cache
def made_of(hw: HwConfig) -> dict[str, Memory]:
    """What the memories are made of, by the name of their counters: as ``banked``, but ABUF of an array that reads whole 8-bit codes is
    ``cols`` banks of ``plane_words`` code words, and ``PLANES``, as many for each further plane, of one bit a lane."""
    result = dict(banked(hw))
    if hw.whole_columns:
        words, others = hw.plane_words, hw.cols * (BYTE_PLANES - 1)
        result["abuf"] = replace(result["abuf"], words=words)
        result[PLANES] = Memory(banks=others, words=words, bits=hw.lanes, elements=hw.lanes)
    return result


@cache
def banked(hw: HwConfig) -> dict[str, Memory]:
    """The memories that are made of RAM banks, all but the tables, by the name of their instance and of their counters."""
    return {mem.name.lower(): memory for mem, memory in memories(hw).items() if mem not in TABLES}
