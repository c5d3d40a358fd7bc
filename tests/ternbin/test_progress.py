"""The forecast of a run's cycles."""

from ternbin.progress import Forecast


def test_exact_where_the_prediction_is():
    cycles, instructions = [1000, 700, 840, 980], [50, 20, 24, 28]
    forecast, past = Forecast(cycles, instructions), 0
    for call, (expected, count) in enumerate(zip(cycles, instructions, strict=True)):
        for quarter in (1, 2, 3, 4):
            assert forecast(call, expected * quarter // 4, count * quarter // 4) == (
                past + expected * quarter // 4,
                sum(cycles),
            )
        past += expected


def test_calls_that_take_longer_are_expected_to_go_on_so():
    forecast = Forecast([100, 10, 20], [50, 20, 20])
    assert forecast(0, 90, 49) == (90, 130)
    assert forecast(0, 120, 49) == (120, 150)
    assert forecast(0, 200, 50) == (200, 260)
    assert forecast(1, 8, 1) == (208, 260)
    assert forecast(1, 25, 1) == (225, 265)
    assert forecast(1, 20, 20) == (220, 260)
    assert forecast(2, 42, 20) == (262, 262)
