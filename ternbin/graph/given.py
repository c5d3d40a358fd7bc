"""What a model is given of a text: token ids, or rows by the name of an input of its prefill stack.

Ids alone are a text: where a stack also reads ``places``, these then count up from 0.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternbin.errors import InputError

IDS, PLACES = "ids", "places"  # inputs that hold tokens, and rows of a table of positions

Given = Sequence[int] | Mapping[str, Any]
"""Of one text, or of several one after the other: ids, or name -> ids [S] or residual integers [S, d]."""

Rows = dict[str, npt.NDArray[np.int64]]


def rows(source: Given, names: Collection[str], lengths: Sequence[int] = ()) -> Rows:
    """The rows of every input in ``names``; ``lengths``: tokens of each text, where there are several.

    Raises InputError for other names, and where inputs are not of one number of rows.
    """
    named = dict(source) if isinstance(source, Mapping) else {IDS: source}
    result = {name: np.asarray(value, dtype=np.int64) for name, value in named.items()}
    if PLACES in names and PLACES not in result and IDS in result:
        result[PLACES] = np.concatenate([np.arange(length) for length in lengths or [len(result[IDS])]])
    if set(result) != set(names):
        raise InputError(f"inputs must be {', '.join(names)}, not {', '.join(sorted(result))}")
    counts = {name: len(value) for name, value in result.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"inputs must have one number of rows, not {counts}")
    return result


def count(source: Given) -> int:
    """Tokens of a source."""
    return len(next(iter(source.values()))) if isinstance(source, Mapping) else len(source)


def most_new_tokens(meta: Mapping[str, Any]) -> int:
    """Tokens that a model can write, by its ``meta``: where that does not say, as many as it can read."""
    return meta.get("max_target_positions", meta["max_positions"])
