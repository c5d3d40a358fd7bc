"""How values lie in the words of on-chip memories and in the rows of external memory: packing and unpacking.

Bits are numpy uint8 arrays of 0 and 1. A code word has shape ``[planes, lanes]``: nz and neg on a ternary array, the
one plane "positive" on a binary array. 8-bit codes are 8 such words, one a bit plane. docs/instruction-set.md, "Memories"
and "LOAD, STORE", says the same in words.
"""

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Mem
from ternbin.contract.memories import PARAM_BITS, ceil_div
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.contract.transfers import TRITS, bank_words
from ternbin.graph.fixedpoint import MUL_BITS
from ternbin.graph.qtypes import Kind, odd_bits

INT8_WEIGHTS = np.array([1, 2, 4, 8, 16, 32, 64, -128], dtype=np.int64)
UINT8_WEIGHTS = np.array([1, 2, 4, 8, 16, 32, 64, 128], dtype=np.int64)


# ---- code words -----------------------------------------------------------------------------------------------------


def code_words(hw: HwConfig, stored: np.ndarray, words: int | None = None) -> np.ndarray:
    """Stored codes -1, 0, +1 ``[.., n]`` to words ``[.., words, planes, lanes]``; lanes beyond n are all-zero bits."""
    placed = _lanes(hw, stored, ceil_div(stored.shape[-1], hw.lanes) if words is None else words)
    out = np.empty((*placed.shape[:-1], hw.planes, hw.lanes), dtype=bool)
    if hw.planes == 2:
        np.not_equal(placed, 0, out=out[..., 0, :])
        np.less(placed, 0, out=out[..., 1, :])
    else:
        np.greater(placed, 0, out=out[..., 0, :])
    return out.view(np.uint8)


def weight_planes(codes: np.ndarray, kind: Kind) -> np.ndarray:
    """Codes ``[.., n]`` of weights to what the array multiplies, plane by plane: -1, 0, +1 ``[.., planes * n]``, int8."""
    if kind.planes == 1:
        return codes
    bits = odd_bits(codes)[..., None, :] >> np.arange(kind.planes)[:, None] & 1
    return (2 * bits - 1).astype(np.int8).reshape(*codes.shape[:-1], -1)


def plane_words(hw: HwConfig, codes: np.ndarray, words: int | None = None) -> np.ndarray:
    """8-bit codes ``[.., n]`` to words ``[.., 8, words, planes, lanes]``."""
    codes = np.asarray(codes, dtype=np.int64)
    words = ceil_div(codes.shape[-1], hw.lanes) if words is None else words
    bits = np.stack([_lanes(hw, (codes >> p & 1).astype(np.uint8), words) for p in range(8)], axis=-3)
    first = bits[..., None, :]
    return first if hw.planes == 1 else np.concatenate([first, np.zeros_like(first)], axis=-2)


def _lanes(hw: HwConfig, values: np.ndarray, words: int) -> np.ndarray:
    """Values ``[.., n]`` in the lanes of words, ``[.., words, lanes]``; zeros in those beyond n."""
    return _padded(values, words * hw.lanes).reshape(*values.shape[:-1], words, hw.lanes)


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    """Values ``[.., n]``, and zeros after them up to ``count``."""
    if values.shape[-1] == count:
        return values
    out = np.zeros((*values.shape[:-1], count), dtype=values.dtype)
    out[..., : values.shape[-1]] = values
    return out


def word_codes(hw: HwConfig, words: np.ndarray) -> np.ndarray:
    """Words ``[.., planes, lanes]`` to the integers that the array multiplies, ``[.., lanes]``."""
    bits = words.astype(np.int8)
    codes = 2 * bits[..., 0, :] - 1 if hw.planes == 1 else bits[..., 0, :] * (1 - 2 * bits[..., 1, :])
    return codes.astype(np.int64)


# ---- external memory ------------------------------------------------------------------------------------------------


def to_bytes(bits: np.ndarray) -> np.ndarray:
    """Bits ``[.., n]`` to bytes ``[.., n/8]``, bit 0 first."""
    return np.packbits(bits, axis=-1, bitorder="little")


def from_bytes(data: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_bytes`."""
    return np.unpackbits(data, axis=-1, bitorder="little")


def weight_rows(hw: HwConfig, codes: np.ndarray, expand: bool) -> np.ndarray:
    """Codes ``[rows, inner * lanes]`` of consecutive banks of WBUF in the order of a LOAD: one row for ``bank_words`` banks."""
    group = bank_words(hw, Mem.WBUF, expand)
    return codes.reshape(len(codes) // group, group, -1, hw.lanes).swapaxes(1, 2).reshape(len(codes) // group, -1)


def code_row_bytes(hw: HwConfig, words: np.ndarray) -> np.ndarray:
    """Code words ``[.., words, planes, lanes]`` to rows of external memory ``[.., bytes]``: planar within each beat or word,
    whichever is smaller; zero bits fill the last beat."""
    lead, part = words.shape[:-3], min(hw.axi_data_bits // hw.planes, hw.lanes)
    parts = words.reshape(*lead, words.shape[-3], hw.planes, hw.lanes // part, part).swapaxes(-3, -2)
    bits = parts.reshape(*lead, -1)
    return to_bytes(_padded(bits, ceil_div(bits.shape[-1], hw.axi_data_bits) * hw.axi_data_bits))


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
    both = np.sum([halves[..., j, :] << PARAM_BITS * j for j in range(SCALE_WORDS)], axis=0)
    return both << (64 - MUL_BITS) >> (64 - MUL_BITS), both >> MUL_BITS


def threshold_words(hw: HwConfig, thresholds: np.ndarray) -> np.ndarray:
    """Thresholds ``[tiles*rows, n]`` to parameter words ``[tiles, n, rows]``."""
    return thresholds.reshape(-1, hw.rows, thresholds.shape[-1]).swapaxes(-2, -1)
