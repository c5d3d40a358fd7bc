"""Mutants of the RTL, and what the steps of mutant_suite.py and mutant_mixes.py notice of them, a row for each unit.

    python benchmarks/mutants.py --mutants 1000

One simulator holds all mutants (benchmarks/mutant_design.py); compiling it takes some minutes. Verdicts are kept in ``--work``, one for
each step of the suite: a later call goes on where an earlier one stopped, and a new step is run on those that the others let pass.
``--survivors`` lists those that nothing noticed; ``--prove`` asks of each whether it changes anything at all (benchmarks/mutant_equal.py);
``--unit`` judges the mutants of one unit, for example one that has changed.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, zip_longest
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mutant_equal
import mutant_mixes
import mutant_proof
import mutant_suite
from mutant_design import UNITS, Mutant, Mutants, build

from ternbin.errors import CheckError
from ternbin.progress import bar, say, stage
from ternbin.sim.build import build as compiled

SECONDS = 600  # for one step of a mutant, on a machine that others use too; a simulation that takes longer hangs
Step = mutant_suite.Step


@dataclass(frozen=True)
class Learnt:
    """A step and what it shows of the RTL. ``key`` stands for both, so a verdict holds as long as they are the same."""

    step: Step
    expected: list[Any]

    @property
    def key(self) -> str:
        return f"{mutant_suite.name(self.step)} {hashlib.sha256(repr(self.expected).encode()).hexdigest()[:12]}"


def verdict(built: Mutants, number: int, steps: list[Learnt]) -> tuple[int, str]:
    """How many of the steps notice nothing, and what the next one notices, or "". In a process of its own: a mutant can take the
    simulator down."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_judge, args=(built, number, steps, theirs))
    process.start()
    theirs.close()
    passed = 0
    try:
        while passed < len(steps):
            if not ours.poll(SECONDS):
                return passed, "hangs"
            if found := ours.recv():
                return passed, found
            passed += 1
        return passed, ""
    except EOFError:
        return passed, "the simulation does not settle"
    finally:
        process.kill()
        process.join()


def _judge(built: Mutants, number: int, steps: list[Learnt], answer: Connection) -> None:
    sys.stderr.close()  # what Verilator says of logic that does not settle
    built.choose(number)
    for each in steps:
        found = mutant_suite.outcome(each.step, built.library, each.expected)
        answer.send(found)
        if found:
            return


def verdicts(built: Mutants, instructions: int, path: Path, most: int, equal: set[int]) -> dict[int, str]:
    """Of every mutant, "" or the step that notices it; what ``path`` has already is taken from there, and at most ``most`` are new.
    None of those that are ``equal``."""
    steps = [*mutant_suite.suite(instructions), *mutant_mixes.more()]
    with stage("the suite on the RTL as it is"):
        learnt = [Learnt(step, mutant_suite.learnt(step, compiled(mutant_suite.HW))) for step in steps]
    known: dict[int, dict[str, str]] = defaultdict(dict)  # mutant -> step -> what it notices
    if path.exists():
        for entry in map(json.loads, path.read_text("utf-8").splitlines()):
            known[entry["mutant"]][entry["step"]] = entry["noticed"]
    keys = {each.key for each in learnt}
    missing: dict[Mutant, list[Learnt]] = {}
    units = {unit: [each for each in built.mutants if each.unit == unit and not each.dead] for unit in UNITS}
    for mutant in chain.from_iterable(zip_longest(*units.values())):  # an unfinished table has some of each unit
        if (
            mutant
            and mutant.number not in equal
            and not any(text for key, text in known[mutant.number].items() if key in keys)
        ):
            missing[mutant] = [each for each in learnt if each.key not in known[mutant.number]]
    missing = dict([(mutant, left) for mutant, left in missing.items() if left][:most])
    needed = {each.key for left in missing.values() for each in left}
    passed, difference = verdict(built, 0, [each for each in learnt if each.key in needed])
    if difference:
        raise CheckError(f"without a mutant nothing must be noticed, not: {difference}")
    with path.open("a", encoding="utf-8") as kept:
        for mutant, left in bar(missing.items(), label="mutants", unit="mutant"):
            passed, noticed = verdict(built, mutant.number, left)
            for number, each in enumerate(left[: passed + bool(noticed)]):
                text = noticed if number == passed else ""
                known[mutant.number][each.key] = text
                print(json.dumps({"mutant": mutant.number, "step": each.key, "noticed": text}), file=kept, flush=True)
    return {
        number: next((key.rpartition(" ")[0] for key, text in own.items() if text and key in keys), "")
        for number, own in known.items()
        if any(text for key, text in own.items() if key in keys) or keys <= own.keys()
    }


