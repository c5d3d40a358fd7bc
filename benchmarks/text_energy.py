"""Energy of a text of a set's mean length, by the event model: what scores stand beside."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ternbin.contract.hw import load_hw
from ternbin.explore.evaluate import evaluate
from ternbin.explore.point import HARDWARE, Point
from ternbin.models.task.batches import Row


def mean_lengths(rows: Sequence[Row]) -> tuple[int, int]:
    """Tokens of a source and of a target."""
    source, target = (round(sum(len(row[side]) for row in rows) / len(rows)) for side in (0, 1))
    return source, target


def energy_uj(
    model_dir: Path, bits: str, lengths: tuple[int, int], hw: str, *, res_bits: int = 16, beams: int = 1
) -> float:
    """Of a text of ``lengths``, source and generated tokens, on a named configuration; keys and values of decoding in external memory where
    they do not fit."""
    hardware = {name: value for name, value in asdict(load_hw(hw)).items() if name in HARDWARE} | {"res_bits": res_bits}
    hardware.pop("kv_external")
    source, target = lengths
    shape = {"model": str(model_dir), "bits": bits, "source_len": source, "new_tokens": target, "beams": beams}
    record = evaluate(Point.of(shape | hardware))
    if "figures" not in record:
        raise SystemExit(f"{model_dir} on {hw}: {record['reason']}")
    return round(record["figures"]["energy_uj"], 3)
