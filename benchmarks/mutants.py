"""Mutants of the RTL, and what the suite of benchmarks/mutant_suite.py notices of them, a row for each unit.

    python benchmarks/mutants.py --mutants 1000

One simulator holds all mutants (benchmarks/mutant_design.py); compiling it takes some minutes. Verdicts are kept in ``--work``: a later
call goes on where an earlier one stopped. ``--survivors`` lists those that nothing noticed.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
from itertools import chain, zip_longest
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mutant_suite
from mutant_design import UNITS, Mutant, Mutants, build

from ternbin.errors import CheckError
from ternbin.progress import bar, say, stage
from ternbin.sim.build import build as compiled

SECONDS = 120  # for one mutant; a simulation that takes longer hangs
Step = mutant_suite.Step


def verdict(built: Mutants, mutant: Mutant, steps: list[tuple[Step, list[Any]]]) -> str:
    """ "" or what notices the mutant. In a process of its own: a mutant can take the simulator down."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_judge, args=(built, mutant.number, steps, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(SECONDS):
            return "hangs"
        return ours.recv()
    except EOFError:
        return "the simulation does not settle"
    finally:
        process.kill()
        process.join()


def _judge(built: Mutants, number: int, steps: list[tuple[Step, list[Any]]], answer: Connection) -> None:
    sys.stderr.close()  # what Verilator says of logic that does not settle
    built.choose(number)
    for step, expected in steps:
        if found := mutant_suite.outcome(step, built.library, expected):
            answer.send(found)
            return
    answer.send("")


def verdicts(built: Mutants, instructions: int, path: Path, most: int) -> dict[int, str]:
    """Of every mutant; those that ``path`` has already are taken from there, and at most ``most`` are new."""
    found: dict[int, str] = {}
    if path.exists():
        found = {entry["mutant"]: entry["noticed"] for entry in map(json.loads, path.read_text("utf-8").splitlines())}
    units = {unit: [each for each in built.mutants if each.unit == unit and not each.dead] for unit in UNITS}
    turns = chain.from_iterable(zip_longest(*units.values()))  # an unfinished table has some of each unit
    missing = [mutant for mutant in turns if mutant and mutant.number not in found][:most]
    if not missing:
        return found
    steps = mutant_suite.suite(instructions)
    with stage("the suite on the RTL as it is"):
        learnt = [(step, mutant_suite.learnt(step, compiled(mutant_suite.HW))) for step in steps]
    if difference := verdict(built, Mutant(0, "", "", False), learnt):
        raise CheckError(f"without a mutant nothing must be noticed, not: {difference}")
    with path.open("a", encoding="utf-8") as kept:
        for mutant in bar(missing, label="mutants", unit="mutant"):
            found[mutant.number] = verdict(built, mutant, learnt)
            print(json.dumps({"mutant": mutant.number, "noticed": found[mutant.number]}), file=kept, flush=True)
    return found


def table(built: Mutants, found: dict[int, str]) -> str:
    """Of those that are judged."""
    lines = ["| unit | mutants | noticed | share |", "| --- | --- | --- | --- |"]
    for unit in [*UNITS, "all"]:
        own = [
            bool(found[each.number])
            for each in built.mutants
            if unit in (each.unit, "all") and each.number in found and not each.dead
        ]
        lines.append(f"| {unit} | {len(own)} | {sum(own)} | {sum(own) / max(1, len(own)):.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the choice of mutants")
    parser.add_argument("--instructions", type=int, default=200, help="random ones that a mutant executes")
    parser.add_argument("--judge", type=int, default=1 << 30, help="at most so many now (default: all)")
    parser.add_argument("--work", type=Path, default=Path("reports/mutants"))
    parser.add_argument("--survivors", action="store_true")
    args = parser.parse_args()
    with stage("simulator"):
        built = build(mutant_suite.HW, args.mutants, args.seed, args.work / "verilog")
    parts = (built.library.parent.name, args.instructions, Path(mutant_suite.__file__).read_text(encoding="utf-8"))
    path = args.work / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}.jsonl"
    say(f"verdicts: {path}")
    found = verdicts(built, args.instructions, path, args.judge)
    print(table(built, found))
    if args.survivors:
        alive = (each for each in built.mutants if not found.get(each.number, "unknown") and not each.dead)
        print(*(f"{each.unit}: {each.how}" for each in alive), sep="\n")


if __name__ == "__main__":
    main()
