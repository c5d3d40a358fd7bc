"""The result of a run as data (``result.json``); docs/result-schema.md documents every field."""

import json
import os
import tempfile
from pathlib import Path

from ternbin.errors import InputError

SCHEMA = "ternbin-result/2"
READABLE = ("ternbin-result/1", SCHEMA)  # 1 has no batches, else the same

# Field -> accepted types. Renderers rely on exactly these.
FIELDS: dict[str, type | tuple[type, ...]] = {
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


def validate(result: dict, where: str = "result") -> dict:
    """The result itself, or InputError naming the first missing or mistyped field."""
    if not isinstance(result, dict) or result.get("schema") not in READABLE:
        found = result.get("schema") if isinstance(result, dict) else type(result).__name__
        raise InputError(f"{where}: schema must be {SCHEMA!r}, not {found!r}")
    for name, kinds in FIELDS.items():
        if name not in result:
            raise InputError(f"{where}: field {name!r} is missing")
        if not isinstance(result[name], kinds) or (isinstance(result[name], bool) and kinds is int):
            raise InputError(f"{where}: field {name!r} must not be {type(result[name]).__name__}")
    for number, entry in enumerate(texts(result)):
        for name in ("text", "input_ids", "tokens", "summary"):
            if not isinstance(entry, dict) or not isinstance(entry.get(name), FIELDS[name]):
                raise InputError(f"{where}: field 'texts[{number}].{name}' is missing or mistyped")
    return result


def texts(result: dict) -> list[dict]:
    """``text``, ``input_ids``, ``tokens`` and ``summary`` of every text: those of a batch, or the result's own."""
    return result.get("texts", [result])


def per_token(result: dict) -> tuple[float, float]:
    """Cycles and picojoules of decoding for each generated token, of all texts."""
    tokens = max(1, len(result["tokens"]))
    return result["phases"][1]["cycles"] / tokens, result["energy"]["phases"][1]["pj"] / tokens


def load(path: str | Path) -> dict:
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
