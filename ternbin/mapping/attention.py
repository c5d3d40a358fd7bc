"""Attention: keys and values into KBUF, then head by head scores, probabilities and context."""

from collections.abc import Callable

import numpy as np

from ternbin.errors import InputError
from ternbin.golden import NEVER
from ternbin.ir import Node
from ternbin.isa import Dest, Epilogue, Mem, Op
from ternbin.layout import SCALE_WORDS, ceil_div, int_bytes, row_bytes, scale_words
from ternbin.mapping.call import CallBuilder, Codes, Keys
from ternbin.mapping.fold import Folded, check_acc, fold_scales, operand
from ternbin.mapping.linear import STORED_KIND, Lanes, plain, threshold_params
from ternbin.mapping.schedule import Lease, Sight
from ternbin.mapping.tokenwise import linear_to_codes, linear_to_stream, quantized
from ternbin.program import Region, View
from ternbin.qtypes import KINDS


def project_keys(b: CallBuilder, node: Node, out: Keys, first: int, stop: int, cache: Node | None = None) -> None:
    """Keys or values of tokens [first, stop) into KBUF, behind the ``past`` earlier ones where there is a ``cache``."""
    x = quantized(b, node.src[0], first, stop)
    plan = b.plan(node, x.lanes, out.lanes.groups)
    b.linear(plan, x, first, stop, b.to_keys(plan, node, out, b.past if cache else 0), fresh=b.is_first(node, first))
    b.passed(node, stop)


def fetch_keys(b: CallBuilder, op: str, shape: Keys, count: int, home: int) -> Keys:
    """Room in KBUF, filled with the first ``count`` keys from external memory at ``home``."""
    keys = b.new_keys(op, shape)
    if count:
        b.load(op, None, **_rows(b, keys, 0, count, home))
    return keys


def store_keys(b: CallBuilder, op: str, keys: Keys, first: int, stop: int, home: int) -> None:
    """Keys [first, stop) to external memory; of transposed values all, for a row of them holds every key."""
    b.compute(Op.STORE, op, **_rows(b, keys, first, stop, home))


def _rows(b: CallBuilder, keys: Keys, first: int, stop: int, home: int) -> dict[str, int]:
    """Transfer fields of keys [first, stop)."""
    size = row_bytes(b.hw, Mem.KBUF, keys.stride)
    if keys.transposed:
        first, stop = 0, keys.lanes.groups * keys.lanes.pitch
    return dict(mem=Mem.KBUF, bank=first % b.hw.rows, addr=keys.addr + first // b.hw.rows * keys.stride, inner=keys.stride,
                outer=stop - first, dram=home + first * size, stride=size)


Steps = list[Callable[[], None]]
QUERY_PIECES = 2  # parts of the queries whose scores and probabilities alternate


def attention(b: CallBuilder, node: Node, keys: Keys, values: Keys, count: int, first_steps: Steps, value_steps: Steps) -> None:
    """Attention over ``count`` keys, projected and added to the stream; ``node`` is the output projection's.

    ``first_steps`` are computations that scores need, besides queries; ``value_steps`` those that values need: they run under
    the first softmax.
    """
    context = node.src[0]
    query = context.src[0].src[0].src[0]
    b.check_stream(node, node.src[1])
    for first, stop in b.each_block("attention"):
        q = linear_to_codes(b, query, first, stop, context["heads"])
        for step in first_steps:
            step()
        out = _heads(b, context, q, keys, values, count, value_steps)
        b.free(q)
        follow = linear_to_stream(b, node, out, first, stop)
        b.free(out)
        first_steps, value_steps = [], []
    follow.finish()


def _heads(b: CallBuilder, context: Node, q: Codes, keys: Keys, values: Keys, count: int, value_steps: Steps) -> Codes:
    """Context codes of all heads. Scores of the next piece of queries are computed under the softmax of this one."""
    softmax, heads = context.src[0], context["heads"]
    entries = 256 if softmax["power"] else min(256, 2 * softmax.src[0].type.limit + 1)  # distances of two scores
    lut = b.table(softmax.name, Mem.LUTV, softmax["lut"], entries)
    pieces = b.pieces(q.first, q.stop, QUERY_PIECES)
    work = [(head, piece) for head in range(heads) for piece in pieces]
    two_fit = 2 * (pieces[0][1] - pieces[0][0]) * ceil_div(count, b.hw.rows) <= b.hw.sbuf_words
    waiting: list[tuple[int, Codes]] = []
    out = params = fields = None
    for number, (head, piece) in enumerate(work):
        waiting.append((head, _probabilities(b, softmax, q, piece, keys, count, head, lut)))
        if number == min(len(work) - 1, int(two_fit)):
            for step in value_steps:
                step()
            lanes = Lanes(heads, values.lanes.width, values.lanes.pitch)
            out = b.new_codes(f"{context.op} {context.name}", context["kind"], lanes, q.first, q.stop)
            params, fields = _context_params(b, context, values, count)
        if number:
            _context(b, context, *waiting.pop(0), values, out, params, fields)
    _context(b, context, *waiting.pop(0), values, out, params, fields)
    return out


