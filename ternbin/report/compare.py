"""Several results side by side."""

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


def page(results: list[dict]) -> str:
    """The comparison as one self-contained HTML page."""
    body = table(list(COLUMNS), [_cells(record) for record in rows(results)], 3)
    return document(f"ternbin: {len(results)} runs", body)


def terminal(results: list[dict]) -> str:
    """The comparison for the terminal."""
    from ternbin.report.tables import aligned

    return aligned([list(COLUMNS), *(_cells(record) for record in rows(results))])
