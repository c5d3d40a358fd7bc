"""The forecast of a run's cycles."""

import pytest

from ternbin.progress import Forecast


def test_exact_where_work_is_what_takes_time():
    work, instructions = [100, 10, 12, 14], [50, 20, 24, 28]
    cycles = [1000, 700, 840, 980]  # decoder calls cost seven times what their work says, the encoder ten times
    forecast, past = Forecast(work, instructions), 0
    for call, (expected, count) in enumerate(zip(cycles, instructions, strict=True)):
        for quarter in (1, 2, 3, 4):
            so_far, total = forecast(call, expected * quarter // 4, count * quarter // 4)
            assert so_far == past + expected * quarter // 4 <= total
            if call:
                assert total == sum(cycles)
        past += expected
    assert so_far == total == sum(cycles)


@pytest.mark.parametrize("done", [0, 1])
def test_first_report_of_a_call(done):
    forecast = Forecast([100, 10], [50, 20])
    assert forecast(0, 1000, 50) == (1000, 1100)
    so_far, total = forecast(1, 8, done)
    assert so_far == 1008 < total
