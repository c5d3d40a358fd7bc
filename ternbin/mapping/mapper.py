"""Mapping: a folded model and a hardware configuration to a program.

Call 0 runs the stack of prefill on ``source_len`` tokens and leaves the keys and values that it hands over in KBUF (or, with
``kv_external``, in external memory); call 1+t runs the stack of decode for the token at position t, one or one a beam.
docs/instruction-set.md says what the instructions do; ternbin/mapping/ holds the parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES, UNIT_OF, Instruction, Mem, Op, Unit, encode
from ternbin.contract.memories import ceil_div
from ternbin.contract.program import Call, Probe, Program
from ternbin.contract.transfers import row_bytes
from ternbin.errors import InputError
from ternbin.graph.ir import Codes, Graph, Lowered, Node, as_op, features, is_op
from ternbin.graph.ir import Op as GraphOp
from ternbin.graph.ops.attention import ContextCodes, ContextCodes8, Scores, SoftmaxCodes
from ternbin.graph.ops.codes import LinearCodes, LinearCodes8
from ternbin.graph.ops.ends import Cache, Embed, Input, LmHead, Output
from ternbin.graph.ops.stream import Layernorm, LinearResidual
from ternbin.graph.shape import shape
from ternbin.mapping.allocator import Allocator, BlockError, CapacityError, Image
from ternbin.mapping.attention import NewKeys, Projection, attention, fetch_keys, project_keys, store_keys
from ternbin.mapping.builder import STAGES, CallBuilder, Keys, keys_shape
from ternbin.mapping.room import refusal
from ternbin.mapping.schedule import Item, Sight
from ternbin.mapping.sync import insert_tokens
from ternbin.mapping.tokenwise import embed, feed_forward, lm_head, logit_shift

MAX_TOKENS = 4095  # what the instruction fields hold
Projected = tuple[
    Node[Projection], Keys, Node[Cache] | None
]  # projection of keys or values, where they go, their cache


def map_model(
    lowered: Lowered,
    hw: HwConfig,
    source_len: int | Sequence[int],
    max_new_tokens: int,
    beams: int = 1,
    *,
    contents: bool = True,
) -> Program:
    """The program for texts of exactly ``source_len`` tokens and at most ``max_new_tokens`` new ones, greedily or with ``beams``; given
    several lengths, for as many texts together.

    Without ``contents`` weights and embedding tables are left zero: enough to count and time what the program does.
    Raises InputError naming op, need and limit for whatever the hardware cannot hold or compute; where larger memories help, sizes that
    are enough.
    """
    lengths = (source_len,) if isinstance(source_len, int) else tuple(source_len)
    for name, value in (*(("source_len", length) for length in lengths), ("max_new_tokens", max_new_tokens)):
        limit, whose = min(
            (lowered.meta["max_positions"], "positions of the model"), (MAX_TOKENS, "tokens of an instruction")
        )
        if not 1 <= value <= limit:
            raise InputError(f"{name} must be from 1 to {limit} ({whose}), not {value}")
    beams *= len(lengths)
    if beams not in (1, hw.beams):
        raise InputError(
            f"beams of all texts must be 1 or those of the hardware configuration ({hw.beams}), not {beams}"
        )
    for what, value in (
        ("texts, tokens of all,", sum(lengths)),
        ("max_new_tokens times beams", max_new_tokens * beams),
    ):
        if value > MAX_TOKENS:
            raise InputError(f"{what} must be at most {MAX_TOKENS} (keys of an instruction), not {value}")
    image = Image(contents=contents)
    try:
        return _Mapping(lowered, hw, lengths, max_new_tokens, beams, image).run()
    except CapacityError as error:
        image.contents = False
        raise refusal(
            hw, error, lambda other: _Mapping(lowered, other, lengths, max_new_tokens, beams, image).fits()
        ) from None


@dataclass
class _Mapping:
    """One mapping in progress: what the calls share."""

    lowered: Lowered
    hw: HwConfig
    lengths: tuple[int, ...]
    max_new_tokens: int
    beams: int  # of all texts
    image: Image = field(default_factory=Image)
    shapes: dict[str, Keys] = field(default_factory=dict)  # by name of cache or cross output
    homes: dict[str, int] = field(default_factory=dict)  # their addresses in external memory with kv_external
    memo: dict[Any, Any] = field(default_factory=dict)  # of insert_tokens

    def __post_init__(self) -> None:
        self.model = shape(self.lowered)
        self.kbuf = Allocator("KBUF", self.hw.kbuf_words)

    def run(self) -> Program:
        hw = self.hw
        self._reserve()
        items = [self._prefill(text) for text in range(len(self.lengths))]
        items += [self._decode(step) for step in range(self.max_new_tokens)]
        names: dict[str, int] = {}
        calls, probes = [], []
        for number, call in enumerate(items):
            calls.append(self._assemble(call, names, self.writable[1]))
            probes += _probes(number, call)
        return Program(
            hw=hw,
            image=self.image.bytes(),
            calls=tuple(calls),
            names=tuple(names),
            probes=tuple(probes),
            source_addr=self.source,
            target_addr=self.target,
            source_len=self.source_len,
            max_new_tokens=self.max_new_tokens,
            writable=(self.writable,),
            info=self._info(),
            beams=self.beams,
            mask_addr=self.mask,
            result_addr=self.result,
            source_lens=self.lengths if len(self.lengths) > 1 else (),
        )

    def fits(self) -> None:
        """Raises InputError where :meth:`run` does for lack of room; the calls that need most come first."""
        self._reserve()
        texts, steps = range(len(self.lengths)), range(self.max_new_tokens)
        for text in sorted(texts, key=lambda text: -self.lengths[text]):
            self._prefill(text)
        for step in (*steps[-1:], *steps[:-1]):
            self._decode(step)

    def _reserve(self) -> None:
        """Places in external memory that the program and the host write, and room for keys and values."""
        hw = self.hw
        self.source = self.image.reserve(self.source_len * hw.axi_bytes)
        self.target = self.image.reserve((self.max_new_tokens + 1) * self.beams * hw.axi_bytes)
        self.mask = self.result = 0
        if self.beams > 1:
            self.mask = self.image.reserve(
                ceil_div(self.max_new_tokens * self.beams, hw.rows) * hw.param_word_bits // 8
            )
            self.result = self.image.reserve(self.max_new_tokens * hw.result_words * hw.axi_bytes)
        self._place_keys()
        self.writable = (0, self.image.size)
        self.sources = self.image.put(("sources",), self._visible_sources) if len(self.lengths) > 1 else None

    @property
    def source_len(self) -> int:
        """Of all texts."""
        return sum(self.lengths)

    def _visible_sources(self) -> bytes:
        """The mask of the source tokens: each is seen by the beams of its own text."""
        beams = self.beams // len(self.lengths)
        bits = [(1 << beams) - 1 << text * beams for text, length in enumerate(self.lengths) for _ in range(length)]
        bits += [0] * (-len(bits) % self.hw.rows)
        return np.array(bits, dtype="<u2").tobytes()

    def _info(self) -> dict[str, Any]:
        meta = self.lowered.meta
        ids = {name: value for name, value in meta.items() if name.endswith("_id")}
        head = self.model.head
        logits = {"logit_scale_log2": head.op.logit_scale_log2, "logit_shift": logit_shift(self.hw, head)}
        return (
            {"vocab": meta["vocab_size"], "target_vocab": len(self.lowered.weights[head.op.weight])}
            | {"max_positions": meta["max_positions"], "search": meta.get("search", {})}
            | ids
            | logits
        )

    def _assemble(self, items: list[Item], names: dict[str, int], writable: int) -> Call:
        """Tokens, encoding, and a place in the image."""
        instructions = insert_tokens(self.hw, [item.instruction for item in items], (writable, 1 << 62), self.memo)
        data = b"".join(
            _encode(instruction, item.op) for instruction, item in zip(instructions, items, strict=True)
        ) + _encode(Instruction(Op.END), "end")
        ops = [names.setdefault(item.op, len(names)) for item in items]
        ops.append(names.setdefault("end", len(names)))
        return Call(self.image.put(("call", len(self.image.places)), lambda: data), len(ops), tuple(ops))

    # ---- keys and values --------------------------------------------------------------------------------------------

    def _place_keys(self) -> None:
        """Room, on chip or in external memory, for the keys and values that decoding keeps.

        What prefill hands over comes first: prefill itself may use what is meant for the others.
        """
        for kept in (Input, Cache):
            for node in self.model.decode.graph.nodes():
                if is_op(node, Scores, ContextCodes, ContextCodes8):  # of keys, of values
                    source, transposed = node.src[1], not is_op(node, Scores)
                    if is_op(source, kept) and source.name not in self.shapes:
                        self._place(source, node.op.heads, transposed)
            if kept is Input:
                self.prefill_kbuf = self.kbuf.copy()

    def _place(self, source: Node[Input | Cache], heads: int, transposed: bool) -> None:
        hw = self.hw
        capacity = self.max_new_tokens * self.beams if is_op(source, Cache) else self.source_len
        keys = _keys_shape(hw, source, heads, capacity, transposed)
        self.shapes[source.name] = keys
        if hw.kv_external:
            rows = keys.lanes.groups * keys.lanes.pitch if transposed else capacity
            self.homes[source.name] = self.image.reserve(rows * row_bytes(hw, Mem.KBUF, keys.stride))
            return
        try:
            address = self.kbuf.take(keys.size, f"keys and values {source.name}")
        except CapacityError as error:
            message = f"{error}; kv_external keeps them in external memory"
            raise CapacityError(message, error.field, error.need) from None
        self.shapes[source.name] = replace(keys, addr=address)

    def _keys(self, b: CallBuilder, name: str, count: int) -> Keys:
        """Where ``count`` earlier keys or values of ``name`` are on chip."""
        if not self.hw.kv_external:
            return self.shapes[name]
        return fetch_keys(b, name, self.shapes[name], count, self.homes[name])

    def _store(self, b: CallBuilder, name: str, keys: Keys, first: int, stop: int) -> None:
        if self.hw.kv_external:
            store_keys(b, name, keys, first, stop, self.homes[name])

    # ---- calls ------------------------------------------------------------------------------------------------------

    def _prefill(self, text: int) -> list[Item]:
        start = sum(self.lengths[:text])  # of its tokens among those of all texts

        def build(b: CallBuilder) -> None:
            self._stack(b, self.model.prefill.graph, self.source + start * self.hw.axi_bytes, 0, start)

        return self._fit(self.model.prefill.graph, self.prefill_kbuf, self.lengths[text], 0, build)

    def _decode(self, step: int) -> list[Item]:
        size = self.beams * self.hw.axi_bytes
        address = self.target + step * size
        result, mask = address + size, None
        if self.beams > 1:
            result, mask = self.result + step * self.hw.result_words * self.hw.axi_bytes, self.mask

        def build(b: CallBuilder) -> None:
            self._stack(b, self.model.decode.graph, address, result)

        return self._fit(self.model.decode.graph, self.kbuf, self.beams, step * self.beams, build, mask, self.sources)

    def _fit(
        self,
        graph: Graph,
        kbuf: Allocator,
        tokens: int,
        past: int,
        build: Callable[[CallBuilder], None],
        mask: int | None = None,
        sources: int | None = None,
    ) -> list[Item]:
        """Build a call with as few token blocks per stage as fit; without codes made in advance if they do not fit at all."""
        users = graph.users()
        pipelined, blocks = True, dict.fromkeys(STAGES, 1)
        while True:
            b = CallBuilder(
                self.hw,
                self.image,
                self.lowered.weights,
                tokens,
                past,
                kbuf.copy(),
                blocks,
                users,
                mask,
                sources,
                pipelined,
            )
            try:
                build(b)
                return b.schedule.items()
            except BlockError:
                if b.can_split(b.stage):
                    blocks[b.stage] += 1
                elif pipelined:
                    pipelined, blocks = False, dict.fromkeys(STAGES, 1)
                else:
                    raise

    def _stack(self, b: CallBuilder, graph: Graph, ids: int, result: int, start: int = 0) -> None:
        """The instructions of a graph: every op that changes the residual stream or ends a chain pulls in its sources. ``start``: of
        this text among the source tokens of all."""
        for node in graph.nodes():
            if is_op(node, Embed):
                embed(b, node, ids)
            elif is_op(node, Layernorm) and node not in b.done:
                raise InputError(f"{node.where}: source must be the residual stream, not {node.src[0].name}")
            elif is_op(node, LinearResidual):
                if is_op(node.src[0], ContextCodes, ContextCodes8):
                    self._attention(b, node, node.src[0])
                else:
                    feed_forward(b, node)
            elif is_op(node, Output) and isinstance(node.type, Codes):
                self._cross(b, node, start)
            elif is_op(node, LmHead):
                lm_head(b, node, result)

    def _cross(self, b: CallBuilder, node: Node[Output], start: int) -> None:
        """Keys or values of a cross-attention, kept for all decoder calls, from key ``start`` on."""
        source, keys = as_op(node.src[0], LinearCodes, LinearCodes8), self._keys(b, node.name, start)
        for first, stop in b.each_block("keys"):
            project_keys(b, source, keys, first, stop, offset=start)
            if b.blocks["keys"] > 1:
                b.release(source.src[0], stop)
        self._store(b, node.name, keys, start, start + b.tokens)
        if self.hw.kv_external:
            b.kbuf.free(keys.addr)

    def _attention(
        self, b: CallBuilder, node: Node[LinearResidual], context: Node[ContextCodes | ContextCodes8]
    ) -> None:
        scores = as_op(as_op(context.src[0], SoftmaxCodes).src[0], Scores)
        k, v = scores.src[1], context.src[1]
        if is_op(k, Input) and is_op(v, Input):
            keys, values = (self._keys(b, x.name, self.source_len) for x in (k, v))
            attention(b, node, keys, values, self.source_len)
        elif is_op(k, Cache) and is_op(v, Cache):
            keys, values = (self._keys(b, x.name, b.past) for x in (k, v))
            of_k, of_v = (as_op(x.src[0], LinearCodes, LinearCodes8) for x in (k, v))
            self._projected(b, node, (of_k, keys, k), (of_v, values, v), b.past + b.tokens)
        else:
            of_k, of_v = (as_op(x, LinearCodes, LinearCodes8) for x in (k, v))
            keys, values = (
                b.new_keys(f"keys and values {x.name}", _keys_shape(self.hw, x, context.op.heads, b.tokens, transposed))
                for x, transposed in ((of_k, False), (of_v, True))
            )
            self._projected(b, node, (of_k, keys, None), (of_v, values, None), b.tokens)
        if self.hw.kv_external or not is_op(k, Input, Cache):
            b.kbuf.free(keys.addr)
            b.kbuf.free(values.addr)

    def _projected(self, b: CallBuilder, node: Node[LinearResidual], k: Projected, v: Projected, count: int) -> None:
        """Attention whose keys and values are projected: along with it where all is one block, else before it."""
        if b.blocks["attention"] == b.blocks["keys"] == 1:
            b.stage = "attention"
            attention(
                b,
                node,
                k[1],
                v[1],
                count,
                [NewKeys(*each, partial(self._stored, b, each, 0, b.tokens)) for each in (k, v)],
            )
            return
        for first, stop in b.each_block("keys"):
            for source, keys, cache in (k, v):
                project_keys(b, source, keys, first, stop, cache)
                self._stored(b, (source, keys, cache), first, stop)
                if b.blocks["keys"] > 1:  # room is scarce: do not keep it for the queries
                    b.release(source.src[0], stop)
        attention(b, node, k[1], v[1], count)

    def _stored(self, b: CallBuilder, each: Projected, first: int, stop: int) -> None:
        _, keys, cache = each
        if cache:
            self._store(b, cache.name, keys, b.past + first, b.past + stop)


def _keys_shape(hw: HwConfig, x: Node[GraphOp], heads: int, capacity: int, transposed: bool) -> Keys:
    return keys_shape(hw, x.expect(Codes).kind, heads, features(x.type), capacity, transposed)


def _encode(instruction: Instruction, op: str) -> bytes:
    try:
        return encode(instruction).to_bytes(INSTRUCTION_BYTES, "little")
    except InputError as error:
        raise InputError(f"{op}: {error}") from None


def _probes(call: int, items: list[Item]) -> list[Probe]:
    count = dict.fromkeys(Unit, 0)
    result = []
    for item in items:
        unit = UNIT_OF[item.instruction.op]
        result += [_probe(call, unit, count[unit], sight) for sight in item.sights]
        count[unit] += 1
    return result


def _probe(call: int, unit: Unit, index: int, s: Sight) -> Probe:
    return Probe(call, unit, index, s.tensor, s.region, s.view, s.part)
