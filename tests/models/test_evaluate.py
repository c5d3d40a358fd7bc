"""Baselines and scores."""

import pytest

from ternbin.errors import InputError
from ternbin.models.task import evaluate, scores


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("This package contains the development files.", "development files."),
        ("The package provides a parser for dates.", "parser for dates."),
        ("Foo is an editor for one two three four five six seven.", "editor for one two three four five six seven."),
        ("plain text", "plain text"),
    ],
)
def test_strip_boilerplate(source, expected):
    assert scores.strip_boilerplate(source) == expected


def test_first_sentence_and_words():
    assert scores.first_sentence("Uses v1.2 of it. More text.") == "Uses v1.2 of it."
    assert scores.first_words("a b c d", 2) == "a b"


def test_rouge_of_equal_and_of_disjoint_texts():
    pytest.importorskip("rouge_score")
    assert scores.rouge(["running tools"], ["run tool"]) == dict.fromkeys(scores.METRICS, 100.0)
    assert scores.rouge(["alpha"], ["beta"]) == dict.fromkeys(scores.METRICS, 0.0)


def test_load_model_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="config.json: file must exist in a checkpoint"):
        evaluate.load_model(tmp_path)


def test_table_lists_baselines_and_model():
    score = {"rouge1": 33.1, "rouge2": 15.5, "rougeL": 28.8}
    result = {"texts": 3, "baselines": {"first sentence": score}, "model": {"greedy": score}, "nll": {"test": 3.0}}
    lines = evaluate.table(result).splitlines()
    assert lines[1] == "first sentence" + " " * 22 + "  33.10  15.50  28.80"
    assert lines[2].startswith("model, greedy") and lines[3] == "nats a token: test 3.000 (3 test texts)"
