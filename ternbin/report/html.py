"""The report as one self-contained HTML page, readable offline."""

from html import escape

from ternbin.report import plots
from ternbin.report.markup import details, document, energy_text, link, note, table, target
from ternbin.report.sources import ANCHORS, LINE_HEADER, LINE_NUMBERS, line_rows, sources_section
from ternbin.results import agreements, per_token, said, texts


def _cards(result: dict) -> str:
    each = per_token(result)
    exact = "bit-exact" if result["bit_exact"] else f"{result['mismatches']:,} mismatches"
    cards = [
        (
            exact,
            f"{result['tensors_checked']:,} tensors, {result['values_checked']:,} values",
            "good" if result["bit_exact"] else "bad",
        ),
        (f"{result['cycles']:,}", "cycles", ""),
        (f"{result['utilization']:.1%}", f"utilization of {result['hardware']['peak_macs']:,} MAC/cycle", ""),
        (
            energy_text(result["energy"]["pj"]),
            f"energy ({energy_text(result['energy']['low'])} to {energy_text(result['energy']['high'])})",
            "",
        ),
        *(_generated(result, *each) if each else [(f"{len(result['input_ids']):,}", "tokens read", "")]),
        (f"{result['sim_seconds']:.2f} s", f"simulation, {result['sim_cycles_per_second']:,.0f} cycles/s", ""),
    ]
    return (
        "<div class=cards>"
        + "".join(
            f"<div class='card {kind}'><b>{escape(value)}</b><span>{escape(label)}</span></div>"
            for value, label, kind in cards
        )
        + "</div>"
    )


def _generated(result: dict, cycles: float, pj: float) -> list[tuple[str, str, str]]:
    """Cards of what was generated."""
    several = f" for {len(result['texts'])} texts" if "texts" in result else ""
    cards = [(f"{len(result['tokens'])}", f"tokens generated{several}", "")]
    return cards + ([(energy_text(pj), f"of decoding a token, {cycles:,.0f} cycles", "")] if several else [])


def _summary(result: dict) -> str:
    return "".join(_text(*entry, *line) for entry, line in zip(numbered(result), said(result), strict=True))


def numbered(result: dict) -> list[tuple[str, dict]]:
    """The texts of a result, each with " 1", " 2" and so on of a batch."""
    entries = texts(result)
    return [(f" {number}" if len(entries) > 1 else "", entry) for number, entry in enumerate(entries, 1)]


def _text(number: str, entry: dict, kind: str, value: str) -> str:
    text = _read(number, entry, kind)
    how, near = "Generated on", ""
    if "answer" in entry:
        how = f"The host's {kind}, of the residual stream of"
        near = "".join(f"<li>{escape(line)}</li>" for line in agreements(entry["answer"]))
        near = f"<p>Beside it the</p><ul>{near}</ul>"
    return text + f"<p>{how} the simulated accelerator:</p><blockquote><b>{escape(value)}</b></blockquote>{near}"


def _read(number: str, entry: dict, kind: str) -> str:
    """What went in, under the heading of a text."""
    if "audio" in entry:
        file, tokens = escape(entry["audio"]["file"]), entry["audio"]["tokens"]
        return f"<h2>Sound{number} and {kind}</h2><p>Sound, {tokens} tokens: {file}</p>"
    if entry["text"]:
        words = f"<blockquote>{escape(entry['text'])}</blockquote>"
        return f"<h2>Text{number} and {kind}</h2><p>Text, {len(entry['input_ids'])} tokens:</p>{words}"
    return f"<h2>Tokens{number}</h2><p>Input ids: {escape(str(entry['input_ids']))}</p>"


def claim_rows(result: dict) -> list[list[str]]:
    """The audit table, one row a figure: name, then prefill and decode against FP32, then against INT8."""
    phases = result["claim"]["phases"]
    keys = (("operation_count", "operation count of the paper (w*a/64)"), *plots.RATIOS)
    rows = [
        [label] + [_ratio(p["references"][ref], key) for ref in ("fp32", "int8") for p in phases] for key, label in keys
    ]
    if not any(p["head_macs"] for p in phases):
        return rows
    heads = [p["full_precision_head"] for p in phases]
    blank = [""] * len(phases)
    rows.append(["operation count, LM head left in FP32"] + [f"{h['operation_ratio']:.1f}x" for h in heads] + blank)
    rows.append(["energy of the system, LM head left in FP32"] + [f"{h['system_ratio']:.1f}x" for h in heads] + blank)
    return rows


