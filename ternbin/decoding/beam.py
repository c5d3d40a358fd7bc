"""Beam search: the host's loop, as in Hugging Face's ``generate``, on the best tokens of every beam; and beams on the interpreter.

A backend delivers, for every beam, its ``Search.top`` largest logits and the normaliser of the softmax, as integers (rule 11);
everything else is computed here, so that equal integers give equal tokens.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ternbin.contract.hw import top_tokens
from ternbin.decoding.greedy import Batched, reference_run
from ternbin.decoding.lists import candidates
from ternbin.decoding.rules import Candidates
from ternbin.decoding.search import DEAD, Fed, Found, Policy, Search
from ternbin.errors import InputError
from ternbin.graph.given import IDS, Given
from ternbin.graph.ir import Lowered
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.graph.shape import NEXT, check_source, shape

Step = Callable[[Sequence[int], Sequence[int], int], list[Candidates]]


@dataclass(frozen=True)
class _Text:
    """Tokens with the start token, the score, and whether the text has ended."""

    tokens: tuple[int, ...]
    score: float
    ended: bool = False


def beam_search(policy: Policy, search: Search, step: Step) -> Found:
    """The best text. ``step(tokens, parents, position)`` feeds each beam its token; beam b goes on from what beam ``parents[b]`` had
    before. It returns ``search.top`` candidates a beam (all tokens where there are fewer)."""
    (found,) = together(policy, search, 1, step)
    return found


def together(policy: Policy, search: Search | None, texts: int, step: Step, columns: int = 1) -> list[Found]:
    """Searches (without one: greedily) for several texts at a time: ``step`` sees the beams of all, text by text. Those of a text that
    is done go on being fed, with their last tokens, until all are. ``columns``: beams of a text that are computed greedily, all alike."""
    size, position = search.beams if search else columns, 0
    running = [_Search(policy, search).run() if search else _greedy(policy, size) for _ in range(texts)]
    feeds: list[Fed] = [((policy.prompt[-1],) * size, tuple(range(size)))] * texts
    found: list[Found | None] = [None] * texts

    def advance(text: int, listed: list[Candidates] | None) -> None:
        try:
            feeds[text] = next(running[text]) if listed is None else running[text].send(listed)
        except StopIteration as stop:
            found[text], feeds[text] = stop.value, (feeds[text][0], tuple(range(size)))

    for text in range(texts):
        advance(text, None)
    while None in found:
        tokens = [token for own, _ in feeds for token in own]
        parents = [text * size + parent for text, (_, own) in enumerate(feeds) for parent in own]
        listed = step(tokens, parents, position)
        position += 1
        for text in range(texts):
            if found[text] is None:
                advance(text, listed[text * size : (text + 1) * size])
    return [each for each in found if each is not None]


Searching = Generator[Fed, list[Candidates], Found]  # yields what to feed, is sent the candidates, returns the text


def _greedy(policy: Policy, columns: int) -> Searching:
    """As :func:`ternbin.decoding.greedy.greedy`, on lists; all of ``columns`` beams are fed the same."""
    tokens, feed, score = policy.first(), list(policy.prompt), 0.0
    trace: list[Fed] = []
    while not policy.done(tokens):
        token = policy.forced_next(tokens)
        if token is None:
            listed: list[Candidates] = []
            for each in feed:
                trace.append(((each,) * columns, tuple(range(columns))))
                listed = yield trace[-1]
            token, logp, _ = policy.best(listed[0], tokens)
            score += logp
        tokens.append(token)
        feed = [token]
    return Found(tokens, score, trace, 0)


Allowed = tuple[list[tuple[int, float]], float | None]  # tokens with scores; what one beyond them can have


class _Search:
    """A search in progress: the running texts, best first, and the best of those that have ended."""

    def __init__(self, policy: Policy, search: Search):
        self.policy, self.search = policy, search
        every = range(search.beams)
        self.beams = [_Text(policy.prompt, 0.0 if b == 0 else DEAD) for b in every]
        self.parents: Sequence[int] = every  # the beam that each running text was continued from
        self.finished = [_Text((), DEAD) for _ in every]
        self.length, self.most = len(policy.prompt), policy.max_new_tokens + 1
        self.open_ended = True  # a running beam may still become the best
        self.trace: list[Fed] = []
        self.short = 0

    def run(self) -> Searching:
        prompt = self.policy.prompt
        if self.length >= self.most:
            return Found(list(prompt[1:]), 0.0, self.trace, 0)
        for token in prompt[:-1]:
            yield from self._feed([token] * self.search.beams)
        while self.length < self.most and not self._over():
            forced = self.policy.forced_next(self.beams[0].tokens[1:])
            if forced is None:
                listed = yield from self._feed([beam.tokens[-1] for beam in self.beams])
                allowed = self._allowed(listed)
            else:
                allowed = [([(forced, 0.0)], None)] * self.search.beams
            self._continue(self._ranked(allowed))
        best = self.finished[0]
        return Found(list(best.tokens[1:]), best.score, self.trace, self.short)

    def _feed(self, tokens: Sequence[int]) -> Generator[Fed, list[Candidates], list[Candidates]]:
        """The ``search.top`` candidates of each beam after its token."""
        self.trace.append((tuple(tokens), tuple(self.parents)))
        return [own[: self.search.top] for own in (yield self.trace[-1])]

    def _allowed(self, listed: list[Candidates]) -> list[Allowed]:
        """What the rules leave of each beam's list. The bound is None where that is enough: nothing was banned or penalised, or the list
        holds all tokens there are."""
        result: list[Allowed] = []
        for own, beam in zip(listed, self.beams, strict=True):
            prompt, ends = len(self.policy.prompt), self.policy.ends
            left, bound = self.search.scored(own, beam.tokens, prompt, ends, logits=False)
            enough = self.chosen <= 2 * self.search.beams and left == [(each.token, each.logp) for each in own]
            result.append((left, None if enough or len(own) < self.search.top else bound))
        return result

    @property
    def chosen(self) -> int:
        """Continuations that are looked at in a step: ``beams`` that go on even if as many texts end as can."""
        return max(2, 1 + len(self.policy.ends)) * self.search.beams

    def _ranked(self, allowed: Sequence[Allowed]) -> list[tuple[float, int, int]]:
        """The best continuations as (cost, beam, token); counts the step in ``short`` where the lists may be too short for it."""
        every = ((-(beam.score + logp), b, token) for b, beam in enumerate(self.beams) for token, logp in allowed[b][0])
        ranked = sorted(every)[: self.chosen]
        if not ranked:
            names = ", ".join(self.search.broken_by)
            raise InputError(
                f"beam search: a candidate of some beam must be one that {names} allow, not each beyond the lists"
            )
        self.short += any(
            bound is not None and (len(ranked) < self.chosen or -ranked[-1][0] < beam.score + bound)
            for (_, bound), beam in zip(allowed, self.beams, strict=True)
        )
        return ranked

    def _continue(self, ranked: list[tuple[float, int, int]]) -> None:
        """Go on with the best continuations that do not end, and keep those that do."""
        self.length += 1
        chosen: list[tuple[_Text, int]] = []
        for cost, b, token in ranked:
            ended = token in self.policy.ends or self.length == self.most
            chosen.append((_Text((*self.beams[b].tokens, token), -cost, ended), b))
        self._finish([text for text, _ in chosen])
        beams = self.search.beams
        going = [(text, b) for text, b in chosen if not text.ended] or chosen
        going += [(_Text(going[-1][0].tokens, DEAD), going[-1][1])] * (beams - len(going))
        self.beams, self.parents = [text for text, _ in going[:beams]], [b for _, b in going[:beams]]
        self.open_ended = self.open_ended and self._may_improve()

    def _full(self) -> bool:
        """Whether as many texts have ended as an early stop asks for."""
        return self.search.early_stopping is True and all(text.ended for text in self.finished)

    def _over(self) -> bool:
        return not self.open_ended or self._full()

    def _finish(self, chosen: list[_Text]) -> None:
        """Keep the best ended texts, among them those of the first ``beams`` of ``chosen``."""
        if self._over():
            return
        beams, divisor = self.search.beams, (self.length - 1) ** self.search.length_penalty
        new = [_Text(text.tokens, text.score / divisor, True) for text in chosen[:beams] if text.ended]
        self.finished = sorted(self.finished + new, key=lambda text: -text.score)[:beams]

    def _may_improve(self) -> bool:
        """Whether the best running beam may yet beat the worst finished text: Hugging Face's estimate."""
        to_the_end = self.search.early_stopping == "never" and self.search.length_penalty > 0
        expected = self.most - 1 if to_the_end else self.length - 1
        worst = self.finished[-1].score if all(text.ended for text in self.finished) else DEAD
        return self.beams[0].score / expected**self.search.length_penalty > worst


