"""The arrows of docs/architecture.md: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"ternbin": "ternbin", "rtl": "ternbin.rtl", "sim": "ternbin.sim", "models": "ternbin.models"}

# module prefix -> prefixes it must not import
FORBIDDEN = {
    "ternbin.qtypes": ["ternbin.ir", "ternbin.hw", "ternbin.isa", "amaranth"],
    "ternbin.isa": ["amaranth", "ternbin.hw", "ternbin.ir", "torch"],
    "ternbin.hw": ["amaranth", "ternbin.ir", "torch"],
    "ternbin.golden": ["ternbin.hw", "ternbin.isa", "ternbin.rtl", "ternbin.sim", "ternbin.models", "amaranth"],
    "ternbin.ir": ["ternbin.hw", "ternbin.isa", "ternbin.rtl", "ternbin.sim", "ternbin.models", "amaranth"],
    "ternbin.passes": ["ternbin.hw", "ternbin.isa", "ternbin.rtl", "ternbin.sim", "ternbin.models", "amaranth"],
    "ternbin.mapper": ["ternbin.rtl", "ternbin.sim", "ternbin.models", "amaranth", "transformers"],
    "ternbin.program": ["ternbin.rtl", "ternbin.sim", "ternbin.models", "amaranth", "transformers"],
    "ternbin.rtl": ["ternbin.ir", "ternbin.golden", "ternbin.program", "ternbin.sim", "ternbin.models", "torch"],
    "ternbin.sim": ["ternbin.models", "ternbin.report", "ternbin.energy", "transformers"],
    "ternbin.models": ["ternbin.rtl", "ternbin.sim", "ternbin.hw", "ternbin.isa", "amaranth", "ternbin.energy"],
    "ternbin.energy": ["ternbin.rtl", "ternbin.sim", "ternbin.models", "ternbin.ir", "torch", "amaranth"],
    "ternbin.report": ["ternbin.rtl", "ternbin.sim", "ternbin.models", "ternbin.ir", "ternbin.energy", "torch"],
}


def _modules():
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield path, ".".join([package, *(p for p in parts if p != "__init__")])


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_no_import_against_the_arrows(layer):
    modules = [(path, name) for path, name in _modules() if _within(name, layer)]
    for path, name in modules:
        wrong = [i for i in _imports(path) for bad in FORBIDDEN[layer] if _within(i, bad)]
        assert not wrong, f"{name} must not import {sorted(wrong)}"
    assert modules


def test_help_is_quick_because_nothing_heavy_is_imported_at_the_top_of_a_verb():
    for path, name in _modules():
        if not _within(name, "ternbin.cli"):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert not any(_within(module, heavy) for heavy in ("torch", "numpy", "transformers", "amaranth")), name
