"""Where figures come from: the records and table rows that the sources of energy lines name, as data for reports."""

import re
from collections.abc import Iterable

from ternbin.energy import figures as tables

SRAM_ROW = re.compile(r"x (\d+) bits of (\d+) bytes")
RECORD_FIELDS = (
    "name",
    "kind",
    "event",
    "lanes",
    "area_um2",
    "critical_path_ns",
    "leakage_nw",
    "cells",
    "tier",
    "fj_per_event",
)


def sources(texts: Iterable[str]) -> dict:
    """``records``: gate-level records (of docs/energy.md) by name, ``provenance`` of their library and tools; ``cacti``: rows of the SRAM
    table as "word bits x bytes"; ``dram``: name -> figure; ``compared``: whole cores at gate level beside the event model."""
    texts = list(texts)
    found = tables.characterisation()
    named = [block for block in found["blocks"] if any(block["name"] in text for text in texts)]
    wanted = {tuple(map(int, pair)) for text in texts for pair in SRAM_ROW.findall(text)}
    rows = [row for row in tables.cacti_rows() if (int(row["word_bits"]), int(row["capacity_bytes"])) in wanted]
    return {
        "provenance": found["provenance"],
        "records": {
            block["name"]: {field: block[field] for field in RECORD_FIELDS if field in block} for block in named
        },
        "cacti": {f"{row['word_bits']:.0f}x{row['capacity_bytes']:.0f}": row for row in rows},
        "compared": [
            {name: row[name] for name in ("core", "workload", "call", "cycles")}
            | {name: row["glitch"][name] for name in ("gates_pj", "model_pj", "error")}
            for row in found["core"]["compared"]
        ],
        "dram": {
            name: {"pj": f.pj, "low": f.low, "high": f.high, "source": f.source} for name, f in tables.DRAM.items()
        },
    }
