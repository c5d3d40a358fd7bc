"""Mutants of the counters, judged by the proof of tests/rtl/test_proofs.py: no run counts far enough to reach their upper bits."""

import re
import sys
import tempfile
from functools import cache
from pathlib import Path

from mutant_design import Mutant

from ternbin.contract.counters import counters
from ternbin.contract.hw import HwConfig
from ternbin.errors import CheckError
from ternbin.rtl.control.counters import Counters

sys.path.append(str(Path(__file__).parents[1] / "tests" / "rtl"))
from proof import PROVEN, Claim, yosys  # noqa: E402  # pyright: ignore[reportMissingImports]  # found by the line above
from test_proofs import Harness, counters_inside, counts  # noqa: E402  # pyright: ignore[reportMissingImports]

MODULE = "\\ternbin.counters"


def breaks(hw: HwConfig, folder: Path, mutant: Mutant) -> bool:
    """Whether the proof of a counter, which holds of the counters as they are, does not of the mutant."""
    lines = (folder / "ternbin.v").read_text(encoding="utf-8").splitlines()
    places = [int(line) for line in re.findall(r"ternbin\.v:(\d+)", mutant.how)]
    near = re.findall(
        r"\bctr_(\w+)", "\n".join([mutant.how, *(line for at in places for line in lines[at - 1 : at + 2])])
    )
    change = mutant.how.replace("ternbin.counters", "top.dut", 1)
    for name in dict.fromkeys([*near, *counters(hw)]):
        if not _holds(hw, folder, name):
            raise CheckError(f"the proof must hold of the counter {name} as it is")
        if not _holds(hw, folder, name, change):
            return True
    return False


@cache
def _holds(hw: HwConfig, folder: Path, counter: str, change: str = "log") -> bool:
    """Whether the proof holds of a counter. ``change``: a command of Yosys before it."""
    harness = Harness(Counters(counters(hw)), lambda *parts: counts(*parts, [counter]))
    claim = Claim(harness.elaborate(None), harness.inputs, counters_inside([counter]), depth=2)
    design = (folder / "design.il").read_text(encoding="utf-8")
    begin = design.index(f"module {MODULE}\n")
    module = design[begin : design.index("\nend\n", begin) + 5].replace(MODULE, "\\top.dut", 1)
    with tempfile.TemporaryDirectory(prefix="proof-") as name:
        Path(name, "counters.il").write_text(module, encoding="utf-8")
        read = [*claim.read(Path(name)), "delete top.dut", f"read_rtlil {name}/counters.il"]
        return PROVEN in yosys([*read, change, *claim.solve()])
