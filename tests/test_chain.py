"""The whole chain on random models: every tensor of the RTL equals the integer reference."""

from dataclasses import replace

import pytest

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.errors import InputError
from ternbin.graph.activations import FUNCTIONS
from ternbin.models.families import families
from ternbin.verify import Case, draw_case, draw_hw, verify_case


def _covering(hw: HwConfig, *seeds: int) -> list[int]:
    """``seeds``, and the first others whose cases bring another family, new bits or another activation function."""
    chosen, seen = list(seeds), {value for seed in seeds for value in _kinds(draw_case(seed, hw))}
    for seed in range(100):
        new = set(_kinds(draw_case(seed, hw))) - seen
        if new:
            chosen, seen = [*chosen, seed], seen | new
    return chosen


def _kinds(case: Case) -> tuple[str, str, str]:
    return case.family, case.bits, case.sizes.activation


# Seed 2: thresholds that only matter once there are two keys.
TINY, TINY_BINARY = _covering(NAMED["tiny"], 2, 5, 9), (0, 1)
WIDE_BUS = {  # 4, 2 and 2 code words a beat
    "ternary": replace(NAMED["tiny"], name="wide", rows=8, axi_data_bits=128),
    "binary": replace(NAMED["tiny-binary"], name="wide-binary", rows=8, axi_data_bits=64),
    "packed": replace(NAMED["tiny"], name="packed", axi_data_bits=64, weight_pack="5trit"),
}


def together(hw: str) -> pytest.MarkDecorator:
    """Of the tests on one accelerator: in one process, for another would wait for its simulator to be built."""
    return pytest.mark.xdist_group(f"chain on {hw}")


def _assert_exact(seed: int, hw: HwConfig) -> None:
    record = verify_case(seed, hw)
    assert record["bit_exact"], f"seed {seed} on {hw.name}: {record['case']}: {record['first_divergence']}"
    assert record["tensors_checked"] > 10


@together("tiny")
@pytest.mark.parametrize("seed", TINY)
def test_random_models_on_a_ternary_array(seed):
    _assert_exact(seed, NAMED["tiny"])


@together("tiny-binary")
@pytest.mark.parametrize("seed", TINY_BINARY)
def test_random_models_on_a_binary_array(seed):
    _assert_exact(seed, NAMED["tiny-binary"])


@together("tiny-ternary8")
@pytest.mark.parametrize("seed", (0, 5, 7))
def test_random_models_on_an_array_that_takes_whole_codes(seed):
    _assert_exact(seed, NAMED["tiny-ternary8"])


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        pytest.param(kind, seed, marks=together(kind))
        for kind, seeds in (("ternary", (1, 2, 5)), ("binary", (1, 3)), ("packed", (1, 2, 6)))
        for seed in seeds
    ],
)
@pytest.mark.parametrize("kv_external", [False, True], ids=["on chip", "external"])
def test_random_models_with_a_bus_of_several_words(kind, seed, kv_external):
    _assert_exact(seed, replace(WIDE_BUS[kind], kv_external=kv_external))


def test_these_seeds_cover_what_they_should():
    cases = [draw_case(seed, NAMED["tiny"]) for seed in TINY]
    assert {case.family for case in cases} == {family.stock_types[0] for family in families()}
    assert {case.bits for case in cases} == {"2-2", "1-1", "2-8", "1-8"}
    assert {case.sizes.activation for case in cases} == {fn.name for fn in FUNCTIONS}
    assert {case.sizes.layers for case in cases} > {(1, 1)}
    assert any(case.sizes.heads * case.sizes.head_dim % NAMED["tiny"].rows for case in cases)
    assert any(case.stall_seed is not None for case in cases)


def test_random_hardware_differs_in_everything():
    drawn = [draw_hw(seed).asdict() for seed in range(40)]
    fixed = {field for field in drawn[0] if len({values[field] for values in drawn}) == 1}
    assert fixed == {"clock_mhz", "beams"}
    assert draw_hw(7) == draw_hw(7)


@pytest.mark.soak
@pytest.mark.parametrize(
    "hw", [NAMED["tiny"], NAMED["tiny-binary"], NAMED["tiny-ternary8"], *WIDE_BUS.values()], ids=lambda hw: hw.name
)
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_soak(seed, hw):
    _assert_exact_if_it_fits(seed, hw)


@pytest.mark.soak
@pytest.mark.parametrize("hw", [draw_hw(seed) for seed in range(8)], ids=lambda hw: hw.name)
@pytest.mark.parametrize("seed", range(2000, 2020))
def test_soak_on_random_hardware(seed, hw):
    _assert_exact_if_it_fits(seed, hw)


def _assert_exact_if_it_fits(seed: int, hw: HwConfig) -> None:
    try:
        _assert_exact(seed, hw)
    except InputError as error:
        pytest.skip(f"refused: {error}")
