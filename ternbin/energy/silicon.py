"""Energy that was measured on a board or chip, beside the model's: windows of a meter, each with its joules and the passes in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from ternbin.errors import InputError
from ternbin.schema import DATA_BYTES, Printable, Range, read_json, validated

Positive = Annotated[float, Range(above=0, high=1e12)]


@dataclass(frozen=True, kw_only=True)
class Window:
    """``passes`` of the workload in ``seconds`` that took ``joules``."""

    seconds: Positive
    joules: Positive
    passes: Annotated[int, Range(1, 1 << 40)]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One device and workload; ``tokens`` of a pass; ``precision`` and ``phase`` as the audit has them."""

    device: Annotated[str, Printable(1, 100)]
    model: Annotated[str, Printable(1, 100)]
    precision: Annotated[str, Printable(1, 20)]
    phase: Annotated[str, Printable(1, 20)]
    tokens: Annotated[int, Range(1, 1 << 30)]
    windows: tuple[Window, ...]


def read_measured(path: str | Path) -> list[dict[str, Any]]:
    """Picojoules and seconds a token: mean over all windows, least and most of one. Raises InputError for a file that does not hold a list
    of :class:`Measured`."""
    found: object = read_json(path, DATA_BYTES)
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: must be a list of measurements, not {type(cast(object, found)).__name__}")
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(cast(list[object], found)):
        one = validated(Measured, entry, f"{path}: entry {number + 1}")
        if not one.windows:
            raise InputError(f"{path}: entry {number + 1}: windows must hold at least one window, not none")
        tokens = [window.passes * one.tokens for window in one.windows]
        each = [1e12 * window.joules / count for window, count in zip(one.windows, tokens, strict=True)]
        rows.append(
            {"device": one.device, "model": one.model, "precision": one.precision, "phase": one.phase}
            | {
                "pj": 1e12 * sum(window.joules for window in one.windows) / sum(tokens),
                "low": min(each),
                "high": max(each),
            }
            | {
                "seconds": sum(window.seconds for window in one.windows) / sum(tokens),
                "windows": len(each),
                "tier": "silicon",
            }
        )
    return rows