def _ratio(reference: dict, key: str) -> str:
    """With its interval, where a result has one."""
    found = reference.get("intervals", {}).get(key)
    return f"{reference[key]:.1f}x" + (f" ({found['low']:.1f} to {found['high']:.1f})" if found else "")


def _claim(result: dict) -> str:
    claim = result["claim"]
    phases = [p["name"] for p in claim["phases"]] * 2
    header = ["ratio reference / this run"] + [
        f"{ref}, {p['name']}" for ref in ("FP32", "INT8") for p in claim["phases"]
    ]
    lines = dict(
        zip(
            (label for _, label in plots.RATIOS),
            ("-arithmetic", "-arithmetic", "-external", "-on-chip", ""),
            strict=True,
        )
    )
    rows = [
        [
            label,
            *(
                link(f"energy-{p}{lines[label]}", cell) if label in lines else cell
                for p, cell in zip(phases, cells, strict=True)
            ),
        ]
        for label, *cells in claim_rows(result)
    ]
    return (
        f'<h2>What becomes of "{claim["paper"]["claimed_ratio"]:g}x more efficient": a quick estimate</h2>'
        f"<p>Of this run alone: every reference takes its schedule and events ({escape(claim['dram'])}), with wider operands, its own "
        "multiply-accumulate and an array as fast, which leaks. The audited figure maps every reference by itself, in the "
        "configuration that needs least energy: <code>ternbin report --claim</code>; that one is to be quoted. In brackets 90% "
        "of draws, one factor for each source of uncertainty (docs/energy.md). "
        f"The operation count is the paper's: {escape(claim['paper']['source'])}.</p>"
        + table(header, rows)
        + plots.claim_ratios(result)
    )


def _energy(result: dict) -> str:
    """Results of schema 1 and 2 may not carry the sources that figures link to."""
    energy = result["energy"]
    known = energy.get("sources")
    parts = []
    for phase in energy["phases"]:
        name = phase["name"]
        rows = line_rows(
            [line for line in energy["lines"] if line["phase"] == name and line["count"]], f"energy-{name}"
        )
        summary = f"{name}: every event with its counter, figure, tier and source"
        parts.append(details(summary, table(LINE_HEADER, rows, LINE_NUMBERS), f"energy-{name}"))
    return (
        "<h2 id=energy>Energy</h2>"
        + note(
            "Events are counted by the hardware's own counters in the cycle-accurate run. docs/energy.md lists what is not modelled."
        )
        + _shares(energy)
        + plots.energy_by_unit(result)
        + "".join(parts)
        + (details("Where the figures come from", sources_section(known)) if known else "")
    )


def _shares(energy: dict) -> str:
    """What was compared with gates, what belongs to no op, and whether the clock is met; nothing for older results."""
    text = [
        f"{phase['name']}: {phase['gate_level_share']:.0%} of the energy is of events that were compared with whole cores at gate level, "
        f"{phase['not_by_op_pj'] / phase['pj']:.0%} belongs to no op (every cycle's clock and leakage, fetch)."
        for phase in energy["phases"]
        if "gate_level_share" in phase
    ]
    clock = energy.get("clock")
    if clock:
        kept = "meets" if clock["mhz"] <= clock["meets_mhz"] else "does not meet"
        text.append(
            f"This configuration {kept} its {clock['mhz']:g} MHz: {clock['core_ns']:.2f} ns of logic, {clock['memory']} takes "
            f"{clock['access_ns']:.2f} ns: {clock['meets_mhz']:.0f} MHz."
        )
    return note(" ".join(text)) if text else ""


def _cycles(result: dict) -> str:
    rows = [
        [p["name"], p["calls"], f"{p['cycles']:,}", f"{p['macs']:,}", f"{p['utilization']:.1%}"]
        for p in result["phases"]
    ]
    return (
        "<h2>Cycles</h2>"
        + table(["phase", "calls", "cycles", "multiply-accumulates", "utilization"], rows)
        + plots.timeline(result)
        + plots.cycles_by_op(result)
        + _rates(result)
    )


def _rates(result: dict) -> str:
    """Nothing for results of versions that did not count bytes by op."""
    if not all("bytes" in op for op in result["ops"]):
        return ""
    return (
        "<p class=muted>What the array reaches while an instruction of a kind of op (below: of a layer) is in progress, loads included; "
        "they overlap. Bytes are those of its transfers.</p>" + plots.roofline(result) + plots.layer_utilization(result)
    )


