"""Attention: keys and values into KBUF, then head by head scores, probabilities and context."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ternbin.contract.isa import Dest, Epilogue, Mem, Op
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.contract.program import Region, View
from ternbin.contract.rows import int_bytes, scale_words
from ternbin.contract.transfers import row_bytes
from ternbin.errors import InputError
from ternbin.graph.golden import NEVER
from ternbin.graph.ir import Codes as CodesType
from ternbin.graph.ir import Ints, Node, as_op
from ternbin.graph.ops.attention import ContextCodes, ContextCodes8, Scores, SoftmaxCodes
from ternbin.graph.ops.codes import LinearCodes, LinearCodes8
from ternbin.graph.ops.ends import Cache
from ternbin.graph.ops.stream import LinearResidual
from ternbin.graph.qtypes import KINDS
from ternbin.mapping.builder import MOST_PARTS, CallBuilder, Codes, Keys, Steps
from ternbin.mapping.fold import Folded, check_acc, fold_scales, operand
from ternbin.mapping.linear import STORED_KIND, Lanes, plain, threshold_params
from ternbin.mapping.resident import Constant, parameters
from ternbin.mapping.schedule import Lease, Sight
from ternbin.mapping.tokenwise import Follow, ToCodes, linear_to_stream, quantized, to_codes

Projection = LinearCodes | LinearCodes8
ContextOp = ContextCodes | ContextCodes8


@dataclass(frozen=True)
class Product:
    """A projection of tokens in ``pieces``, head by head; ``finish`` follows the last of them."""

    to: ToCodes
    pieces: list[tuple[int, int]]
    finish: Callable[[], None] | None = None


def to_keys(
    b: CallBuilder,
    node: Node[Projection],
    out: Keys,
    first: int,
    stop: int,
    cache: Node[Cache] | None = None,
    offset: int = 0,
) -> ToCodes:
    """The projection of tokens [first, stop) to keys or values in KBUF, from key ``offset`` on, or behind the ``past`` earlier ones where
    there is a ``cache``."""
    x = quantized(b, node.src[0], first, stop)
    plan = b.plan(node, x.lanes, out.lanes.groups)
    return ToCodes(node, x, plan, b.to_keys(plan, node, out, b.past if cache else offset))


def project_keys(
    b: CallBuilder,
    node: Node[Projection],
    out: Keys,
    first: int,
    stop: int,
    cache: Node[Cache] | None = None,
    offset: int = 0,
) -> None:
    """Keys or values of tokens [first, stop), all heads; ``offset`` as in :func:`to_keys`."""
    product = to_keys(b, node, out, first, stop, cache, offset)
    for step in b.linear(product.plan, product.x, first, stop, product.to, fresh=b.is_first(node, first)):
        step()
    b.passed(node, stop)


def fetch_keys(b: CallBuilder, op: str, shape: Keys, count: int, home: int) -> Keys:
    """Room in KBUF, filled with the first ``count`` keys from external memory at ``home``."""
    keys = b.new_keys(op, shape)
    if count:
        b.load(op, None, **_rows(b, keys, 0, count, home))
    return keys


def store_keys(b: CallBuilder, op: str, keys: Keys, first: int, stop: int, home: int) -> None:
    """Keys [first, stop) to external memory; of transposed values all, for a row of them holds every key."""
    b.compute(Op.STORE, op, sights=(), **_rows(b, keys, first, stop, home))


def _rows(b: CallBuilder, keys: Keys, first: int, stop: int, home: int) -> dict[str, int]:
    """Transfer fields of keys [first, stop)."""
    size = row_bytes(b.hw, Mem.KBUF, keys.stride)
    if keys.transposed:
        first, stop = 0, keys.lanes.groups * keys.lanes.pitch
    return dict(
        mem=Mem.KBUF,
        bank=first % b.hw.rows,
        addr=keys.addr + first // b.hw.rows * keys.stride,
        inner=keys.stride,
        outer=stop - first,
        dram=home + first * size,
        stride=size,
    )


GROUP_STEPS = 128  # array steps, at least, of the product of a group of heads with a piece of the tokens
LEAD = 2  # softmaxes of which the steps beneath go ahead: at first the vector unit has a LayerNorm to end
LIVE_SCORES, LIVE_LEASES = 3, 4  # pieces of scores, and parameters of groups, that there should be room for at a time


@dataclass(frozen=True)
class NewKeys:
    """Keys or values that are projected along with the attention to them; ``finish`` is called once they are complete."""

    node: Node[Projection]
    keys: Keys
    cache: Node[Cache] | None
    finish: Callable[[], None]


def attention(
    b: CallBuilder, node: Node[LinearResidual], keys: Keys, values: Keys, count: int, new: Sequence[NewKeys] = ()
) -> None:
    """Attention over ``count`` keys, projected and added to the stream; ``node`` is the output projection's.

    ``new``: keys and values still to be projected, from the tokens of this call in one block.
    """
    for block in b.each_block("attention"):
        heads = Heads(b, node, keys, values, count, new, *block)
        heads.attend()
        heads.project(Follow(b, node, (0, b.tokens)))


class Heads:
    """One block of queries [first, stop): projections, scores, softmax and context, then the output projection.

    Heads are projected in groups. While the softmax of a piece of queries of one head runs, the array works on projections of the
    next group, the scores of the next piece and the context of the one before, and on steps of other ops that are given for that; at
    the end on the output projection.
    """

    def __init__(
        self,
        b: CallBuilder,
        node: Node[LinearResidual],
        keys: Keys,
        values: Keys,
        count: int,
        new: Sequence[NewKeys],
        first: int,
        stop: int,
    ):
        self.b, self.node, self.keys, self.values, self.count, self.first, self.stop = (
            b,
            node,
            keys,
            values,
            count,
            first,
            stop,
        )
        self.context = as_op(node.src[0], ContextCodes, ContextCodes8)
        self.softmax = as_op(self.context.src[0], SoftmaxCodes)
        self.scores = as_op(self.softmax.src[0], Scores)
        self.heads = self.context.op.heads
        self.query = query = as_op(self.scores.src[0], LinearCodes, LinearCodes8)
        if b.hw.kind == "binary" and max(KINDS[kind].planes for kind in (keys.kind, query.op.kind)) > 1:
            raise InputError(
                f"scores {self.scores.name}: 8-bit attention must run on a ternary array, not on a binary one"
            )
        self.most = max(
            MOST_PARTS,
            ceil_div(LIVE_SCORES * ceil_div(stop - first, b.hw.cols) * ceil_div(count, b.hw.rows), b.hw.sbuf_words),
        )
        b.check_stream(node, node.src[1], first, stop)
        self.pieces, self.fresh = b.pieces(first, stop, self.most), b.is_first(query, first)
        self.params, self.fields = _context_params(b, self.context, values, count)
        product, self.q = to_codes(b, query, first, stop, self.heads)
        # of a group of heads queries and keys are there before its scores, values before its contexts
        self.projected, self.others = [Product(product, self.pieces)], list[Product]()
        whole = b.pieces(0, b.tokens, self.most)
        for each in new:
            of = Product(to_keys(b, each.node, each.keys, 0, b.tokens, each.cache), whole, each.finish)
            (self.others if each.keys.transposed else self.projected).append(of)
        self.group = self._group()
        self.waiting: list[tuple[int, Codes]] = []  # probabilities, and their head, that wait for the context

    def attend(self, beneath: Steps | None = None) -> None:
        """All heads; the steps ``beneath`` are spread over their softmax."""
        b, context = self.b, self.context
        for step in self._steps(self.projected, 0):
            step()
        distances = 2 * self.scores.expect(Ints).limit + 1  # of two scores
        entries = 256 if self.softmax.op.power else min(256, distances)
        self.lut = b.table(self.softmax.name, Mem.LUTV, self.softmax.op.lut, entries)
        lanes = Lanes(self.heads, self.values.lanes.width, self.values.lanes.pitch)
        self.out = b.new_codes(context.where, context.op.kind, lanes, self.first, self.stop)
        spread = _Spread(beneath or [], self.heads * len(self.pieces))
        for start in range(0, self.heads, self.group):
            self._attend(start, spread)
        b.free(self.q)

    def project(self, follow: Follow) -> None:
        """The output projection."""
        b, stop = self.b, self.stop
        pieces: dict[str, Any] = dict(before=self._contexts, most=self.most)
        for step in linear_to_stream(b, self.node, self.out, self.first, stop, follow, **pieces):
            step()
        b.free(self.out)
        if stop == b.tokens:
            follow.finish()

    def _attend(self, start: int, beneath: "_Spread") -> None:
        """Scores and softmax of a group of heads; among them its values, the next group's queries and keys, and contexts."""
        end = min(start + self.group, self.heads)
        values = self._steps(self.others, start)
        work = [(head, piece) for head in range(start, end) for piece in self.pieces]
        own = _Spread(values + self._steps(self.projected, end), len(work))
        for number, (head, piece) in enumerate(work):
            probabilities = _probabilities(self.b, self.softmax, self.q, piece, self.keys, self.count, head, self.lut)
            self.waiting.append((head, probabilities))
            own.go(number + 1, len(values) if number else 0)
            beneath.go(start * len(self.pieces) + number + 1 + LEAD)
            if len(self.waiting) > 1 and (self.waiting[0][0] < self.heads - 1 or not self.b.pipelined):
                self._context()

    def _contexts(self, stop: int) -> None:
        """The contexts of the last head for queries up to ``stop``, as the output projection comes to them."""
        while self.waiting and self.waiting[0][1].first < stop:
            self._context()

    def _context(self) -> None:
        head, probabilities = self.waiting.pop(0)
        lease = self.b.constant(self.context.name, self.params, inner=self.params.words, outer=1)
        _context(self.b, self.context, head, probabilities, self.values, self.out, lease, self.fields)

    def _steps(self, products: list[Product], start: int) -> Steps:
        """The products of the group of heads from ``start`` on, in pieces where that lets other units begin."""
        b, steps, end = self.b, [], min(start + self.group, self.heads)
        for product in products if start < end else ():
            to, whole = product.to, [(product.pieces[0][0], product.pieces[-1][1])]
            pieces = product.pieces if self.fresh or self.group < self.heads else whole
            tiles = to.plan.tiles_per_group
            for part in b.parts(to.plan, (start * tiles, end * tiles)):
                steps += b.steps(to.plan, to.x, part, pieces, to.to)
            if end == self.heads:
                steps += [partial(b.passed, to.node, whole[0][1]), *([product.finish] if product.finish else [])]
        return steps

    def _group(self) -> int:
        """Heads that are projected together: few, but all where there is little to overlap or little room for weights."""
        if len(self.pieces) == 1:
            return self.heads
        plans = [product.to.plan for product in self.projected + self.others]
        tiles = ceil_div(self.pieces[0][1] - self.pieces[0][0], self.b.hw.cols)
        group = max(ceil_div(GROUP_STEPS, plan.tiles_per_group * plan.chunks * tiles) for plan in plans)
        words = LIVE_LEASES * max(
            group * plan.tiles_per_group * plan.params.words + len(self.pieces) * self.params.words for plan in plans
        )
        return group if words <= self.b.pbuf.words else self.heads


