"""Area of a configuration in mm2: characterised elements and parts of the core, SRAM by the table. Derived; what has no record is
not in it."""

from functools import cache
from pathlib import Path
from typing import Any

from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import made_of
from ternbin.contract.pipeline import ENGINES
from ternbin.energy import figures as tables
from ternbin.energy.block_events import size
from ternbin.energy.flops import array_flops
from ternbin.energy.lines import Precision

MM2 = 1e-6  # of a square micrometre


def register_um2() -> float:
    """One operand register bit with its load multiplexer: of the widest ternary block, whose flip-flops all have one."""
    record = tables.block("ternary")
    classes = record["area_by_class"]
    return (classes["flip-flop"] + classes["mux"]) / sum(record["flip_flops"].values())


@cache
def _drain_um2(characterised: Path) -> float:
    """What the array of a whole core has beyond elements and operand registers, for each row of each column and of the row sums: the mean
    of the characterised cores. ``characterised``: the file that figures come from."""
    cores = {core["hardware"]["name"]: core["hardware"] for core in tables.characterisation()["core"]["cores"]}
    found: list[float] = []
    for part in tables.block("core array")["sizes"]:
        hw = HwConfig(**cores[part["core"]])
        own = sum(_elements_mm2(hw).values()) / MM2
        found.append((part["area_um2"] - own) / (hw.rows * (hw.cols + 1)))
    return max(0.0, sum(found) / len(found))


def array_mm2(hw: HwConfig) -> dict[str, float]:
    """Elements, the operand registers that a row or column of them shares, drains with row sums and control. An array of fewer lanes
    (``step_cycles``) has the first two in proportion."""
    drains = hw.rows * (hw.cols + 1) * _drain_um2(tables.chosen()) * MM2
    return _elements_mm2(hw) | {"array drains and control": drains}


def _elements_mm2(hw: HwConfig) -> dict[str, float]:
    precision = Precision.of(hw)
    record = tables.block(precision.mac, hw.lanes)
    element = record["area_um2"] - record["flip_flops"]["operands"] * register_um2()
    registers = array_flops(hw, precision)["operands"] * register_um2()
    return {
        "array elements": hw.peak_macs / hw.step_cycles / record["lanes"] * element * MM2,
        "array operand registers": registers * MM2,
    }


def core_mm2(hw: HwConfig) -> dict[str, float]:
    """Parts of the core but the array, linear in their sizes (ternbin/energy/block_events.py)."""
    kinds = [block["kind"] for block in tables.characterisation()["blocks"] if block["kind"].startswith("core ")]
    parts = [kind.removeprefix("core ") for kind in kinds if kind != "core array"]
    return {part: tables.core_size(part, size(part, hw), "area_um2") * MM2 for part in parts}


def _lists_mm2(hw: HwConfig) -> dict[str, float]:
    """What lists the best tokens of beams: an engine each of up to ``ENGINES`` beams, its column of ``rows`` logits."""
    if hw.beams == 1:
        return {}

    def um2(record: dict[str, Any]) -> float:
        column = (
            record["flip_flops"]["operands"] * register_um2()
        )  # as many flip-flops as in the operand registers outside
        return record["area_um2"] - column + (hw.rows / tables.COLUMN_LOGITS - 1) * column

    return {"lists of the best tokens": min(ENGINES, hw.beams) * tables.best_token_lists(hw.top, um2) * MM2}


def memories_mm2(hw: HwConfig) -> dict[str, float]:
    return {name: m.banks * tables.sram(m.words, m.bits).area_mm2 for name, m in made_of(hw).items()}


def area_mm2(hw: HwConfig) -> dict[str, float]:
    """Part -> mm2."""
    return array_mm2(hw) | core_mm2(hw) | _lists_mm2(hw) | memories_mm2(hw)
