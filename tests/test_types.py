"""The whole tree under the type checker, and the ratchet that keeps its errors from growing."""

import pytest
from check_types import complaints, count, load, lowered, run_pyright

ALLOWED = {"standard": {"a.py": 2, "b.py": 1}, "strict": {}}


@pytest.mark.types
def test_types_are_as_the_ratchet_says():
    lines = complaints(count(run_pyright()), load())
    assert not lines, "\n".join(lines)


def test_more_and_fewer_errors_are_told():
    found = {"standard": {"a.py": 1, "c.py": 1}, "strict": {"b.py": 4}}
    assert complaints(found, ALLOWED) == [
        "a.py: 1 standard errors of types, 2 allowed: lower it with --update",
        "b.py: 0 standard errors of types, 1 allowed: lower it with --update",
        "c.py: 1 standard errors of types, at most 0 allowed: pyright c.py",
        "b.py: 4 strict errors of types, at most 0 allowed: pyright b.py",
    ]
    assert complaints(ALLOWED, ALLOWED) == []


def test_an_update_only_lowers():
    found = {"standard": {"a.py": 3, "c.py": 1}, "strict": {"b.py": 4}}
    assert lowered(found, ALLOWED) == {"standard": {"a.py": 2}, "strict": {}}


def test_errors_are_counted_by_file_and_mode():
    from check_types import ROOT

    file = str(ROOT / "ternbin" / "errors.py")
    diagnostics = [
        {"file": file, "severity": "error", "rule": "reportArgumentType"},
        {"file": file, "severity": "error"},
        {"file": file, "severity": "error", "rule": "reportUnknownMemberType"},
        {"file": file, "severity": "warning", "rule": "reportArgumentType"},
    ]
    counted = {"standard": {"ternbin/errors.py": 2}, "strict": {"ternbin/errors.py": 1}}
    assert count({"generalDiagnostics": diagnostics}) == counted
