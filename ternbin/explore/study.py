"""An exploration from its space to what is said of it: records, front, sensitivity, validation. The report is made from that alone."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ternbin import formats
from ternbin.explore.engines import Engine
from ternbin.explore.evaluate import FIGURES, MORE, Record, program_key
from ternbin.explore.front import bests, binds, broken, feasible, front
from ternbin.explore.neighbours import doubling, sensitivity
from ternbin.explore.point import HARDWARE, Point, Value
from ternbin.explore.records import RecordFile
from ternbin.explore.samplers import groups
from ternbin.explore.search import Explored, Told, explore, header
from ternbin.explore.space import RANKED, Space
from ternbin.version import __version__

RECORDS, NEIGHBOURS = "records.jsonl", "neighbours.jsonl"
Step = Callable[[str], None]  # is told what comes next


def _silent(_: str) -> None:
    pass


def _untold(_done: int, _total: int) -> None:
    pass


def study(
    space: Space,
    out: Path,
    engine: Engine,
    *,
    restart: bool = False,
    validate: int = 0,
    gates: bool = False,
    sensitive: bool = True,
    told: Told = _untold,
    step: Step = _silent,
) -> tuple[dict[str, Any], list[Record]]:
    """The fields of explore.json, and all records with ``fidelity`` and ``front``. Records are kept in ``out``, and gone on from.

    ``validate``: how many of the best points are simulated in RTL, with ``gates`` also synthesized. Raises InputError, CheckError,
    MissingToolError.
    """
    explored = explore(space, out / RECORDS, engine, restart=restart, told=told)
    found = front(space, explored.records)
    summary = _summary(explored, found)
    if found and sensitive:
        step("sensitivity of the best point")
        summary |= _around(space, found[0], out / NEIGHBOURS, engine, restart)
    summary["validation"] = []
    for number, record in enumerate(found[:validate], 1):
        step(f"validating point {number} of {min(validate, len(found))}")
        summary["validation"].append(_validated(space, record, gates))
    names = {record["id"]: f"point{place}" for place, record in enumerate(found, 1)}
    summary["hardware"] = {
        names[record["id"]]: hardware_toml(record, names[record["id"]], space.name) for record in found
    }
    return summary, _marked(space, explored.records, found, summary["validation"])


def _summary(explored: Explored, found: list[Record]) -> dict[str, Any]:
    space, records = explored.space, explored.records
    reasons = Counter(record["reason"] for record in records if "reason" in record)
    return {
        "schema": formats.EXPLORATION,
        "ternbin": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **header(space),
        "size": space.size,
        "sampler": asdict(space.sampling),
        "objectives": {name: RANKED[name] for name in space.objectives},
        "constraints": {name: asdict(bound) for name, bound in space.constraints.items()},
        "figures": FIGURES | MORE,
        "points": len(records),
        "evaluated": sum("figures" in record for record in records),
        "feasible": len(feasible(space, records)),
        "reasons": dict(reasons.most_common(20)),
        "fresh": explored.fresh,
        "seconds": explored.seconds,
        "points_per_second": explored.rate,
        "front": [record["id"] for record in found],
        "bests": bests(space.objectives, found) if found else {},
        "sensitivity": [],
        "doubling": [],
    }


def _around(space: Space, best: Record, path: Path, engine: Engine, restart: bool) -> dict[str, Any]:
    """``sensitivity`` and ``doubling`` of a point; what is evaluated for them has a file of its own."""
    best = best | {"characterisation": space.characterisation}
    file = RecordFile(path, header(space), restart=restart)

    def evaluate(points: list[Point]) -> list[Record]:
        new = [point for point in dict.fromkeys(points) if point.id not in file.records]
        for got in engine.run(groups(new, program_key, 4)):
            for record in got:
                file.add(record)
        return [file.records[point.id] for point in points]

    try:
        return {"sensitivity": sensitivity(space, best, evaluate), "doubling": doubling(best, evaluate)}
    finally:
        file.close()


def _validated(space: Space, record: Record, gates: bool) -> dict[str, Any]:
    from ternbin.explore.validate import simulate, synthesize

    point = Point.of(record["point"] | {"kv_external": record["kv_external"]}, space.characterisation)
    found: dict[str, Any] = {"id": record["id"], "rtl": simulate(point)}
    return found | ({"gates": synthesize(point)} if gates else {})


def _marked(space: Space, records: list[Record], found: list[Record], validation: list[dict[str, Any]]) -> list[Record]:
    """Records with ``front`` (place, from 1), ``fidelity`` (what the point rests on), ``broken`` (bounds) and ``binds`` by phase."""
    places = {record["id"]: place for place, record in enumerate(found, 1)}
    rests = {each["id"]: "RTL, gates" if "gates" in each else "RTL" for each in validation}
    marked: list[Record] = []
    for record in records:
        more: dict[str, Any] = {"front": places.get(record["id"]), "fidelity": rests.get(record["id"], "model")}
        if "figures" in record:
            more |= {
                "broken": broken(space, record),
                "binds": {name: binds(own) for name, own in record["busy"].items()},
            }
        marked.append(record | more)
    return marked


# ---- files ----------------------------------------------------------------------------------------------------------


def hardware_toml(record: Record, name: str, title: str) -> str:
    """A ``--hw`` file of a point's accelerator, with the command that runs it."""
    point = record["point"]
    values = {field: point.get(field, record.get(field)) for field in HARDWARE} | {"name": name}
    beams, texts = point["beams"], point["texts"]
    run = f"ternbin run --hw {name}.toml --bits {point['bits']} --max-new-tokens {point['new_tokens']}"
    run += f" --latency {point['latency']} --bandwidth {point['bandwidth']:g} --dram {point['dram']}"
    run += f" --beams {beams}" if beams > 1 else ""
    asked = f"{texts} text{'s' * (texts > 1)} of {point['source_len']} tokens, {point['new_tokens']} new ones"
    lines = [f"# {title}: point {record['id']}, {point['model']}, {asked}", f"#   {run}", ""]
    return "\n".join([*lines, *(f"{field} = {_toml(value)}" for field, value in values.items())]) + "\n"


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)
