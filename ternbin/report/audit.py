"""The claim audit (ternbin/explore/audit.py, as data) as a self-contained HTML page and as text for the terminal."""

from collections.abc import Iterable
from html import escape

from ternbin.report import audit_plots
from ternbin.report.markup import details, document, energy_text, link, table
from ternbin.report.sources import ANCHORS, LINE_HEADER, LINE_NUMBERS, line_rows, sources_section
from ternbin.report.tables import aligned


def _bits(value: float) -> str:
    for unit, scale in (("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g} bit"


def _ratio(ratio: dict) -> str:
    return f"{ratio['value']:.3g}x ({ratio['low']:.3g} to {ratio['high']:.3g})"


def _range(figure: dict) -> str:
    return f"{energy_text(figure['pj'])} ({energy_text(figure['low'])} to {energy_text(figure['high'])})"


def _configuration(hardware: dict) -> str:
    parts = [f"{hardware['kind']}, {hardware['rows']} x {hardware['cols']} x {hardware['lanes']}"]
    parts += [f"1/{hardware['step_cycles']:g} of the lanes"] * (hardware["step_cycles"] != 1)
    parts += [f"FFN in {hardware['ffn_slices']} slices"] * (hardware["ffn_slices"] > 1)
    parts += ["five trits a byte"] * (hardware["weight_pack"] == "5trit") + [
        "keys and values in external memory"
    ] * hardware["kv_external"]
    return ", ".join(parts)


def _array_mm2(phase: dict) -> float:
    return sum(value for name, value in phase["area_mm2"].items() if name.startswith("array"))


def _precisions(subject: dict) -> str:
    rows = []
    for r in subject["precisions"]:
        factor = r["operation_factor"]
        rows.append(
            [
                r["name"],
                _configuration(r["phases"][0]["hardware"]),
                "not defined" if factor is None else f"1/{1 / factor:g}",
                *(f"{r['sizes'][key]:.1f}" for key in ("paper_mib", "with_scales_mib")),
                f"{r['image']['model_mib']:.1f}",
                f"{_array_mm2(r['phases'][0]):.3g}",
                f"{r['phases'][0]['area_mm2_total']:.3g}",
            ]
        )
    header = [
        "precision",
        "configuration, prefill",
        "operations, paper's count",
        "MiB, paper's count",
        "with row scales",
        "in memory, all",
        "array, mm2",
        "in all, mm2",
    ]
    return table(header, rows, 2) + _details(subject)


def _details(subject: dict) -> str:
    """Parts of the area, and bits moved at each level in a phase, by precision."""
    records = subject["precisions"]
    names = [record["name"] for record in records]
    first = [record["phases"][0]["area_mm2"] for record in records]
    areas = [[part, *(f"{area[part]:.4g}" for area in first)] for part in first[0]]
    text = (
        "<details><summary>Area by part, mm2</summary><p class=muted>Derived: elements, registers and parts of the core from "
        "<a href='#sources'>gate-level records</a>, memories from CACTI banks; without placement and wires between parts.</p>"
        f"{table(['part', *names], areas)}</details>"
    )
    for number, phase in enumerate(records[0]["phases"]):
        phases = [record["phases"][number] for record in records]
        rows = [
            [level, *(_bits(p["bits_moved"][level] / p["tokens"]) for p in phases)] for level in phase["bits_moved"]
        ]
        text += f"<details><summary>Bits moved a token at each level, {phase['name']}</summary>{table(['level', *names], rows)}</details>"
    return text


SHOWN = ("FP32", "BF16", "INT8", "W4A8")  # references that tables have a column for
TABLES = {  # name in the data -> (of its ratios, ending of anchors, heading)
    "precisions": ("ratios", "", "arrays of equal throughput"),
    "equal_latency": ("ratios_equal_latency", "-latency", "each reference as it needs least energy for its latency"),
    "equal_area": (
        "ratios_equal_area",
        "-area",
        "each reference as it needs least energy on a chip of at most 1.25 times W2A2's",
    ),
}


def _phase(subject: dict, table_name: str, number: int, prefix: str) -> str:
    ratios, ending, heading = TABLES[table_name]
    rows = []
    for record in subject[table_name]:
        p = record["phases"][number]
        anchor = f"{prefix}-{record['name']}-{p['name']}{ending}"
        versus = {name: subject[ratios][name][record["name"]][p["name"]] for name in SHOWN}
        groups = [
            link(f"{anchor}-{group}", energy_text(p["energy"][group]["pj"] / p["tokens"]))
            for group in ("arithmetic", "on-chip", "external")
        ]
        rows.append(
            [
                record["name"],
                _configuration(p["hardware"]),
                _bits(p["external_bits"] / p["tokens"]),
                *groups,
                link(anchor, _range(p["per_token_pj"])),
                f"{1e3 * p['seconds'] / p['tokens']:.3g}",
                f"{p['area_mm2_total']:.3g}",
                *(_ratio(versus[name]["system"]) for name in SHOWN),
            ]
        )
    header = ["a token", "configuration", "external", "arithmetic", "on chip", "external", "system (90%)", "ms", "mm2"]
    header += [f"{name} / this" for name in SHOWN]
    name = subject["precisions"][0]["phases"][number]["name"]
    return f"<h3>{escape(name)}, {heading}</h3>" + table(header, rows, 2)


def headline_rows(subject: dict) -> list[list[str]]:
    """Reference, ratios with intervals for each phase; header first."""
    phases = list(dict.fromkeys(row["phase"] for row in subject["headline"]))
    pairs = list(dict.fromkeys((row["reference"], row["case"]) for row in subject["headline"]))
    found = {(row["reference"], row["case"], row["phase"]): _ratio(row) for row in subject["headline"]}
    return [
        ["energy a token", *phases],
        *(
            [f"{reference} over {case}", *(found[reference, case, phase] for phase in phases)]
            for reference, case in pairs
        ),
    ]


def _headline(subject: dict) -> str:
    header, *rows = headline_rows(subject)
    moved = [
        [
            f"{row['reference']} over {row['case']}, {row['phase']}",
            ", ".join(
                f"{source} {own['low']:.3g} to {own['high']:.3g}" for source, own in list(row["sources"].items())[:4]
            ),
        ]
        for row in subject["headline"]
    ]
    return (
        "<p class=muted>Every reference in the shape, with the rows and lanes that need least energy, within 5% of its own shortest time. "
        "In brackets 90% of draws: one factor for each source of uncertainty, shared by both sides "
        "(docs/energy.md, 'Uncertainty').</p>"
        + table(header, rows)
        + f"<details><summary>What moves these ratios most</summary>{table(['ratio', 'sources, each alone'], moved)}</details>"
    )


def _kept(subject: dict) -> str:
    rows = [
        [
            phase["phase"],
            step["kept"],
            f"{step['share']:.1%}",
            f"{step['operation_ratio']:.2f}x",
            f"{phase['reference_pj'] / step['system_pj']:.1f}x",
        ]
        for phase in subject["kept_in_fp32"]
        for step in phase["steps"]
    ]
    return (
        "<h3>What full precision elsewhere does to the claim</h3><p class=muted>W2A2; each line keeps one more part in "
        "FP32, as the paper's released code does. FP32 operations of an element: 4 in "
        "LayerNorm, 10 in softmax, 1 in the embedding (multiply-accumulates; projected); the rest is derived.</p>"
        + table(
            ["phase", "kept in FP32", "share of operations", "FP32 / W2A2: operations", "energy of the system"], rows, 2
        )
        + audit_plots.kept_in_fp32(subject)
    )


def _break_even(subject: dict) -> str:
    rows = []
    for sweep in subject["break_even"]:
        for curve in sweep["curves"]:
            values = [ratio for _, ratio in curve["points"]]
            even = [] if curve["break_even"] is None else [f"{curve['break_even']:.3g} {sweep['unit']}"]
            rows.append(
                [
                    sweep["name"],
                    sweep["tier"],
                    curve["reference"],
                    curve["phase"],
                    f"{min(values):.3g}x to {max(values):.3g}x"
                    + "".join(f"; is {curve['level']:g} at {at}" for at in even),
                ]
            )
    reasons = [
        f"<li>{escape(sweep['name'])} {point['value']:g}, {escape(name)}: {escape(reason)}</li>"
        for sweep in subject["break_even"]
        for point in sweep["points"]
        for name, reason in point["impossible"].items()
    ]
    missing = (
        f"<details><summary>{len(reasons)} points that cannot be mapped</summary><ul>{''.join(reasons)}</ul></details>"
        if reasons
        else ""
    )
    level = next(curve["level"] for sweep in subject["break_even"] for curve in sweep["curves"])
    return (
        "<h3>Where the break-even lies</h3><p class=muted>Energy of the system a token, reference over W2A2, "
        f"least energy for its latency; where the ratio is the paper's {level:g}, the last column says at which value. "
        "Batch is projected (formula: docs/energy.md).</p>"
        + audit_plots.break_even(subject)
        + table(["parameter", "tier", "reference", "phase", "ratio, from least to most"], rows, 4)
        + missing
    )


def _lines(subject: dict, prefix: str) -> str:
    parts = [
        _phase_lines(record, phase, f"{prefix}-{record['name']}-{phase['name']}{ending}", heading)
        for name, (_, ending, heading) in TABLES.items()
        for record in subject[name]
        for phase in record["phases"]
    ]
    return "<h3>Every event with its counter, figure, tier and source</h3>" + "".join(parts)


def _phase_lines(record: dict, phase: dict, anchor: str, label: str) -> str:
    rows = line_rows([line for line in phase["lines"] if line["count"]], anchor, f"{anchor}-")
    counted = "".join(
        f"<p class=muted>{title}: "
        + ", ".join(
            f"<span id='{anchor}-{ANCHORS[basis]}-{name}'>{name} {value:,}</span>"
            for name, value in phase[basis].items()
        )
        + "</p>"
        for basis, title in (("counters", "Counters"), ("traffic", "External bytes"))
    )
    title = (
        f"{record['name']}, {phase['name']}, {label}: "
        f"{_range(phase['energy']['system'])} in all, {phase['tokens']} tokens, {phase['cycles']:,} cycles"
    )
    return details(title, f"<a id='{anchor}'></a>{table(LINE_HEADER, rows, LINE_NUMBERS)}{counted}")


def quality_rows(subject: dict) -> list[list[str]]:
    """System, precision, scores and energy a token; header first."""
    phases = [phase["name"] for phase in subject["precisions"][0]["phases"]]
    return [
        ["system", "precision", "score is", "nats a token", "ROUGE-1", "ROUGE-L", *phases],
        *(
            [
                row["system"],
                row["precision"],
                row["tier"],
                f"{row['nats']:.3f}",
                f"{row['rouge_1']:.2f}",
                f"{row['rouge_l']:.2f}",
                *(energy_text(row["per_token_pj"][phase]["pj"]) for phase in phases),
            ]
            for row in subject["quality"]
        ),
    ]


METRICS = {"nats": "nats a token", "rouge_1": "ROUGE-1"}  # of equal quality


def equal_quality_rows(subject: dict) -> list[list[str]]:
    """A quantized setting each: what models of a reference precision need that score as it does, over what it needs; header first."""
    phases = [phase["name"] for phase in subject["precisions"][0]["phases"]]
    rows = [["at equal quality", "by", "score", "between", *phases]]
    found: dict[tuple[str, str], list[dict]] = {}
    for own in subject["equal_quality"]:
        found.setdefault((own["case"], own["metric"]), []).append(own)
    for (case, metric), each in found.items():
        first = each[0]
        ratios = [f"{own['bound']} {_ratio(own)}".strip() for own in each]
        name = f"{first['reference']} over {case}"
        rows.append([name, METRICS[metric], f"{first['score']:.4g}", " and ".join(first["between"]), *ratios])
    return rows


def _quality(subject: dict) -> str:
    header, *rows = quality_rows(subject)
    if not rows:
        return ""
    text = (
        "<h3>Energy beside quality</h3><p class=muted>Scores of the evaluations beside the checkpoints, greedy, on held-out "
        "texts; BF16 and INT8 as if they kept all of FP32's (projected). The ratios above are at equal shape, not at equal "
        "quality: a smaller model in INT8 may score as a ternary one does, and is then what it competes with.</p>"
        + table(header, rows, 3)
        + audit_plots.quality(subject)
    )
    if not subject["equal_quality"]:
        return text
    header, *rows = equal_quality_rows(subject)
    return (
        text
        + "<p class=muted>At equal quality: energy of an INT8 model whose size is such that it scores as the quantized model does, over "
        "that model's. Between two sizes the logarithm of the energy is a straight line over the score. Intervals are of energy alone, "
        "not of scores; 'at most': the smallest model scores better, so that a still smaller one would do.</p>"
        + table(header, rows, 4)
    )


def _measured(report: dict) -> str:
    if not report.get("measured"):
        return ""
    header, *rows = measured_rows(report)
    return (
        "<h2>Measured on silicon</h2><p class=muted>Joules of a meter over passes, as given; the model's figure of the same precision "
        "and phase beside it, at equal throughput.</p>" + table(header, rows, 4)
    )


def measured_rows(report: dict) -> list[list[str]]:
    """Device, what ran, measured and modelled energy a token; header first."""
    model = {
        (subject["name"], record["name"], phase["name"]): phase["per_token_pj"]
        for subject in report["subjects"]
        for record in subject["precisions"]
        for phase in record["phases"]
    }
    rows = [["device", "model", "precision", "phase", "measured, a token (windows)", "model (90%)", "measured / model"]]
    for own in report["measured"]:
        found = model.get((own["model"], own["precision"], own["phase"]))
        beside = [_range(found), f"{own['pj'] / found['pj']:.3g}x"] if found else ["not audited", ""]
        rows.append([own["device"], own["model"], own["precision"], own["phase"], _range(own), *beside])
    return rows


def _subject(subject: dict, number: int) -> str:
    prefix, phases = f"e{number}", range(len(subject["precisions"][0]["phases"]))
    hw = subject["hardware"]
    return (
        f"<h2>{escape(subject['name'])}: {subject['source_len']} tokens in, {subject['new_tokens']} out</h2>"
        + _headline(subject)
        + f"<p class=muted>W2A2: {hw['rows']} x {hw['cols']} elements of {hw['lanes']} lanes, {hw['axi_data_bits']}-bit bus, "
        f"{hw['clock_mhz']:g} MHz for all, {escape(subject['dram'])}. Every precision has the same bus and the same memory "
        "capacities in bits. Events are counted from the instructions, as the hardware counts them; cycles are the cycle "
        "model's. References run the schedule of W2A2 with whole operands; epilogue and vector unit are those of W2A2, and "
        "floating point runs at the same clock: both favour the references.</p>"
        + _precisions(subject)
        + audit_plots.energy_by_precision(subject)
        + "".join(_phase(subject, name, p, prefix) for p in phases for name in TABLES)
        + _quality(subject)
        + _kept(subject)
        + _break_even(subject)
        + _lines(subject, prefix)
    )


def _paper(report: dict) -> str:
    rows = [
        [
            bits,
            f"{size:.1f}",
            f"{report['paper_sizes_with_scales_mib'][bits]:.1f}",
            f"{report['paper_flops_factors'][bits]:g}x",
        ]
        for bits, size in report["paper_sizes_mib"].items()
    ]
    return (
        "<h2>The paper's table, from the shapes of BART-base</h2>"
        + table(["bits, weights-embeddings-activations", "MiB", "with row scales, MiB", "operations"], rows)
        + "<p class=muted>Liu et al., ACL 2023 (arXiv 2306.01841): an operation counts weight bits x activation bits / "
        "64; W2A2 is 1/16. Sizes are those of the printed table to the digit; the row scales are what it leaves "
        "out.</p>"
    )


_RULES = ("predicted", "fitted")  # how a prediction comes to a chip's node and voltage


def _within_2(ratios: Iterable[float | None]) -> tuple[int, int]:
    """How many predictions are within a factor of 2 of what is published, and how many there are."""
    there = [ratio for ratio in ratios if ratio is not None]
    return sum(0.5 <= ratio <= 2 for ratio in there), len(there)


def _published(report: dict) -> str:
    found = report["published"]
    rows = [
        [
            p["name"],
            p["operands"],
            f"{p['fj_per_op']:.3g}",
            "not stated" if p["node_nm"] is None else f"{p['node_nm']} nm",
            "not stated" if p["volt"] is None else f"{p['volt']:g} V",
            *(
                "" if p[f"{rule}_fj"] is None else f"{p[f'{rule}_fj']:.3g} ({p[f'{rule}_over']:.2g}x)"
                for rule in _RULES
            ),
            f"{p['source']}; not in the prediction: {p['not_in']}",
        ]
        for p in found
    ]
    where = report["sources"]["provenance"]
    for subject in report["subjects"]:
        for record in subject["precisions"]:
            p = record["phases"][0]
            for what, energy in (
                ("arithmetic", p["energy"]["arithmetic"]["pj"]),
                ("chip", p["energy"]["arithmetic"]["pj"] + p["energy"]["on-chip"]["pj"]),
            ):
                rows.append(
                    [
                        f"this toolkit, {subject['name']}, prefill, {what}",
                        record["name"],
                        f"{1e3 * energy / (2 * p['macs']):.3g}",
                        "45 nm",
                        f"{where['volt']:g} V",
                        "",
                        "",
                        "derived: the tables above",
                    ]
                )
    close = " and ".join("{} of {}".format(*_within_2(p[f"{rule}_over"] for p in found)) for rule in _RULES)
    return (
        "<h2>Beside published accelerators</h2><p class=muted>As stated by their authors, at their node and voltage; a "
        "multiply-accumulate is two operations. Predicted: a dot product of the chip's own width, operands and reuse at gate level, "
        "with random operands, registers and clock pins, and nothing else of the chip; brought to its node and voltage by the node and "
        f"the square of the voltage, or by Stillmaker and Baas (Integration 58, 2017). Within a factor of 2: {close}.</p>"
        + table(
            [
                "accelerator",
                "operands",
                "fJ an operation",
                "node",
                "voltage",
                "predicted, node x V^2",
                "predicted, Stillmaker and Baas",
                "source",
            ],
            rows,
            2,
        )
    )


def _elements(report: dict) -> str:
    """Each element beside what is published for its operations."""
    rows = [
        [
            e["name"],
            f"{e['fj']:,.0f}",
            f"{e['um2']:,.0f}",
            *(
                ["none", "", ""]
                if e["anchor_fj"] is None
                else [f"{e['anchor_fj']:,.0f}", f"{e['over']:.1f}x", f"{e['over_at_volt']:.1f}x"]
            ),
        ]
        for e in report["elements"]
    ]
    header = [
        "element",
        "fJ a multiply-accumulate, registers and clock included",
        "um2",
        "Horowitz, 45 nm, 0.9 V",
        "over it",
    ]
    return table([*header, "over it at the library's voltage"], rows, 1)


def _gate_level(report: dict) -> str:
    rows = [
        [
            reference,
            kind,
            *(
                f"{ratios[key]:.1f}x"
                for key in ("arithmetic_glitch", "arithmetic_zero_delay", "with_registers_glitch", "area")
            ),
        ]
        for reference, kinds in report["ratios"]["multiply_accumulate"].items()
        for kind, ratios in kinds.items()
    ]
    error = report["gate_level_error"]
    shown = "not measured" if error is None else f"{error:.1%}" if isinstance(error, float) else escape(str(error))
    return (
        "<h2>Multiply-accumulate at gate level</h2>"
        + table(["reference", "over", "arithmetic", "zero delay", "with operand registers and clock", "area"], rows, 2)
        + _elements(report)
        + f"<p class=muted>Whole cores at gate level against the model of a run: at most {shown} apart, toggles and clock of the core.</p>"
    )


def page(report: dict) -> str:
    """The page of ``ternbin report --claim``."""
    title = 'ternbin: what becomes of "16x more efficient"'
    body = _paper(report) + _gate_level(report)
    body += "".join(_subject(subject, number) for number, subject in enumerate(report["subjects"]))
    body += _measured(report) + _published(report) + sources_section(report["sources"])
    return document(title, body, "body{max-width:1400px}td.n:not(:last-child){white-space:nowrap}")


def terminal(report: dict) -> str:
    """What ``ternbin report --claim`` prints."""
    factors = report["paper_flops_factors"]
    paper = [[bits, f"{size:.1f}", f"{factors[bits]:g}x"] for bits, size in report["paper_sizes_mib"].items()]
    lines = [aligned([["paper's table", "MiB", "operations"], *paper])]
    for subject in report["subjects"]:
        lines += _subject_lines(subject)
    if report.get("measured"):
        lines += ["", aligned(measured_rows(report))]
    return "\n".join(lines)


def _subject_lines(subject: dict) -> list[str]:
    lines = [
        "",
        f"{subject['name']}: {subject['source_len']} tokens in, {subject['new_tokens']} out, {subject['dram']}; each reference in the "
        "configuration that needs least energy for its latency",
        "",
        aligned(headline_rows(subject)),
    ]
    for number in range(len(subject["precisions"][0]["phases"])):
        lines += ["", aligned(_terminal_rows(subject, number))]
    if subject["quality"]:
        lines += ["", aligned(quality_rows(subject))]
    if subject["equal_quality"]:
        lines += ["", aligned(equal_quality_rows(subject))]
    for phase in subject["kept_in_fp32"]:
        steps = ", ".join(
            f"{s['kept']} {s['operation_ratio']:.1f}x / {phase['reference_pj'] / s['system_pj']:.1f}x"
            for s in phase["steps"]
        )
        lines.append(f"  {phase['phase']}, kept in FP32 one after the other (operations / energy): {steps}")
    return lines


def _terminal_rows(subject: dict, number: int) -> list[list[str]]:
    """Header and a row a precision, of one phase, each reference as it needs least energy for its latency."""
    name = subject["precisions"][0]["phases"][number]["name"]
    rows = [[name, "external bits", "energy a token (90%)", "ms", "mm2", *(f"{one} / this" for one in SHOWN[:3])]]
    for own in subject["equal_latency"]:
        p = own["phases"][number]
        rows.append(
            [
                own["name"],
                _bits(p["external_bits"] / p["tokens"]),
                _range(p["per_token_pj"]),
                f"{1e3 * p['seconds'] / p['tokens']:.3g}",
                f"{p['area_mm2_total']:.3g}",
                *(_ratio(subject["ratios_equal_latency"][one][own["name"]][p["name"]]["system"]) for one in SHOWN[:3]),
            ]
        )
    return rows
