"""Proofs by Yosys: the assertions of an Amaranth module hold in every cycle after reset, whatever its inputs do that is not assumed away.

By temporal induction: no run of ``depth`` cycles from the initial state breaks an assertion, and no run of ``depth`` good cycles is
followed by a bad one. What induction needs to know of a block's registers comes by :func:`opened`, or by ``peeks`` from names in the
netlist. What modules that are not there give, such as memories, is free.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from amaranth import Module
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Signal

_YOSYS = """
import sys
from pyosys import libyosys as ys
design = ys.Design()
for step in sys.stdin.read().splitlines():
    ys.run_pass(step, design)
"""
_READY = ["async2sync", "chformal -lower", "opt -nodffe -nosdff", "dffunmap", "opt_clean"]


def opened(block: Elaboratable) -> tuple[Module, dict[str, Any]]:
    """What a block elaborates to, and the local variables of its ``elaborate`` by name."""
    code, found = type(block).elaborate.__code__, {}

    def hear(frame: FrameType, event: str, value: object) -> None:
        if event == "return" and frame.f_code is code:
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


def prove(
    module: Elaboratable, inputs: Sequence[Signal], peeks: Mapping[str, str] | None = None, depth: int = 3
) -> None:
    """Raises AssertionError with the run that breaks an assertion, or where induction does not close within ``depth``.

    peeks: name of an input -> path of the signal inside that it stands for, such as "dut.count".
    """
    text = rtlil.convert(module, name="top", ports=list(inputs), emit_src=False)
    seen = []
    for name, path in (peeks or {}).items():
        seen += [f"delete -port {name}", f"connect -set {name} {path}"]
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        source = Path(folder) / "top.il"
        source.write_text(text, encoding="utf-8")
        log = yosys(
            [
                f"read_rtlil {source}",
                "hierarchy -top top",
                "proc",
                "flatten",
                "cd top",
                *seen,
                "cd ..",
                "memory",
                *_READY,
                f"sat -verify -tempinduct -prove-asserts -set-assumes -ignore_unknown_cells -seq 1 -maxsteps {depth} -show-ports top",
            ]
        )
    assert "Induction step proven: SUCCESS!" in log, log[-3000:]
