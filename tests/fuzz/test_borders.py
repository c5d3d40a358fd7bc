"""Every border refuses what is wrong with one line, or takes it; thousands of inputs more behind the marker soak."""

import pytest
from borders import BORDERS, Border
from fuzz import feed


@pytest.mark.parametrize("border", BORDERS, ids=lambda border: border.name)
def test_a_good_input_is_taken(border: Border) -> None:
    border.feed(border.good())
    assert border.counts["accepted"] == 1
    border.close()


@pytest.mark.parametrize("border", BORDERS, ids=lambda border: border.name)
def test_wrong_inputs_end_in_one_line(border: Border) -> None:
    feed(border, 25, seed=0)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("border", BORDERS, ids=lambda border: border.name)
def test_thousands_of_wrong_inputs_end_in_one_line(border: Border, seed: int) -> None:
    feed(border, 2000, seed=seed)
