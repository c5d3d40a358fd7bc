"""Cycles of an instruction of the vector unit from issue to done."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from ternbin.contract.isa import Kind
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import NORM_GROUP, SCALE_WORDS, SLOTS
from ternbin.counting.cycles.bus import NEVER
from ternbin.counting.cycles.ports import CODES, PARAMETERS, READS, SCORES, WRITES, Held, Spans, next_free

MASKS = -1  # what the masks are in, beside the banks of scores
EIGHT_BIT = (Kind.INT8, Kind.UINT8)


class _Reads:
    """Words through a read buffer: requested a cycle after each other, two ahead of the last one taken; taken the cycle after at
    the earliest."""

    def __init__(self, held: bytes):
        self.held, self.asked, self.taken = held, 1, deque([0, 0], maxlen=2)

    def ask(self) -> int:
        """Asks for the next word. Returns the first cycle in which it can be taken."""
        self.asked = next_free(self.held, max(self.asked, self.taken[0]) + 1)
        return max(self.asked, self.taken[1]) + 1

    def take(self, ready: int) -> int:
        """The cycle in which the next word is taken: ``ready`` or later."""
        self.taken.append(max(self.ask(), ready))
        return self.taken[1]


def quant(words: int, eight_bit: bool, held: Held) -> int:
    """A word a cycle, or a word in eight."""
    reads = _Reads(held[READS])
    accepted = written = -9
    for _ in range(words):
        accepted = max(reads.take(accepted) + 1, written)  # by the writer
        for _ in range(8 if eight_bit else 1):
            written = next_free(held[CODES], max(accepted, written) + 1)
    return written + 1


def embed(tokens: int, words: int, code_words: int, held: Held) -> int:
    """A word a cycle; ``code_words`` a token, of which two are read ahead."""
    reads, written = _Reads(held[READS]), -9
    for _ in range(tokens * words):
        written = next_free(held[WRITES], reads.take(written) + 1)
    return written + 1


def embed_columns(tokens: int, words: int, code_words: int) -> Spans:
    """Cycles from its issue in which EMBED reads ABUF, before the array."""
    every = ceil_div(words, code_words)
    codes = [2 + max(i, (i - 2) * every + 2) for i in range(tokens * code_words)]
    return [(at, at + 1) for at in codes]


def _past(stops: deque[tuple[int, int]], cycle: int) -> int:
    """The first cycle from ``cycle`` on that lies in none of ``stops``, which are in order."""
    if cycle >= stops[-1][1]:
        return cycle
    for first, end in stops:
        if first <= cycle < end:
            cycle = end
    return cycle


def layernorm(tokens: int, words: int, held: Held) -> int:
    """Sums of up to 8 tokens, then groups of 4 in turn with the sums of 4 more; see rtl/vector/layernorm.py."""
    reads, parameters = _Reads(held[READS]), _Reads(held[PARAMETERS])
    blocks: deque[tuple[int, int]] = deque([(-9, -9)], maxlen=5)  # the variance stages wait for the root
    loaded = divided = -99  # root and reciprocal of the last token began
    ready: list[int] = []  # cycle from which a token can be normalised
    moved = freed = -99  # the last set of parameters came into use; was released
    # The five stages of the normalisation step together. They stop while a write, or the fourth stage for parameters, has to wait.
    stops: deque[tuple[int, int]] = deque([(-9, -9)], maxlen=5)
    one = two = three = -9  # cycles in which the last word leaves the second to fourth of them
    done = -9  # last write

    def sums(count: int) -> None:
        nonlocal loaded, divided
        for _ in range(count):
            at = 0
            for _ in range(words):
                at = _past(blocks, reads.ask())
                reads.taken.append(at)
            out = at + 5
            for first, end in blocks:
                out += end - first if at < first else 0
            accepted = max(out, loaded)
            blocks.append((out, accepted))
            loaded = max(accepted, divided) + 1
            divided = max(loaded + 13, divided + 15)
            ready.append(divided + 15)

    def write(cycle: int) -> None:
        """A word leaves the last stage but one in ``cycle``."""
        nonlocal done
        done = next_free(held[WRITES], cycle + 1)
        if done > cycle + 1:
            stops.append((cycle + 1, done))

    summed = min(tokens, 2 * NORM_GROUP)
    sums(summed)
    for first in range(0, tokens, NORM_GROUP):
        for word in range(words):
            moved = max(max(parameters.take(moved) for _ in range(SCALE_WORDS)) + 1, freed)
            for token in range(first, min(first + NORM_GROUP, tokens)):
                at = _past(stops, max(reads.ask(), ready[token] if word == 0 else 0))
                behind = at <= one  # directly behind the word before
                if not behind and token + word:
                    write(_past(stops, three + 1))
                at = one if behind else _past(stops, at)
                reads.taken.append(at)
                last = three
                one = two if behind else _past(stops, at + 1)
                two = last if behind else _past(stops, one + 1)
                three = _past(stops, max(two, moved) + 1)
                if moved > two:
                    stops.append((two + 1, three))
                if behind:
                    write(three)
            freed = three
        more = min(tokens - summed, NORM_GROUP)
        sums(more)
        summed += more
    write(_past(stops, three + 1))
    return done + 1


class _Pass:
    """A pass of SOFTMAX: ``query`` that is read, ``head`` that is worked on, and words of each that were; ``waiting``: words between."""

    def __init__(self, words: list[int], banks: int):
        self.words, self.banks = words, banks
        self.query = self.read = self.taken = self.waiting = 0
        self.head: int = 0

    @property
    def bank(self) -> int:
        return self.query % self.banks

    def ask(self) -> bool:
        """Reads a word. Returns whether it is the last of its query."""
        self.read, self.waiting = self.read + 1, self.waiting + 1
        last = self.read == self.words[self.query]
        if last:
            self.query, self.read = self.query + 1, 0
        return last

    def take(self) -> bool:
        """Works on a word. Returns whether it is the last of its query."""
        self.taken, self.waiting = self.taken + 1, self.waiting - 1
        last = self.taken == self.words[self.head]
        if last:
            self.head, self.taken = self.head + 1, 0
        return last


def _valid(rows: int, queries: int, keys: int, causal: bool) -> list[int]:
    """Words of scores of each query."""
    return [ceil_div(keys + (query if causal else 0), rows) for query in range(queries)]


def softmax(
    rows: int, banks: int, queries: int, keys: int, causal: bool, masked: bool, granules: int, kind: int, held: Held
) -> int:
    """Cycle by cycle, for three passes work at the same time; see rtl/vector/softmax.py."""
    cost, uint8 = 8 if kind in EIGHT_BIT else 1, kind == Kind.UINT8
    valid = _valid(rows, queries, keys, causal)
    maximum, total, codes = _Pass(valid, banks), _Pass(valid, banks), _Pass([granules] * queries, banks)
    maxima: list[int] = []  # cycle from which the maximum of a query is known
    totals: list[int] = []  # the same of the factors of its sum
    stages = deque(
        [(False, False)] * 5, maxlen=5
    )  # of the sum, newest first: whether a word is there, and the last of its query
    undivided, divided = NEVER, -99  # a sum stands before the division from this cycle on; it took the last one
    offered, written, now = False, -99, 1
    while codes.head < queries or offered:
        now += 1
        freed, begun = codes.head + SLOTS, total.head + SLOTS  # queries for which there is a slot
        if offered and now >= written:
            offered = False
            for _ in range(cost):
                written = next_free(held[CODES], max(written, now) + 1)
        codes_ask = codes.waiting < 2 and codes.query < len(totals) and totals[codes.query] <= now
        if codes.waiting and not offered:
            codes.take()
            offered = True
        total_ask, advance, word = total.waiting < 2 and total.query < queries, True, (False, False)
        if now >= max(undivided, divided + 26):
            divided, undivided = now, NEVER
            totals.append(now + 26)
        elif stages[4][1] and undivided <= now:
            advance = False
        if advance and stages[3][0]:
            advance = next_free(held[SCORES], now) == now
        if advance:
            if total.waiting and total.head < min(len(maxima), freed) and maxima[total.head] <= now:
                word = True, total.take()
            if stages[4][1] and uint8:
                undivided = now + 1
            elif stages[4][1]:
                totals.append(now + 2)
            stages.appendleft(word)
        taken: set[int] = set()  # banks of SBUF, and the masks
        if codes_ask:
            taken |= {codes.bank} if codes.read < valid[codes.query] else set()
            codes.ask()
        if total_ask and total.bank not in taken:
            taken |= {total.bank, MASKS} if masked else {total.bank}
            total.ask()
        if (
            maximum.query < min(queries, begun)
            and maximum.bank not in taken
            and not (masked and MASKS in taken)
            and maximum.ask()
        ):
            maxima.append(now + 3)
    return written + 1


# Which ports each uses.
USES: dict[Callable[..., int], tuple[int, ...]] = {
    quant: (READS, CODES),
    embed: (READS, WRITES),
    layernorm: (READS, PARAMETERS, WRITES),
    softmax: (SCORES, CODES),
}


def _least(function: Callable[..., int], values: tuple[int, ...]) -> int:
    """Words that go one a cycle through the port or stage that has most to do."""
    if function is softmax:
        rows, _, queries, keys, causal = values[:5]
        return sum(_valid(rows, queries, keys, bool(causal)))
    if function is quant:
        return values[0] * (8 if values[1] else 1)
    return values[0] * values[1] * (2 if function is layernorm else 1)


@dataclass(frozen=True, eq=False)
class Vector:
    """An instruction of the vector unit: ``held_up`` says its cycles, at least ``least``."""

    function: Callable[..., int]
    values: tuple[int, ...]
    least: int

    @property
    def ports(self) -> tuple[int, ...]:
        return USES[self.function]

    @property
    def columns(self) -> Spans:
        """Cycles from its issue in which it reads ABUF, and comes before the array."""
        return embed_columns(*self.values) if self.function is embed else []


@cache
def known_vector(function: Callable[..., int], *values: int) -> Vector:
    return Vector(function, values, _least(function, values))


@cache
def held_up(work: Vector, held: Held) -> int:
    """Cycles of ``work`` where others have the ports in ``held``, if that tells of so many."""
    return work.function(*work.values, held)
