"""Published accelerators for quantized networks, as their authors state them, beside what this engine's elements would take there.

One multiply-accumulate is two operations. ``node_nm``, ``volt``: None where the abstract of the source does not state them; ``element``:
the characterised block of the same operands.
"""

from typing import Any

from ternbin.energy import figures as tables

PUBLISHED: list[dict[str, Any]] = [
    {
        "name": "BrainTTA",
        "operands": "binary",
        "element": "binary",
        "fj_per_op": 35.0,
        "node_nm": None,
        "volt": None,
        "source": "arXiv 2211.11331, peak",
    },
    {
        "name": "BrainTTA",
        "operands": "ternary",
        "element": "ternary",
        "fj_per_op": 67.0,
        "node_nm": None,
        "volt": None,
        "source": "arXiv 2211.11331, peak",
    },
    {
        "name": "BrainTTA",
        "operands": "INT8",
        "element": "int8",
        "fj_per_op": 405.0,
        "node_nm": None,
        "volt": None,
        "source": "arXiv 2211.11331, peak",
    },
    {
        "name": "XNE",
        "operands": "binary",
        "element": "binary",
        "fj_per_op": 21.6,
        "node_nm": 22,
        "volt": 0.4,
        "source": "arXiv 1807.03010, microcontroller, post layout",
    },
    {
        "name": "TCN-CUTIE",
        "operands": "ternary",
        "element": "ternary",
        "fj_per_op": 1e3 / 1036,
        "node_nm": 22,
        "volt": 0.5,
        "source": "arXiv 2212.00688, 1036 TOp/s/W, peak",
    },
    {
        "name": "ITA",
        "operands": "INT8",
        "element": "int8",
        "fj_per_op": 1e3 / 16.9,
        "node_nm": 22,
        "volt": 0.8,
        "source": "ITA, 16.9 TOPS/W",
    },
]


def predicted_fj(element: str, node_nm: float, volt: float) -> float | None:
    """An operation of a characterised element with a weight that stays, registers and clock included and nothing else of a chip: scaled by
    node (capacitance) and the square of the voltage. None where the library does not say its node."""
    where = tables.characterisation()["provenance"]
    if not where.get("node_nm"):
        return None
    held = tables.block(element)["fj_per_event"]["operand held"]["glitch"]["total"]
    return held / 2 * node_nm / where["node_nm"] * (volt / where["volt"]) ** 2


def published() -> list[dict[str, Any]]:
    """Each with ``predicted_fj`` and its ratio to what is published; None where node or voltage are not stated."""
    rows: list[dict[str, Any]] = []
    for row in PUBLISHED:
        node_nm, volt = row["node_nm"], row["volt"]
        predicted = None if node_nm is None or volt is None else predicted_fj(row["element"], node_nm, volt)
        rows.append(
            row | {"predicted_fj": predicted, "predicted_over": predicted / row["fj_per_op"] if predicted else None}
        )
    return rows
