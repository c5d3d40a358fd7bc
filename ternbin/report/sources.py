"""Energy lines with links from every figure to the gate-level record or table row that it came from."""

import re
from html import escape

from ternbin.report.html import Html, energy_text, table

LINE_HEADER = ["unit", "event", "group", "tier", "events", "pJ each", "energy", "range", "source of the pJ"]


def slug(text: str) -> str:
    return re.sub(r"\W+", "-", text).strip("-")


def link(anchor: str, text: str) -> Html:
    return Html(f"<a href='#{anchor}'>{escape(text)}</a>")


def linked(source: str, known: dict) -> Html:
    """The source of a line with links to the rows that :func:`sources_section` shows of ``known`` (ternbin/energy/provenance.py)."""
    for name, figure in known["dram"].items():
        if source == figure["source"]:
            return link(f"dram-{name}", source)
    text = escape(source)
    for name in sorted(known["records"], key=len, reverse=True):
        text = re.sub(rf"(?<!>){re.escape(name)}\b", f"<a href='#record-{slug(name)}'>{name}</a>", text)

    def row(match: re.Match) -> str:
        key = f"{match[1]}x{match[2]}"
        return (
            f"x <a href='#cacti-{key}'>{match[1]} bits of {match[2]} bytes</a>" if key in known["cacti"] else match[0]
        )

    return Html(re.sub(r"x (\d+) bits of (\d+) bytes", row, text))


_COUNTERS = (  # what an event's name begins or ends with -> its counter, where it is not named after it
    ("multiply-accumulate", "execute_array_columns"),
    ("operand register bit", "execute_array_active"),
    ("row sum", "execute_rowsum_active"),
    ("flip-flop clocked", "execute_array_columns"),
    ("array step", "execute_array_active"),
    ("reciprocal root", "vector_ln_rsqrt"),
    ("division", "vector_divides"),
    ("plane written", "vector_plane_writes"),
    ("fetched beat", "axi_fetch_beats"),
    ("beat", "axi_load_beats"),
    ("busy cycle", "{unit}_busy"),
    ("cycle", "cycles"),
    ("leakage of a cycle", "cycles"),
    ("program bit", "axi_fetch_beats"),
    ("writes bit", "axi_write_beats"),
)


def counter_of(line: dict, counters: dict) -> str | None:
    """The hardware counter that the events of a line come from, where it is one of ``counters``."""
    unit, event = line["unit"], line["event"]
    first = event.split()[0]
    named = [name.format(unit=unit) for part, name in _COUNTERS if event.startswith(part) or event.endswith(part)]
    guesses = [*named, *(f"{unit}_{first}{end}" for end in ("", "s", "_words")), f"execute_drained_{first}"]
    return next((name for name in [*guesses, *["axi_load_beats"] * (unit == "external")] if name in counters), None)


def line_rows(lines: list[dict], prefix: str, known: dict, counters: dict, counter_prefix: str) -> list[list[object]]:
    """Rows of energy lines; the first one of each group and of each unit is the target of the anchor ``prefix-<group or unit>``, numbers
    of events link to ``counter_prefix-<counter>``."""
    seen, rows = set(), []
    for line in lines:
        counter, count = counter_of(line, counters), f"{line['count']:,.0f}"
        marks = "".join(
            f"<a id='{prefix}-{slug(name)}'></a>"
            for name in dict.fromkeys((line["group"], line["unit"]))
            if name not in seen
        )
        seen |= {line["group"], line["unit"]}
        rows.append(
            [
                Html(marks + escape(line["unit"])),
                line["event"],
                line["group"],
                line["tier"],
                link(f"{counter_prefix}-{counter}", count) if counter else count,
                f"{line['pj_each']:.4g}",
                energy_text(line["pj"]),
                f"{energy_text(line['pj_low'])} to {energy_text(line['pj_high'])}",
                linked(line["source"], known),
            ]
        )
    return rows


def sources_section(known: dict) -> str:
    """The records and table rows that figures link to."""
    where = known["provenance"]
    tools = ", ".join(f"{name} {version}" for name, version in where["tools"].items())
    records = [
        [
            Html(f"<a id='record-{slug(name)}'></a>{escape(name)}"),
            r["event"],
            r["tier"],
            f"{r['area_um2']:,.0f}",
            f"{r['critical_path_ns']:.2f}",
            f"{r['leakage_nw']:,.0f}",
            *_fj(r["fj_per_event"]),
        ]
        for name, r in known["records"].items()
    ]
    events = [
        [name, event, f"{modes['glitch']['total']:,.1f}", f"{modes['zero_delay']['total']:,.1f}"]
        for name, r in known["records"].items()
        if r["kind"].startswith("core ")
        for event, modes in r["fj_per_event"].items()
    ]
    compared = [
        [
            r["core"],
            r["workload"],
            r["call"],
            f"{r['cycles']:,}",
            energy_text(r["gates_pj"]),
            energy_text(r["model_pj"]),
            f"{r['error']:+.1%}",
        ]
        for r in known["compared"]
    ]
    cacti = [
        [
            Html(f"<a id='cacti-{key}'></a>{row['word_bits']:.0f} x {row['capacity_bytes']:,.0f} bytes"),
            row["cell"],
            f"{row['read_pJ']:.4g}",
            f"{row['write_pJ']:.4g}",
            f"{row['leakage_mW']:.3g}",
            f"{row['area_mm2']:.4g}",
            f"{row['access_ns']:.3g}",
        ]
        for key, row in known["cacti"].items()
    ]
    dram = [
        [Html(f"<a id='dram-{name}'></a>{name}"), f"{f['pj']:g}", f"{f['low']:g} to {f['high']:g}", f["source"]]
        for name, f in known["dram"].items()
    ]
    return (
        "<h2 id=sources>Where the figures come from</h2>"
        f"<p class=muted>Gate level: {escape(where['library'])}, {where['volt']:g} V, {where['celsius']:g} C; {escape(tools)}; "
        f"{escape(where['created'])}. Every netlist equals its RTL bit for bit; docs/energy.md has the method.</p>"
        + table(
            [
                "record",
                "event",
                "tier",
                "um2",
                "critical path, ns",
                "leakage, nW",
                "operands",
                "fJ an event, glitches counted",
                "fJ, zero delay",
            ],
            records,
            3,
        )
        + "<p class=muted>Parts of the core: energies of events, fitted to whole cores at gate level with random models. What always "
        "happens together shares its energy as the fit likes.</p>"
        + table(["record", "event", "fJ, glitches counted", "fJ, zero delay"], events, 2)
        + "<p class=muted>Whole cores at gate level, and the event model for the same runs, to which it was not fitted</p>"
        + table(["core", "workload", "call", "cycles", "gate level", "event model", "deviation"], compared, 3)
        + "<p class=muted>SRAM banks: CACTI 7, 45 nm (ternbin/energy/cacti7_45nm.csv)</p>"
        + table(["word bits x capacity", "cell", "read, pJ", "write, pJ", "leakage, mW", "mm2", "access, ns"], cacti, 2)
        + "<p class=muted>External memory</p>"
        + table(["memory", "pJ a bit", "range", "source"], dram, 1)
    )


def _fj(events: dict) -> list[str]:
    name = next((n for n in ("real", "operand held") if n in events), next(iter(events)))
    return [name, *(f"{events[name][mode]['total']:,.1f}" for mode in ("glitch", "zero_delay"))]
