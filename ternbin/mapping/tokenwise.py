"""Ops that treat tokens one by one: embedding, LayerNorm, quantization, projections, the language model head."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Epilogue, Mem, Op
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.contract.program import Region, View
from ternbin.contract.rows import code_row_bytes, code_words, expand_row_bytes, int_bytes, residual_words, scale_words
from ternbin.contract.transfers import bank_words, expand_words, packs_trits, row_bytes
from ternbin.errors import InputError
from ternbin.graph.golden import NATS_BITS
from ternbin.graph.ir import Codes as CodesType
from ternbin.graph.ir import Node, as_op, features, is_op
from ternbin.graph.ir import Op as GraphOp
from ternbin.graph.ops.attention import ContextCodes, ContextCodes8, Scores
from ternbin.graph.ops.codes import LinearCodes, LinearCodes8, Quant
from ternbin.graph.ops.ends import Embed, EmbedAt, Input, LmHead, Output
from ternbin.graph.ops.stream import Layernorm, LinearResidual
from ternbin.mapping.allocator import BlockError
from ternbin.mapping.builder import CallBuilder, Codes, Destination, Steps
from ternbin.mapping.fold import operand
from ternbin.mapping.linear import STORED_KIND, Lanes, Plan, plain
from ternbin.mapping.resident import parameters
from ternbin.mapping.schedule import Lease, Sight

Projection = LinearCodes | LinearCodes8
EARLY = 8  # tokens whose rows are worth loads of their own


def embed(b: CallBuilder, node: Node[Embed | EmbedAt], at: Mapping[str, int]) -> None:
    """Ids, and the places that choose positions, to the residual stream: positions, plus codes times scales (rule 1). ``at``: where they
    are in external memory, by input."""
    hw, d = b.hw, features(node.type)
    ids_addr, *more = (at[source.name] for source in node.src)
    words = b.residual_words(d)
    b.check_bits(node)
    table, inner, expand = table_bytes(b, node)
    pos, scale = positions(b, node, words), scales(b, node)
    size_pos = row_bytes(hw, Mem.RBUF, words)
    follow = Follow(b, node, (0, b.tokens))
    for first, stop in b.each_block("embed"):
        count = stop - first
        limit = min(hw.idbuf_words if is_op(node, Embed) else b.ids.most, b.pbuf.most)
        if count > limit:
            words_of_ids = count if is_op(node, Embed) else 2 * count  # of ids alone, or of places too
            field, need = ("idbuf_words", words_of_ids) if words_of_ids > hw.idbuf_words else ("pbuf_words", 2 * count)
            half = "" if is_op(node, Embed) else "half of "
            raise BlockError(
                f"{node.where}: tokens must be at most {limit} ({half}IDBUF, half of PBUF), not {count}", field, need
            )
        lease, *chosen = (_ids(b, node.name, address, first, count) for address in (ids_addr, *more))
        size = row_bytes(hw, Mem.ABUF, inner, expand)
        addr = b.abuf.take(ceil_div(count, hw.cols) * inner, f"embed {node.name}")
        pieces = b.pieces(first, stop)
        alone = int(pieces[0][1] - first >= EARLY)  # the first rows, so that the vector unit begins early
        for together in filter(None, (pieces[:alone], pieces[alone:])):
            start, end = together[0][0], together[-1][1]
            picked = dict(outer=end - start, indirect=1, index=lease.addr + start - first)
            place = dict(mem=Mem.ABUF, addr=addr + (start - first) // hw.cols * inner, inner=inner)
            b.load(node.name, None, **place, dram=table, stride=size, expand=expand, **picked)
            params = b.params(node.name, end - start, None, inner=1, dram=scale, stride=hw.axi_bytes, **picked)
            for piece in together:
                if is_op(node, Embed):
                    rows = _rows_in_order(b, node, pos, size_pos, words, *piece)
                else:
                    index = chosen[0].addr + piece[0] - first
                    rows = dict(
                        inner=words, outer=piece[1] - piece[0], dram=pos, stride=size_pos, indirect=1, index=index
                    )
                b.load(node.name, None, mem=Mem.RBUF, addr=piece[0] * words, **rows)
                b.compute(
                    Op.EMBED,
                    node.name,
                    lease,
                    *chosen,
                    params,
                    sights=[b.residual_sight(node, *piece)],
                    src_addr=addr + (piece[0] - first) // hw.cols * inner,
                    src_stride=inner,
                    tokens=piece[1] - piece[0],
                    words=words,
                    features=d,
                    scale_addr=params.addr + piece[0] - start,
                    dst_addr=piece[0] * words,
                    dst_stride=words,
                )
                follow(*piece)
        b.abuf.free(addr)
        if stop == b.tokens:
            follow.finish()


def _ids(b: CallBuilder, op: str, address: int, first: int, count: int) -> Lease:
    """Ids of tokens from ``first`` on, of those at ``address``, in IDBUF."""
    lease = b.ids.lease(count)
    where = dict(addr=lease.addr, inner=count, outer=1, dram=address + first * b.hw.axi_bytes)
    b.load(op, (b.ids, lease), mem=Mem.IDBUF, **where)
    return lease


def _rows_in_order(
    b: CallBuilder, node: Node[Embed], pos: int, size: int, words: int, start: int, end: int
) -> dict[str, int]:
    """Transfer fields of the positions of tokens [start, end)."""
    past = node.op.pos_offset + (b.position if node.op.past == "P" else 0)
    if b.mask is None:
        return dict(inner=words * (end - start), outer=1, dram=pos + (past + start) * size)
    return dict(inner=words, outer=end - start, dram=pos + past * size)  # the same row for all


def load_stream(b: CallBuilder, node: Node[Input], address: int) -> None:
    """Rows of the residual stream, which the host put at ``address`` in external memory."""
    words = b.residual_words(features(node.type))
    size, follow = row_bytes(b.hw, Mem.RBUF, words), Follow(b, node, (0, b.tokens))
    b.check_bits(node)
    for first, stop in b.pieces(0, b.tokens):
        b.load(
            node.name,
            None,
            mem=Mem.RBUF,
            addr=first * words,
            inner=words,
            outer=stop - first,
            stride=size,
            dram=address + first * size,
        )
        follow(first, stop)
    follow.finish()


def store_stream(b: CallBuilder, node: Node[Output], address: int) -> None:
    """Rows of the residual stream to ``address`` in external memory, where the host finds them."""
    source, words = node.src[0], b.residual_words(features(node.type))
    b.check_held(node, source, 0, b.tokens)
    b.compute(
        Op.STORE,
        source.name,
        mem=Mem.RBUF,
        dram=address,
        addr=b.residual_addr(source, 0),
        inner=words,
        outer=b.tokens,
        stride=row_bytes(b.hw, Mem.RBUF, words),
    )


def table_bytes(b: CallBuilder, node: Node[Embed | EmbedAt]) -> tuple[int, int, bool]:
    """Address of the embedding table, words of a row, whether its codes are 1-bit for a ternary array.

    Where WBUF is loaded in the same form it is entered as the language model head enters its weights: tied tables are stored once.
    """
    hw, kind, name = b.hw, node.op.table_kind, node.op.table
    if kind not in ("ternary", "binary") or (hw.kind == "binary" and kind == "ternary"):
        raise InputError(f"embed {node.name}: table kind must suit a {hw.kind} array, not {kind}")
    codes = b.weights[name].numpy()
    chunks, expand = ceil_div(codes.shape[1], hw.lanes), kind == "binary" and hw.is_ternary
    inner = expand_words(hw, Mem.ABUF, chunks) if expand else chunks

    def make() -> np.ndarray:
        rows = np.concatenate([codes, np.repeat(codes[-1:], -len(codes) % hw.rows, axis=0)]).astype(np.int8)
        return expand_row_bytes(hw, rows, inner) if expand else code_row_bytes(hw, code_words(hw, rows, inner))

    tied = bank_words(hw, Mem.WBUF, expand) == 1 and not packs_trits(hw, Mem.WBUF, expand)
    key, rows = (
        ("weight", name, plain(codes.shape[1]), 1, True) if tied else ("table", name),
        ceil_div(len(codes), hw.rows) * hw.rows,
    )
    return b.image.put(key, make, rows * row_bytes(hw, Mem.ABUF, inner, expand)), inner, expand


def positions(b: CallBuilder, node: Node[Embed | EmbedAt], words: int) -> int:
    """Address of the position rows, as residual words."""
    pos = b.weights[node.op.pos].numpy()
    limit = 1 << b.hw.res_bits - 1
    if pos.min() < -limit or pos.max() >= limit:
        raise InputError(
            f"embed {node.name}: positions must fit {b.hw.res_bits} bits (res_bits), not {int(abs(pos).max())}"
        )
    if is_op(node, Embed):
        count = b.tokens if b.mask is None else 1  # beams and texts are at one position
        last = node.op.pos_offset + (b.position if node.op.past == "P" else 0) + count
        if last > len(pos):
            raise InputError(
                f"embed {node.name}: positions must be at most {len(pos) - node.op.pos_offset}, "
                f"not {last - node.op.pos_offset}"
            )
    container = b.hw.res_container // 8
    return b.image.put(
        ("pos", node.op.pos), lambda: int_bytes(residual_words(b.hw, pos).reshape(len(pos), -1), container)
    )


def scales(b: CallBuilder, node: Node[Embed | EmbedAt]) -> int:
    """Address of the row scales, one a beat; the tail lets a parameter word be read from the last one."""
    scale = b.weights[node.op.scale].numpy()
    if abs(scale).max() >= 1 << 31:
        raise InputError(f"embed {node.name}: scale must fit 32 bits, not {int(abs(scale).max())}")
    step = b.hw.axi_bytes // 4

    def make() -> np.ndarray:
        values = np.zeros(len(scale) * step + b.hw.param_word_bits // 32, dtype=np.int64)
        values[: len(scale) * step : step] = scale
        return int_bytes(values[None, :], 4)

    return b.image.put(("scale", node.op.scale), make)


class Follow:
    """What comes after the last op on a piece of the residual stream: the LayerNorm that reads it, and the quantizers that read either.

    Call it with the token range of each piece; ``finish`` when all tokens of the call have gone by. A LayerNorm that alone reads the
    stream takes its place (post-norm); another one goes beside it, for quantizers only (pre-norm).

    ``codes``: tokens of which codes are made along with it, where there is room (None: of no token); those below the first piece are
    made by ``prepare``.
    """

    def __init__(self, b: CallBuilder, node: Node[GraphOp], codes: tuple[int, int] | None):
        self.b, self.node, self.codes = b, node, codes
        self.params: Lease | None = None
        self.norm = norm_of(b, node)
        replaced = self.norm is not None and not b.beside(self.norm)
        read = [each for each in (None if replaced else node, self.norm) if each]
        quants = [u for each in read for u in b.users[each] if is_op(u, Quant)] if b.pipelined and codes else []
        self.quants = [quant for quant in quants if not b.overlapped or read_whole(b, quant)]

    def prepare(self, stop: int) -> None:
        """Codes of the tokens below ``stop``, which hold their last value already."""
        for quant in self.quants:
            out = self._room(quant)
            self.b.check_held(quant, quant.src[0], 0, stop)
            if out is not None:
                for piece in self.b.pieces(0, stop):
                    quantize(self.b, quant, out, *piece)

    def __call__(self, first: int, stop: int) -> None:
        b = self.b
        b.hold(self.node, first, stop)
        if self.norm is not None:
            if self.params is None or self.params.gone:
                self.params = layernorm_params(b, self.norm)
            layernorm(b, self.norm, self.params, first, stop)
            b.hold(self.norm, first, stop)
        for quant in self.quants:
            out = b.kept(quant, first, stop)
            if out is None and self.codes and first == self.codes[0]:
                out = self._room(quant)
            if out is not None:  # else later, where it is needed
                quantize(b, quant, out, first, stop)

    def _room(self, quant: Node[Quant]) -> Codes | None:
        try:
            return new_quantized(self.b, quant, *self.codes) if self.codes else None
        except BlockError:
            return None

    def finish(self) -> None:
        b = self.b
        b.done |= {each for each in (self.node, self.norm) if each}
        if self.norm is None:
            return
        if not b.beside(self.norm) and norm_of(b, self.norm) is not None:  # once the first is done with all tokens
            following = Follow(b, self.norm, (0, b.tokens))
            for piece in b.pieces(0, b.tokens):
                following(*piece)
            following.finish()


def read_whole(b: CallBuilder, node: Node[Quant]) -> bool:
    """Whether anything but queries and values, which are projected block by block of the tokens or head by head, is made of the codes."""

    def within(projection: Node[GraphOp]) -> bool:
        users = b.users[projection]
        return all(is_op(u, ContextCodes, ContextCodes8) or is_op(u, Scores) and u.src[0] is projection for u in users)

    return not all(within(user) for user in b.users[node])


def norm_of(b: CallBuilder, node: Node[GraphOp]) -> Node[Layernorm] | None:
    """The LayerNorm of the stream's value ``node``. Raises InputError where there are several, or one beside the stream that is read by
    others than quantizers."""
    norms = [user for user in b.users[node] if is_op(user, Layernorm)]
    if len(norms) > 1:
        raise InputError(f"{node.where}: one LayerNorm must read it, not {len(norms)}")
    for norm in norms:
        strange = [user for user in b.users[norm] if not is_op(user, Quant)]
        if b.beside(norm) and strange:
            raise InputError(
                f"{norm.where}: a LayerNorm beside the stream must be quantized, not read by {strange[0].name}"
            )
    return norms[0] if norms else None


def layernorm_params(b: CallBuilder, node: Node[Layernorm]) -> Lease:
    hw, d = b.hw, features(node.type)
    words = b.residual_words(d)

    def make() -> np.ndarray:
        padded = np.zeros((2, words * hw.rows), dtype=np.int64)
        padded[:, :d] = b.weights[node.op.gamma].numpy(), b.weights[node.op.beta].numpy()
        return int_bytes(scale_words(hw, *padded), 2)

    b.check_bits(node)
    count = SCALE_WORDS * words
    address = b.image.put(("layernorm", node.name), make)
    return b.constant(node.name, parameters(hw, address, count), inner=count, outer=1)


def layernorm(b: CallBuilder, node: Node[Layernorm], params: Lease, first: int, stop: int) -> None:
    """LayerNorm of tokens [first, stop), in place or beside the stream (rule 3)."""
    d = features(node.type)
    words = b.residual_words(d)
    b.compute(
        Op.LAYERNORM,
        node.name,
        params,
        sights=[b.residual_sight(node, first, stop)],
        src_addr=b.residual_addr(node.src[0], first),
        src_stride=words,
        dst_addr=b.residual_addr(node, first),
        dst_stride=words,
        tokens=stop - first,
        words=words,
        features=d,
        param_addr=params.addr,
        shift=node.op.shift,
        eps=node.op.eps,
    )


def new_quantized(b: CallBuilder, node: Node[Quant], first: int, stop: int) -> Codes:
    """Room for the codes of a quantizer, kept so that all its users share them."""
    out = b.new_codes(f"quant {node.name}", node.op.kind, plain(features(node.type)), first, stop)
    b.keep(node, out)
    return out


def quantize(b: CallBuilder, node: Node[Quant], out: Codes, first: int, stop: int) -> None:
    """Codes of the residual stream for tokens [first, stop) (rule 4)."""
    d = features(node.type)
    words = b.residual_words(d)
    limit = 1 << b.hw.res_bits  # beyond it a threshold is never or always reached
    thresholds = [max(-limit, min(limit, t)) for t in node.op.thresholds] + [0, 0]
    b.compute(
        Op.QUANT,
        node.name,
        sights=[b.codes_sight(node, out, first, stop)],
        src_addr=b.residual_addr(node.src[0], first),
        src_stride=words,
        tokens=stop - first,
        words=words,
        features=d,
        dst_addr=out.addr + (first - out.first) // b.hw.cols * out.stride,
        dst_stride=out.stride,
        dst_plane=out.plane,
        kind=STORED_KIND[node.op.kind],
        t0=thresholds[0],
        t1=thresholds[1],
        mul=node.op.mul,
        shift=node.op.shift,
    )


def quantized(b: CallBuilder, source: Node[GraphOp], first: int, stop: int) -> Codes:
    """Codes of the residual stream for tokens [first, stop), computed now where they are not there yet."""
    node = as_op(source, Quant)
    out = b.kept(node, first, stop)
    if out is None:
        b.check_held(node, node.src[0], first, stop)
        out = new_quantized(b, node, first, stop)
        for piece in b.pieces(first, stop):
            quantize(b, node, out, *piece)
    return out


@dataclass(frozen=True)
class ToCodes:
    """A projection of quantized tokens to codes in ABUF or KBUF, before its products."""

    node: Node[Projection]
    x: Codes
    plan: Plan
    to: Destination
    tables: tuple[Lease, ...] = ()


def to_codes(b: CallBuilder, node: Node[Projection], first: int, stop: int, groups: int = 1) -> tuple[ToCodes, Codes]:
    """A projection of tokens [first, stop) to new codes in ABUF; each of ``groups`` heads starts a word."""
    x = quantized(b, node.src[0], first, stop)
    plan = b.plan(node, x.lanes, groups)
    width = features(node.type) // groups
    pitch = width if groups == 1 else ceil_div(width, b.hw.lanes) * b.hw.lanes
    out = b.new_codes(node.where, node.op.kind, Lanes(groups, width, pitch, *plan.odd), first, stop)
    lut = node.op.lut if isinstance(node.op, LinearCodes8) else None
    tables = () if lut is None else (b.table(node.name, Mem.LUTX, lut),)
    return ToCodes(node, x, plan, b.to_tokens(plan, node, out), tables), out


def linear_to_stream(
    b: CallBuilder, node: Node[LinearResidual], x: Codes, first: int, stop: int, follow: Follow, **pieces: Any
) -> Steps:
    """A projection of codes added to the residual stream in place (rule 2), and what follows it."""
    plan = b.plan(node, x.lanes)
    return b.linear(plan, x, first, stop, b.to_stream(plan, node), after=follow, **pieces)


def feed_forward(b: CallBuilder, node: Node[LinearResidual]) -> None:
    """fc1, activation, fc2, added to the stream; ``node`` is fc2's."""
    for first, stop in b.each_block("feed_forward"):
        for step in feed_forward_block(b, node, first, stop, Follow(b, node, (0, b.tokens))):
            step()


