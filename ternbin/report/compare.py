"""Several results side by side."""

from collections.abc import Sequence

from ternbin.report.markup import document, energy_text, table
from ternbin.results import per_token, texts

COLUMNS = (
    "name",
    "bits",
    "hardware",
    "bit_exact",
    "texts",
    "tokens",
    "cycles",
    "utilization",
    "energy_pj",
    "prefill_pj",
    "decode_cycles_per_token",
    "decode_pj_per_token",
)


def rows(results: list[dict]) -> list[dict]:
    """One flat record a result; ``tokens`` generated and what decoding takes for each are of all its texts."""
    records = []
    for result in results:
        phases = {phase["name"]: phase for phase in result["energy"]["phases"]}
        each = per_token(result)
        records.append(
            {
                "name": result["name"],
                "bits": result["bits"],
                "hardware": result["hardware"]["name"],
                "bit_exact": result["bit_exact"],
                "texts": len(texts(result)),
                "tokens": len(result["tokens"]),
                "cycles": result["cycles"],
                "utilization": result["utilization"],
                "energy_pj": result["energy"]["pj"],
                "prefill_pj": phases["prefill"]["pj"],
                "decode_cycles_per_token": None if each is None else round(each[0]),
                "decode_pj_per_token": None if each is None else each[1],
            }
        )
    return records


def _cells(record: dict) -> list[str]:
    def text(key: str) -> str:
        value = record[key]
        if value is None:
            return "-"
        if key.endswith("_pj") or key.endswith("pj_per_token"):
            return energy_text(value)
        if key == "utilization":
            return f"{value:.1%}"
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

    return [text(key) for key in COLUMNS]


# ---- hardware, time and energy: a row a thing, a column a run -------------------------------------------------------


def _names(results: list[dict]) -> list[str]:
    """A heading for each run: the hardware's name where these differ, else name and bits; equal ones are numbered."""
    names = [result["hardware"]["name"] for result in results]
    if len(set(names)) == 1:
        names = [f"{result['name']} {result['bits']}" for result in results]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def hardware_rows(results: list[dict]) -> list[list[str]]:
    """The fields of hardware and memory in which runs differ; header first."""
    settings = [result["hardware"] | result["memory"] for result in results]
    fields = list(dict.fromkeys(name for own in settings for name in own if name != "name"))
    differ = [name for name in fields if len({str(own.get(name)) for own in settings}) > 1]
    return [["field", *_names(results)], *([name, *(str(own.get(name, "")) for own in settings)] for name in differ)]


BUSY = {
    "bus, reading": ("axi_load_beats", "axi_fetch_beats"),
    "bus, writing": ("axi_write_beats",),
    "array": ("execute_array_active",),
    **{unit: (f"{unit}_busy",) for unit in ("load", "execute", "vector", "store")},
}


def time_rows(results: list[dict]) -> list[list[str]]:
    """Cycles of each phase, over those of the first run, and the share of them in which each part is busy; header first."""
    rows = [["", *_names(results)]]
    for phase in (phase["name"] for phase in results[0]["phases"]):
        cycles = [sum(p["cycles"] for p in result["phases"] if p["name"] == phase) for result in results]
        counters = [result["counters"].get(phase, {}) for result in results]
        rows.append([f"{phase}, cycles", *_relative(cycles, [f"{value:,}" for value in cycles])])
        for part, names in BUSY.items():
            if all(name in own for own in counters for name in names):
                shares = [
                    sum(own[name] for name in names) / max(1, all_) for own, all_ in zip(counters, cycles, strict=True)
                ]
                rows.append([f"{phase}, {part} busy", *(f"{share:.1%}" for share in shares)])
    return rows


def energy_rows(results: list[dict]) -> list[list[str]]:
    """Energy of each unit in all phases, over that of the first run; header first."""
    units: list[dict[str, float]] = []
    for result in results:
        own: dict[str, float] = {}
        for phase in result["energy"]["phases"]:
            for unit, pj in phase.get("by_unit", {}).items():
                own[unit] = own.get(unit, 0) + pj
        units.append(own)
    order = sorted(dict.fromkeys(unit for own in units for unit in own), key=lambda unit: -units[0].get(unit, 0))
    rows = [["", *_names(results)]]
    for unit in order:
        values = [own.get(unit, 0.0) for own in units]
        rows.append([unit, *_relative(values, [energy_text(value) for value in values])])
    totals = [result["energy"]["pj"] for result in results]
    return [*rows, ["all", *_relative(totals, [energy_text(total) for total in totals])]]


def quality_rows(results: list[dict]) -> list[list[str]]:
    """Scores of the integer models, from what the checkpoints carry, beside the energy of a run; header first, nothing but it without."""
    scores = [_own_scores(result) for result in results]
    names = dict.fromkeys(name for own in scores for name in own)
    rows = [[name, *(f"{own[name]:.2f}" if name in own else "-" for own in scores)] for name in names]
    if rows:
        rows.append(["energy of the run", *(energy_text(result["energy"]["pj"]) for result in results)])
    return [["", *_names(results)], *rows]


def _own_scores(result: dict) -> dict[str, float]:
    """Of the integer model of a run's own bits: the first score of each search, and nats a token."""
    models = (result["evaluation"] or {"models": {}})["models"].values()
    own = [m["integer"] for m in models if "integer" in m and m.get("bits", result["bits"]) == result["bits"]]
    if len(own) != 1:
        return {}
    searches = {"greedy": own[0]["greedy"]} | own[0].get("searches", {})
    first = next(iter(own[0]["greedy"]))
    return {f"{first}, {name}": marks[first] for name, marks in searches.items()} | {
        "nats a token": own[0]["nll"]["test"]
    }


def _relative(values: Sequence[float], texts: Sequence[str]) -> list[str]:
    """Each with what it is of the first."""
    first = values[0]
    return [
        texts[0],
        *(
            f"{text} ({value / first:.2f}x)" if first else text
            for value, text in zip(values[1:], texts[1:], strict=True)
        ),
    ]


# ---- renderings -----------------------------------------------------------------------------------------------------


def page(results: list[dict]) -> str:
    """The comparison as one self-contained HTML page."""
    parts = [table(list(COLUMNS), [_cells(record) for record in rows(results)], 3)]
    for title, (header, *body) in (
        ("Where hardware and memory differ", hardware_rows(results)),
        ("Where the time goes", time_rows(results)),
        ("Where the energy goes", energy_rows(results)),
        ("Quality beside energy, of the integer models on held-out texts", quality_rows(results)),
    ):
        if body:
            parts += [f"<h2>{title}</h2>", table(header, body)]
    return document(f"ternbin: {len(results)} runs", "".join(parts))


def terminal(results: list[dict]) -> str:
    """The comparison for the terminal."""
    from ternbin.report.tables import aligned

    text = aligned([list(COLUMNS), *(_cells(record) for record in rows(results))])
    differ = hardware_rows(results)
    return text if len(differ) == 1 else f"{text}\n\n{aligned(differ)}"
