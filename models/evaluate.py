"""Scores: ROUGE and likelihood of a model on held-out texts, beside the lead baselines."""

from __future__ import annotations

import re

_OPENING = re.compile(
    r"^(?:this|the) (?:\w+ )?(?:package|module|library|program|gem|extension|tool) "
    r"(?:contains?|provides?|includes?|ships|installs|is|offers|implements|allows)\s+",
    re.IGNORECASE,
)
_IS_A = re.compile(r"^[\w.:+-]+(?: [\w.:+()-]+){0,2}? (?:is|are|provides?)\s+", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


def strip_boilerplate(source: str, words: int = 9) -> str:
    """First `words` words of `source` after openings such as "This package contains the ..."."""
    text = _OPENING.sub("", source)
    text = _IS_A.sub("", text) if text == source else text
    text = _ARTICLE.sub("", text)
    return " ".join((text or source).split()[:words])
