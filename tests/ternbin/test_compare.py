"""Runs side by side: hardware that differs, where time and energy go."""

import copy
from pathlib import Path

from ternbin import results
from ternbin.report import compare

EXAMPLE = Path(__file__).parents[2] / "reports" / "example"


def two() -> list[dict]:
    """The committed example, and as if it had run on other hardware in twice the time."""
    one = results.load(EXAMPLE)
    other = copy.deepcopy(one)
    other["hardware"] |= {"name": "wide", "rows": 32, "peak_macs": 2 * one["hardware"]["peak_macs"]}
    other["memory"]["latency"] += 1
    for phase in other["phases"]:
        phase["cycles"] *= 2
    return [one, other]


def test_fields_that_differ_are_shown_and_no_others():
    one, other = two()
    header, *rows = compare.hardware_rows([one, other])
    assert header == ["field", "small", "wide"]
    assert [row[0] for row in rows] == ["rows", "peak_macs", "latency"] and rows[0] == ["rows", "16", "32"]
    assert compare.hardware_rows([one, one]) == [["field", "bundled 2-2 (1)", "bundled 2-2 (2)"]]
    assert "latency" in compare.terminal([one, other]) and "latency" not in compare.terminal([one, one])


def test_times_and_energies_are_the_runs_and_set_beside_the_first():
    one, other = two()
    rows = {row[0]: row[1:] for row in compare.time_rows([one, other])[1:]}
    cycles, counters = one["phases"][1]["cycles"], one["counters"]["decode"]
    assert rows["decode, cycles"] == [f"{cycles:,}", f"{2 * cycles:,} (2.00x)"]
    share = counters["execute_array_active"] / cycles
    assert rows["decode, array busy"] == [f"{share:.1%}", f"{share / 2:.1%}"]
    other["energy"]["pj"] *= 3
    *units, total = compare.energy_rows([one, other])[1:]
    assert [row[0] for row in units][0] == "external" and total[2].endswith("(3.00x)")
    assert all(row[2] == f"{row[1]} (1.00x)" for row in units)
    page = compare.page([one, other])
    assert all(f"<h2>{title}" in page for title in ("Where hardware", "Where the time", "Where the energy"))


def test_quality_stands_beside_energy():
    one, other = two()
    integer = next(m["integer"] for m in one["evaluation"]["models"].values() if "integer" in m)
    rows = {row[0]: row[1:] for row in compare.quality_rows([one, other])[1:]}
    assert rows["rouge1, greedy"] == [f"{integer['greedy']['rouge1']:.2f}"] * 2
    assert rows["nats a token"] == [f"{integer['nll']['test']:.2f}"] * 2 and "energy of the run" in rows
    for model in other["evaluation"]["models"].values():
        model["bits"] = "1-1"
    assert {row[0]: row[2] for row in compare.quality_rows([one, other])[1:]}["rouge1, greedy"] == "-"
    assert "Quality beside energy" in compare.page([one, other])
    one["evaluation"] = other["evaluation"] = None
    assert "Quality beside energy" not in compare.page([one, other])
