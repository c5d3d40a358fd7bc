"""Boolean functions as Liberty writes them."""

import itertools
import re
from collections.abc import Mapping, Sequence

from ternbin.errors import InputError


def truth_table(function: str, pins: Sequence[str]) -> int:
    """Bit i is the function's value with pin j at bit j of i. Liberty syntax: ! ' & * | + ^, juxtaposition is AND.

    Raises InputError for anything else.
    """
    tokens = re.findall(r"[A-Za-z_][\w\[\]]*|[01]|[()!'&*|+^]", function)
    if "".join(tokens) != re.sub(r"[\s\"]+", "", function):
        raise InputError(f"a Liberty function must be made of pins and ! ' & * | + ^, not {function!r}")
    result = 0
    for index, bits in enumerate(itertools.product((0, 1), repeat=len(pins))):
        state = dict(zip(reversed(pins), bits, strict=True))
        try:
            value, rest = _either(tokens, state)
        except IndexError:
            raise InputError(f"a Liberty function must be a whole expression, not {function!r}") from None
        if rest:
            raise InputError(f"a Liberty function must be one expression, not {function!r}")
        result |= value << index
    return result


# Each takes the tokens that are left; returns the value, and the tokens that are left then.
_Step = tuple[int, list[str]]


def _either(tokens: list[str], state: Mapping[str, int]) -> _Step:
    value, tokens = _exclusive(tokens, state)
    while tokens and tokens[0] in "|+":
        other, tokens = _exclusive(tokens[1:], state)
        value |= other
    return value, tokens


def _exclusive(tokens: list[str], state: Mapping[str, int]) -> _Step:
    value, tokens = _both(tokens, state)
    while tokens and tokens[0] == "^":
        other, tokens = _both(tokens[1:], state)
        value ^= other
    return value, tokens


def _both(tokens: list[str], state: Mapping[str, int]) -> _Step:
    value, tokens = _single(tokens, state)
    while tokens and tokens[0] not in ")|+^":
        other, tokens = _single(tokens[1:] if tokens[0] in "&*" else tokens, state)
        value &= other
    return value, tokens


def _single(tokens: list[str], state: Mapping[str, int]) -> _Step:
    if tokens[0] == "!":
        value, tokens = _single(tokens[1:], state)
        return 1 - value, tokens
    if tokens[0] == "(":
        value, tokens = _either(tokens[1:], state)
        tokens = tokens[1:]
    else:
        try:
            value = int(tokens[0]) if tokens[0] in "01" else state[tokens[0]]
        except KeyError:
            raise InputError(f"a Liberty function must use pins of its cell, not {tokens[0]!r}") from None
        tokens = tokens[1:]
    while tokens and tokens[0] == "'":
        value, tokens = 1 - value, tokens[1:]
    return value, tokens


def signal(text: str) -> tuple[str, bool]:
    """The name in "CK", "(CK)", "!CK" or "CK'", and whether it is inverted; ("", False) for any other expression."""
    match = re.fullmatch(r"([!(]*)(\w+)([)']*)", re.sub(r"\s+", "", text))
    if match is None or match[1].count("(") != match[3].count(")"):
        return "", False
    return match[2], (match[1].count("!") + match[3].count("'")) % 2 == 1
