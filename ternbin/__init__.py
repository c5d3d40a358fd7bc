"""ternbin: hardware co-design and simulation of binary and ternary transformers.

``import ternbin`` loads nothing heavy. The names of ``__all__`` are those of ``ternbin/api.py``, loaded at first use; docs/python.md
describes them.
"""

from typing import TYPE_CHECKING

from ternbin.version import __version__

if TYPE_CHECKING:
    from ternbin.api import (
        Exploration,
        HwConfig,
        Lowering,
        MemoryModel,
        Run,
        Waves,
        audit_claim,
        characterisation,
        diagnose,
        explore_space,
        load_hw,
        load_run,
        lower,
        on_fpga,
        package,
        quantize,
        simulate,
        summarise,
        verify_cases,
        verilog,
        write_reports,
    )

__all__ = [
    "Exploration",
    "HwConfig",
    "Lowering",
    "MemoryModel",
    "Run",
    "Waves",
    "__version__",
    "audit_claim",
    "characterisation",
    "diagnose",
    "explore_space",
    "load_hw",
    "load_run",
    "lower",
    "on_fpga",
    "package",
    "quantize",
    "simulate",
    "summarise",
    "verify_cases",
    "verilog",
    "write_reports",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'ternbin' has no attribute {name!r}")
    from ternbin import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
