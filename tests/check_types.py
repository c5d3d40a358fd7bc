"""Errors of pyright against a ratchet that only shrinks: `python tests/check_types.py [--update [--force]]`.

types_ratchet.json holds, for every file that may still have some, the number of its errors: those of the standard mode, and those
that only the strict mode reports, which pyproject.toml switches on for the folders in ``[tool.pyright] strict``. More errors than
that fail; fewer fail too, until the number is lowered with --update, so that nothing gained is lost again. --update never raises a
number and never adds a file unless --force says so.

Exit code: 0 as the ratchet says, 1 otherwise, with a line for each file.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RATCHET = Path(__file__).with_name("types_ratchet.json")
# What strict mode adds to standard mode (pyright's documentation, table of defaults).
STRICT_ONLY = frozenset(
    """
    reportConstantRedefinition reportDeprecated reportDuplicateVariable reportIncompleteStub reportInconsistentConstructor
    reportInvalidStubStatement reportMatchNotExhaustive reportMissingParameterType reportMissingTypeArgument
    reportMissingTypeStubs reportPrivateUsage reportTypeCommentUsage reportUnknownArgumentType reportUnknownLambdaType
    reportUnknownMemberType reportUnknownParameterType reportUnknownVariableType reportUnnecessaryCast
    reportUnnecessaryComparison reportUnnecessaryContains reportUnnecessaryIsInstance reportUntypedBaseClass
    reportUntypedClassDecorator reportUntypedFunctionDecorator reportUntypedNamedTuple reportUnusedClass
    reportUnusedExpression reportUnusedFunction reportUnusedImport reportUnusedVariable
    """.split()
)
Counts = dict[str, dict[str, int]]  # mode ("standard" or "strict") -> file -> errors


def errors(report: Mapping) -> Iterator[tuple[str, str]]:
    """(mode, file) of each error in what ``pyright --outputjson`` wrote; files relative to the root, links resolved."""
    for found in report["generalDiagnostics"]:
        if found["severity"] == "error":
            mode = "strict" if found.get("rule") in STRICT_ONLY else "standard"
            yield mode, Path(found["file"]).resolve().relative_to(ROOT).as_posix()


def count(report: Mapping) -> Counts:
    totals = Counter(errors(report))
    return {
        mode: {file: number for (of, file), number in sorted(totals.items()) if of == mode}
        for mode in ("standard", "strict")
    }


def complaints(found: Counts, allowed: Counts) -> list[str]:
    """A line for each file whose number of errors is not the ratchet's."""
    lines = []
    for mode in found:
        for file in sorted(found[mode].keys() | allowed[mode].keys()):
            now, limit = found[mode].get(file, 0), allowed[mode].get(file, 0)
            if now > limit:
                lines.append(f"{file}: {now} {mode} errors of types, at most {limit} allowed: pyright {file}")
            elif now < limit:
                lines.append(f"{file}: {now} {mode} errors of types, {limit} allowed: lower it with --update")
    return lines


def lowered(found: Counts, allowed: Counts) -> Counts:
    """The ratchet with every number that can be lowered lowered, files without errors left out."""
    result: Counts = {}
    for mode, files in allowed.items():
        numbers = {file: min(limit, found[mode].get(file, 0)) for file, limit in files.items()}
        result[mode] = {file: number for file, number in sorted(numbers.items()) if number}
    return result


def run_pyright() -> dict:
    """What pyright reports on everything that pyproject.toml includes. Raises RuntimeError if it could not run."""
    missing = [f"ternbin/{part}" for part in ("rtl", "sim", "models") if not (ROOT / "ternbin" / part).exists()]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} must be links to the folders of the root: run make setup")
    command = [sys.executable, "-m", "pyright", "--outputjson"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: it found errors
        raise RuntimeError(f"pyright failed ({done.returncode}): {done.stderr[-2000:]}{done.stdout[-2000:]}")
    return json.loads(done.stdout)


def load() -> Counts:
    return json.loads(RATCHET.read_text())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "--update", action="store_true", help="lower the numbers of types_ratchet.json to what is found"
    )
    parser.add_argument("--force", action="store_true", help="with --update: also raise them")
    parser.add_argument("--report", type=Path, help="what `pyright --outputjson` wrote, instead of a run")
    arguments = parser.parse_args(argv)
    found = count(json.loads(arguments.report.read_text()) if arguments.report else run_pyright())
    if arguments.update:
        kept = found if arguments.force else lowered(found, load())
        RATCHET.write_text(json.dumps(kept, indent=1) + "\n")
    lines = complaints(found, load())
    print(
        "\n".join(lines) or f"types: {sum(map(sum, (files.values() for files in found.values())))} errors, as allowed"
    )
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
