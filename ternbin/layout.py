"""How values lie in the on-chip memories and in external memory: geometry of every memory, packing, unpacking.

Bits are numpy uint8 arrays of 0 and 1. A code word has shape ``[planes, lanes]``: nz and neg on a ternary array, the
one plane "positive" on a binary array. 8-bit codes are 8 such words, one a bit plane. docs/architecture.md, "Memories"
and "LOAD, STORE", says the same in words.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from ternbin.hw import HwConfig
from ternbin.isa import Mem

CODE_MEMORIES = (Mem.ABUF, Mem.WBUF, Mem.KBUF)
SCALE_WORDS = 4  # parameter words of one (M, B) pair
TRITS = 5  # codes in a byte of packed trits
MUL_BITS, BIAS_BITS = 24, 40
INT8_WEIGHTS = np.array([1, 2, 4, 8, 16, 32, 64, -128], dtype=np.int64)
UINT8_WEIGHTS = np.array([1, 2, 4, 8, 16, 32, 64, 128], dtype=np.int64)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


# ---- geometry -------------------------------------------------------------------------------------------------------


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


# ---- code words -----------------------------------------------------------------------------------------------------


def code_words(hw: HwConfig, stored: np.ndarray, words: int | None = None) -> np.ndarray:
    """Stored codes -1, 0, +1 ``[.., n]`` to words ``[.., words, planes, lanes]``; lanes beyond n are all-zero bits."""
    n = stored.shape[-1]
    words = ceil_div(n, hw.lanes) if words is None else words
    planes = [stored != 0, stored < 0] if hw.planes == 2 else [stored > 0]
    return np.stack([_lanes(hw, plane, words) for plane in planes], axis=-2)


def plane_words(hw: HwConfig, codes: np.ndarray, words: int | None = None) -> np.ndarray:
    """8-bit codes ``[.., n]`` to words ``[.., 8, words, planes, lanes]``."""
    codes = np.asarray(codes, dtype=np.int64)
    words = ceil_div(codes.shape[-1], hw.lanes) if words is None else words
    bits = np.stack([_lanes(hw, codes >> p & 1, words) for p in range(8)], axis=-3)
    first = bits[..., None, :]
    return first if hw.planes == 1 else np.concatenate([first, np.zeros_like(first)], axis=-2)


def _lanes(hw: HwConfig, values: np.ndarray, words: int) -> np.ndarray:
    out = np.zeros((*values.shape[:-1], words * hw.lanes), dtype=np.uint8)
    out[..., : values.shape[-1]] = values
    return out.reshape(*values.shape[:-1], words, hw.lanes)


def word_codes(hw: HwConfig, words: np.ndarray) -> np.ndarray:
    """Words ``[.., planes, lanes]`` to the integers that the array multiplies, ``[.., lanes]``."""
    words = words.astype(np.int64)
    if hw.planes == 1:
        return 2 * words[..., 0, :] - 1
    return words[..., 0, :] * (1 - 2 * words[..., 1, :])


# ---- external memory ------------------------------------------------------------------------------------------------


def to_bytes(bits: np.ndarray) -> np.ndarray:
    """Bits ``[.., n]`` to bytes ``[.., n/8]``, bit 0 first."""
    return np.packbits(bits, axis=-1, bitorder="little")


def from_bytes(data: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_bytes`."""
    return np.unpackbits(data, axis=-1, bitorder="little")


