"""Text files are UTF-8 whatever the locale says: every call that opens one, or reads the words of a tool, names its encoding."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ternbin", "rtl", "sim", "models", "benchmarks", "examples")
TEXT = {"read_text", "write_text", "open", "fdopen", "NamedTemporaryFile", "run", "Popen", "check_output"}


def _unsaid(call: ast.Call) -> bool:
    """Whether a call deals with text without saying how it is encoded."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = {word.arg: word.value for word in call.keywords}
    if name not in TEXT or "encoding" in words:
        return False
    if name in ("run", "Popen", "check_output"):
        return "text" in words or "universal_newlines" in words
    modes = [value.value for value in [*call.args[:2], words.get("mode")] if isinstance(value, ast.Constant)]
    binary = any(isinstance(mode, str) and "b" in mode and set(mode) <= set("rwaxb+") for mode in modes)
    if name in ("read_text", "write_text"):
        return len(call.args) == (name == "write_text")  # not of functions of ours, which take a path too
    if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "os" and name == "open":
        return False
    if name == "NamedTemporaryFile" and not modes:
        return False  # binary where it does not say
    return not binary


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_text_file_names_its_encoding(folder):
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not any(parent.is_symlink() for parent in path.parents)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _unsaid(node)
    ]
    assert not found


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("path.read_text()", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.open('a')", True),
        ("open(path, 'rb')", False),
        ("path.write_text(text)", True),
        ("write_text(path, text)", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command)", False),
        ("os.open(path, flags)", False),
    ],
)
def test_what_is_found(code, wanted):
    (call,) = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert _unsaid(call) == wanted
