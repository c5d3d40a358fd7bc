"""The Verilog of an accelerator and what stands beside it, kept between runs: elaboration takes longer than a short simulation."""

import contextlib
import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ternbin import contract, version
from ternbin.contract.hw import HwConfig
from ternbin.graph import fixedpoint
from ternbin.storage import cache_dir, writable_cache, write_text

_RTL = Path(__file__).parent.parent / "rtl"


@dataclass(frozen=True)
class Generated:
    """Texts by file name: what ``generate`` and ``beside`` of rtl/verilog/generate.py give."""

    verilog: dict[str, str]
    beside: dict[str, str]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Ports, registers, counters, memories: see there."""
        return json.loads(self.beside["manifest.json"])


@cache
def generated(hw: HwConfig) -> Generated:
    """From the cache, or generated now. Raises InputError for a configuration that is for accounting only.

    The key is everything that decides it: configuration, versions, every module, primitive and waiver of the generator and every module
    of the contract. Amaranth is imported only where it is not there.
    """
    path = cache_dir() / f"verilog-{_key(hw)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing, unreadable for this user, damaged: made anew
        return Generated(**json.loads(path.read_text(encoding="utf-8")))
    from ternbin.rtl.verilog.generate import beside, generate

    writable_cache()
    found = Generated(generate(hw), beside(hw))
    write_text(path, json.dumps(asdict(found)))
    return found


def _key(hw: HwConfig) -> str:
    folders = (_RTL, Path(contract.__file__).parent)
    sources = [path for folder in folders for kind in ("*.py", "*.v", "*.vlt") for path in sorted(folder.rglob(kind))]
    sources += [Path(fixedpoint.__file__), Path(version.__file__)]  # constants that generator and others share
    parts = [
        repr(hw),
        importlib.metadata.version("amaranth"),
        *(f"{path.parent.name}/{path.name}\0{path.read_text(encoding='utf-8')}" for path in sources),
        Path(__file__).read_text(encoding="utf-8"),  # what is kept
    ]
    return hashlib.sha256("\1".join(parts).encode()).hexdigest()[:24]
