"""What a generation is asked for and what it gives: settings and result, without a backend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ternbin.contract.hw import MAX_BEAMS, top_tokens
from ternbin.decoding.rules import Candidate, Candidates, Rules, rules, rules_of, settings
from ternbin.errors import InputError
from ternbin.graph.given import most_new_tokens

__all__ = ["DEAD", "Candidate", "Candidates", "Fed", "Found", "Policy", "Search", "beams_of", "columns"]

DEAD = -1e9  # score of a beam that is none


@dataclass(frozen=True)
class Policy:
    """Decoding of up to ``max_new_tokens`` tokens after the start token; ``rules`` are those of greedy decoding, a :class:`Search` has its
    own."""

    prompt: tuple[int, ...]  # start token and, where prescribed, those that follow
    eos: int | tuple[int, ...] | None  # what ends a text
    last: int | None  # what the last possible token must be
    max_new_tokens: int
    rules: Rules = Rules()

    @classmethod
    def of(cls, meta: dict, max_new_tokens: int, given: Mapping[str, Any] | None = None) -> "Policy":
        """From a lowered model's ``meta``, and settings ``given`` in the place of those of its generation config. Raises InputError where
        the decoder has too few positions or no first token, and for settings that the host does not do."""
        most = most_new_tokens(meta)
        if not 1 <= max_new_tokens <= most:
            raise InputError(f"max_new_tokens must be in [1, {most}], not {max_new_tokens}")
        start, forced, eos = meta["decoder_start_id"], meta.get("forced_bos_id"), meta["eos_id"]
        if start is None:
            raise InputError(
                "decoder_start_token_id or bos_token_id must be set in the generation config, not left out"
            )
        prompt = (start, *(meta.get("prompt_ids") or ([] if forced is None else [forced])))
        eos = tuple(eos) if isinstance(eos, (list, tuple)) else eos
        return cls(prompt, eos, meta.get("forced_eos_id"), max_new_tokens, rules(meta, given))

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        return () if self.eos is None else (self.eos,) if isinstance(self.eos, int) else self.eos

    def first(self) -> list[int]:
        """Tokens known before the first call, without the start token."""
        return list(self.prompt[1:])

    def forced_next(self, tokens: Sequence[int]) -> int | None:
        """The token that must follow whatever the model says, or None."""
        return self.last if len(tokens) == self.max_new_tokens - 1 else None

    def done(self, tokens: Sequence[int]) -> bool:
        return len(tokens) >= self.max_new_tokens or (len(tokens) > 0 and tokens[-1] in self.ends)

    def best(self, own: Candidates, tokens: Sequence[int]) -> Candidate:
        """The token that greedily follows ``tokens``, those after the start token. Raises InputError where the list is too short."""
        return self.rules.best(own, (self.prompt[0], *tokens), len(self.prompt), self.ends)


Fed = tuple[tuple[int, ...], tuple[int, ...]]  # tokens and parents of the beams in one call


@dataclass(frozen=True, kw_only=True)
class Search(Rules):
    """How to search, and by which rules; the names and meanings are those of Hugging Face's generation config.

    Raises InputError for values that mean nothing.
    """

    beams: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        if not 2 <= self.beams <= MAX_BEAMS:
            raise InputError(f"beams must be from 2 to {MAX_BEAMS}, not {self.beams}")
        super().__post_init__()
        if isinstance(self.length_penalty, bool) or not isinstance(self.length_penalty, (int, float)):
            raise InputError(f"length_penalty must be a number, not {self.length_penalty!r}")
        if not (isinstance(self.early_stopping, bool) or self.early_stopping == "never"):
            raise InputError(f"early_stopping must be true, false or 'never', not {self.early_stopping!r}")

    @classmethod
    def of(cls, meta: dict, beams: int, given: Mapping[str, Any] | None = None) -> "Search":
        """With the settings ``given``, else those of the model's generation config, else the defaults."""
        chosen = settings(meta, given)
        own = {name: chosen[name] for name in ("length_penalty", "early_stopping") if name in chosen}
        return cls(beams=beams, **own, **rules_of(chosen))

    @property
    def top(self) -> int:
        """Candidates of a beam."""
        return top_tokens(self.beams)


def beams_of(meta: Mapping[str, Any], beams: int | None, given: Mapping[str, Any] | None = None) -> int:
    """Beams of a text: as many as asked for, else those of the generation config. Raises InputError."""
    if beams is None:
        beams = settings(meta, given).get("num_beams", 1)
    if not isinstance(beams, int) or isinstance(beams, bool) or not 1 <= beams <= MAX_BEAMS:
        raise InputError(f"beams must be from 1 to {MAX_BEAMS}, not {beams!r}")
    return beams


def columns(beams: int, texts: int, rules: Rules) -> int:
    """Beams of a text that the accelerator computes: one text that rules decide greedily is computed twice, for lists come with beams."""
    return 2 if rules.broken_by and beams * texts == 1 else beams


@dataclass(frozen=True)
class Found:
    """The best text (tokens after the start token) and its score; ``trace``: what each decoder call was fed.

    ``short``: steps at which banned tokens left a beam so few candidates that one beyond its ``top`` might have been chosen.
    """

    tokens: list[int]
    score: float
    trace: list[Fed] = field(repr=False)
    short: int
