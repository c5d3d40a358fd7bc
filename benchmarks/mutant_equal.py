"""Which mutants change nothing, whatever comes in: proven with ABC, which is part of pyosys.

The circuits without and with a mutant begin alike and get the same inputs. Registers count as equal until it is found that they can differ;
then they are two. If nothing that leaves the circuit or goes into a memory can differ, nor another register, the mutant changes nothing. A
proof looks at registers near by, and takes those further away as free: what it proves holds, and it does not prove all that holds.

A second way has one circuit, and beside it what may differ, which passes a gate where the other inputs let it: this knows nothing of two
values that happen to be equal, but a multiplier is to it no more than a few gates.
"""

import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pyosys  # pyright: ignore[reportMissingTypeStubs]
from mutant_aig import Pair
from mutant_design import Mutant

from ternbin.energy.gates.yosys import run_passes
from ternbin.errors import CheckError
from ternbin.progress import stage

ABC = Path(pyosys.__file__).parent / "yosys-abc"
APART, ROUNDS = 24, 6  # registers that may differ, and how often more are found to
SECONDS = 2  # processor time of one question
DEPTHS = (0, 1, 2)  # how many registers away a question looks
MANY = 8  # differences are not asked of one by one
_SMALL = 60  # words of a memory that is made of registers


def question(folder: Path, numbers: Sequence[int]) -> Callable[[Mutant], bool]:
    """What says of each of these mutants whether it is proven to change nothing."""
    with stage("gates"):
        pair = gates(folder, numbers)
    return lambda mutant: changes_nothing(pair, mutant.number, folder / "proof.aig")


def gates(folder: Path, numbers: Sequence[int]) -> Pair:
    """The design in ``folder`` (mutant_design.build) with these mutants, as gates."""
    every = (folder / "mutants.ys").read_text(encoding="utf-8").splitlines()
    (folder / "chosen.ys").write_text("\n".join(every[number - 1] for number in numbers) + "\n", encoding="utf-8")
    small = (f"r:SIZE<{_SMALL}", "r:WR_PORTS=0")
    run_passes(
        [
            "read_rtlil design.il",
            "script chosen.ys",
            "hierarchy -top ternbin",
            "setattr -mod -unset keep_hierarchy *",
            "flatten",
            "opt_clean",
            "memory_collect",
            *(f"memory_map t:$mem_v2 {those} %i" for those in small),
            "opt_expr",
            "opt_clean",
            "alumacc",
            "techmap",
            "opt_expr",
            "opt_clean",
            "write_json gates.json",
        ],
        folder,
    )
    return Pair(json.loads((folder / "gates.json").read_text(encoding="utf-8"))["modules"]["ternbin"])


def changes_nothing(pair: Pair, number: int, file: Path) -> bool:
    """Whether that is proven of a mutant. ``file``: for what ABC reads."""
    return any(_holds(pair, number, file, may) for may in (True, False))


def _holds(pair: Pair, number: int, file: Path, may: bool) -> bool:
    """``may``: of what may differ (Pair.taints), not of what does."""
    find = pair.taints if may else pair.differences
    apart: dict[int, int] = {}
    for _ in range(ROUNDS):
        wrong, follows = find(number, apart)

        def never(
            wrongs: list[int], depth: int, apart: dict[int, int] = apart, follows: dict[int, int] = follows
        ) -> bool:
            pair.write(file, wrongs, apart, follows, depth, may)
            return proven(file)

        if not wrong or any(never([*wrong.values()], depth) for depth in DEPTHS):
            return True
        differing = [where for where, literal in wrong.items() if len(wrong) > MANY or not never([literal], 1)]
        if not differing or any(isinstance(where, str) for where in differing):
            return False
        if len(apart) + len(differing) > APART:
            return False
        apart = apart | {where: pair.aig.leaf() for where in differing if isinstance(where, int)}
    return False


def proven(file: Path) -> bool:
    """Whether no output of the circuit in a file is ever 1."""
    head = file.read_bytes().split(b"\n", 1)[0]
    one = "orpos; " if head.split()[4] != b"1" else ""
    limit = f"ulimit -t {SECONDS}; exec "
    command = limit + shlex.join([str(ABC), "-q", f"read {file}; {one}pdr"])
    done = subprocess.run(["sh", "-c", command], capture_output=True, encoding="utf-8")
    if "cmd error" in done.stdout + done.stderr:
        raise CheckError(f"ABC must run, not say: {done.stdout + done.stderr}")
    return "Property proved" in done.stdout
