"""trace.json as the viewers read it: every instruction once, and no two spans of a track at the same time."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ternbin import results
from ternbin.report.trace import UNITS, trace

EXAMPLE = Path(__file__).parents[2] / "reports/example"


def check(found: dict, result: dict) -> None:
    """The rules of the format, and that nothing was lost."""
    names = {e["tid"]: e["args"]["name"] for e in found["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"}
    spans = [e for e in found["traceEvents"] if e["ph"] == "X"]
    assert len(set(names.values())) == len(names) and {e["tid"] for e in spans} <= set(names)
    assert {name.split()[0] for name in names.values()} == set(UNITS)
    tracks = defaultdict(list)
    for span in spans:
        assert span["pid"] == 0 and span["dur"] >= 0
        tracks[span["tid"]].append((span["ts"], span["ts"] + span["dur"]))
    for own in tracks.values():
        assert all(end <= start for (_, end), (start, _) in zip(sorted(own), sorted(own)[1:], strict=False))
    begin = [sum(result["call_cycles"][:n]) for n in range(len(result["call_cycles"]))]
    wanted = Counter(
        (e["unit"], e["op"], e["call"], begin[e["call"]] + e["start"], e["end"] - e["start"])
        for e in result["timeline"]
    )
    assert wanted == Counter(
        (names[e["tid"]].split()[0], e["name"], e["args"]["call"], e["ts"], e["dur"]) for e in spans
    )


def test_of_the_example():
    example = results.load(EXAMPLE)
    check(trace(example), example)


def test_the_committed_one_is_that_of_its_result():
    import json

    assert json.loads((EXAMPLE / "trace.json").read_text(encoding="utf-8")) == trace(results.load(EXAMPLE))


entries = st.tuples(st.sampled_from(UNITS), st.integers(0, 2), st.integers(0, 60), st.integers(0, 40))


@given(st.lists(entries, max_size=40))
def test_of_any_timeline(spans):
    timeline = [
        {"unit": unit, "op": f"op {n}", "call": call, "start": start, "end": start + length}
        for n, (unit, call, start, length) in enumerate(spans)
    ]
    result = {"call_cycles": [100, 100, 100], "timeline": timeline}
    check(trace(result), result)


def test_the_check_finds_an_overlap():
    spans = [("a", 0, 10), ("b", 5, 15)]
    timeline = [{"unit": "load", "op": op, "call": 0, "start": start, "end": end} for op, start, end in spans]
    result = {"call_cycles": [20], "timeline": timeline}
    found = trace(result)
    check(found, result)
    for event in found["traceEvents"]:
        event["tid"] = event["tid"] // 100 * 100
    with pytest.raises(AssertionError):
        check(found, result)