def feed_forward_block(
    b: CallBuilder, node: Node[LinearResidual], first: int, stop: int, follow: Follow, fine: int = 0
) -> Steps:
    """The same of tokens [first, stop); ``fine`` as in :meth:`CallBuilder.linear`."""
    fc1 = as_op(node.src[0], LinearCodes, LinearCodes8)
    b.check_stream(node, node.src[1], first, stop)
    product, hidden = to_codes(b, fc1, first, stop)
    fresh = b.is_first(fc1, first)
    steps = b.linear(product.plan, product.x, first, stop, product.to, fresh=fresh, tables=product.tables, fine=fine)
    steps.append(partial(b.passed, fc1, stop))
    steps += linear_to_stream(b, node, hidden, first, stop, follow, fine=fine)
    steps.append(partial(b.free, hidden))
    return [*steps, follow.finish] if stop == b.tokens else steps


def lm_head(b: CallBuilder, node: Node[LmHead], result_addr: int) -> None:
    """Arg-max over the vocabulary for the one token of this call, whose id goes to ``result_addr`` (rule 10), or the best tokens of
    every beam (rule 11)."""
    hw = b.hw
    x = quantized(b, node.src[0], 0, b.tokens)
    plan = b.plan(node, x.lanes)
    doubled = logit_shift(hw, node)
    if b.mask is None:
        count, view, part = 1, View("ids", 1, 2, shift=doubled), ((0, 1), (0, 2))
    else:
        count, part = hw.result_words, ((0, b.tokens), (0, hw.top + 1), (0, 2))
        view = View("ids", b.tokens, 2, stride=3, groups=hw.top + 1, shift=doubled)
        scale = node.op.logit_scale_log2 - NATS_BITS
        if scale < 0:
            raise InputError(
                f"lm_head {node.name}: logits must have at least {NATS_BITS} fractional bits for beams, "
                f"not {node.op.logit_scale_log2}"
            )
        vocab = len(b.weights[node.op.mul])
        plan = replace(plan, fields=plan.fields | dict(epilogue=Epilogue.TOP, shift=scale + doubled, features=vocab))
    slot = hw.idbuf_words - count
    sight = Sight(node.name, Region(Mem.IDBUF, slot, count), view, part)
    to = Destination(
        lambda tile, token: dict(dst_addr=slot, index=tile * hw.rows, first=tile == 0),
        plan.tiles,
        lambda first, stop: [sight],
    )
    for step in b.linear(plan, x, 0, b.tokens, to, tapered=True):
        step()
    b.schedule.tasks[-1].instruction.fields["last"] = 1
    b.release(node.src[0], b.tokens)
    b.compute(Op.STORE, node.name, mem=Mem.IDBUF, addr=slot, inner=count, outer=1, dram=result_addr)


def logit_shift(hw: HwConfig, node: Node[LmHead]) -> int:
    """The hardware's logits are ``2^logit_shift`` times the graph's."""
    return operand(hw, node.src[0].expect(CodesType).kind, node.name).mul - 1
