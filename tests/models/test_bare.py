"""Packed checkpoints read without the library: the same model, the same ids, or else left to the library."""

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch

from ternbin.errors import InputError
from ternbin.models import prepare
from ternbin.models.bart.bare import NEEDED, BareModel, readable
from ternbin.models.families import family_in
from ternbin.models.tokenizer import PlainTokenizer, plain_tokenizer

FOLDERS = [folder for name in prepare.BUNDLED for folder in prepare.bundled_settings(name).values()]


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDERS[0], tmp_path / "model")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_bare_model_is_that_of_the_library(folder):
    bare, whole = prepare.load_lowerable(folder), prepare.load_model(folder)
    assert isinstance(bare, BareModel) and not isinstance(whole, BareModel)
    ours, theirs = bare.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    a, b = prepare.lower(bare), prepare.lower(whole)
    assert (a.stacks, a.meta, a.origins) == (b.stacks, b.meta, b.origins)
    assert a.weights.keys() == b.weights.keys()
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
    assert prepare.generation(bare) == prepare.generation(whole)


def test_settings_of_generating_that_only_the_library_knows_are_left_to_it(folder):
    layout: Any = family_in(folder)[0]
    assert readable(folder, layout.layout)
    change(folder / "generation_config.json", num_beams=4)
    assert not readable(folder, layout.layout)
    assert prepare.generation(prepare.load_lowerable(folder))["search"]["num_beams"] == 4


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_fields_that_the_library_would_fill_in_are_left_to_it(folder, name):
    values = json.loads((folder / "config.json").read_text())
    del values[name]
    (folder / "config.json").write_text(json.dumps(values))
    own: Any = prepare.family(folder)
    assert not readable(folder, own.layout)


def test_other_bits_and_unset_grids_are_left_to_the_library(folder):
    assert prepare.load_lowerable(folder, "1-1").quant_config.bits == "1-1"
    quant = json.loads((folder / "config.json").read_text())["quant"] | {"fracs": {}}
    change(folder / "config.json", quant=quant)
    assert prepare.load_lowerable(folder).quant_config.fracs


def test_what_no_model_can_have_is_refused_without_the_library_too(folder):
    change(folder / "config.json", d_model=191)
    with pytest.raises(
        InputError, match="config.json: d_model must be a multiple of the attention heads, not 191 and 3"
    ):
        prepare.load_lowerable(folder)


# ---- tokenizers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", prepare.BUNDLED)
def test_the_plain_tokenizer_gives_the_ids_of_the_library(name):
    folder = prepare.bundled_dir(name)
    plain, whole = prepare.reader(folder), prepare.load_tokenizer(folder)
    assert isinstance(plain, PlainTokenizer) and whole is not None
    texts = [text[side] for text in prepare.demo_texts(folder) for side in ("source", "target")]
    for text in (*texts, "a", " two  spaces ", "</s> <mask>", "na\u00efve \U0001f600\n", "a" * 400):
        ids = whole(text).input_ids
        assert plain(text).input_ids == ids
        assert plain(text, max_length=9).input_ids == whole(text, truncation=True, max_length=9).input_ids
        assert plain(text, "another").input_ids == whole(text, "another").input_ids
        for skipped in (True, False):
            assert plain.decode(ids, skip_special_tokens=skipped) == whole.decode(ids, skip_special_tokens=skipped)


@pytest.mark.parametrize(
    "values",
    [
        {"tokenizer_class": "BartTokenizer"},
        {"clean_up_tokenization_spaces": True},
        {"pad_token": "<none>"},
        {"model_max_length": 64},
        {"add_prefix_space": False},
    ],
)
def test_settings_that_could_change_ids_are_left_to_the_library(folder, values):
    assert plain_tokenizer(folder) is not None
    change(folder / "tokenizer_config.json", **values)
    assert plain_tokenizer(folder) is None


@pytest.mark.parametrize("name", ["added_tokens.json", "special_tokens_map.json"])
def test_files_of_tokens_beside_are_left_to_the_library(folder, name):
    (folder / name).write_text("{}")
    assert plain_tokenizer(folder) is None


# ---- what is imported -----------------------------------------------------------------------------------------------


def test_running_the_bundled_model_imports_no_library_and_no_generator():
    script = """
import sys
from ternbin import flow
from ternbin.contract.hw import NAMED
from ternbin.models import prepare

planned = flow.plan(flow.lower(flow.prepare(flow.Job(hw=NAMED["small"]))))
assert prepare.compare(planned.model, planned.lowered, [(planned.sources[0].given, [2, 5])])
assert planned.tokenizer.decode(planned.sources[0].ids)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/")
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"transformers", "amaranth", "matplotlib", "scipy", "sympy", "torch._dynamo"}
