"""The result of a run as data (``result.json``); docs/result-schema.md documents every field."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ternbin.errors import InputError

Result = dict[str, Any]  # the fields of result.json
Kinds = type | tuple[type, ...]

SCHEMA = "ternbin-result/3"
READABLE = ("ternbin-result/1", "ternbin-result/2", SCHEMA)  # what they lack: docs/result-schema.md

# Field -> accepted types. Renderers rely on exactly these.
FIELDS: dict[str, Kinds] = {
    "schema": str,
    "ternbin": str,
    "created": str,
    "name": str,
    "bits": str,
    "model": dict,
    "hardware": dict,
    "memory": dict,
    "text": (str, type(None)),
    "input_ids": list,
    "tokens": list,
    "summary": (str, type(None)),
    "bit_exact": bool,
    "tensors_checked": int,
    "values_checked": int,
    "mismatches": int,
    "first_divergence": (dict, type(None)),
    "cycles": int,
    "macs": int,
    "utilization": float,
    "build_seconds": float,
    "sim_seconds": float,
    "sim_macs_per_second": float,
    "sim_cycles_per_second": float,
    "phases": list,
    "ops": list,
    "counters": dict,
    "energy": dict,
    "claim": dict,
    "fidelity": list,
    "evaluation": (dict, type(None)),
    "timeline": list,
    "call_cycles": list,
}
TEXT_FIELDS = ("text", "input_ids", "tokens", "summary")  # of every text of a batch
FIELDS_3: dict[str, type] = {"traffic": dict}  # from schema 3 on
LINE_FIELDS: dict[str, Kinds] = {  # of an energy line, from schema 3 on
    "phase": str,
    "unit": str,
    "event": str,
    "group": str,
    "basis": str,
    "counter": str,
    "factor": (int, float),
    "count": (int, float),
    "pj_each": (int, float),
    "pj": (int, float),
    "pj_low": (int, float),
    "pj_high": (int, float),
    "tier": str,
    "table": str,
    "record": str,
    "source": str,
}


def validate(result: Any, where: str = "result") -> Result:
    """The result itself, or InputError naming the first missing or mistyped field."""
    if not isinstance(result, dict):
        raise InputError(f"{where}: schema must be {SCHEMA!r}, not {type(result).__name__!r}")
    found = cast(Result, result)
    if found.get("schema") not in READABLE:
        raise InputError(f"{where}: schema must be {SCHEMA!r}, not {found.get('schema')!r}")
    _fields(found, FIELDS, where)
    if found["schema"] == SCHEMA:
        _fields(found, FIELDS_3, where)
        for number, line in enumerate(found["energy"].get("lines", ())):
            _entry(line, LINE_FIELDS, f"{where}: field 'energy.lines[{number}]")
    for number, entry in enumerate(texts(found)):
        _entry(entry, {name: FIELDS[name] for name in TEXT_FIELDS}, f"{where}: field 'texts[{number}]")
    return found


def _fields(result: Result, fields: Mapping[str, Kinds], where: str) -> None:
    for name, kinds in fields.items():
        if name not in result:
            raise InputError(f"{where}: field {name!r} is missing")
        if not isinstance(result[name], kinds) or (isinstance(result[name], bool) and kinds is int):
            raise InputError(f"{where}: field {name!r} must not be {type(result[name]).__name__}")


def _entry(entry: Any, fields: Mapping[str, Kinds], where: str) -> None:
    """One entry of a list; ``where`` ends in its place, in an open quote."""
    for name, kinds in fields.items():
        if not isinstance(entry, dict) or not isinstance(cast(Result, entry).get(name), kinds):
            raise InputError(f"{where}.{name}' is missing or mistyped")


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
    try:
        return validate(json.loads(path.read_text()), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def write_text(path: str | Path, text: str) -> None:
    """Writes a file whole or not at all; what was there before stays when it fails."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def write_json(path: str | Path, data: object) -> None:
    """Writes JSON as write_text does."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
