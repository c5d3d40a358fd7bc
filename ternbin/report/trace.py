"""The timeline of a result in the trace event format, which Perfetto and chrome://tracing open.

Events of one track of that format must not overlap but nest. A unit has several instructions in flight, so it gets as many tracks as it
has at once; what lies inside another is not a part of it, so nothing nests.
"""

from ternbin.results import Result

UNITS = ("load", "execute", "vector", "store")
_TRACKS = 100  # numbers of tracks that a unit has room for; more than its queue holds


def trace(result: Result) -> Result:
    """One microsecond a cycle, calls one after the other."""
    spans, tracks = [], []
    for number, unit in enumerate(UNITS):
        ends: list[int] = []  # of the last span of each track of the unit
        for start, end, entry in sorted(_spans(result, unit), key=lambda span: span[:2]):
            track = next((n for n, free in enumerate(ends) if free <= start), len(ends))
            ends[track : track + 1] = [end]
            spans.append(_span(number * _TRACKS + track, start, end, entry))
        tracks += [
            _named(number * _TRACKS + n, unit if n == 0 else f"{unit} {n + 1}") for n in range(max(1, len(ends)))
        ]
    return {"traceEvents": tracks + spans, "displayTimeUnit": "ms"}


def _spans(result: Result, unit: str) -> list[tuple[int, int, Result]]:
    """(start, end, entry) of every instruction of a unit, in cycles of the run."""
    begin = [sum(result["call_cycles"][:call]) for call in range(len(result["call_cycles"]))]
    return [
        (begin[entry["call"]] + entry["start"], begin[entry["call"]] + entry["end"], entry)
        for entry in result["timeline"]
        if entry["unit"] == unit
    ]


def _span(track: int, start: int, end: int, entry: Result) -> Result:
    fields = {"ph": "X", "name": entry["op"], "pid": 0, "tid": track, "ts": start, "dur": end - start}
    return fields | {"args": {"call": entry["call"]}}


def _named(track: int, name: str) -> Result:
    return {"ph": "M", "name": "thread_name", "pid": 0, "tid": track, "args": {"name": name}}
