"""Proofs by Yosys: the assertions of an Amaranth module hold in every cycle after reset, whatever its inputs do that is not assumed away.

By temporal induction: no run of ``depth`` cycles from the initial state breaks an assertion, and no run of ``depth`` good cycles is
followed by a bad one. What induction needs to know of a block's registers comes by :func:`opened`, or by ``peeks`` from names in the
netlist. What modules that are not there give, such as memories, is free.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from amaranth import Module, hdl
from amaranth.hdl import Elaboratable, Signal

Assert: Any = hdl.Assert  # Any: amaranth-stubs has them with a message that must be there
Assume: Any = hdl.Assume
rtlil: Any = import_module("amaranth.back.rtlil")  # not in amaranth-stubs
_YOSYS = """
import sys
from pyosys import libyosys as ys
design = ys.Design()
for step in sys.stdin.read().splitlines():
    ys.run_pass(step, design)
"""
_NEXT = "NEXT MUTANT"
_READY = ["async2sync", "chformal -lower", "opt -nodffe -nosdff", "dffunmap", "opt_clean"]


def opened(block: Any) -> tuple[Module, dict[str, Any]]:
    """What a block elaborates to, and the local variables of its methods by name."""
    found: dict[str, Any] = {}

    def hear(frame: FrameType, event: str, value: object) -> None:
        if event == "return" and frame.f_locals.get("self") is block:
            found.update(frame.f_locals)

    sys.setprofile(hear)
    try:
        module = block.elaborate(None)
    finally:
        sys.setprofile(None)
    return module, found


def yosys(steps: Sequence[str]) -> str:
    """The log of a script. Raises AssertionError with its end where a step fails, as ``sat -verify`` does for what does not hold."""
    command = [sys.executable, "-c", _YOSYS]
    done = subprocess.run(command, input="\n".join(steps), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


PROVEN = "Induction step proven: SUCCESS!"


@dataclass(frozen=True)
class Claim:
    """A module with assertions. peeks: name of an input -> path of the signal inside that it stands for, such as "dut.count"."""

    module: Elaboratable
    inputs: Sequence[Signal]
    peeks: Mapping[str, str]
    depth: int

    def read(self, folder: Path) -> list[str]:
        """Steps that read it, still with its modules."""
        source = folder / "top.il"
        if not source.exists():
            text = rtlil.convert(self.module, name="top", ports=list(self.inputs), emit_src=False)
            source.write_text(text, encoding="utf-8")
        return [f"read_rtlil {source}", "hierarchy -top top", "proc", "opt_clean"]

    def solve(self, *options: str) -> list[str]:
        """Steps that prove it, from what was read."""
        seen = []
        for name, path in self.peeks.items():
            seen += [f"delete -port {name}", f"connect -set {name} {path}"]
        sat = "sat -tempinduct -prove-asserts -set-assumes -ignore_unknown_cells -seq 1"
        return [
            "flatten",
            "cd top",
            *seen,
            "cd ..",
            "memory",
            *_READY,
            f"{sat} {' '.join(options)} -maxsteps {self.depth} top",
        ]


def prove(claim: Claim) -> None:
    """Raises AssertionError with the run that breaks an assertion, or where induction does not close within ``depth``."""
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        log = yosys([*claim.read(Path(folder)), *claim.solve("-verify", "-show-ports")])
    assert PROVEN in log, log[-3000:]


def mutants(claim: Claim, count: int, seed: int) -> dict[str, bool]:
    """``count`` mutants of the block (Yosys `mutate`) -> whether the proof notices."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        read = claim.read(folder)
        listed = f"mutate -list {count} -seed {seed} -none -o {folder}/list top.dut top.dut.*"
        yosys([*read, listed])
        found = [line for line in (folder / "list").read_text().splitlines() if "-mode none" not in line]
        steps = [*read, "design -save read"]
        for line in found:
            steps += ["design -load read", f"log {_NEXT}", line, *claim.solve()]
        logs = yosys(steps).split(f"\n{_NEXT}\n")[1:]
    return {line: PROVEN not in log for line, log in zip(found, logs, strict=True)}