def _probabilities(b: CallBuilder, node: Node, q: Codes, piece: tuple[int, int], keys: Keys, count: int, head: int,
                   lut: Lease) -> Codes:
    """Scores of one head for a piece of the queries into SBUF, and their softmax into codes in ABUF."""
    hw, scores, first, queries = b.hw, node.src[0], piece[0], piece[1] - piece[0]
    tiles, words = ceil_div(count, hw.rows), ceil_div(q.lanes.width, hw.lanes)
    a, c = operand(hw, keys.kind, scores.name), operand(hw, q.kind, scores.name)
    if hw.kind == "binary" and (a.planes, c.planes) != (1, 1):
        raise InputError(f"scores {scores.name}: 8-bit attention must run on a ternary array, not on a binary one")
    idle = -(words * hw.lanes - q.lanes.width) * a.idle * c.idle
    check_acc(hw, q.lanes.width * a.most * c.most + 2 * abs(idle), f"scores {scores.name}")
    addr = b.sbuf.take(queries * tiles, f"scores {scores.name}")
    part = ((head, head + 1), piece, (0, count))
    sight = Sight(scores.name, Region(Mem.SBUF, addr, queries * tiles), View("scores", queries, count, tiles, lead=True), part)
    b.compute(
        Op.GEMM, scores.name, sights=[sight], **b.columns(q, *piece, words, head * words), row_kbuf=1,
        row_addr=keys.addr + head * words, row_stride=keys.stride, row_plane=keys.plane, row_planes=a.planes,
        row_signed=a.signed, row_tiles=tiles, acc_init=idle, epilogue=Epilogue.SCORES, dst_addr=addr, dst_stride=tiles,
    )
    chunks = ceil_div(count, hw.lanes)  # whole words: the lanes beyond the last key must hold probability 0
    out = b.new_codes(f"softmax {node.name}", node["kind"], plain(count), *piece, words=chunks)
    b.compute(
        Op.SOFTMAX, node.name, lut, sights=[b.codes_sight(node, out, *piece, (part[0], part[2]))], src_addr=addr,
        src_stride=tiles, queries=queries, keys=b.past + 1 + first if node["causal"] else count, causal=node["causal"],
        granules=chunks * hw.lanes // hw.rows, dst_addr=out.addr, dst_stride=out.stride, dst_plane=out.plane,
        kind=STORED_KIND[node["kind"]], power=node["power"], mul=node["mul"], shift=node["shift"], c1=node["c1"],
        c2=node["c2"], recip=node["recip"],
    )
    b.sbuf.free(addr)
    return out


def _context_params(b: CallBuilder, node: Node, values: Keys, count: int) -> tuple[Lease, dict[str, int]]:
    """Parameters of one head's row tiles (the same for every head) and the fields of the context GEMMs."""
    hw, where, probability = b.hw, f"{node.op} {node.name}", node.src[0].type.kind
    a, c = operand(hw, values.kind, where), operand(hw, probability, where)
    rowsum = c.sub != 0
    if rowsum and (a.planes, c.planes) != (1, 1) or (hw.kind == "binary" and c.planes == 8):
        raise InputError(f"{where}: probabilities must be uint8 for 8-bit values, on a ternary array, not {probability}")
    lanes = ceil_div(count, hw.lanes) * hw.lanes
    bound = lanes * a.most * (1 + rowsum) if rowsum else count * a.most * c.most
    check_acc(hw, bound, where)
    # with the row sum added, acc_hw = mul*acc, for garbage beyond the last key meets probability 0
    magnitude = count * KINDS[values.kind].magnitude * KINDS[probability].magnitude * c.mul
    folded = Folded(c.mul, np.zeros(1, dtype=np.int64), min(bound, magnitude), 0)
    tile_rows = values.lanes.pitch
    rows = np.where(np.arange(tile_rows) < values.lanes.width, np.arange(tile_rows), -1)
    if node.op == "context_codes":
        if folded.bound >= NEVER:
            raise InputError(f"{where}: accumulator magnitude must be below {NEVER} for thresholds, not {folded.bound}")
        words, fields, _ = threshold_params(hw, b.weights[node["thresholds"]].numpy(), node, folded, rows, where)
    else:
        mul, bias = b.weights[node["mul"]].numpy(), b.weights[node["bias"]].numpy()
        mul, bias, shift = fold_scales(mul, bias, node["shift"], folded, where)
        words = scale_words(hw, *(np.where(rows < 0, 0, v) for v in (mul, bias)))
        fields = dict(epilogue=Epilogue.CODES8, kind=STORED_KIND[node["kind"]], shift=shift, param_stride=SCALE_WORDS)
    fields |= dict(rowsum=rowsum, row_planes=a.planes, row_signed=a.signed)
    address = b.image.put(("params", node.name), lambda: int_bytes(words, 2))
    return b.params(node.name, address, words.shape[0] * words.shape[1]), fields


def _context(b: CallBuilder, node: Node, head: int, p: Codes, values: Keys, out: Codes, params: Lease,
             fields: dict[str, int]) -> None:
    """Probabilities times values of one head, into the head's lanes of the context."""
    hw, tiles = b.hw, values.lanes.pitch // b.hw.rows
    lane = head * values.lanes.pitch
    sights = [b.codes_sight(node, out, p.first, p.stop)] if head == node["heads"] - 1 else []
    b.compute(
        Op.GEMM, node.name, params, sights=sights, **b.columns(p, p.first, p.stop, p.words), row_kbuf=1,
        row_addr=values.addr + head * tiles * values.stride, row_stride=values.stride, row_plane=values.plane,
        row_tiles=tiles, param_addr=params.addr, dest=Dest.TOKENS,
        dst_addr=out.addr + (p.first - out.first) // hw.cols * out.stride + lane // hw.lanes, lane=lane % hw.lanes,
        dst_stride=out.stride, dst_plane=out.plane, **fields,
    )
    b.free(p)
