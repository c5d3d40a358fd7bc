"""Code kinds: what planes and packed bytes mean, against element-by-element references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternbin.errors import InputError
from ternbin.graph import qtypes

fast = settings(max_examples=60, deadline=None, derandomize=True)
ALPHABET = {
    "ternary": [-1, 0, 1],
    "binary": [-1, 1],
    "ternary_nn": [0, 1, 2],
    "binary_nn": [0, 1],
    "int8": list(range(-127, 128)),
    "uint8": list(range(256)),
    "odd8": list(range(-255, 256, 2)),
}
STORED = {
    "ternary": lambda q: q,
    "binary": lambda q: q,
    "ternary_nn": lambda q: q - 1,
    "binary_nn": lambda q: 2 * q - 1,
    "int8": lambda q: q,
    "uint8": lambda q: q,
    "odd8": lambda q: q,
}


@pytest.mark.parametrize("name", qtypes.KINDS)
def test_planes_of_every_code(name):
    codes = np.array(ALPHABET[name])
    planes = qtypes.to_planes(codes, name)
    assert len(planes) == qtypes.KINDS[name].planes
    for i, code in enumerate(ALPHABET[name]):
        stored = STORED[name](code)
        if name == "odd8":  # planes of -1 and +1
            assert all(nz[i] for nz, _ in planes)
            assert sum(-(1 << b) if neg[i] else 1 << b for b, (_, neg) in enumerate(planes)) == code
        elif qtypes.KINDS[name].eight_bit:
            bits = [bool(nz[i]) for nz, _ in planes]
            assert bits == [bool(stored >> b & 1) for b in range(8)] and not any(neg[i] for _, neg in planes)
        else:
            assert (planes[0][0][i], planes[0][1][i]) == (stored != 0, stored < 0)
    assert qtypes.from_planes(planes, name).tolist() == ALPHABET[name]
    assert qtypes.from_stored(qtypes.to_stored(codes, name), name).tolist() == ALPHABET[name]


@fast
@given(st.sampled_from(list(qtypes.KINDS)), st.integers(1, 3), st.integers(1, 40), st.integers(0, 2**20))
def test_pack_round_trip_and_size(name, rows, n, seed):
    codes = np.random.default_rng(seed).choice(ALPHABET[name], (rows, n))
    data = qtypes.pack(codes, name)
    bits = qtypes.KINDS[name].bits
    assert data.shape == (rows, n if bits == 8 else bits * ((n + 7) // 8))
    assert qtypes.unpack(data, name, n).tolist() == codes.tolist()


def test_pack_puts_the_first_code_in_bit_0():
    assert qtypes.pack(np.array([-1, 1, 0, 0, 0, 0, 0, 0, 1]), "ternary").tolist() == [0b11, 1, 0b01, 0]
    assert qtypes.pack(np.array([1, -1, 1]), "binary").tolist() == [0b010]


@pytest.mark.parametrize(
    "name, code, text",
    [
        ("ternary", 2, "[-1, 1]"),
        ("binary", 0, "{-1, 1}"),
        ("int8", -128, "[-127, 127]"),
        ("ternary_nn", -1, "[0, 2]"),
        ("uint8", 256, "[0, 255]"),
        ("odd8", 2, "[-255, 255] and odd"),
    ],
)
def test_codes_out_of_range(name, code, text):
    with pytest.raises(InputError) as error:
        qtypes.to_planes(np.array([1, code]), name)
    assert str(error.value) == f"{name} codes must be in {text}, not {code}"


def test_unknown_kind():
    with pytest.raises(InputError, match="^code kind must be one of ternary, binary, .*, not 'int4'$"):
        qtypes.kind_of("int4")
