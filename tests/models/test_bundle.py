"""What is committed of data sets and models hangs together, and runs."""

import json

import pytest

import ternbin
from ternbin.models import prepare
from ternbin.models.prepare import BUNDLED, bundled_dir, demo_texts, model_dir
from ternbin.models.task import bundle, sets
from ternbin.models.task.data import SPLITS, Example, write_examples
from ternbin.models.task.evaluate import load_model
from ternbin.models.task.generate import generate
from ternbin.models.task.scores import METRICS
from ternbin.models.task.tokenizer import load_tokenizer

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
    assert set(SET.values()) == set(sets.SETS) and bundled_dir(name) == model_dir(name)


def test_a_bundled_model_is_small_and_ternary_and_writes_words(name):
    folder, task = bundled_dir(name), sets.SETS[SET[name]].TASK
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < MAX_BYTES
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert model.is_packed and model.quant_config.bits == "2-2" and model.quant_config.fracs
    assert model.config.vocab_size == len(tokenizer) == task.vocab
    texts = [text["source"] for text in demo_texts(folder)[:4]]
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


def test_the_translation_model_runs_by_its_name_bit_for_bit():
    run = ternbin.summarise("fast audio player", model="translation", hw="tiny", max_new_tokens=2)
    assert run.bit_exact and run.result["model"]["folder"] == "translation"
    assert run.result["tensors_checked"] > 100


def test_a_model_is_a_name_or_a_folder(tmp_path):
    assert model_dir(None) == bundled_dir("summarisation")
    assert model_dir(str(tmp_path)) == tmp_path
