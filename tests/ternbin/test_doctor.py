"""`ternbin doctor` and `ternbin completion`."""

import json
import shutil
import subprocess

import pytest

import ternbin
from ternbin import doctor
from ternbin.cli import VERBS, main
from ternbin.sim import toolchain


def _found(name: str) -> doctor.Finding:
    return next(finding for finding in doctor.diagnose() if finding.name == name)


@pytest.mark.build
def test_here_nothing_is_missing(tmp_path, capsys):
    assert main(["doctor", "--json", str(tmp_path / "d.json")]) == 0
    printed, record = capsys.readouterr().out, json.loads((tmp_path / "d.json").read_text())
    assert record["ready"] and {finding["name"] for finding in record["findings"]} >= {"g++", "verilator", "cache"}
    assert not any(record["verbs"].values()) and "run         ready" in printed and "missing" not in printed


@pytest.mark.build
def test_verbs_are_those_that_there_are():
    record = ternbin.diagnose()
    assert set(record["verbs"]) == set(VERBS) - {"doctor", "completion"}
    assert all(finding["install"] for finding in record["findings"])


@pytest.mark.build
def test_a_missing_tool_is_named_with_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    toolchain.verilator.cache_clear()
    toolchain.has_fst.cache_clear()
    assert main(["doctor"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("missing  make") and "apt-get install make" in line for line in lines)
    assert any(line.startswith("run ") and "needs g++, make, ar" in line for line in lines)


def test_a_missing_package(monkeypatch):
    finding = doctor._package("no-such-package", ("run",), "pip install '{}'")
    assert not finding.ok and finding.install == "pip install 'no-such-package'"
    assert doctor.report([finding]) == {
        "ready": False,
        "findings": [doctor.asdict(finding)],
        "verbs": {"run": ["no-such-package"]},
    }


def test_a_cache_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TERNBIN_CACHE", str(tmp_path / "file"))
    for finding in (doctor._cache(), doctor._disk()):
        assert not finding.ok and "must be a folder, not a file" in finding.found


def test_completion_of_bash(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "ternbin.bash"
    script.write_text(capsys.readouterr().out)

    def complete(*words: str) -> list[str]:
        line = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_ternbin; "
        done = subprocess.run(["bash", "-c", line + "echo ${COMPREPLY[@]}"], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert complete("ternbin", "qu") == ["quantize"]
    assert set(complete("ternbin", "run", "--no-re")) == {"--no-repeat-ngram"}
    assert "small.toml" not in complete("ternbin", "run", "--bits", "") and "2-2" in complete(
        "ternbin", "run", "--bits", "2"
    )


def test_completion_of_zsh(capsys):
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef ternbin")
