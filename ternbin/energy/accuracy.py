"""The model of a run beside whole cores at gate level, as the model is used: the array by its blocks, other parts by fitted events.

Compared is what gates spend in toggles and clock pins. Leakage, memories, clock tree and wires are not in a netlist of the core, so they
are on neither side.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ternbin.contract.hw import HwConfig
from ternbin.counting.traffic import Traffic
from ternbin.energy import figures as tables
from ternbin.energy.lines import Line, value_pj
from ternbin.energy.model import account


class _Zeros(dict[str, int]):
    """Counters that are not there have not counted."""

    def __missing__(self, name: str) -> int:
        return 0


def at_gate_level(line: Line) -> bool:
    """Whether a line is of what whole cores were compared in."""
    return line.record.table == "records" and line.energy.tier == "measured"


def checked_share(lines: Iterable[Line]) -> float:
    """Part of the energy of ``lines`` that the comparison covers."""
    lines = list(lines)
    return value_pj(line for line in lines if at_gate_level(line)) / value_pj(lines)


def array_pj(counters: Mapping[str, int], hw: HwConfig) -> float:
    """The array by its blocks, of what a netlist has."""
    lines = account(_Zeros(counters), Traffic(), hw, weight_bits=2)
    return value_pj(line for line in lines if line.unit == "array" and at_gate_level(line))


def logic_pj(counters: Mapping[str, int], traffic: Traffic, hw: HwConfig) -> float:
    """All of a core, of what a netlist has, for a model of 2-bit weights."""
    return value_pj(line for line in account(_Zeros(counters), traffic, hw, weight_bits=2) if at_gate_level(line))


def compared() -> list[dict[str, Any]]:
    """Every compared call: ``gates_pj`` and ``model_pj`` in all and by part, ``error``; ``blind``: on a core that nothing was fitted to."""
    core = tables.characterisation()["core"]
    blind = {found["hardware"]["name"] for found in core.get("blind", ())}
    hardware = {
        found["hardware"]["name"]: HwConfig(**found["hardware"]) for found in (*core["cores"], *core.get("blind", ()))
    }
    rows: list[dict[str, Any]] = []
    for row in core["compared"]:
        parts = {
            part: {"gates_pj": gates, "model_pj": model} for part, (gates, model) in row["glitch"]["parts"].items()
        }
        parts["array"]["model_pj"] = array_pj(row["counters"], hardware[row["core"]])
        gates, model = (sum(part[side] for part in parts.values()) for side in ("gates_pj", "model_pj"))
        rows.append(
            {name: row[name] for name in ("core", "workload", "call", "cycles")}
            | {
                "blind": row["core"] in blind,
                "gates_pj": gates,
                "model_pj": model,
                "error": model / gates - 1,
                "parts": parts,
            }
        )
    return rows


def gate_level_error() -> float:
    """The largest deviation of a call."""
    return max(abs(row["error"]) for row in compared())