def weight_rows(hw: HwConfig, codes: np.ndarray) -> np.ndarray:
    """Codes ``[rows, inner * lanes]`` of consecutive banks of WBUF in the order of a LOAD: one row for ``bank_words`` banks."""
    group = bank_words(hw, Mem.WBUF)
    return codes.reshape(len(codes) // group, group, -1, hw.lanes).swapaxes(1, 2).reshape(len(codes) // group, -1)


def code_row_bytes(hw: HwConfig, words: np.ndarray) -> np.ndarray:
    """Code words ``[.., words, planes, lanes]`` to rows of external memory ``[.., bytes]``: planar within each beat or word,
    whichever is smaller; zero bits fill the last beat."""
    lead, part = words.shape[:-3], min(hw.axi_data_bits // hw.planes, hw.lanes)
    parts = words.reshape(*lead, words.shape[-3], hw.planes, hw.lanes // part, part).swapaxes(-3, -2)
    bits = parts.reshape(*lead, -1)
    return to_bytes(np.pad(bits, [(0, 0)] * len(lead) + [(0, -bits.shape[-1] % hw.axi_data_bits)]))


def code_row_words(hw: HwConfig, data: np.ndarray) -> np.ndarray:
    """Inverse of :func:`code_row_bytes`: the words of whole beats."""
    lead, part = data.shape[:-1], min(hw.axi_data_bits // hw.planes, hw.lanes)
    parts = from_bytes(data).reshape(*lead, -1, hw.lanes // part, hw.planes, part).swapaxes(-3, -2)
    return parts.reshape(*lead, -1, hw.planes, hw.lanes)


def expand_row_bytes(hw: HwConfig, stored: np.ndarray, words: int) -> np.ndarray:
    """Binary codes -1, +1 ``[.., n]`` to rows of a LOAD with ``expand``: one bit a lane, 1 for +1."""
    bits = _lanes(hw, stored > 0, words)
    return to_bytes(bits.reshape(*stored.shape[:-1], -1))


def expand_row_words(hw: HwConfig, data: np.ndarray) -> np.ndarray:
    """Rows of a LOAD with ``expand`` to the code words that it writes: nz all ones, neg = NOT bit."""
    positive = from_bytes(data).reshape(*data.shape[:-1], -1, hw.lanes)
    return np.stack([np.ones_like(positive), 1 - positive], axis=-2)


def trit_row_bytes(hw: HwConfig, codes: np.ndarray) -> np.ndarray:
    """Codes -1, 0, 1 ``[.., n]`` to rows of packed trits: byte k = sum of (code 5k+j, plus 1) * 3^j; codes 0 fill the last beat."""
    size = ceil_div(codes.shape[-1], TRITS * hw.axi_bytes) * hw.axi_bytes
    trits = np.ones((*codes.shape[:-1], size * TRITS), dtype=np.uint8)
    trits[..., : codes.shape[-1]] = codes + 1
    places = (3 ** np.arange(TRITS)).astype(np.uint8)
    return (trits.reshape(*codes.shape[:-1], size, TRITS) * places).sum(-1, dtype=np.uint8)


def trit_row_codes(data: np.ndarray) -> np.ndarray:
    """Bytes ``[.., n]`` of packed trits to codes ``[.., 5n]``; 243 to 255 are read as 242."""
    values = np.minimum(data, 3**TRITS - 1)[..., None].astype(np.int64)
    return (values // 3 ** np.arange(TRITS) % 3 - 1).reshape(*data.shape[:-1], -1)


# ---- residual, parameter and table words ----------------------------------------------------------------------------


def residual_words(hw: HwConfig, values: np.ndarray) -> np.ndarray:
    """Residual values ``[.., n]`` to ``[.., words, rows]``, filled up with zeros."""
    words = ceil_div(values.shape[-1], hw.rows)
    out = np.zeros((*values.shape[:-1], words * hw.rows), dtype=np.int64)
    out[..., : values.shape[-1]] = values
    return out.reshape(*values.shape[:-1], words, hw.rows)


def int_bytes(values: np.ndarray, size: int) -> np.ndarray:
    """Integers ``[.., n]`` to little-end bytes ``[.., n*size]``, two's complement, size 2, 4 or 8."""
    data = np.ascontiguousarray(values, dtype=np.int64).astype(f"<i{size}")
    return data.view(np.uint8).reshape(*values.shape[:-1], -1)


def bytes_int(data: np.ndarray, size: int) -> np.ndarray:
    """Inverse of :func:`int_bytes`: int64."""
    return np.ascontiguousarray(data).view(f"<i{size}").astype(np.int64)


def scale_words(hw: HwConfig, mul: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """M and B ``[tiles*rows]`` to parameter words ``[tiles, 4, rows]`` of 16 bits (as signed integers)."""
    both = (bias.astype(np.int64) << MUL_BITS) | (mul.astype(np.int64) & ((1 << MUL_BITS) - 1))
    parts = int_bytes(both.reshape(-1, hw.rows, 1), 8).view("<i2").astype(np.int64)
    return parts.swapaxes(-2, -1)


def scale_values(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parameter words ``[.., 4, n]`` to M and B ``[.., n]``."""
    halves = words.astype(np.int64) & 0xFFFF
    both = sum(halves[..., j, :] << 16 * j for j in range(SCALE_WORDS))
    return both << (64 - MUL_BITS) >> (64 - MUL_BITS), both >> MUL_BITS


def threshold_words(hw: HwConfig, thresholds: np.ndarray) -> np.ndarray:
    """Thresholds ``[tiles*rows, n]`` to parameter words ``[tiles, n, rows]``."""
    return thresholds.reshape(-1, hw.rows, thresholds.shape[-1]).swapaxes(-2, -1)
