"""Every result that is shown with others keeps a page of its own, and no result is lost."""

import json
from pathlib import Path

import pytest

import ternbin
from ternbin import results
from ternbin.cli import main

EXAMPLE = Path(__file__).parents[2] / "reports/example"


@pytest.fixture
def runs(tmp_path):
    """Results of equal folder names, told apart by their bits."""
    example = results.load(EXAMPLE)
    for place in ("a/run", "b/run", "c/run-2"):
        results.write_json(tmp_path / place / "result.json", example | {"bits": place})
    return tmp_path


def shown(out: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["bits"] for path in sorted(out.glob("*/result.json"))}


def test_pages_of_equal_folder_names_do_not_replace_each_other(runs, capsys):
    places = [str(runs / place) for place in ("a/run", "b/run/result.json", "c/run-2")]
    assert main(["report", *places, "--out", str(runs / "both")]) == 0
    assert shown(runs / "both") == {"run": "a/run", "run-2": "b/run", "run-2-2": "c/run-2"}
    assert all((path / "index.html").exists() for path in (runs / "both").iterdir() if path.is_dir())


def test_a_result_is_not_written_over_one_that_is_shown_and_the_folder_here_has_a_name(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs / "b/run")
    assert main(["report", ".", "../../a/run", "--out", str(runs / "a")]) == 0
    assert shown(runs / "a") == {"run": "a/run", "run-2": "b/run"}


def test_names_of_runs_in_memory(runs):
    loaded = [ternbin.load_run(EXAMPLE), ternbin.load_run(EXAMPLE)]
    assert ternbin.write_reports(loaded, runs / "out") == runs / "out" / "comparison.html"
    assert list(shown(runs / "out")) == ["bundled-2-2", "bundled-2-2-2"]
