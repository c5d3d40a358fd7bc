"""What a generated text must and must not hold: the settings of Hugging Face's generation config, on the best tokens of a list.

The host sees only the best tokens of every list from the accelerator. That is enough for a step unless a token beyond the list could be
chosen; the choice is then refused (greedy), or the step counted (:class:`ternbin.decoding.search.Found`, beams).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from ternbin.errors import InputError

OTHERS: dict[str, Any] = {  # what the host does not do, and the value that switches it off
    "do_sample": False,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "guidance_scale": 1.0,
    "renormalize_logits": False,
    "constraints": None,
    "force_words_ids": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "watermarking_config": None,
    "stop_strings": None,
    "token_healing": False,
}
SEARCH = ("num_beams", "length_penalty", "early_stopping")  # of a beam search
MIN_NEW = "min_new_tokens"  # min_length that does not count the start token


class Candidate(NamedTuple):
    """A token with its log-probability and its logit, in natural units."""

    token: int
    logp: float
    logit: float


Candidates = list[Candidate]  # best first


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Names and meanings are those of Hugging Face's generation config. Tokens of a text count from the start token. Raises InputError for
    values that mean nothing."""

    no_repeat_ngram_size: int = 0
    min_length: int = 0
    repetition_penalty: float = 1.0
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("no_repeat_ngram_size", "min_length"):
            value = getattr(self, name)
            if not _is_int(value):
                raise InputError(f"{name} must be an integer, not {value!r}")
            if value < 0:
                raise InputError(f"{name} must not be negative, not {value}")
        if not (_is_number(self.repetition_penalty) and 0 < self.repetition_penalty < math.inf):
            raise InputError(f"repetition_penalty must be a positive number, not {self.repetition_penalty!r}")
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            object.__setattr__(self, name, _ids(name, getattr(self, name)))
        words = self.bad_words_ids
        if not isinstance(words, (list, tuple)):
            raise InputError(f"bad_words_ids must be lists of token ids, not {words!r}")
        object.__setattr__(self, "bad_words_ids", tuple(_ids("bad_words_ids, each", word) for word in words))
        if not all(self.bad_words_ids):
            raise InputError("bad_words_ids, each must hold a token id, not none")

    @property
    def broken_by(self) -> tuple[str, ...]:
        """The names of the rules that there are: those that the best token of all may break."""
        return tuple(each.name for each in fields(Rules) if getattr(self, each.name) != each.default)

    @property
    def plain(self) -> "Rules":
        """The rules alone, of a search."""
        return Rules(**{each.name: getattr(self, each.name) for each in fields(Rules)})

    def banned(self, tokens: Sequence[int], prompt: int, ends: Sequence[int]) -> set[int]:
        """Tokens that must not follow ``tokens``, of which the first ``prompt`` were given; ``ends``: those that end a text."""
        banned = {*self.suppress_tokens, *(self.begin_suppress_tokens if len(tokens) == prompt else ())}
        if len(tokens) < self.min_length:
            banned |= set(ends)
        banned |= self._repeating(tuple(tokens))
        for *before, last in self.bad_words_ids:
            if tuple(before) == tuple(tokens[len(tokens) - len(before) :]) and (before or last not in ends):
                banned.add(last)
        return banned

    def _repeating(self, tokens: tuple[int, ...]) -> set[int]:
        """Those that would repeat an n-gram."""
        n = self.no_repeat_ngram_size
        if not n:
            return set()
        last = tokens[len(tokens) - n + 1 :]
        return {tokens[i + n - 1] for i in range(len(tokens) - n + 1) if tokens[i : i + n - 1] == last}

    def scored(
        self, own: Candidates, tokens: Sequence[int], prompt: int, ends: Sequence[int], *, logits: bool
    ) -> tuple[list[tuple[int, float]], float]:
        """The tokens of a list that may follow ``tokens``, with their scores, best first; and what a token beyond the list can have.

        Scores are log-probabilities (beams), or ``logits`` (greedy): the penalty of seen tokens depends on it.
        """
        banned, seen = self.banned(tokens, prompt, ends), set(tokens) if self.repetition_penalty != 1 else set[int]()
        values = [(each.token, each.logit if logits else each.logp) for each in own]
        bound = values[-1][1] if values else -math.inf
        if seen - {each.token for each in own}:  # a penalty below 1 lifts them
            bound = max(bound, self._penalised(bound))
        allowed = [(t, self._penalised(value) if t in seen else value) for t, value in values if t not in banned]
        return sorted(allowed, key=lambda entry: (-entry[1], entry[0])), bound

    def _penalised(self, score: float) -> float:
        return score * self.repetition_penalty if score < 0 else score / self.repetition_penalty

    def best(self, own: Candidates, tokens: Sequence[int], prompt: int, ends: Sequence[int]) -> Candidate:
        """The token that greedily follows ``tokens``. Raises InputError where one beyond the list might."""
        if not self.broken_by:
            return own[0]
        allowed, bound = self.scored(own, tokens, prompt, ends, logits=True)
        if not allowed or allowed[0][1] < bound:
            names = ", ".join(self.broken_by)
            raise InputError(
                f"position {len(tokens)}: the best token that {names} allow must be one of the {len(own)} that the accelerator "
                f"lists, not beyond them; more beams list more, --generation {self.broken_by[0]}=null switches it off"
            )
        return next(each for each in own if each.token == allowed[0][0])


def settings(meta: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Settings that a generation follows: those ``given``, else those of the model (``search`` of its ``meta``), None left out.

    Raises InputError for one that the host does not know, or does not do.
    """
    own = {**meta.get("search", {}), **(given or {})}
    known = {*(each.name for each in fields(Rules)), *SEARCH, MIN_NEW, *OTHERS}
    for name, value in own.items():
        if name not in known:
            raise InputError(f"generation setting must be one of {', '.join(sorted(known))}, not {name!r}")
        if name in OTHERS and value is not None and value != OTHERS[name]:
            off = {None: "null", False: "false"}.get(OTHERS[name], OTHERS[name])
            raise InputError(
                f"{name} must be {off}, not {value!r}: the host does not do it; --generation {name}={off} switches it off"
            )
    return {name: value for name, value in own.items() if value is not None and name not in OTHERS}


def rules_of(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`Rules` among settings."""
    own = {each.name: chosen[each.name] for each in fields(Rules) if each.name in chosen}
    if MIN_NEW in chosen:  # as the library: it takes the place of min_length
        if not _is_int(chosen[MIN_NEW]) or chosen[MIN_NEW] < 0:
            raise InputError(f"{MIN_NEW} must be an integer from 0 on, not {chosen[MIN_NEW]!r}")
        own["min_length"] = chosen[MIN_NEW] + 1
    return own


def rules(meta: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Rules:
    """The rules among the settings that a generation follows."""
    return Rules(**rules_of(settings(meta, given)))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ids(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(_is_int(each) and each >= 0 for each in value):
        raise InputError(f"{name} must be a list of token ids, not {value!r}")
    return tuple(value)