# ---- beams side by side in the caches -------------------------------------------------------------------------------


def visible(trace: Sequence[Fed]) -> Tensor:
    """Which keys each beam sees in the call after which ``trace`` ends: bool ``[beams, positions * beams]``.

    Key ``n * beams + b`` was written by beam b at position n. No key moves when beams change places: a beam goes back along its
    parents.
    """
    count = len(trace[-1][0])
    mask = torch.zeros(count, len(trace) * count, dtype=torch.bool)
    for beam in range(count):
        slot = beam
        for position in reversed(range(len(trace))):
            mask[beam, position * count + slot] = True
            slot = trace[position][1][slot]
    return mask


# ---- on the interpreter ---------------------------------------------------------------------------------------------


def reference_beams(
    lowered: Lowered, source: Given, max_new_tokens: int, search: Search, device: torch.device | str = "cpu"
) -> Found:
    """Beam search on the interpreter: a batch of beams, each with caches of its own that are copied when beams change places."""
    model = shape(lowered)
    prefill, decode = (
        Interpreter(stack.graph, lowered.weights, device, keep=False) for stack in (model.prefill, model.generating)
    )
    check_source(source, lowered)
    check_vocabulary(lowered.meta, search.beams)
    own = {name: value[None] for name, value in model.prefill.given(source, device).items()}
    given = outputs(prefill.graph, prefill(own))
    given = {name: value.expand(search.beams, -1, -1) for name, value in given.items()}
    caches: dict[str, Tensor] = {}
    scale = model.head.op.logit_scale_log2

    def step(tokens: Sequence[int], parents: Sequence[int], position: int) -> list[Candidates]:
        for name, value in caches.items():
            caches[name] = value[torch.tensor(list(parents), device=device)]
        fed = {IDS: torch.tensor(tokens, device=device)[:, None], **given}
        values = decode(fed, position, caches, top=search.top)
        return candidates(outputs(decode.graph, values)[NEXT][:, -1], scale)

    return beam_search(Policy.of(lowered.meta, max_new_tokens), search, step)


