"""Baselines and scores."""

import json

import pytest

from ternbin.errors import InputError
from ternbin.models.task import evaluate, scores
from ternbin.models.task.checkpoint import writer_in
from ternbin.report.html import evaluation_table


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
    names = scores.METRICS["rouge"].labels
    assert scores.rouge(["running tools"], ["run tool"]) == dict.fromkeys(names, 100.0)
    assert scores.rouge(["alpha"], ["beta"]) == dict.fromkeys(names, 0.0)


def test_bleu_is_that_of_sacrebleu():
    """Four words of five: 4/5, 3/4, 2/3 and 1/2 of the n-grams, to the fourth root."""
    pytest.importorskip("sacrebleu")
    assert scores.bleu(["a b c d e"], ["a b c d e"]) == {"bleu": 100.0, "chrf": 100.0}
    assert scores.bleu(["a b c d x"], ["a b c d e"])["bleu"] == pytest.approx(
        100 * (4 / 5 * 3 / 4 * 2 / 3 / 2) ** 0.25, abs=0.01
    )


def test_exact_matches():
    assert scores.exact(["a", "b", "c"], ["a", "x", "c"]) == {"exact": 66.67}


@pytest.mark.parametrize("name", scores.METRICS)
def test_every_metric_gives_the_scores_it_names(name):
    metric = scores.METRICS[name]
    texts = ["this package contains the files of a tool"]
    assert list(metric.score(texts, texts)) == list(metric.labels)
    for baseline in metric.baselines.values():
        assert baseline(texts[0])


def test_load_model_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="config.json: file must exist in a checkpoint"):
        evaluate.load_model(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "whisper"])
def test_a_model_that_writes_no_text_from_text_is_refused(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(InputError, match="teacher must be an encoder-decoder that reads text, not the model in"):
        writer_in(tmp_path, "teacher")


def test_intervals_hold_the_score_and_repeat():
    predictions, references = ["a b c d"] * 30 + ["x"] * 30, ["a b c d"] * 60
    for name, metric in scores.METRICS.items():
        ranges = metric.intervals(predictions, references)
        assert ranges == metric.intervals(predictions, references) == json.loads(json.dumps(ranges))
        for key, value in metric.score(predictions, references).items():
            low, high = ranges[key]
            assert low < value < high, (name, key)
        each = metric.each(predictions, references)
        assert len(each) == 60 and each[0] > each[-1]


SCORE = {"rouge1": 33.1, "rouge2": 15.5, "rougeL": 28.8}


def test_table_lists_baselines_and_model():
    result = {"metric": "rouge", "texts": 3, "nll": {"test": 3.0}}
    result |= {"baselines": {"first sentence": SCORE}, "model": {"greedy": SCORE}}
    lines = evaluate.table(result).splitlines()
    assert lines[0].split() == ["R1", "R2", "RL"]
    assert lines[1] == "first sentence" + " " * 22 + "  33.10  15.50  28.80"
    assert lines[2].startswith("model, greedy") and lines[3] == "nats a token: test 3.000 (3 test texts)"


def test_table_sets_the_share_of_the_teacher_beside_the_paper():
    own, teacher = {"bleu": 9.0, "chrf": 30.0}, {"bleu": 12.0, "chrf": 40.0}
    result = {"metric": "bleu", "bits": "2-2", "texts": 3, "nll": {"test": 3.0}, "baselines": {}}
    result |= {"model": {"greedy": own}, "teacher": {"greedy": teacher}}
    result["ratio"] = evaluate.ratios(result, "bleu")
    assert result["ratio"] == {"greedy": 75.0}
    last = evaluate.table(result).splitlines()[-1]
    assert last == "BLEU of the model / BLEU of the teacher: greedy 75.0% (paper, 2-2: 81.0%)"


def test_the_report_shows_the_scores_of_any_task():
    """As `bundle.bundle_scores` writes them."""
    bleu, nll = {"bleu": 9.0, "chrf": 30.0}, {"test": 3.0, "validation": 3.1}
    student = {"model": {"greedy": bleu}, "nll": nll, "integer": {"greedy": bleu, "nll": nll}}
    header, rows = evaluation_table({"baselines": {"copy": bleu}, "models": {"student": student}})
    assert header == ["system", "BLEU", "chrF", "nats a token"]
    assert rows[0] == ["copy", "9.00", "30.00", ""]
    assert [row[0] for row in rows[1:]] == ["student, greedy", "student, integer model, greedy"]
