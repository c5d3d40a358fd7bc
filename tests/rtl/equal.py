"""Whether two texts of Verilog are the same hardware, module by module, by Yosys.

Every register is cut, into an output (its next value) and an input (its value), and so is every submodule; what is left of a module is
without state. A register has the same name in both, so modules are equal where all these outputs are, for all inputs. Memories become
registers. Initial values do not count.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from proof import yosys

_MODULE = re.compile(r"^module (\\\S+|\w+).*?^endmodule", re.M | re.S)
_NEXT = "NEXT MODULE"
_EQUAL = "SAT proof finished - no model found: SUCCESS!"


def modules(texts: Mapping[str, str]) -> dict[str, str]:
    """Text of every module, by name."""
    return {found[1]: found[0] for text in texts.values() for found in _MODULE.finditer(text)}


def differing(gold: Mapping[str, str], gate: Mapping[str, str], stubs: Mapping[str, str], folder: Path) -> list[str]:
    """Names of the modules of two texts (both by name of a file) that are not equal. ``stubs``: what both have instances of.

    Raises AssertionError where one has other modules, ports or registers.
    """
    texts = modules(gold), modules(gate)
    assert texts[0].keys() == texts[1].keys()
    names = [name for name in texts[0] if texts[0][name] != texts[1][name]]
    steps: list[str] = []
    for side, own in (("gold", gold), ("gate", gate)):
        (folder / side).mkdir()
        for name, text in {**own, **stubs}.items():
            (folder / side / name).write_text(text, encoding="utf-8")
            library = "-lib " if name in stubs else ""
            steps.append(f"read_verilog -sv -D SYNTHESIS {library}{folder / side / name}")
        steps += [*_CUT, f"design -save {side}", "design -reset"]
    for number, name in enumerate(names):
        module = name if name.startswith("\\") else f"\\{name}"
        steps += [f"design -copy-from {side} -as {side}{number} {module}" for side in ("gold", "gate")]
        steps += [f"miter -equiv gold{number} gate{number} miter{number}"]
    steps += [*_MERGE, f"log {_NEXT}"]
    for number in range(len(names)):
        steps += [f"sat -prove trigger 0 miter{number}", f"log {_NEXT}"]
    proofs = yosys(steps).split(f"\n{_NEXT}\n")[1:-1]
    return [name for name, log in zip(names, proofs, strict=True) if _EQUAL not in log]


_CUT = [
    "hierarchy",
    "proc",
    "memory_collect",
    "memory_map",
    "opt_clean -purge",  # a register has one name
    "setattr -unset init */w:*",
    "expose -evert */c:* */t:$* %d",
    "expose -evert-dff */t:$dff %co1:+[Q]",
    "opt_clean",
    "select -assert-none t:$*dff* t:$mem* t:$*latch*",
]
_MERGE = [
    "flatten",
    "delete gold* gate*",
    "opt_expr",
    "opt_muxtree",
    "opt_merge",
    "opt_clean",
    "opt_expr",  # what is the same now needs no solver
    "opt_clean -purge",
]
