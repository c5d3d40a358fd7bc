"""What is committed of data sets and models hangs together, and runs."""

import json
import shutil

import pytest

import ternbin
from ternbin.cli import main
from ternbin.errors import InputError
from ternbin.models import prepare
from ternbin.models.config import BITS
from ternbin.models.prepare import BUNDLED, bundled_dir, bundled_settings, default_text, demo_texts, model_dir
from ternbin.models.task import bundle, sets
from ternbin.models.task.data import SPLITS, Example, write_examples
from ternbin.models.task.evaluate import load_model
from ternbin.models.task.generate import generate
from ternbin.models.task.scores import METRICS
from ternbin.models.task.tokenizer import encode, load_tokenizer

SET = {"summarisation": "debian", "translation": "debian-it"}
MAX_BYTES = 4 << 20


@pytest.fixture(params=BUNDLED)
def name(request) -> str:
    return request.param


def test_bundle_data_of_a_small_set(tmp_path):
    examples = [Example(**row) for row in demo_texts()]
    for split, part in zip(SPLITS, (examples[:10], examples[10:12], examples[12:]), strict=True):
        write_examples(tmp_path / f"{split}.jsonl", part)
    (tmp_path / "tokenizer.json").write_bytes((bundled_dir() / "tokenizer.json").read_bytes())
    bundle.bundle_data(tmp_path, tmp_path / "out", demos=3)
    document = json.loads((tmp_path / "out" / "demo_texts.json").read_text(encoding="utf-8"))
    assert len(document["texts"]) == 3 and document["notice"] == bundle.NOTICE
    assert document["default"] in {text["source"] for text in document["texts"]}


def test_every_bundled_model_is_of_a_set_that_can_be_built(name):
    assert {sets.BUNDLED[SET[each]] for each in BUNDLED} == {bundled_dir(each) for each in BUNDLED}
    assert set(SET.values()) <= set(sets.SETS) and bundled_dir(name) == model_dir(name)


def test_a_bundled_model_is_small_and_ternary_and_writes_words(name):
    folder, task = bundled_dir(name), sets.SETS[SET[name]].TASK
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < MAX_BYTES
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert model.is_packed and model.quant_config.bits == "2-2" and model.quant_config.fracs
    assert model.config.vocab_size == len(tokenizer) == task.vocab
    texts = encode(tokenizer, [text["source"] for text in demo_texts(folder)[:4]], task.max_source)
    assert all(generate(model, tokenizer, task, texts, beams=4))


def test_bundled_splits_are_disjoint_and_hold_the_demo_texts(name):
    committed = sets.split_names(SET[name])
    assert committed is not None
    names = {split: set(packages) for split, packages in committed.items()}
    assert not names["train"] & (names["test"] | names["validation"])
    demos = demo_texts(bundled_dir(name))
    assert len(demos) == 36 and {text["package"] for text in demos} <= names["test"]
    assert prepare.default_text(bundled_dir(name)) in {text["source"] for text in demos}


def test_bundled_scores_have_what_a_report_shows(name):
    scores = json.loads((bundled_dir(name) / "eval.json").read_text(encoding="utf-8"))
    keys = list(METRICS[sets.SETS[SET[name]].TASK.metric].labels)
    assert scores["texts"] == 1000 and len(scores["models"]) >= 2
    assert any("integer" in model for model in scores["models"].values())
    for model in scores["models"].values():
        assert all(list(score) == keys for score in model["model"].values())


HARDWARE = {"summarisation": "small", "translation": "tiny"}  # the smallest that holds it
SETTINGS = [(name, bits) for name in BUNDLED for bits in bundled_settings(name)]


@pytest.mark.parametrize(("name", "bits"), SETTINGS)
def test_every_bundled_setting_runs_bit_for_bit(name, bits):
    """On the text that the command line takes."""
    text = default_text(bundled_dir(name, bits))
    run = ternbin.summarise(text, model=name, bits=bits, hw=HARDWARE[name], max_new_tokens=2)
    assert run.bit_exact and run.result["tensors_checked"] > 100
    assert run.result["bits"] == bits == load_model(bundled_dir(name, bits)).quant_config.bits
    assert any(scores.get("bits", bits) == bits for scores in run.result["evaluation"]["models"].values())


def test_all_bundled_settings_are_small():
    folder = bundled_dir()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8 << 20


def test_a_setting_that_is_not_bundled_is_named(tmp_path, monkeypatch, capsys):
    missing = [bits for bits in BITS if bits not in bundled_settings("translation")]
    command = ["--model", "translation", "--bits", missing[0], "--out", str(tmp_path / "out")]
    assert main(["run", *command]) == main(["lower", *command]) == 2
    line = f"--bits of the bundled translation model must be 2-2, not {missing[0]}: a checkpoint folder (--model DIR)"
    assert capsys.readouterr().err.count(line) == 2


def test_another_setting_is_bundled_beside_the_first(tmp_path, monkeypatch):
    """It has the tokenizer and the texts of the first."""
    root = tmp_path / "bundled"
    shutil.copytree(bundled_dir(), root, ignore=shutil.ignore_patterns("translation", "?-?"))
    prepare.quantize(bundled_dir(), tmp_path / "student", "1-1")
    scores = json.loads((root / "eval.json").read_text(encoding="utf-8"))
    result = {key: scores[key] for key in ("texts", "baselines")} | {"task": "debian", "metric": "rouge", "bits": "1-1"}
    result |= {key: scores["models"]["student (W2A2)"][key] for key in ("model", "nll", "integer")}
    (tmp_path / "eval.json").write_text(json.dumps(result))
    bundle.main([*map(str, (tmp_path, tmp_path / "student", root)), "--setting", f"student={tmp_path / 'eval.json'}"])
    assert sorted(path.name for path in (root / "1-1").iterdir()) == [
        "config.json",
        "eval.json",
        "generation_config.json",
        "packed.safetensors",
    ]
    monkeypatch.setattr(prepare.resources, "files", lambda package: tmp_path)
    assert model_dir(None, "1-1") == root / "1-1" and list(bundled_settings()) == ["2-2", "1-1"]
    ids = [load_tokenizer(folder)("a text")["input_ids"] for folder in (root, root / "1-1")]
    found = prepare.load_tokenizer(root / "1-1")
    assert found is not None and ids[0] == ids[1] == found("a text")["input_ids"]
    assert demo_texts(root / "1-1") == demo_texts(root) and sets.set_of(root / "1-1") == "debian"
    (root / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(InputError, match="student: tokenizer must be that of the bundled model, not another"):
        bundle.setting_dir(tmp_path / "student", root)


def test_a_model_is_a_name_or_a_folder(tmp_path):
    assert model_dir(None) == bundled_dir("summarisation")
    assert model_dir(str(tmp_path)) == tmp_path
