"""Running a lowered model on the interpreter: greedy generation and likelihood, one text or batches; or the stream it gives.

The host's part, which the accelerator's driver repeats: prefill runs once; the first decode call takes the start
token and the forced first token, later calls one token each; a forced last token is not computed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ternbin.contract.hw import MAX_BEAMS, top_tokens
from ternbin.decoding.lists import candidates
from ternbin.decoding.rules import Candidates
from ternbin.decoding.search import Policy
from ternbin.graph import golden
from ternbin.graph.given import IDS, Given
from ternbin.graph.ir import Graph, Lowered
from ternbin.graph.ops.ends import Output
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.graph.ops.registry import typed
from ternbin.graph.shape import NEXT, check_source, shape


@dataclass(frozen=True)
class CallRecord:
    """One evaluation of a graph: what it read and every tensor it wrote, by node name."""

    graph: str  # name of the stack
    given: dict[str, Tensor]  # ids, or other rows that the host gave
    past: int
    tensors: dict[str, Tensor]


def reference_run(
    lowered: Lowered,
    source: Given,
    max_new_tokens: int,
    device: torch.device | str = "cpu",
    given: Mapping[str, Any] | None = None,
) -> tuple[list[int], list[CallRecord]]:
    """Greedy tokens after the start token (forced ones and eos included), and every tensor of every call. ``given``: generation settings
    beside the model's own. A model that does not generate gives no tokens: it is called once."""
    model = shape(lowered)
    check_source(source, lowered)
    records: list[CallRecord] = []

    def call(
        interpreter: Interpreter, own: dict[str, Tensor], past: int, more: dict[str, Tensor], caches: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        values = interpreter({**own, **more}, past, caches, top=top)
        records.append(CallRecord(interpreter.graph.name, own, past, interpreter.named(values)))
        return outputs(interpreter.graph, values)

    prefill, top = Interpreter(model.prefill.graph, lowered.weights, device), 0
    handed = call(prefill, model.prefill.given(source, device), 0, {}, {})
    if model.decode is None:
        return [], records
    policy, scale = Policy.of(lowered.meta, max_new_tokens, given), model.head.op.logit_scale_log2
    top = _listed(policy, lowered.meta["vocab_size"])
    decode = Interpreter(model.decode.graph, lowered.weights, device)
    caches: dict[str, Tensor] = {}

    def step(tokens: Sequence[int], past: int) -> int | Candidates:
        best = call(decode, {IDS: torch.tensor(tokens, device=device)}, past, handed, caches)[NEXT][-1:]
        return candidates(best, scale)[0] if top else int(best[0, 0])

    return greedy(policy, step), records


def reference_streams(lowered: Lowered, source: Given, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """What the host reads back of one text: rows of the residual stream, by output."""
    stack = shape(lowered).prefill
    check_source(source, lowered)
    run = Interpreter(stack.graph, lowered.weights, device, keep=False)
    values = outputs(stack.graph, run(stack.given(source, device)))
    return {node.name: values[node.name] for node in stack.streams}


def _listed(policy: Policy, vocab: int) -> int:
    """Tokens of a list that greedy decoding looks at, as many as an accelerator lists at most; 0 where the best one always follows."""
    return min(vocab, top_tokens(MAX_BEAMS)) if policy.rules.broken_by else 0


def greedy(policy: Policy, step: Callable[[Sequence[int], int], int | Candidates]) -> list[int]:
    """Tokens after the start token; ``step(tokens, past)`` feeds tokens at positions ``past ..``, returns the next one, or the best ones
    where there are rules.

    Any backend can be behind ``step``: this is the loop that the host runs. Raises InputError where rules need a longer list.
    """
    tokens, feed, past = policy.first(), list(policy.prompt), 0
    while not policy.done(tokens):
        token = policy.forced_next(tokens)
        if token is None:
            found = step(feed, past)
            token = found if isinstance(found, int) else policy.best(found, tokens).token
            past += len(feed)
        tokens.append(token)
        feed = [token]
    return tokens


# ---- batches --------------------------------------------------------------------------------------------------------


@dataclass
class _Rows:
    """Sequences being decoded together: row i belongs to text ``text[i]`` of the batch."""

    text: list[int]
    feed: Tensor  # [rows, tokens of the next call]
    lengths: Tensor  # source lengths, [rows]
    given: dict[str, Tensor]
    caches: dict[str, Tensor]

    def select(self, keep: list[int]) -> "_Rows":
        index = torch.tensor(keep, device=self.feed.device)
        given, caches = ({k: v[index] for k, v in d.items()} for d in (self.given, self.caches))
        return _Rows([self.text[i] for i in keep], self.feed[index], self.lengths[index], given, caches)


class Batched:
    """A lowered model run on many texts at once, keeping no tensors. Results equal those of one text at a time."""

    def __init__(self, lowered: Lowered, device: torch.device | str = "cpu", batch_size: int = 32):
        self.lowered, self.meta, self.device, self.batch_size = lowered, lowered.meta, device, batch_size
        model = shape(lowered)
        self.prefill, self.decode = (
            Interpreter(s.graph, lowered.weights, device, keep=False) for s in (model.prefill, model.generating)
        )
        self.head = model.head
        hidden = typed(lowered.weights, Output(name="hidden"), *self.head.src)
        self.body = Interpreter(Graph("hidden", (hidden,)), lowered.weights, device, keep=False)

    def generate(
        self, sources: Sequence[Sequence[int]], max_new_tokens: int, progress: Callable[[int], None] = lambda done: None
    ) -> list[list[int]]:
        """Greedy tokens of every source, as :func:`reference_run`; ``progress`` hears how many are done."""
        policy, results, done = Policy.of(self.meta, max_new_tokens), [[] for _ in sources], 0
        for batch in self.batches(sources):
            for index, tokens in zip(batch, self._generate([sources[i] for i in batch], policy), strict=True):
                results[index] = tokens
            done += len(batch)
            progress(done)
        return results

    def nll(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[float]:
        """Negative log-likelihood in nats of each target (without start token), summed over its tokens.

        The probabilities are the softmax of the integer logits times ``2^-F``; every target token is fed back.
        """
        results, done = [0.0] * len(sources), 0
        for batch in self.batches(sources):
            values = self._nll([sources[i] for i in batch], [targets[i] for i in batch])
            for index, value in zip(batch, values, strict=True):
                results[index] = value
            done += len(batch)
            progress(done)
        return results

    def batches(self, sources: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices in batches of similar length, longest first."""
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def encode(self, sources: Sequence[Sequence[int]]) -> tuple[dict[str, Tensor], Tensor]:
        """Cross-attention keys and values, and the source lengths."""
        for ids in sources:
            check_source(ids, self.lowered)
        lengths = torch.tensor([len(ids) for ids in sources], device=self.device)
        values = self.prefill({IDS: self._padded(sources)}, lengths=lengths)
        return outputs(self.prefill.graph, values), lengths

    def _padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """``[rows, longest]``, filled with token 0: what stands in padding never matters."""
        width = max(len(row) for row in rows)
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)

    def _generate(self, sources: Sequence[Sequence[int]], policy: Policy) -> list[list[int]]:
        given, lengths = self.encode(sources)
        results, top = [policy.first() for _ in sources], _listed(policy, self.meta["vocab_size"])
        rows, past = (
            _Rows(list(range(len(sources))), self._padded([policy.prompt] * len(sources)), lengths, given, {}),
            0,
        )
        while running := [i for i, text in enumerate(rows.text) if not policy.done(results[text])]:
            if 2 * len(running) <= len(rows.text):  # finished rows leave when that halves the work
                rows, running = rows.select(running), list(range(len(running)))
            forced = policy.forced_next(results[rows.text[running[0]]])
            if forced is None:
                values = self.decode({IDS: rows.feed, **rows.given}, past, rows.caches, rows.lengths, top=top)
                past += rows.feed.shape[1]
                best = outputs(self.decode.graph, values)[NEXT][:, -1]
                rows.feed = self._followed(policy, best, [results[text] for text in rows.text]) if top else best[:, :1]
            else:
                rows.feed = torch.full_like(rows.feed[:, -1:], forced)
            tokens = rows.feed.flatten().tolist()
            for i in running:
                results[rows.text[i]].append(tokens[i])
        return results

    def _followed(self, policy: Policy, best: Tensor, texts: list[list[int]]) -> Tensor:
        """The tokens that follow texts by the rules, ``[rows, 1]``; of one that is done, its last token."""
        lists = candidates(best, self.head.op.logit_scale_log2)
        tokens = [
            text[-1] if policy.done(text) else policy.best(own, text).token
            for own, text in zip(lists, texts, strict=True)
        ]
        return torch.tensor(tokens, device=self.device)[:, None]

    def _nll(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        given, lengths = self.encode(sources)
        feed = self._padded([[self.meta["decoder_start_id"], *target[:-1]] for target in targets])
        hidden = outputs(self.body.graph, self.body({IDS: feed, **given}, 0, {}, lengths))["hidden"]
        return [self._row_nll(row[: len(target)], target) for row, target in zip(hidden, targets, strict=True)]

    def _row_nll(self, hidden: Tensor, target: Sequence[int]) -> float:
        weights = self.decode.weights
        acc = golden.linear_acc(hidden, weights[self.head.op.weight])
        logits = golden.lm_logits(acc, weights[self.head.op.mul], weights[self.head.op.bias])
        log_probs = (logits * 2.0**-self.head.op.logit_scale_log2).to(torch.float64).log_softmax(-1)
        return -float(log_probs[torch.arange(len(target)), torch.tensor(target)].sum())
