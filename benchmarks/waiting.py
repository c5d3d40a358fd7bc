"""What a user waits for, in CPU seconds: this checkout, and beside it another one.

    python benchmarks/waiting.py --beside ../ternbin-before --json waiting.json

User and system time of a process and its children, the median of ``--runs``; checkouts take turns, so that what else the machine does
meets both. Each uses the interpreter of its own ``.venv``, one thread. ``--only`` picks figures. The simulator of the second run and a
packed BART-base of random weights (kept in ``--work``) are made first, and not counted. benchmarks/bart_base.py has the figures of
simulation.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLOCK = """
import json, os, sys
def cpu():
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system
"""


@dataclass(frozen=True)
class Figure:
    """``command``: arguments of the interpreter, the whole process counts; or ``script``: code that sets ``seconds``.

    ``needs``: what is made first, a key of MAKERS; its path is ``sys.argv[1]`` of a script and stands for PATH in a command.
    """

    what: str
    asked: float | None = None
    command: tuple[str, ...] = ()
    script: str = ""
    needs: str = ""


FIGURES = {
    "help": Figure("`ternbin --help`", command=("-m", "ternbin", "--help")),
    "imports": Figure("imports of `ternbin run`", command=("-c", "import ternbin.flow")),
    "run": Figure("second `ternbin run`", 6, ("-m", "ternbin", "run", "--quiet", "--out", "PATH"), needs="report"),
    "page": Figure(
        "page of a run, imports included",
        command=(
            "-c",
            "import json, sys; from ternbin.report import html; html.page(json.load(open('PATH/result.json')))",
        ),
        needs="report",
    ),
    "lowering": Figure(
        "loading, lowering, mapping, packing BART-base",
        6,
        script="""
from pathlib import Path
from ternbin.contract.hw import load_hw
from ternbin.mapping.mapper import map_model
from ternbin.models.prepare import lowered_model
begin = cpu()
map_model(lowered_model(Path(sys.argv[1])), load_hw("base"), 128, 32)
seconds = cpu() - begin
""",
        needs="model",
    ),
    "verilog": Figure(
        "Verilog of `base`",
        5,
        script="""
from ternbin.contract.hw import load_hw
from ternbin.rtl.verilog.generate import generate
begin = cpu()
generate(load_hw("base"))
seconds = cpu() - begin
""",
    ),
    "cycles": Figure(
        "cycle model, BART-base, 1,024 tokens in, 2 out",
        3,
        script="""
from ternbin.contract.hw import load_hw
from ternbin.counting.cycles import predict
from ternbin.counting.external import MemoryModel
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.shape import BART_BASE, shape_model
program = map_model(shape_model("2-2", **BART_BASE), load_hw("base"), 1024, 2, contents=False)
begin = cpu()
predict(program, MemoryModel())
seconds = cpu() - begin
""",
    ),
}


def make_report(checkout: Path, work: Path) -> Path:
    """The folder of a run, of this checkout: its simulator is there afterwards."""
    folder = work / "-".join(["report", *checkout.parts[1:]])
    call(checkout, ["-m", "ternbin", "run", "--out", str(folder)])
    return folder


def make_model(checkout: Path, work: Path) -> Path:
    """A packed BART-base of random weights, one for all checkouts."""
    folder = work / "bart-base"
    if not (folder / "config.json").exists():
        script = """
import sys
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.models.bart.shape import BART_BASE
from ternbin.models.packed import save_packed
save_packed(random_quant_bart("2-2", **BART_BASE), sys.argv[1])
"""
        call(checkout, ["-c", script, str(folder)])
    return folder


MAKERS = {"report": make_report, "model": make_model}


def call(checkout: Path, arguments: list[str]) -> tuple[float, str]:
    """CPU seconds of an interpreter of the checkout and of its children, and what it prints."""
    python = checkout / ".venv" / "bin" / "python"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [python, *arguments],
        cwd=checkout,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(arguments[:3])} failed:\n{done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def seconds_of(figure: Figure, checkout: Path, made: str) -> float:
    if figure.command:
        return call(checkout, [argument.replace("PATH", made) for argument in figure.command])[0]
    script = f"{CLOCK}{figure.script}\nprint(json.dumps(seconds))"
    return json.loads(call(checkout, ["-c", script, made])[1].splitlines()[-1])


def measure(name: str, checkouts: list[Path], runs: int, work: Path) -> list[list[float]]:
    """Seconds of one figure, by checkout and run."""
    figure = FIGURES[name]
    made = [str(MAKERS[figure.needs](checkout, work)) if figure.needs else "" for checkout in checkouts]
    found: list[list[float]] = [[] for _ in checkouts]
    for run in range(runs):
        print(f"{name}, run {run + 1} of {runs} ...", file=sys.stderr)
        for own, checkout, path in zip(found, checkouts, made, strict=True):
            own.append(seconds_of(figure, checkout, path))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another checkout, with its own .venv")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--work", type=Path, help="where the random BART-base is kept (default: nowhere)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    checkouts = [ROOT, *([args.beside.resolve()] if args.beside else [])]
    with tempfile.TemporaryDirectory() as folder:
        work = (args.work or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        measured = {name: measure(name, checkouts, args.runs, work) for name in args.only}
    print(f"{'CPU seconds':48} {'asked':>6} {'here':>7}" + f" {'beside':>7} {'ratio':>6}" * bool(args.beside))
    for name, runs in measured.items():
        medians, asked = [statistics.median(own) for own in runs], FIGURES[name].asked
        line = f"{FIGURES[name].what:48} {f'< {asked:g}' if asked else '':>6}" + "".join(f" {m:7.2f}" for m in medians)
        print(line + (f" {medians[0] / medians[1]:6.2f}" if args.beside else ""))
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