def kept(path: Path) -> dict[int, bool]:
    """What a file of proofs has: number of a mutant -> verdict."""
    if not path.exists():
        return {}
    return {entry["mutant"]: entry["proven"] for entry in map(json.loads, path.read_text("utf-8").splitlines())}


def prove(
    mutants: list[Mutant], path: Path, label: str, question: Callable[[list[int]], Callable[[Mutant], bool]]
) -> set[int]:
    """Of which of the mutants something is proven; ``question`` gives what decides it of each. What ``path`` has is taken from there."""
    done = kept(path)
    missing = [each for each in mutants if each.number not in done]
    if missing:
        holds = question([each.number for each in missing])
        with path.open("a", encoding="utf-8") as file:
            for each in bar(missing, label=label, unit="proof"):
                done[each.number] = holds(each)
                print(json.dumps({"mutant": each.number, "proven": done[each.number]}), file=file, flush=True)
    return {number for number, held in done.items() if held}


def table(built: Mutants, found: dict[int, str], proven: set[int]) -> str:
    """Of those that are judged."""
    lines = ["| unit | change nothing | mutants | noticed | share |", "| --- | --- | --- | --- | --- |"]
    for unit in [*dict.fromkeys(each.unit for each in built.mutants), "all"]:
        nothing = sum(each.number in proven or each.dead for each in built.mutants if unit in (each.unit, "all"))
        own = [
            bool(found[each.number])
            for each in built.mutants
            if unit in (each.unit, "all") and each.number in found and not each.dead and each.number not in proven
        ]
        lines.append(f"| {unit} | {nothing} | {len(own)} | {sum(own)} | {sum(own) / max(1, len(own)):.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the choice of mutants")
    parser.add_argument("--instructions", type=int, default=200, help="random ones that a mutant executes")
    parser.add_argument("--unit", choices=UNITS, help="of this one only (default: all)")
    parser.add_argument("--judge", type=int, default=1 << 30, help="at most so many now (default: all)")
    parser.add_argument("--work", type=Path, default=Path("reports/mutants"))
    parser.add_argument("--survivors", action="store_true")
    parser.add_argument(
        "--prove", action="store_true", help="of those left, which change nothing, and those of counters"
    )
    args = parser.parse_args()
    with stage("simulator"):
        built = build(mutant_suite.HW, args.mutants, args.seed, args.work / "verilog")
    if args.unit:
        built = replace(built, mutants=tuple(each for each in built.mutants if each.unit == args.unit))
    text = (args.work / "verilog" / "mutants.v").read_bytes()
    path = args.work / f"{hashlib.sha256(text).hexdigest()[:12]}.jsonl"
    say(f"verdicts: {path}")
    nothing, counting = path.with_suffix(".nothing.jsonl"), path.with_suffix(".counters.jsonl")
    proven = {number for number, held in kept(nothing).items() if held}
    found = verdicts(built, args.instructions, path, args.judge, proven)
    if args.prove:
        left = [each for each in built.mutants if not found.get(each.number, "unknown")]
        proven = prove(left, nothing, "proofs", partial(mutant_equal.question, args.work / "verilog"))
        own = [each for each in left if mutant_proof.MODULE[1:] in each.how and each.number not in proven]
        breaks = partial(mutant_proof.breaks, mutant_suite.HW, args.work / "verilog")
        prove(own, counting, "proofs of counters", lambda _: breaks)
    found |= {number: "the proof of the counters" for number, broken in kept(counting).items() if broken}
    print(table(built, found, proven))
    if args.survivors:
        alive = (
            each
            for each in built.mutants
            if not found.get(each.number, "unknown") and not each.dead and each.number not in proven
        )
        print(*(f"{each.unit}: {each.how}" for each in alive), sep="\n")


if __name__ == "__main__":
    main()