def _fidelity(result: dict) -> str:
    if not result["fidelity"]:
        return ""
    rows = [
        [row["name"], row["op"], f"{row['values']:,}", f"{row['agree']:.4%}", row["largest"], f"{row['farthest']:.4f}"]
        for row in result["fidelity"]
    ]
    header = ["tensor", "op", "values", "agree", "largest difference", "farthest from a rounding tie (steps)"]
    values = sum(row["values"] for row in result["fidelity"])
    equal = sum(row["values"] * row["agree"] for row in result["fidelity"])
    return (
        "<h2>Fake-quant model against integer reference</h2>"
        f"<p>Op by op on identical inputs, {equal / values:.4%} of {values:,} values agree; the integer model is the model.</p>"
        f"<details><summary>{len(rows)} ops</summary>{table(header, rows, 2)}</details>"
    )


_SCORES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "exact": "exact matches",
}


def evaluation_table(evaluation: dict) -> tuple[list[str], list[list[str]]]:
    """Header, and one row a system: name, its scores in percent, nats a token on the test texts."""
    keys: list[str] = list(next(iter(next(iter(evaluation["models"].values()))["model"].values())))

    def row(name: str, scores: dict, nll: dict | None = None) -> list[str]:
        return [name, *(f"{scores[key]:.2f}" for key in keys), f"{nll['test']:.3f}" if nll else ""]

    rows = [row(name, scores) for name, scores in evaluation["baselines"].items()]
    for name, scores in evaluation["models"].items():
        rows += [row(f"{name}, {search}", own, scores["nll"]) for search, own in scores["model"].items()]
        if "integer" in scores:
            searches = {"greedy": scores["integer"]["greedy"]} | scores["integer"].get("searches", {})
            rows += [row(f"{name}, integer model, {s}", own, scores["integer"]["nll"]) for s, own in searches.items()]
    return ["system", *(_SCORES.get(key) or key for key in keys), "nats a token"], rows


def _evaluation(result: dict) -> str:
    if result["evaluation"] is None:
        return ""
    return (
        f"<h2>Quality on {result['evaluation']['texts']:,} held-out texts</h2>"
        "<p class=muted>Scores that come with the checkpoint; <code>ternbin eval</code> measures them.</p>"
        + table(*evaluation_table(result["evaluation"]))
    )


_FILES = (
    ("result.json", "every number of this page"),
    ("energy.csv", "energy by event"),
    ("ops.csv", "cycles and energy by op"),
    ("trace.json", "timeline for Perfetto or chrome://tracing"),
    ("program.txt", "program listing"),
    ("graph.txt", "integer graph"),
    ("graph.svg", "picture of the graph"),
    ("rtl/manifest.json", "ports, registers, counters"),
)


def _files(result: dict) -> str:
    items = "".join(f"<li><a href='{name}'>{name}</a>: {what}</li>" for name, what in _FILES)
    return f"<h2>Files beside this page</h2><ul>{items}</ul>"


def _counters(result: dict) -> str:
    """The counters and, from schema 3 on, the external bytes by what they carry: what energy lines link to."""
    parts = ""
    for basis, name, what in (("counters", "Counters", "counters"), ("traffic", "External bytes", "kinds of content")):
        if basis in result:
            phases = result[basis]
            keys = list(dict.fromkeys(key for counted in phases.values() for key in counted))
            rows = [
                [target(f"{ANCHORS[basis]}-{key}", key), *(f"{counted.get(key, 0):,}" for counted in phases.values())]
                for key in keys
            ]
            parts += f"<h2>{name}</h2>" + details(f"{len(keys)} {what}", table([what, *phases], rows))
    return parts


def _setup(result: dict) -> str:
    rows = [[key, value] for part in ("model", "hardware", "memory") for key, value in result[part].items()]
    return f"<h2>Setup</h2><details><summary>Model, hardware configuration, memory</summary>{table(['field', 'value'], rows, 9)}</details>"


def page(result: dict) -> str:
    """The whole page of one validated result."""
    title = f"ternbin: {result['name']}, {result['bits']} on {result['hardware']['name']}"
    parts = (_cards, _summary, _claim, _energy, _cycles, _evaluation, _fidelity, _counters, _setup, _files)
    made = note(f"ternbin {result['ternbin']}, {result['created']}")
    return document(title, made + "".join(part(result) for part in parts))
