"""Energy lines with links from every count to its counter, and from every figure to the gate-level record or table row it came from."""

from collections.abc import Sequence
from html import escape
from typing import Any

from ternbin.report.markup import Html, energy_text, link, note, slug, table, target

LINE_HEADER = [
    "unit",
    "event",
    "group",
    "tier",
    "counter",
    "times",
    "events",
    "pJ each",
    "energy",
    "range",
    "source of the pJ",
]
LINE_NUMBERS = 5  # first column of numbers
ANCHORS = {
    "counters": "counter",
    "traffic": "traffic",
}  # basis of a line -> anchors of the rows that show what it counts

Row = list[object]


def line_rows(lines: Sequence[dict[str, Any]], prefix: str, counter_prefix: str = "") -> list[Row]:
    """Rows of energy lines; the first one of each group and of each unit is the target of the anchor ``prefix-<group or unit>``. Counters
    link to ``<counter_prefix>counter-<name>`` or ``...traffic-<name>``, sources to the rows of :func:`sources_section`."""
    seen: set[str] = set()
    rows: list[Row] = []
    for line in lines:
        names = dict.fromkeys((line["group"], line["unit"]))
        marks = "".join(f"<a id='{prefix}-{slug(name)}'></a>" for name in names if name not in seen)
        seen |= set(names)
        rows.append(
            [
                Html(marks + escape(line["unit"])),
                line["event"],
                line["group"],
                line["tier"],
                *_counted(line, counter_prefix),
                f"{line['count']:,.0f}",
                f"{line['pj_each']:.4g}",
                energy_text(line["pj"]),
                f"{energy_text(line['pj_low'])} to {energy_text(line['pj_high'])}",
                link(record_anchor(line["table"], line["record"]), line["source"])
                if "record" in line
                else line["source"],
            ]
        )
    return rows


def _counted(line: dict[str, Any], counter_prefix: str) -> tuple[object, str]:
    """Counter and factor; results of schema 1 and 2 do not name them."""
    if "counter" not in line:
        return "", ""
    anchor = f"{counter_prefix}{ANCHORS[line['basis']]}-{line['counter']}"
    return link(anchor, line["counter"]), f"{line['factor']:,.6g}"


def record_anchor(where: str, name: str) -> str:
    """Anchor of the row of :func:`sources_section` that shows a record."""
    return f"{where}-{slug(name)}"


def sources_section(known: dict[str, Any]) -> str:
    """The records and table rows that figures link to (ternbin/energy/provenance.py)."""
    where = known["provenance"]
    tools = ", ".join(f"{name} {version}" for name, version in where["tools"].items())
    return (
        "<h2 id=sources>Where the figures come from</h2>"
        + note(
            f"Gate level: {where['library']}, {where['volt']:g} V, {where['celsius']:g} C; {tools}; {where['created']}. "
            "Every netlist equals its RTL bit for bit; docs/energy.md has the method."
        )
        + _records(known["records"])
        + note(
            "Parts of the core: energies of events, fitted to whole cores at gate level with random models. What always "
            "happens together shares its energy as the fit likes."
        )
        + _events(known["records"])
        + note("Whole cores at gate level, and the event model for the same runs, to which it was not fitted")
        + _compared(known["compared"])
        + note("SRAM banks: CACTI 7, 45 nm (ternbin/energy/cacti7_45nm.csv)")
        + _cacti(known["cacti"])
        + note("External memory")
        + _figures("dram", ["memory", "pJ a bit", "range", "source"], known["dram"])
        + _literature(known.get("literature", {}))
    )


def _records(records: dict[str, dict[str, Any]]) -> str:
    header = [
        "record",
        "event",
        "tier",
        "um2",
        "critical path, ns",
        "leakage, nW",
        "clock of a flip-flop, fJ",
        "operands",
        "fJ an event, glitches counted",
        "fJ, zero delay",
    ]
    rows = [
        [
            target(record_anchor("records", name), name),
            r["event"],
            r["tier"],
            f"{r['area_um2']:,.0f}",
            f"{r['critical_path_ns']:.2f}",
            f"{r['leakage_nw']:,.0f}",
            f"{r['clock_fj_per_flop']:.3g}" if "clock_fj_per_flop" in r else "",
            *_fj(r["fj_per_event"]),
        ]
        for name, r in records.items()
    ]
    return table(header, rows, 3)


def _fj(events: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    name = next((n for n in ("real", "operand held") if n in events), next(iter(events)))
    return [name, *(f"{events[name][mode]['total']:,.1f}" for mode in ("glitch", "zero_delay"))]


def _events(records: dict[str, dict[str, Any]]) -> str:
    rows = [
        [name, event, f"{modes['glitch']['total']:,.1f}", f"{modes['zero_delay']['total']:,.1f}"]
        for name, r in records.items()
        if r["kind"].startswith("core ")
        for event, modes in r["fj_per_event"].items()
    ]
    return table(["record", "event", "fJ, glitches counted", "fJ, zero delay"], rows, 2)


def _compared(compared: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            r["core"],
            r["workload"],
            r["call"],
            f"{r['cycles']:,}",
            energy_text(r["gates_pj"]),
            energy_text(r["model_pj"]),
            f"{r['error']:+.1%}",
        ]
        for r in compared
    ]
    return table(["core", "workload", "call", "cycles", "gate level", "event model", "deviation"], rows, 3)


def _cacti(cacti: dict[str, dict[str, Any]]) -> str:
    header = ["word bits x capacity", "cell", "read, pJ", "write, pJ", "leakage, mW", "mm2", "access, ns"]
    rows = [
        [
            target(record_anchor("cacti", key), f"{row['word_bits']:.0f} x {row['capacity_bytes']:,.0f} bytes"),
            row["cell"],
            f"{row['read_pJ']:.4g}",
            f"{row['write_pJ']:.4g}",
            f"{row['leakage_mW']:.3g}",
            f"{row['area_mm2']:.4g}",
            f"{row['access_ns']:.3g}",
        ]
        for key, row in cacti.items()
    ]
    return table(header, rows, 2)


def _literature(known: dict[str, dict[str, Any]]) -> str:
    """Nothing for results of schema 1 and 2, which do not carry these."""
    header = ["operation", "pJ", "range", "source"]
    return note("Cited energies of operations") + _figures("literature", header, known) if known else ""


def _figures(where: str, header: list[str], known: dict[str, dict[str, Any]]) -> str:
    rows = [
        [target(record_anchor(where, name), name), f"{f['pj']:g}", f"{f['low']:g} to {f['high']:g}", f["source"]]
        for name, f in known.items()
    ]
    return table(header, rows, 1)
