import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternbin.contract.isa import FIELDS, INSTRUCTION_BITS, Instruction, Op, Unit, decode, encode, layout
from ternbin.errors import InputError


@st.composite
def instructions(draw):
    op = draw(st.sampled_from(list(Op)))
    values = {}
    for name, width in FIELDS[op]:
        bits = abs(width)
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if width < 0 else (0, (1 << bits) - 1)
        values[name] = draw(st.integers(low, high))
    units = st.frozensets(st.sampled_from(list(Unit)))
    return Instruction(op, values, draw(units), draw(units))


@settings(derandomize=True)
@given(instructions())
def test_round_trip(instruction):
    assert decode(encode(instruction)) == instruction


@settings(derandomize=True)
@given(instructions(), st.integers(0, INSTRUCTION_BITS - 1))
def test_any_flipped_bit_is_refused(instruction, bit):
    with pytest.raises(InputError):
        decode(encode(instruction) ^ 1 << bit)


def test_fields_do_not_overlap():
    for op in Op:
        used = 0
        for low, bits, _ in layout(op).values():
            mask = ((1 << bits) - 1) << low
            assert not used & mask
            used |= mask


def test_values_that_do_not_fit_are_named():
    with pytest.raises(InputError) as caught:
        encode(Instruction(Op.GEMM, {"base": 2}))
    assert str(caught.value) == "GEMM: base must be from -2 to 1, not 2"
    with pytest.raises(InputError, match="QUANT: unknown field 'nosuch'"):
        encode(Instruction(Op.QUANT, {"nosuch": 1}))
