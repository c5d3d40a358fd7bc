"""Where figures come from: the records and table rows that energy lines name, as data for reports."""

from collections.abc import Iterable, Sequence
from typing import Any

from ternbin.energy import accuracy
from ternbin.energy import figures as tables
from ternbin.energy.figures import Figure, Record

RECORD_FIELDS = (
    "name",
    "kind",
    "event",
    "lanes",
    "area_um2",
    "critical_path_ns",
    "leakage_nw",
    "clock_fj_per_flop",
    "cells",
    "tier",
    "fj_per_event",
)
COMPARED_FIELDS = ("core", "workload", "call", "cycles", "blind", "gates_pj", "model_pj", "error")


def sources(records: Iterable[Record]) -> dict[str, Any]:
    """``records``: gate-level records (of docs/energy.md) by name, ``provenance`` of their library and tools; ``cacti``: rows of the SRAM
    table as "word bits x bytes"; ``dram``, ``literature``: name -> figure; ``compared``: whole cores at gate level beside the event model.
    Of the first two only what ``records`` name."""
    wanted, found = set(records), tables.characterisation()
    return {
        "provenance": found["provenance"],
        "records": {
            block["name"]: {field: block[field] for field in RECORD_FIELDS if field in block}
            for block in found["blocks"]
            if tables.gates(block) in wanted
        },
        "cacti": {
            tables.row_name(row): row for row in tables.cacti_rows() if Record("cacti", tables.row_name(row)) in wanted
        },
        "compared": [{name: row[name] for name in COMPARED_FIELDS} for row in accuracy.compared()],
        "dram": _figures(tables.DRAM.values()),
        "literature": _figures([tables.wire_figure()]),
    }


def named(lines: Sequence[dict[str, Any]]) -> set[Record]:
    """The records that lines of a result name."""
    return {Record(line["table"], line["record"]) for line in lines}


def _figures(figures: Iterable[Figure]) -> dict[str, dict[str, float | str]]:
    return {f.record.name: {"pj": f.pj, "low": f.low, "high": f.high, "source": f.source} for f in figures}
