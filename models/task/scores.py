"""Scores of texts against the written ones, by the task's metric, and the baselines: what a source's own words score."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


def rouge(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """Mean stemmed ROUGE-1/2/L F-measures, in percent, of `predictions` against `references`."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingToolError("rouge_score must be installed to score texts: pip install 'ternbin[train]'") from None
    names = tuple(METRICS["rouge"].labels)
    scorer = RougeScorer(names, use_stemmer=True)
    scores = [scorer.score(r, p) for r, p in zip(references, predictions, strict=True)]
    return {name: round(100 * sum(s[name].fmeasure for s in scores) / len(scores), 2) for name in names}


def bleu(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """BLEU and chrF of the whole set, in percent, with sacreBLEU's own settings (13a words, case counts)."""
    try:
        import sacrebleu
    except ImportError:
        raise MissingToolError("sacrebleu must be installed to score texts: pip install 'ternbin[train]'") from None
    written = [list(references)]
    scores = {
        "bleu": sacrebleu.corpus_bleu(list(predictions), written),
        "chrf": sacrebleu.corpus_chrf(list(predictions), written),
    }
    return {name: round(score.score, 2) for name, score in scores.items()}


def exact(predictions: Sequence[str], references: Sequence[str]) -> Scores:
    """Percent of `predictions` that equal their reference."""
    equal = sum(p == r for p, r in zip(predictions, references, strict=True))
    return {"exact": round(100 * equal / len(references), 2)}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """`labels`: what each score is called in a table; the first is the one that models are compared by.

    `baselines`: by name, what makes a text of a source without a model.
    """

    score: Callable[[Sequence[str], Sequence[str]], Scores]
    labels: Mapping[str, str]
    baselines: Mapping[str, Callable[[str], str]]

    @property
    def first(self) -> str:
        return next(iter(self.labels))


METRICS = {
    "rouge": Metric(
        score=rouge,
        labels={"rouge1": "R1", "rouge2": "R2", "rougeL": "RL"},
        baselines={
            "first sentence": first_sentence,
            "first 10 words": first_words,
            "lead without boilerplate, 9 words": strip_boilerplate,
        },
    ),
    "bleu": Metric(score=bleu, labels={"bleu": "BLEU", "chrf": "chrF"}, baselines={"the source itself": str}),
    "exact": Metric(score=exact, labels={"exact": "equal"}, baselines={}),
}
