"""A verb that is stopped, or has no room to write, ends soon, loses nothing that was there, and goes on when it is given again."""

import pytest
from interruptions import disturb


def test_a_verb_that_is_disturbed_loses_nothing() -> None:
    assert disturb(1, seed=4, names=["rtl"]) == []


@pytest.mark.soak
@pytest.mark.build
def test_every_verb_disturbed_at_many_moments() -> None:
    assert disturb(30, seed=1) == []
