"""The wheel: it holds every file of the four folders, builds without a warning, and does its jobs from an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"ternbin": "ternbin", "rtl": "ternbin/rtl", "sim": "ternbin/sim", "models": "ternbin/models"}
LINKS = {ROOT / "ternbin" / part for part in ("rtl", "sim", "models")}
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def _sources() -> dict[str, Path]:
    """Every file of the folders by its name in the wheel."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            own = not LINKS & {path, *path.parents} and "__pycache__" not in path.parts
            if own and path.is_file():
                found[f"{package}/{path.relative_to(ROOT / folder).as_posix()}"] = path
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> tuple[Path, str]:
    """The wheel, built in a copy of the sources, and what its build printed."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        skipped = {path.name for path in LINKS} if folder == "ternbin" else set()

        def ignore(path: str, names: list[str], top=str(ROOT / folder), skipped=frozenset(skipped)) -> set[str]:
            return ignored(path, names) | (skipped & set(names) if path == top else set())

        shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, copy)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # warns
    command = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = out.glob("*.whl")
    return path, done.stdout + done.stderr


def test_every_file_is_in_it(wheel):
    inside = {name for name in zipfile.ZipFile(wheel[0]).namelist() if ".dist-info/" not in name}
    assert inside == set(_sources())


def test_its_build_does_not_warn(wheel):
    assert "warning" not in wheel[1].lower(), wheel[1]


@pytest.mark.build
def test_it_works_from_an_empty_folder(wheel, tmp_path):
    """Every verb that reads data of the package, and a run with a random model on the smallest hardware."""
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel[0]).extractall(installed)
    empty.mkdir()
    script = f"""
import ternbin, ternbin.rtl
from ternbin.cli import main
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.models.packed import save_packed

for module in (ternbin, ternbin.rtl):
    assert module.__file__.startswith({str(installed)!r}), module.__file__
save_packed(random_quant_bart("2-2"), "model")
run = ["run", "--model", "model", "--hw", "tiny", "--ids", "0,5,9,2", "--max-new-tokens", "2", "--out", "run"]
for argv in (["energy"], ["rtl", "--hw", "tiny", "--out", "rtl"], ["lower", "--source-len", "4", "--out", "lowered"], run):
    assert main(argv) == 0, argv
"""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", script], cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (empty / "run" / "index.html").stat().st_size > 0