class _Spread:
    """Steps spread evenly over ``work`` units of other work."""

    def __init__(self, steps: Steps, work: int):
        self.steps, self.work, self.issued = steps, work, 0

    def go(self, number: int, least: int = 0) -> None:
        """Steps that are due once ``number`` units have gone by, or ``least`` if that is more."""
        due = max(len(self.steps) * min(number, self.work) // self.work, least)
        while self.issued < due:
            self.steps[self.issued]()
            self.issued += 1


def _probabilities(
    b: CallBuilder,
    node: Node[SoftmaxCodes],
    q: Codes,
    piece: tuple[int, int],
    keys: Keys,
    count: int,
    head: int,
    lut: Lease,
) -> Codes:
    """Scores of one head for a piece of the queries into SBUF, and their softmax into codes in ABUF."""
    hw, scores, first, queries = b.hw, node.src[0], piece[0], piece[1] - piece[0]
    tiles, words = ceil_div(count, hw.rows), ceil_div(q.lanes.width, hw.lanes)
    a, c = operand(hw, keys.kind, scores.name), operand(hw, q.kind, scores.name)
    idle = -(words * hw.lanes - q.lanes.width) * a.idle * c.idle
    check_acc(hw, q.lanes.width * a.most * c.most + 2 * abs(idle), f"scores {scores.name}")
    size = ceil_div(queries, hw.cols) * tiles
    addr = b.sbuf.take(size, f"scores {scores.name}")
    part = ((head, head + 1), piece, (0, count))
    sight = Sight(
        scores.name, Region(Mem.SBUF, addr, size, 0, hw.cols), View("scores", queries, count, tiles, lead=True), part
    )
    b.compute(
        Op.GEMM,
        scores.name,
        sights=[sight],
        **b.columns(q, *piece, words, head * words),
        row_kbuf=1,
        row_addr=keys.addr + head * words,
        row_stride=keys.stride,
        row_plane=keys.plane,
        row_planes=a.planes,
        row_signed=a.signed,
        row_tiles=tiles,
        acc_init=idle,
        epilogue=Epilogue.SCORES,
        dst_addr=addr,
        dst_stride=tiles,
    )
    chunks = ceil_div(count, hw.lanes)  # whole words: the lanes beyond the last key must hold probability 0
    out = b.new_codes(f"softmax {node.name}", node.op.kind, plain(count), *piece, words=chunks)
    mask = b.mask if node.op.causal else b.sources
    if mask is not None:
        seen = b.params(node.name, tiles, mask, inner=tiles, outer=1, dram=mask)
        leases, valid = [lut, seen], dict(keys=count, masked=1, mask_addr=seen.addr, mask_bit=first)
    else:
        leases, valid = [lut], dict(keys=b.past + 1 + first if node.op.causal else count, causal=node.op.causal)
    b.compute(
        Op.SOFTMAX,
        node.name,
        *leases,
        sights=[b.codes_sight(node, out, *piece, (part[0], part[2]))],
        src_addr=addr,
        src_stride=tiles,
        queries=queries,
        **valid,
        granules=chunks * hw.lanes // hw.rows,
        dst_addr=out.addr,
        dst_stride=out.stride,
        dst_plane=out.plane,
        kind=STORED_KIND[node.op.kind],
        power=node.op.power,
        mul=node.op.mul,
        shift=node.op.shift,
        c1=node.op.c1,
        c2=node.op.c2,
        recip=node.op.recip,
    )
    b.sbuf.free(addr)
    return out


def _context_params(b: CallBuilder, node: Node[ContextOp], values: Keys, count: int) -> tuple[Constant, dict[str, int]]:
    """The parameter words of a head (the same for every head), and the fields of the context GEMMs."""
    op, hw, where, probability = node.op, b.hw, node.where, node.src[0].expect(CodesType).kind
    a, c = operand(hw, values.kind, where), operand(hw, probability, where)
    rowsum = c.sub != 0
    if rowsum and (a.planes, c.planes) != (1, 1) or (hw.kind == "binary" and c.planes == 8):
        raise InputError(
            f"{where}: probabilities must be uint8 for 8-bit values, on a ternary array, not {probability}"
        )
    lanes = ceil_div(count, hw.lanes) * hw.lanes
    bound = lanes * a.most * (1 + rowsum) if rowsum else count * a.most * c.most
    check_acc(hw, bound, where)
    # with the row sum added, acc_hw = mul*acc, for garbage beyond the last key meets probability 0
    magnitude = count * KINDS[values.kind].magnitude * KINDS[probability].magnitude * c.mul
    folded = Folded(c.mul, np.zeros(1, dtype=np.int64), min(bound, magnitude), 0)
    tile_rows = values.lanes.pitch
    rows = np.where(np.arange(tile_rows) < values.lanes.width, np.arange(tile_rows), -1)
    if isinstance(op, ContextCodes):
        if folded.bound >= NEVER:
            raise InputError(f"{where}: accumulator magnitude must be below {NEVER} for thresholds, not {folded.bound}")
        words, fields, _ = threshold_params(hw, b.weights[op.thresholds].numpy(), op, folded, rows, where)
    else:
        mul, bias = b.weights[op.mul].numpy(), b.weights[op.bias].numpy()
        mul, bias, shift = fold_scales(mul, bias, op.shift, folded, where)
        words = scale_words(hw, *(np.where(rows < 0, 0, v) for v in (mul, bias)))
        fields = dict(epilogue=Epilogue.CODES8, kind=STORED_KIND[op.kind], shift=shift, param_stride=SCALE_WORDS)
    fields |= dict(rowsum=rowsum, row_planes=a.planes, row_signed=a.signed)
    address = b.image.put(("params", node.name), lambda: int_bytes(words, 2))
    return parameters(hw, address, words.shape[0] * words.shape[1]), fields


def _context(
    b: CallBuilder,
    node: Node[ContextOp],
    head: int,
    p: Codes,
    values: Keys,
    out: Codes,
    params: Lease,
    fields: dict[str, int],
) -> None:
    """Probabilities times values of one head, into the head's lanes of the context."""
    hw, tiles = b.hw, values.lanes.pitch // b.hw.rows
    lane = head * values.lanes.pitch
    sights = [b.codes_sight(node, out, p.first, p.stop)] if head == node.op.heads - 1 else []
    b.compute(
        Op.GEMM,
        node.name,
        params,
        sights=sights,
        **b.columns(p, p.first, p.stop, p.words),
        row_kbuf=1,
        row_addr=values.addr + head * tiles * values.stride,
        row_stride=values.stride,
        row_plane=values.plane,
        row_tiles=tiles,
        param_addr=params.addr,
        dest=Dest.TOKENS,
        dst_addr=out.addr + (p.first - out.first) // hw.cols * out.stride + lane // hw.lanes,
        lane=lane % hw.lanes,
        dst_stride=out.stride,
        dst_plane=out.plane,
        **fields,
    )
    b.free(p)
