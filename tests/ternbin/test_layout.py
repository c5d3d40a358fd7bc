"""Packing of external memory: what goes in comes out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Mem
from ternbin.contract.rows import (
    code_row_bytes,
    code_row_words,
    code_words,
    trit_row_bytes,
    trit_row_codes,
    weight_rows,
)
from ternbin.contract.transfers import expand_words, external_rows, row_bytes

WIDE = HwConfig(rows=8, lanes=16, axi_data_bits=128)
PACKED = HwConfig(rows=8, lanes=16, axi_data_bits=128, weight_pack="5trit")
CODES = st.lists(st.integers(-1, 1), min_size=1, max_size=400).map(lambda codes: np.array(codes, dtype=np.int8))


@given(codes=CODES, bits=st.sampled_from([32, 64, 128]))
def test_packed_trits_come_back(codes, bits):
    hw = HwConfig(rows=8, lanes=16, axi_data_bits=bits, weight_pack="5trit")
    data = trit_row_bytes(hw, codes)
    assert len(data) % hw.axi_bytes == 0 and len(data) < len(codes) / 5 + hw.axi_bytes
    back = trit_row_codes(data)
    assert (back[: len(codes)] == codes).all() and not back[len(codes) :].any()


def test_a_byte_of_packed_trits():
    assert trit_row_bytes(PACKED, np.array([1, 0, -1, -1, 1]))[0] == 2 + 1 * 3 + 2 * 81
    assert trit_row_codes(np.array([242, 243, 255], dtype=np.uint8)).tolist() == [1] * 15


@given(codes=CODES, bits=st.sampled_from([16, 32, 64, 128]), lanes=st.sampled_from([16, 32, 64]))
def test_code_rows_come_back(codes, bits, lanes):
    hw = HwConfig(rows=8, lanes=lanes, axi_data_bits=max(bits, 32))
    words = code_words(hw, codes)
    data = code_row_bytes(hw, words)
    assert len(data) == row_bytes(hw, Mem.ABUF, len(words))
    back = code_row_words(hw, data)
    assert (back[: len(words)] == words).all() and not back[len(words) :].any()


@pytest.mark.parametrize(("expand", "banks"), [(False, 4), (True, 8)], ids=["2 bits", "1 bit"])
def test_weights_of_as_many_banks_as_a_beat_is_for_lie_side_by_side(expand, banks):
    codes = np.arange(8 * 32).reshape(8, 32)  # 8 banks of 2 words
    loaded = weight_rows(WIDE, codes, expand).reshape(8 // banks, 2, banks, 16)
    for row in range(8 // banks):
        for i in range(2):
            for g in range(banks):
                assert (loaded[row, i, g] == codes[banks * row + g, 16 * i : 16 * i + 16]).all()


@pytest.mark.parametrize(
    ("hw", "rows"), [(WIDE, (6, 5 * 16)), (PACKED, (6, 5 * 8 * 16 // 80 * 16))], ids=["2 bits", "packed"]
)
def test_rows_of_weights_in_external_memory(hw, rows):
    assert external_rows(hw, Mem.WBUF, 5, 6, False) == rows


def test_expanded_rows_are_whole_beats():
    assert [expand_words(WIDE, Mem.ABUF, n) for n in (1, 8, 9)] == [8, 8, 16]
    assert [expand_words(WIDE, Mem.WBUF, n) for n in (1, 2, 3)] == [1, 2, 3]
    assert expand_words(PACKED, Mem.WBUF, 3) == 3
