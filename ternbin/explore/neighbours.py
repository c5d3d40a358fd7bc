"""What the best point is sensitive to: the same with one field halved or doubled; and what would double its speed."""

from collections.abc import Callable, Iterable
from typing import Any

from ternbin.explore.evaluate import Record
from ternbin.explore.point import HARDWARE, Point, Value
from ternbin.explore.space import Space

Evaluate = Callable[[list[Point]], list[Record]]

# Halved and doubled: numbers of which any power of two makes sense. Widths of numbers are the model's, not the accelerator's.
MEMORIES = ("abuf_words", "wbuf_words", "kbuf_words", "rbuf_words", "sbuf_words", "pbuf_words", "idbuf_words")
SIZES = ("rows", "cols", "lanes", "axi_data_bits", *MEMORIES, "queue_depth", "burst_beats")
FIELDS = (*SIZES, "latency", "bandwidth", "clock_mhz")
LEAST = 1.005  # a speed-up below that is none
STEPS = 6


def sensitivity(space: Space, best: Record, evaluate: Evaluate) -> list[dict[str, Any]]:
    """For each field of ``FIELDS``, and each that the space varies: ``field``, ``value``, ``to`` and the ``figures`` there, or the
    ``reason`` for which there are none."""
    changes = list(_changes(space, best["point"]))
    records = evaluate([_with(best, {name: value}) for name, value in changes])
    return [
        {"field": name, "value": best["point"].get(name), "to": value}
        | {key: record[key] for key in ("figures", "reason") if key in record}
        for (name, value), record in zip(changes, records, strict=True)
    ]


def _changes(space: Space, point: dict[str, Value]) -> Iterable[tuple[str, Value]]:
    varied = {axis.name: axis.values for axis in space.axes}
    for name in dict.fromkeys([*varied, *FIELDS]):
        value = point[name]
        if name in FIELDS and isinstance(value, int | float):
            scaled = [value // 2 if isinstance(value, int) else value / 2, value * 2]
            yield from ((name, other) for other in scaled if other > 0 and not (name == "bandwidth" and other > 1))
        elif name in HARDWARE or name in ("latency", "bandwidth", "dram", "bits"):
            yield from ((name, other) for other in varied.get(name, ()) if other != value)


def doubling(best: Record, evaluate: Evaluate) -> list[dict[str, Any]]:
    """Fields doubled one after the other (latency halved), each time the one that shortens the time most, until it is half; the clock is
    left alone. ``field``, ``to``, ``speed`` over that of ``best``, and ``area`` over its."""
    changed: dict[str, Value] = {}
    steps: list[dict[str, Any]] = []
    now = best["figures"]
    while len(steps) < STEPS and best["figures"]["ms"] / now["ms"] < 2:
        point = best["point"] | changed
        tried = [{name: _faster(name, point[name])} for name in (*SIZES, "latency", "bandwidth")]
        tried.append({name: point[name] * 2 for name in ("rows", "lanes")})  # rows are at most lanes
        tried = [change for change in tried if all(point[name] != value for name, value in change.items())]
        records = evaluate([_with(best, changed | change) for change in tried])
        found = [(r["figures"], change) for r, change in zip(records, tried, strict=True) if "figures" in r]
        figures, change = min(found, key=lambda item: item[0]["ms"], default=(now, {}))
        if now["ms"] / figures["ms"] < LEAST:
            break
        changed |= change
        now = figures
        ratios = {
            name: now[figure] / best["figures"][figure]
            for name, figure in (("area", "area_mm2"), ("energy", "energy_uj"))
        }
        steps.append({"change": change, "speed": best["figures"]["ms"] / now["ms"], **ratios})
    return steps


def _faster(name: str, value: Any) -> Value:
    if name == "latency":
        return max(1, value // 2)
    return min(1.0, value * 2) if name == "bandwidth" else value * 2


def _with(best: Record, change: dict[str, Value]) -> Point:
    """The best point with some fields changed; keys and values stay where they are."""
    values = {"kv_external": best["kv_external"], **best["point"], **change}
    return Point.of(values, best.get("characterisation"))
