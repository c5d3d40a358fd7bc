"""Plots of a run's page: every value where its axis says it is."""

import re
from xml.etree import ElementTree

import pytest

from ternbin.report.plots import UNITS, cycles_by_op, layer_utilization, timeline
from ternbin.report.svg import Axes, Scale, picture, stacked

PHASES = [{"name": "prefill", "calls": 1}, {"name": "decode", "calls": 2}]
OPS = [
    {"phase": "prefill", "name": "enc.0.self.q", "macs": 40, "bytes": 8, "cycles": {"load": 300, "execute": 100}},
    {"phase": "prefill", "name": "enc.0.<ln>", "macs": 0, "bytes": 8, "cycles": {"vector": 50}},
    {"phase": "decode", "name": "lm_head", "macs": 20, "bytes": 8, "cycles": {"store": 7}},
]
TIMELINE = [
    {"call": 0, "unit": "execute", "op": "enc.0.self.q", "start": 10, "end": 20},
    {"call": 1, "unit": "store", "op": "lm_head", "start": 0, "end": 10},
    {"call": 2, "unit": "load", "op": "lm_head", "start": 5, "end": 10},
]
RESULT = {"phases": PHASES, "ops": OPS, "timeline": TIMELINE, "hardware": {"peak_macs": 10}}


def boxes(text):
    """(left, right) of every box of a path, by path."""
    paths = [node.get("d") or "" for node in ElementTree.fromstring(text).iter() if node.tag.endswith("path")]
    found = [re.findall(r"M([\d.]+) [\d.]+H([\d.]+)V[\d.]+H", path) for path in paths]
    return [[(float(a), float(b)) for a, b in own] for own in found]


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0, 10), [0, 2, 4, 6, 8, 10]),
        (Scale(0, 0.9), [0, 0.2, 0.4, 0.6, 0.8]),
        (Scale(0, 43_000), [0, 10_000, 20_000, 30_000, 40_000]),
        (Scale(0.8, 320, log=True), [1, 10, 100]),
        (Scale(1, 1000, log=True), [1, 10, 100, 1000]),
    ],
)
def test_ticks(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


def test_points_of_axes():
    plot = Axes(10, 20, 100, 40, Scale(1, 100, log=True), Scale(0, 4))
    assert plot.at(1, 0) == (10, 20) and plot.at(100, 4) == (110, 60) and plot.at(10, 1) == (60, 30)


def test_parts_of_a_bar_lie_end_to_end():
    assert list(stacked([[3, 0, 2], [0, 4, 1]])) == [
        [(0, 3, 0.1, 0.9)],
        [(0, 4, 1.1, 1.9)],
        [(3, 5, 0.1, 0.9), (4, 5, 1.1, 1.9)],
    ]


def test_cycles_by_op_are_in_proportion():
    load, execute, vector, store = (own for own in boxes(cycles_by_op(RESULT))[:4])
    (a, b), (c, d), (e, f) = load[0], execute[0], vector[0]
    assert b == c and (b - a) == pytest.approx(3 * (d - c), abs=0.3) and (f - e) == pytest.approx((d - c) / 2, abs=0.2)
    assert not store


def test_the_timeline_shows_the_first_and_the_last_call():
    text = timeline(RESULT)
    assert [len(own) for own in boxes(text)[:4]] == [0, 1, 0, 0]  # call 0
    assert [len(own) for own in boxes(text)[5:9]] == [1, 0, 0, 0]  # call 2
    assert all(unit in text for unit in UNITS) and "decode call 2" in text and "decode call 1" not in text


def test_utilization_is_told_and_names_are_escaped():
    assert "40%" in layer_utilization(RESULT) and "enc.0.&lt;ln&gt;" in cycles_by_op(RESULT)


def test_nothing_to_draw_is_an_empty_picture():
    empty = RESULT | {"ops": [], "timeline": TIMELINE[:1]}
    for text in (cycles_by_op(empty), layer_utilization(empty), picture(10, 10, [])):
        ElementTree.fromstring(text)
