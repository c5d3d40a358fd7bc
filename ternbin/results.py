"""The result of a run as data (``result.json``); docs/result-schema.md documents every field."""

import json
from pathlib import Path
from typing import Any, cast

from ternbin import formats
from ternbin.errors import InputError
from ternbin.schema import DATA_BYTES, read_json, shown, validated
from ternbin.storage import write_text

Result = dict[str, Any]  # the fields of result.json, as ternbin/result_types.py declares them

SCHEMA = formats.RESULT


def validate(result: Any, where: str | Path = "result") -> Result:
    """The result itself, or InputError naming the first field that is missing or must be otherwise. Earlier schemas are valid, too."""
    from ternbin import result_types as types

    if not isinstance(result, dict):
        raise InputError(f"{where}: schema must be {SCHEMA!r}, not {shown(result)}")
    found = cast(Result, result)
    formats.check(found.get("schema"), SCHEMA, str(where), types.EARLIER)
    validated(types.Result if found["schema"] == SCHEMA else types.EarlierResult, found, where, unknown=True)
    _check_phases(found, where)
    _check_timeline(found, where)
    if found["evaluation"] is not None:
        _check_marks(found["evaluation"], where, "evaluation.")
    return found


def _check_phases(result: Result, where: str | Path) -> None:
    """Prefill comes first, then decode, unless the model generates nothing."""
    wanted = ["prefill"] if all("answer" in text for text in texts(result)) else ["prefill", "decode"]
    for field, phases in (("phases", result["phases"]), ("energy.phases", result["energy"]["phases"])):
        names = [phase["name"] for phase in phases]
        if names != wanted:
            raise InputError(f"{where}: {field} must be {' and '.join(wanted)}, not {' and '.join(names)}")
    for number, phase in enumerate(result["claim"]["phases"]):
        if phase["name"] in [earlier["name"] for earlier in result["claim"]["phases"][:number]]:
            raise InputError(f"{where}: claim.phases must hold a phase once, not {phase['name']} twice")


def _check_marks(evaluation: Result, where: str | Path, prefix: str = "") -> None:
    """Everything is scored by what the first model is scored by."""
    marked = {
        f"models.{name}.model.{s}": own for name, m in evaluation["models"].items() for s, own in m["model"].items()
    }
    marked |= {
        f"models.{n}.integer.greedy": m["integer"]["greedy"] for n, m in evaluation["models"].items() if "integer" in m
    }
    marked |= {
        f"models.{n}.integer.searches.{s}": own
        for n, m in evaluation["models"].items()
        if "integer" in m
        for s, own in m["integer"].get("searches", {}).items()
    }
    marked |= {f"baselines.{name}": own for name, own in evaluation["baselines"].items()}
    keys = list(next(iter(marked.values())))
    for name, own in marked.items():
        lacking = [key for key in keys if key not in own]
        if lacking:
            raise InputError(f"{where}: {prefix}{name}.{lacking[0]} must be given, not left out")


def _check_timeline(result: Result, where: str | Path) -> None:
    calls = len(result["call_cycles"])
    for number, entry in enumerate(result["timeline"]):
        if entry["call"] >= calls:
            raise InputError(f"{where}: timeline[{number}].call must be below {calls}, not {entry['call']}")
        if entry["end"] < entry["start"]:
            raise InputError(
                f"{where}: timeline[{number}].end must be at least start ({entry['start']}), not {entry['end']}"
            )


def texts(result: Result) -> list[Result]:
    """``text``, ``input_ids``, ``tokens`` and ``summary`` of every text: those of a batch, or the result's own."""
    return result.get("texts", [result])


def said(result: Result) -> list[tuple[str, str]]:
    """What came out for each text, as (kind, value): a summary (or the tokens), a label, or an embedding's length."""
    lines: list[tuple[str, str]] = []
    for entry in texts(result):
        answer = entry.get("answer")
        if answer is None:
            lines.append(("summary", entry["summary"] if entry["summary"] is not None else str(entry["tokens"])))
        elif answer["kind"] == "label":
            lines.append(("label", answer["label"]))
        else:
            first = ", ".join(f"{value:.4f}" for value in answer["values"][:4])
            lines.append(("embedding", f"{len(answer['values'])} values: {first}, ..."))
    return lines


def agreements(answer: Result) -> list[str]:
    """How near an answer is to those of the other models, in words, one line a model."""
    names = {"fake_quant": "fake-quant model", "full_precision": "full-precision model"}
    lines: list[str] = []
    for name, near in answer["agreement"].items():
        same = {True: ", the same label", False: ", another label", None: ""}[near.get("same_label")]
        lines.append(f"{names[name]}: cosine {near['cosine']:.4f}, largest difference {near['largest']:.3g}{same}")
    return lines


def per_token(result: Result) -> tuple[float, float] | None:
    """Cycles and picojoules of decoding for each generated token, of all texts; None where nothing was generated."""
    if len(result["phases"]) < 2:
        return None
    tokens = max(1, len(result["tokens"]))
    return result["phases"][1]["cycles"] / tokens, result["energy"]["phases"][1]["pj"] / tokens


def load(path: str | Path) -> Result:
    """Reads and validates a result.json. InputError names the file and what is wrong."""
    path = Path(path)
    if path.is_dir():
        path = path / "result.json"
    return validate(read_json(path, DATA_BYTES), path)


def load_scores(path: Path) -> Result:
    """The ``evaluation`` of a result, from the eval.json of a checkpoint; without fields that no one shows. Raises InputError."""
    from ternbin.result_types import Evaluation

    found = cast(Result, validated(Evaluation, read_json(path), path, unknown=True))
    _check_marks(found, path)
    return found


def write_json(path: str | Path, data: object) -> None:
    """Writes JSON as storage.write_text does."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