def batched_beams(
    batched: Batched,
    sources: Sequence[Sequence[int]],
    max_new_tokens: int,
    search: Search,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """Tokens of every source as :func:`reference_beams` gives them, the beams of many texts at once; ``progress`` hears how many are
    done."""
    check_vocabulary(batched.meta, search.beams)
    policy, results, done = Policy.of(batched.meta, max_new_tokens), [[] for _ in sources], 0
    for batch in batched.batches(sources):
        found = _beams_of(batched, [sources[i] for i in batch], policy, search)
        for index, each in zip(batch, found, strict=True):
            results[index] = each.tokens
        done += len(batch)
        progress(done)
    return results


def _beams_of(batched: Batched, sources: Sequence[Sequence[int]], policy: Policy, search: Search) -> list[Found]:
    given, lengths = batched.encode(sources)
    given = {name: value.repeat_interleave(search.beams, 0) for name, value in given.items()}
    lengths = lengths.repeat_interleave(search.beams)
    caches: dict[str, Tensor] = {}
    scale = batched.head.op.logit_scale_log2

    def step(tokens: Sequence[int], parents: Sequence[int], position: int) -> list[Candidates]:
        index = torch.tensor(parents, device=batched.device)
        for name, value in caches.items():
            caches[name] = value[index]
        fed = {IDS: torch.tensor(tokens, device=batched.device)[:, None], **given}
        values = batched.decode(fed, position, caches, lengths, top=search.top)
        return candidates(outputs(batched.decode.graph, values)[NEXT][:, -1], scale)

    return together(policy, search, len(sources), step)


def reference_tokens(
    lowered: Lowered,
    source: Given,
    max_new_tokens: int,
    search: Search | None,
    settings: Mapping[str, Any] | None = None,
) -> list[int]:
    """The tokens of one text alone: of a search, or greedily without one, by the ``settings`` given beside the model's own."""
    if search is None:
        return reference_run(lowered, source, max_new_tokens, given=settings)[0]
    return reference_beams(lowered, source, max_new_tokens, search).tokens


def head_scale(lowered: Lowered) -> int:
    """F of the language model head."""
    return shape(lowered).head.op.logit_scale_log2


def check_vocabulary(meta: Mapping[str, Any], beams: int) -> None:
    """Raise InputError where the target has fewer tokens than ``beams`` beams (of all texts) have candidates."""
    vocab = meta.get("target_vocab_size", meta["vocab_size"])
    if vocab < top_tokens(beams):
        raise InputError(f"{beams} beams need a vocabulary of at least {top_tokens(beams)} tokens, not {vocab}")
