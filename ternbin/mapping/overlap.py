"""A layer whose tokens go by in blocks: while heads attend from one block, the feed-forward of the block before runs beneath."""

from collections.abc import Sequence
from functools import partial

from ternbin.graph.ir import Node
from ternbin.graph.ops.stream import LinearResidual
from ternbin.mapping.allocator import BlockError
from ternbin.mapping.attention import Heads, NewKeys, Projection
from ternbin.mapping.builder import CallBuilder, Keys, Steps
from ternbin.mapping.tokenwise import Follow, feed_forward_block, quantized

FINE = 1000  # array steps of a product beneath a softmax: one in whose time no other unit waits for long


def layer(
    b: CallBuilder,
    node: Node[LinearResidual],
    second: Node[LinearResidual],
    keys: Keys,
    values: Keys,
    new: Sequence[NewKeys],
) -> None:
    """Attention to all tokens of the call and the feed-forward after it; ``node`` is the output projection's, ``second`` fc2's.

    ``new``: keys and values still to be projected, head by head, while the first block attends. The queries of a block are quantized while
    the one before attends, so that the vector unit is free for its LayerNorm when the output projection comes.
    """
    blocks = list(b.each_block("attention"))
    heads = Heads(b, node, keys, values, b.tokens, new, *blocks[0])
    beneath: Steps = []
    for number, (first, stop) in enumerate(blocks):
        last = stop == b.tokens
        if not last:
            beneath.insert(len(beneath) // 2, partial(_quantize, b, heads.query, *blocks[number + 1]))
        heads.attend(beneath)
        after = heads if last else Heads(b, node, keys, values, b.tokens, (), *blocks[number + 1])
        heads.project(Follow(b, node, (first, stop)))
        follow = Follow(b, second, (0, b.tokens) if last else None)
        beneath = feed_forward_block(b, second, first, stop, follow, 0 if last else FINE)
        if last:
            follow.prepare(first)
        heads = after
    for step in beneath:
        step()


def _quantize(b: CallBuilder, query: Node[Projection], first: int, stop: int) -> None:
    """Codes of queries before they are needed, if there is room. Codes of all tokens, of which keys or values were made too, are given up
    when only queries of later blocks are still to be made of them: those of a block take less room."""
    source = query.src[0]
    others = [user for user in b.users[source] if user is not query]
    if others and min(b.progress.get(user, 0) for user in others) == b.tokens and b.progress.get(query, 0) == first:
        b.release(source, b.tokens)
    try:
        quantized(b, source, first, stop)
    except BlockError:
        pass
