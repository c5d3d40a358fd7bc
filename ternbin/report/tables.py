"""CSV tables and the terminal summary of one result."""

import csv
import io

from ternbin.report.html import claim_rows, numbered
from ternbin.report.markup import energy_text
from ternbin.results import agreements, per_token, said


def energy_csv(result: dict) -> str:
    """One row an energy line."""
    buffer = io.StringIO()
    fields = [
        "phase",
        "unit",
        "event",
        "group",
        "basis",
        "counter",
        "factor",
        "count",
        "pj_each",
        "pj",
        "pj_low",
        "pj_high",
    ]
    fields += ["tier", "varies", "table", "record", "source"]  # empty where results of earlier schemas do not have them
    writer = csv.DictWriter(buffer, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["energy"]["lines"])
    return buffer.getvalue()


def ops_csv(result: dict) -> str:
    """One row an op and phase: cycles of each unit, multiply-accumulates, external bytes (empty in older results), energy."""
    buffer = io.StringIO()
    units = ["load", "execute", "vector", "store"]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["phase", "op", "macs", "bytes", "energy_pj", *(f"{unit}_cycles" for unit in units)])
    for op in result["ops"]:
        writer.writerow(
            [
                op["phase"],
                op["name"],
                op["macs"],
                op.get("bytes", ""),
                op["energy_pj"],
                *(op["cycles"].get(u, 0) for u in units),
            ]
        )
    return buffer.getvalue()


def aligned(rows: list[list[str]]) -> str:
    """Rows as text columns: the first left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def terminal(result: dict) -> str:
    """What `ternbin run` prints."""
    verdict = "bit-exact" if result["bit_exact"] else "NOT BIT-EXACT"
    phases = result["claim"]["phases"]
    header = [f"{result['claim']['paper']['claimed_ratio']:g}x? same schedule, wider operands"]
    header += [f"{ref} {p['name']}" for ref in ("FP32", "INT8") for p in phases]
    energy = result["energy"]
    lines = []
    for (number, entry), (kind, value) in zip(numbered(result), said(result), strict=True):
        lines += [
            _read(number, entry),
            f"{kind + number:9} {value}",
            *(f"{'':10}{line}" for line in (agreements(entry["answer"]) if "answer" in entry else ())),
            "",
        ]
    lines += [
        f"{verdict}: {result['tensors_checked']:,} tensors, {result['values_checked']:,} values, {result['mismatches']:,} mismatches",
        *([f"first divergence: {result['first_divergence']}"] if result["first_divergence"] else []),
        f"cycles    {result['cycles']:,} ("
        + ", ".join(
            f"{p['name']} {p['cycles']:,} in {p['calls']} call{'s' * (p['calls'] > 1)}" for p in result["phases"]
        )
        + ")",
        f"utilised  {result['utilization']:.1%} of {result['hardware']['peak_macs']:,} multiply-accumulates a cycle ("
        + ", ".join(f"{p['name']} {p['utilization']:.1%}" for p in result["phases"])
        + ")",
        f"energy    {energy_text(energy['pj'])} ({energy_text(energy['low'])} to {energy_text(energy['high'])}), "
        + ", ".join(f"{p['name']} {energy_text(p['pj'])}" for p in energy["phases"])
        + f", {energy['dram']}",
        *_per_token(result),
        f"simulated {result['sim_seconds']:.2f} s, {result['sim_cycles_per_second']:,.0f} cycles/s, "
        f"{result['sim_macs_per_second']:.3g} multiply-accumulates/s",
        "",
        aligned([header, *claim_rows(result)]),
        "  a quick estimate; every reference mapped by itself: ternbin report --claim",
        *_clock(energy),
    ]
    return "\n".join(lines)


def _clock(energy: dict) -> list[str]:
    """A clock that the configuration does not meet."""
    clock = energy.get("clock")
    if clock is None or clock["mhz"] <= clock["meets_mhz"]:
        return []
    return [
        f"clock_mhz {clock['mhz']:g} is above the {clock['meets_mhz']:.0f} MHz that this configuration meets (docs/energy.md)"
    ]


def _read(number: str, entry: dict) -> str:
    """What went in."""
    if "audio" in entry:
        return f"sound{number:5}{entry['audio']['file']}, {entry['audio']['tokens']} tokens"
    return f"text{number:6}{entry['text']}" if entry["text"] else f"ids{number:7}{entry['input_ids']}"


def _per_token(result: dict) -> list[str]:
    """Of a batch, what decoding takes for each generated token of all texts."""
    each = per_token(result)
    if "texts" not in result or each is None:
        return []
    cycles, pj = each
    return [
        f"a token   {cycles:,.0f} cycles, {energy_text(pj)} of decoding, of {len(result['tokens'])} tokens for "
        f"{len(result['texts'])} texts"
    ]
