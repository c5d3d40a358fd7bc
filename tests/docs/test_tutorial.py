"""docs/tutorial.md does what it says: its blocks run in order and print what the page shows."""

import pytest
from pages import ROOT, blocks, run_blocks

PAGE = ROOT / "docs" / "tutorial.md"


@pytest.mark.build
def test_the_tutorial_runs(capsys):
    names = run_blocks(PAGE)
    printed = capsys.readouterr().out
    for _, shown in blocks(PAGE, "text"):
        assert shown in printed
    assert (names["actual"] == names["expected"].numpy()).all() and names["actual"].any()
    assert 0 < names["low"] < names["total"] < names["high"]
    assert "endmodule" in names["files"]["ternbin_tiny.v"]


def test_it_stays_short():
    code = [line for _, text in blocks(PAGE, "python") for line in text.splitlines() if line.strip()]
    assert len(code) <= 72
