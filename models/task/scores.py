"""Scores of texts against the written ones, by the task's metric, and the baselines: what a source's own words score."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ternbin.errors import MissingToolError

Scores = dict[str, float]

_OPENING = re.compile(
    r"^(?:this|the) (?:\w+ )?(?:package|module|library|program|gem|extension|tool) "
    r"(?:contains?|provides?|includes?|ships|installs|is|offers|implements|allows)\s+",
    re.IGNORECASE,
)
_IS_A = re.compile(r"^[\w.:+-]+(?: [\w.:+()-]+){0,2}? (?:is|are|provides?)\s+", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


# -- baselines ---------------------------------------------------------------------------------


def first_sentence(source: str) -> str:
    """`source` up to the first full stop that ends a word."""
    return re.split(r"(?<=[.!?])\s", source, maxsplit=1)[0]


def first_words(source: str, words: int = 10) -> str:
    """The first `words` words of `source`."""
    return " ".join(source.split()[:words])


def strip_boilerplate(source: str, words: int = 9) -> str:
    """First `words` words of `source` after openings such as "This package contains the ..."."""
    text = _OPENING.sub("", source)
    text = _IS_A.sub("", text) if text == source else text
    text = _ARTICLE.sub("", text)
    return first_words(text or source, words)


# -- metrics -----------------------------------------------------------------------------------

RESAMPLES, SEED = 1000, 0
Intervals = dict[str, list[float]]
"""Of every score, what 95% of resamples of the texts lie between."""


def rouge(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """Mean stemmed ROUGE-1/2/L F-measures, in percent, of `predictions` against `references`."""
    return means(rouge_each(predictions, references))


def rouge_each(predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """ROUGE-1/2/L of each text."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingToolError("rouge_score must be installed to score texts: pip install 'ternbin[train]'") from None
    names = tuple(METRICS["rouge"].labels)
    scorer = RougeScorer(names, use_stemmer=True)
    scores = [scorer.score(r, p) for r, p in zip(references, predictions, strict=True)]
    return {name: [s[name].fmeasure for s in scores] for name in names}


def bleu(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """BLEU and chrF of the whole set, in percent, with sacreBLEU's own settings (13a words, case counts)."""
    return {
        name: round(made.corpus_score(list(predictions), [list(references)]).score, 2) for name, made in _bleu().items()
    }


def bleu_intervals(predictions: Sequence[str], references: Sequence[str]) -> Intervals:
    """By sacreBLEU's own resampling, with its fixed seed."""
    found: Intervals = {}
    for name, made in _bleu().items():
        score: Any = made.corpus_score(list(predictions), [list(references)], n_bootstrap=RESAMPLES)
        mean, half = float(score._mean), float(score._ci)  # of chrF numpy's own, which JSON does not take
        found[name] = [round(max(0.0, mean - half), 2), round(mean + half, 2)]
    return found


def chrf_each(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """chrF of every text: BLEU is one of the whole set."""
    made = _bleu()["chrf"]
    return [made.sentence_score(p, [r]).score for p, r in zip(predictions, references, strict=True)]


def _bleu() -> dict[str, Any]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise MissingToolError("sacrebleu must be installed to score texts: pip install 'ternbin[train]'") from None
    return {"bleu": BLEU(), "chrf": CHRF()}


def exact(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """Percent of `predictions` that equal their reference."""
    return means(exact_each(predictions, references))


def exact_each(predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """1 for each text that equals its reference, else 0."""
    return {"exact": [float(p == r) for p, r in zip(predictions, references, strict=True)]}


def means(each: Mapping[str, Sequence[float]]) -> Scores:
    """Means over the texts, in percent."""
    return {name: round(100 * sum(values) / len(values), 2) for name, values in each.items()}


def resampled(each: Mapping[str, Sequence[float]]) -> Intervals:
    """Percentile intervals of the means, in percent: the same texts drawn for every score."""
    count = len(next(iter(each.values())))
    drawn = np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
    found: Intervals = {}
    for name, values in each.items():
        low, high = np.percentile(100 * np.asarray(values)[drawn].mean(1), (2.5, 97.5))
        found[name] = [round(float(low), 2), round(float(high), 2)]
    return found


@dataclass(frozen=True, kw_only=True)
class Metric:
    """`labels`: what each score is called in a table; the first is the one that models are compared by.

    `each`: the first score of every text, or one near it where that is of the whole set.
    `baselines`: by name, what makes a text of a source without a model.
    """

    score: Callable[[Sequence[str], Sequence[str]], Scores]
    intervals: Callable[[Sequence[str], Sequence[str]], Intervals]
    each: Callable[[Sequence[str], Sequence[str]], list[float]]
    labels: Mapping[str, str]
    baselines: Mapping[str, Callable[[str], str]]

    @property
    def first(self) -> str:
        return next(iter(self.labels))


METRICS = {
    "rouge": Metric(
        score=rouge,
        intervals=lambda predictions, references: resampled(rouge_each(predictions, references)),
        each=lambda predictions, references: rouge_each(predictions, references)["rouge1"],
        labels={"rouge1": "R1", "rouge2": "R2", "rougeL": "RL"},
        baselines={
            "first sentence": first_sentence,
            "first 10 words": first_words,
            "lead without boilerplate, 9 words": strip_boilerplate,
        },
    ),
    "bleu": Metric(
        score=bleu,
        intervals=bleu_intervals,
        each=chrf_each,
        labels={"bleu": "BLEU", "chrf": "chrF"},
        baselines={"the source itself": str},
    ),
    "exact": Metric(
        score=exact,
        intervals=lambda predictions, references: resampled(exact_each(predictions, references)),
        each=lambda predictions, references: exact_each(predictions, references)["exact"],
        labels={"exact": "equal"},
        baselines={},
    ),
}
