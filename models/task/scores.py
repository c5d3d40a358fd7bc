"""Scores of a synopsis against the written one, and the baselines: what a description's own first words score."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ternbin.errors import MissingToolError

METRICS = ("rouge1", "rouge2", "rougeL")

_OPENING = re.compile(
    r"^(?:this|the) (?:\w+ )?(?:package|module|library|program|gem|extension|tool) "
    r"(?:contains?|provides?|includes?|ships|installs|is|offers|implements|allows)\s+",
    re.IGNORECASE,
)
_IS_A = re.compile(r"^[\w.:+-]+(?: [\w.:+()-]+){0,2}? (?:is|are|provides?)\s+", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


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


BASELINES: dict[str, Callable[[str], str]] = {
    "first sentence": first_sentence,
    "first 10 words": first_words,
    "lead without boilerplate, 9 words": strip_boilerplate,
}


def rouge(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean stemmed ROUGE-1/2/L F-measures, in percent, of `predictions` against `references`."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingToolError("rouge_score must be installed to score texts: pip install 'ternbin[train]'") from None
    scorer = RougeScorer(METRICS, use_stemmer=True)
    scores = [scorer.score(r, p) for r, p in zip(references, predictions, strict=True)]
    return {m: round(100 * sum(s[m].fmeasure for s in scores) / len(scores), 2) for m in METRICS}
