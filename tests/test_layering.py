"""The arrows of docs/architecture.md: who may import whom. Everything that is not listed is forbidden, lazy imports included."""

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"ternbin": "ternbin", "rtl": "ternbin.rtl", "sim": "ternbin.sim", "models": "ternbin.models"}
HEAVY = (
    "amaranth",
    "cocotb",
    "dask",
    "distributed",
    "matplotlib",
    "numpy",
    "onnx",
    "optuna",
    "pydantic",
    "pyosys",
    "rouge_score",
    "sacrebleu",
    "scipy",
    "torch",
    "transformers",
)

# Room -> the rooms and the heavy packages that its modules may import. A module belongs to the longest room that its name begins with.
ALLOWED = {
    "__main__": "cli",
    "api": (
        "contract counting decoding doctor energy errors explore flow fpga graph integration mapping "
        "models.prepare models.task progress report results rtl.verilog sim storage verify"
    ),
    "cli": (
        "api contract counting decoding energy energy.gates errors explore flow graph integration "
        "models models.families models.prepare models.task passes progress report results schema sim "
        "storage version"
    ),
    "contract": "errors formats graph schema storage numpy pydantic",
    "contract.effects": "contract numpy",
    "counting": "contract contract.effects counting.cycles decoding errors graph graph.ops",
    "counting.cycles": "contract counting errors numpy",
    "decoding": "contract errors graph graph.ops numpy torch",
    "doctor": "errors sim storage",
    "emulation": "contract contract.effects graph numpy torch",
    "energy": "contract counting errors formats graph schema numpy pydantic",
    "energy.gates": (
        "contract counting energy errors graph graph.ops mapping models models.families "
        "models.prepare passes rtl.array rtl.parts rtl.transfer rtl.epilogue rtl.verilog sim storage version "
        "amaranth numpy scipy torch"
    ),
    "errors": "",
    "explore": (
        "contract counting counting.cycles decoding energy errors explore.validate formats graph "
        "graph.ops mapping models.bart models.prepare models.task processes schema version dask "
        "distributed optuna transformers"
    ),
    "explore.validate": "counting.cycles decoding energy energy.gates explore sim",
    "flow": (
        "contract counting counting.cycles decoding energy errors graph mapping models models.prepare "
        "passes progress results sim version numpy"
    ),
    "formats": "errors",
    "fpga": "contract errors formats progress rtl rtl.board rtl.verilog storage version",
    "graph": "errors graph.ops storage numpy onnx torch",
    "graph.ops": "errors graph torch",
    "integration": "contract decoding errors formats graph rtl.verilog version",
    "integration.drivers": "integration",
    "mapping": "contract contract.effects errors graph graph.ops numpy",
    "models": "decoding errors formats graph graph.ops progress schema storage torch transformers",
    "models.bart": "errors graph graph.ops models passes schema torch transformers",
    "models.bert": "errors graph models schema torch transformers",
    "models.families": "errors graph models models.bart models.bert models.marian models.mbart models.whisper schema",
    "models.marian": "models models.bart transformers",
    "models.mbart": "models models.bart transformers",
    "models.prepare": "errors graph models models.families passes progress schema torch transformers",
    "models.task": (
        "decoding errors models models.families models.prepare progress schema storage matplotlib "
        "numpy rouge_score sacrebleu torch transformers"
    ),
    "models.whisper": "errors graph models models.bart schema numpy torch transformers",
    "passes": "errors graph graph.ops torch",
    "processes": "",
    "progress": "",
    "report": "errors results storage matplotlib",
    "result_types": "contract formats schema pydantic",
    "results": "errors formats result_types schema storage",
    "rtl": "contract rtl.array rtl.control rtl.epilogue rtl.parts rtl.transfer rtl.vector amaranth",
    "rtl.array": "contract rtl.parts amaranth",
    "rtl.board": "contract rtl rtl.control rtl.parts rtl.transfer amaranth",
    "rtl.control": "contract contract.effects rtl.parts rtl.transfer amaranth",
    "rtl.epilogue": "contract graph rtl.parts amaranth",
    "rtl.parts": "contract contract.effects amaranth",
    "rtl.transfer": "contract rtl.parts amaranth",
    "rtl.vector": "contract graph rtl.parts amaranth",
    "rtl.verilog": (
        "contract errors processes rtl rtl.array rtl.control rtl.epilogue rtl.parts rtl.vector version amaranth"
    ),
    "schema": "errors pydantic",
    "sim": (
        "contract counting decoding errors formats graph graph.ops progress rtl.parts rtl.verilog "
        "schema storage version amaranth numpy torch"
    ),
    "sim.tb": "contract counting errors rtl.verilog cocotb",
    "storage": "errors",
    "ternbin": "api version",
    "verify": "contract counting decoding errors graph mapping models models.families passes sim",
    "version": "",
}


@cache
def _modules() -> dict[str, Path]:
    """Every module of the import package by its name."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return found


@cache
def _imports(name: str) -> set[str]:
    """What a module imports, anywhere in it: modules of ours by their full name, others by their first."""
    found = set()
    for node in ast.walk(ast.parse(_modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{name}: imports must be absolute"
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in _modules() else node.module
                for a in node.names
            }
    return {module if module in _modules() else module.partition(".")[0] for module in found} - {name}


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _room(name: str) -> str:
    short = name.removeprefix("ternbin.")
    return max((room for room in ALLOWED if _within(short, room)), key=len, default="")


@pytest.mark.parametrize("name", sorted(_modules()))
def test_every_module_imports_only_what_its_room_may(name):
    room = _room(name)
    assert room, f"{name} belongs to no room of ALLOWED"
    ours = {_room(module) for module in _imports(name) if module in _modules()} - {room}
    wrong = (ours | _imports(name) & set(HEAVY)) - set(ALLOWED[room].split())
    assert not wrong, f"{name} must not import {sorted(wrong)}"


def test_no_arrow_of_the_list_is_unused():
    used: dict[str, set[str]] = {room: set() for room in ALLOWED}
    for name in _modules():
        used[_room(name)] |= {_room(module) if module in _modules() else module for module in _imports(name)}
    unused = {room: set(arrows.split()) - used[room] for room, arrows in ALLOWED.items()}
    assert not {room: arrows for room, arrows in unused.items() if arrows}


def test_no_module_imports_itself_through_others():
    list(graphlib.TopologicalSorter({name: _imports(name) & set(_modules()) for name in _modules()}).static_order())


def _loaded(script: str) -> set[str]:
    """Names of the modules that are there after a script."""
    command = [sys.executable, "-c", f"import sys\n{script}\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.split())


def test_help_is_quick_because_nothing_heavy_is_imported_at_the_top_of_a_verb():
    assert not _loaded("from ternbin.cli import parser; parser().format_help()") & set(HEAVY)


@pytest.mark.parametrize("module", ["ternbin.rtl.verilog.generate", "ternbin.report.html", "ternbin.results"])
def test_verilog_and_pages_need_no_tensors(module):
    assert not _loaded(f"import {module}") & {"matplotlib", "torch", "transformers"}


def test_the_cycle_model_needs_neither_hardware_description_nor_tensors():
    loaded = _loaded("import ternbin.counting.cycles")
    assert "numpy" in loaded and not loaded & {"amaranth", "torch"}
