"""What a generation is asked for and what it gives: settings and result, without a backend."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ternbin.contract.hw import MAX_BEAMS, top_tokens
from ternbin.errors import InputError
from ternbin.graph.given import most_new_tokens


@dataclass(frozen=True)
class Policy:
    """Greedy decoding of up to ``max_new_tokens`` tokens after the start token."""

    prompt: tuple[int, ...]  # start token and, where prescribed, those that follow
    eos: int
    last: int | None  # what the last possible token must be
    max_new_tokens: int

    @classmethod
    def of(cls, meta: dict, max_new_tokens: int) -> "Policy":
        """From a lowered model's ``meta``. Raises InputError where the decoder has too few positions."""
        most, forced = most_new_tokens(meta), meta.get("forced_bos_id")
        if not 1 <= max_new_tokens <= most:
            raise InputError(f"max_new_tokens must be in [1, {most}], not {max_new_tokens}")
        first = meta.get("prompt_ids") or ([] if forced is None else [forced])
        prompt = (meta["decoder_start_id"], *first)
        return cls(prompt, meta["eos_id"], meta.get("forced_eos_id"), max_new_tokens)

    def first(self) -> list[int]:
        """Tokens known before the first call, without the start token."""
        return list(self.prompt[1:])

    def forced_next(self, tokens: Sequence[int]) -> int | None:
        """The token that must follow whatever the model says, or None."""
        return self.last if len(tokens) == self.max_new_tokens - 1 else None

    def done(self, tokens: Sequence[int]) -> bool:
        return len(tokens) >= self.max_new_tokens or (len(tokens) > 0 and tokens[-1] == self.eos)


Candidates = list[tuple[int, float]]  # (token, log-probability), best first


Fed = tuple[tuple[int, ...], tuple[int, ...]]  # tokens and parents of the beams in one call


@dataclass(frozen=True, kw_only=True)
class Search:
    """How to search; the names and meanings are those of Hugging Face's generation config.

    ``min_length`` counts the start token. Raises InputError for values that mean nothing.
    """

    beams: int
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    early_stopping: bool | str = False
    min_length: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.beams <= MAX_BEAMS:
            raise InputError(f"beams must be from 2 to {MAX_BEAMS}, not {self.beams}")
        if self.no_repeat_ngram_size < 0:
            raise InputError(f"no_repeat_ngram_size must not be negative, not {self.no_repeat_ngram_size}")
        if self.early_stopping not in (True, False, "never"):
            raise InputError(f"early_stopping must be true, false or 'never', not {self.early_stopping!r}")

    @classmethod
    def of(cls, meta: dict, beams: int, **settings: object) -> "Search":
        """With the settings that are not None, else those of the model's generation config, else the defaults."""
        own = {name: value for name, value in settings.items() if value is not None}
        return cls(beams=beams, **meta.get("search", {}) | own)

    @property
    def chosen(self) -> int:
        """Continuations that are looked at in a step: ``beams`` even if as many texts end."""
        return 2 * self.beams

    @property
    def top(self) -> int:
        """Candidates of a beam."""
        return top_tokens(self.beams)


@dataclass(frozen=True)
class Found:
    """The best text (tokens after the start token) and its score; ``trace``: what each decoder call was fed.

    ``short``: steps at which banned tokens left a beam so few candidates that one beyond its ``top`` might have been chosen.
    """

    tokens: list[int]
    score: float
    trace: list[Fed] = field(repr=False)
    short: int
