"""Benchmarks of several parts: each runs in a process of its own, and its result is kept, so that an interrupted benchmark goes on where it
stopped."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Part = Callable[[argparse.Namespace], dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser, parts: Mapping[str, Part], work: str) -> None:
    """What all of them are asked; ``work``: where results are kept."""
    parser.add_argument("--hw", default="base")
    parser.add_argument("--bits", default="2-2")
    parser.add_argument("--work", type=Path, default=Path(work))
    parser.add_argument("--fresh", action="store_true", help="forget results of an earlier call")
    parser.add_argument("--part", choices=parts, help="one part only, its result to --json")
    parser.add_argument("--json", type=Path)


def figures(
    args: argparse.Namespace,
    script: str,
    parts: Mapping[str, Part],
    stem: Callable[[str], str],
    options: Sequence[str | Path] = (),
) -> dict[str, Any] | None:
    """All figures; parts that are there already are not run again. None where ``--part`` asked for one alone, which is written.

    ``stem``: name of a part's file in ``--work``, from the part's; ``options``: of the script, beside those of :func:`add_arguments`.
    """
    args.work.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        for path in args.work.glob("*.json"):
            path.unlink()
    if args.part:
        args.json.write_text(json.dumps(parts[args.part](args)), encoding="utf-8")
        return None
    found: dict[str, Any] = {}
    for part in parts:
        path = args.work / f"{stem(part)}.json"
        if not path.exists():
            print(f"{part} ...", file=sys.stderr)
            own = ["--hw", args.hw, "--bits", args.bits, "--work", args.work, "--json", path.with_suffix(".new")]
            subprocess.run([sys.executable, script, "--part", part, *own, *options], check=True)
            path.with_suffix(".new").replace(path)
        found |= json.loads(path.read_text(encoding="utf-8"))
    return found


def write(args: argparse.Namespace, record: dict[str, Any]) -> None:
    """The record to ``--json``, where that is given."""
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
