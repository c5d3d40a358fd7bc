"""Every file says its format; one of a newer version of ternbin is refused as that."""

import json
from pathlib import Path

import pytest
from mapped import mapped

from ternbin import formats, results
from ternbin.contract import program
from ternbin.contract.hw import NAMED
from ternbin.energy import figures
from ternbin.errors import InputError


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("kind/4", "f: made by a newer version of ternbin (kind/4; this one reads kind/3): install that version"),
        ("kind/12", "f: made by a newer version of ternbin (kind/12; this one reads kind/3): install that version"),
        ("kind/1", "f: schema must be 'kind/3', not 'kind/1'"),
        ("other/4", "f: schema must be 'kind/3', not 'other/4'"),
        ("kind/4x", "f: schema must be 'kind/3', not 'kind/4x'"),
        (None, "f: schema must be 'kind/3', not None"),
        (4, "f: schema must be 'kind/3', not 4"),
    ],
)
def test_versions_that_cannot_be_read(found, message):
    with pytest.raises(InputError) as error:
        formats.check(found, "kind/3", "f", ("kind/2",))
    assert str(error.value) == message


def test_the_page_names_them():
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    names = [value for name, value in vars(formats).items() if name.isupper()]
    assert len(names) == 9
    for name in names:
        assert f"`{name}`" in page or f'"{name}"' in page, name


def test_versions_that_can():
    formats.check("kind/3", "kind/3", "f")
    formats.check("kind/2", "kind/3", "f", ("kind/2",))


def test_a_newer_result():
    with pytest.raises(InputError, match=r"made by a newer version of ternbin \(ternbin-result/99; this one reads"):
        results.validate({"schema": "ternbin-result/99"})


def test_a_newer_characterisation(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"schema": "ternbin-energy/99"}))
    with pytest.raises(InputError, match=r"c\.json: made by a newer version of ternbin"):
        figures.read_characterisation(tmp_path / "c.json")


def test_a_newer_program(tmp_path):
    path = tmp_path / "p.tbn"
    program.save(mapped("2-2", NAMED["tiny"], new=1)[1], path)
    path.write_bytes(path.read_bytes().replace(b"ternbin program 3\n", b"ternbin program 17\n", 1))
    with pytest.raises(InputError, match=r"p\.tbn: made by a newer version of ternbin \(ternbin program 17; this"):
        program.load(path)


def test_a_newer_packed_checkpoint(tmp_path):
    from safetensors.torch import load_file, save_file

    from ternbin.models.bart.random_model import random_quant_bart
    from ternbin.models.packed import PACKED_FILE, save_packed
    from ternbin.models.prepare import load_model

    save_packed(random_quant_bart("2-2"), tmp_path)
    load_model(tmp_path)
    save_file(load_file(tmp_path / PACKED_FILE), tmp_path / PACKED_FILE, metadata={"format": "ternbin-packed/2"})
    with pytest.raises(InputError, match=r"packed\.safetensors: made by a newer version of ternbin"):
        load_model(tmp_path)


def test_packed_checkpoints_are_equal_byte_for_byte(tmp_path):
    """From run to run: each in a process of its own, where hashes of strings differ."""
    import os
    import subprocess
    import sys

    from ternbin.models.bart.random_model import random_stock_bart

    random_stock_bart().save_pretrained(tmp_path / "stock")
    for seed in "12":
        command = [sys.executable, "-m", "ternbin", "quantize", str(tmp_path / "stock"), "--out", seed]
        subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
    for path in (tmp_path / "1").iterdir():
        assert {(tmp_path / seed / path.name).read_bytes() for seed in "12"} == {path.read_bytes()}, path.name
