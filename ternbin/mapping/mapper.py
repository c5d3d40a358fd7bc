"""Mapping: a folded model and a hardware configuration to a program.

Call 0 runs the stack of prefill on ``source_len`` tokens and leaves the keys and values that it hands over in KBUF (or, with
``kv_external``, in external memory), and what it gives of the residual stream in external memory; call 1+t runs the stack of decode,
where the model has one, for the token at position t, one or one a beam.
docs/instruction-set.md says what the instructions do; ternbin/mapping/ holds the parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import UNIT_OF, Instruction, Mem, Op, Unit, encode, encode_all
from ternbin.contract.memories import ceil_div
from ternbin.contract.program import Call, Port, Probe, Program
from ternbin.contract.transfers import row_bytes
from ternbin.errors import InputError
from ternbin.graph.given import IDS, most_new_tokens
from ternbin.graph.ir import Codes, Graph, Lowered, Node, Residual, as_op, features, is_op
from ternbin.graph.ir import Op as GraphOp
from ternbin.graph.ops.attention import ContextCodes, ContextCodes8, Scores, SoftmaxCodes
from ternbin.graph.ops.codes import LinearCodes, LinearCodes8
from ternbin.graph.ops.ends import Cache, Embed, EmbedAt, Input, LmHead, Output
from ternbin.graph.ops.stream import Layernorm, LinearResidual
from ternbin.graph.shape import NEXT, generates, places, shape
from ternbin.mapping.allocator import Allocator, BlockError, CapacityError, Image
from ternbin.mapping.attention import NewKeys, Projection, attention, fetch_keys, project_keys, store_keys
from ternbin.mapping.builder import STAGES, CallBuilder, Keys, keys_shape
from ternbin.mapping.estimate import busy
from ternbin.mapping.overlap import layer
from ternbin.mapping.resident import NOTHING, Residents, choose
from ternbin.mapping.room import refusal
from ternbin.mapping.schedule import Item, Sight
from ternbin.mapping.sync import insert_tokens
from ternbin.mapping.tokenwise import embed, feed_forward, lm_head, load_stream, logit_shift, quantized, store_stream

BLOCKS, BLOCK_TILES = 4, 4  # of overlapped layers, where all tokens would fit; column tiles of one, at least
GAIN = 0.97  # of the time that the estimate says an overlapped call must take at most
MAX_TOKENS = 4095  # what the instruction fields hold
Projected = tuple[
    Node[Projection], Keys, Node[Cache] | None
]  # projection of keys or values, where they go, their cache


KEYS_OUTSIDE = "keys and values of decoding do not fit KBUF: they are kept in external memory (kv_external)"


def map_model(
    lowered: Lowered,
    hw: HwConfig,
    source_len: int | Sequence[int],
    max_new_tokens: int,
    beams: int = 1,
    *,
    anywhere: bool = False,
    contents: bool = True,
    sizes: bool = True,
) -> Program:
    """The program for texts of exactly ``source_len`` tokens and at most ``max_new_tokens`` new ones, greedily or with ``beams``; given
    several lengths, for as many texts together. Of a model that does not generate ``max_new_tokens`` and ``beams`` say nothing.

    ``anywhere``: with keys and values of decoding in external memory where they do not fit on chip; ``hw.kv_external`` of the program
    says where they are. Without ``contents`` weights and embedding tables are left zero: enough to count and time what the program does.
    Raises InputError naming op, need and limit for whatever the hardware cannot hold or compute; where larger memories help, ``sizes``
    that are enough, which takes mapping again for each.
    """
    lengths = (source_len,) if isinstance(source_len, int) else tuple(source_len)
    writes = generates(lowered)
    if not writes:
        max_new_tokens, beams = 0, 1
    positions = {"source_len": lowered.meta["max_positions"], "max_new_tokens": most_new_tokens(lowered.meta)}
    asked = [("source_len", length) for length in lengths]
    for name, value in (*asked, ("max_new_tokens", max_new_tokens)) if writes else asked:
        limit, whose = min((positions[name], "positions of the model"), (MAX_TOKENS, "tokens of an instruction"))
        if not 1 <= value <= limit:
            raise InputError(f"{name} must be from 1 to {limit} ({whose}), not {value}")
    beams *= len(lengths) if writes else 1
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

    def on(hw: HwConfig, image: Image) -> _Mapping:
        return _Mapping(lowered, hw, lengths, max_new_tokens, beams, image)

    if anywhere and not hw.kv_external:
        try:
            return on(hw, Image(contents=contents)).run()
        except CapacityError:
            hw = replace(hw, kv_external=True)
    image = Image(contents=contents)
    try:
        return on(hw, image).run()
    except CapacityError as error:
        if not sizes:
            raise
        image.contents = False
        raise refusal(hw, error, lambda other: on(other, image).fits()) from None


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
            inputs=self.inputs,
            outputs=self.outputs,
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
        self.inputs = tuple(self._port(node) for node in self.model.prefill.reads)
        self.outputs = tuple(self._port(node) for node in self.model.prefill.streams)
        slots = self.max_new_tokens + 1 if self.model.decode else 0
        self.target = self.image.reserve(slots * self.beams * hw.axi_bytes)
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

    def _port(self, node: Node[GraphOp]) -> Port:
        """Room for an input or output of prefill, for all texts."""
        hw, count = self.hw, self.source_len
        if isinstance(node.type, Residual):
            width, bits = features(node.type), node.type.bits
            stride = row_bytes(hw, Mem.RBUF, ceil_div(width, hw.rows))
            return Port(node.name, self.image.reserve(count * stride), count, width=width, bits=bits, stride=stride)
        limit = self.lowered.meta["vocab_size"] if node.name == IDS else places(self.lowered)
        return Port(node.name, self.image.reserve(count * hw.axi_bytes), count, limit=limit, stride=hw.axi_bytes)

    def _visible_sources(self) -> bytes:
        """The mask of the source tokens: each is seen by the beams of its own text."""
        beams = self.beams // len(self.lengths)
        bits = [(1 << beams) - 1 << text * beams for text, length in enumerate(self.lengths) for _ in range(length)]
        bits += [0] * (-len(bits) % self.hw.rows)
        return np.array(bits, dtype="<u2").tobytes()

    def _info(self) -> dict[str, Any]:
        meta = self.lowered.meta
        sizes = {"vocab": meta["vocab_size"], "max_positions": meta["max_positions"]}
        sizes |= {name: meta[name] for name in ("max_target_positions", "prompt_ids") if name in meta}
        if self.model.decode is None:
            return sizes
        ids = {name: value for name, value in meta.items() if name.endswith("_id")}
        head = self.model.head
        logits = {"logit_scale_log2": head.op.logit_scale_log2, "logit_shift": logit_shift(self.hw, head)}
        target = {"target_vocab": len(self.lowered.weights[head.op.weight]), "search": meta.get("search", {})}
        return sizes | target | ids | logits

    def _assemble(self, items: list[Item], names: dict[str, int], writable: int) -> Call:
        """Tokens, encoding, and a place in the image."""
        instructions = insert_tokens(self.hw, [item.instruction for item in items], (writable, 1 << 62), self.memo)
        data = _encoded([*instructions, Instruction(Op.END)], items)
        ops = [names.setdefault(item.op, len(names)) for item in items]
        ops.append(names.setdefault("end", len(names)))
        return Call(self.image.put(("call", len(self.image.places)), lambda: data), len(ops), tuple(ops))

    # ---- keys and values --------------------------------------------------------------------------------------------

    def _place_keys(self) -> None:
        """Room, on chip or in external memory, for the keys and values that decoding keeps.

        What prefill hands over comes first: prefill itself may use what is meant for the others.
        """
        for kept in (Input, Cache):
            for node in self.model.decode.graph.nodes() if self.model.decode else ():
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
        at = {port.name: port.address + start * port.stride for port in (*self.inputs, *self.outputs)}

        def build(b: CallBuilder) -> None:
            self._stack(b, self.model.prefill.graph, at, start)

        return self._fit(self.model.prefill.graph, self.prefill_kbuf, self.lengths[text], 0, build).schedule.items()

    @cached_property
    def _residents(self) -> Residents:
        """Constants that decoder calls find on chip; the first of them loads what stays."""
        if self.hw.resident == "none" or not self.max_new_tokens:
            return NOTHING
        return choose(self.hw, *(self._built(step, NOTHING).seen for step in (0, self.max_new_tokens - 1)))

    def _decode(self, step: int) -> list[Item]:
        return self._built(step, self._residents).schedule.items()

    def _built(self, step: int, residents: Residents) -> CallBuilder:
        size = self.beams * self.hw.axi_bytes
        address = self.target + step * size
        result, mask = address + size, None
        if self.beams > 1:
            result, mask = self.result + step * self.hw.result_words * self.hw.axi_bytes, self.mask

        graph = self.model.generating.graph

        def build(b: CallBuilder) -> None:
            self._stack(b, graph, {IDS: address, NEXT: result})

        past = step * self.beams
        return self._fit(graph, self.kbuf, self.beams, past, build, mask, self.sources, residents, fills=step == 0)

    def _fit(
        self,
        graph: Graph,
        kbuf: Allocator,
        tokens: int,
        past: int,
        build: Callable[[CallBuilder], None],
        mask: int | None = None,
        sources: int | None = None,
        residents: Residents = NOTHING,
        *,
        fills: bool = False,
    ) -> CallBuilder:
        """Build a call with as few token blocks per stage as fit; without codes made in advance if they do not fit at all. Where attention
        is split, layers are overlapped if that fits."""
        users = graph.users()

        def builder(blocks: dict[str, int], pipelined: bool, overlapped: bool) -> CallBuilder:
            return CallBuilder(
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
                residents,
                fills,
                pipelined,
                overlapped,
            )

        found, layers = _split(builder, build, dict.fromkeys(STAGES, 1), overlapped=False), _layers(graph)
        blocks = found.blocks["attention"]
        if blocks == 1:
            blocks = min(BLOCKS, ceil_div(tokens, self.hw.cols) // BLOCK_TILES)
        if blocks <= 1 or not found.pipelined or not layers:
            return found
        of_keys = (
            2 if found.blocks["attention"] == found.blocks["keys"] == 1 else 0
        )  # are they projected along with attention?
        names = {x.name for node in layers for x in _projections(node)[: 1 + of_keys]}
        usual = busy(self.hw, found.schedule.items(), names)
        if usual.softmax <= usual.attention:
            return found
        try:
            other = _split(builder, build, found.blocks | {"attention": blocks}, overlapped=True)
        except BlockError:
            return found
        time = busy(self.hw, other.schedule.items(), names).overlapped
        return other if time <= GAIN * usual.stages else found

    def _stack(self, b: CallBuilder, graph: Graph, at: dict[str, int], start: int = 0) -> None:
        """The instructions of a graph: every op that changes the residual stream or ends a chain pulls in its sources. ``at``: where in
        external memory the host's rows of an input or output are; ``start``: of this text among the source tokens of all."""
        layers = _layers(graph) if b.overlapped else {}
        for node in graph.nodes():
            if is_op(node, Embed, EmbedAt):
                embed(b, node, at)
            elif is_op(node, Input) and isinstance(node.type, Residual):
                load_stream(b, node, at[node.name])
            elif is_op(node, Layernorm) and node not in b.done:
                raise InputError(f"{node.where}: source must be the residual stream, not {node.src[0].name}")
            elif is_op(node, LinearResidual):
                if is_op(node.src[0], ContextCodes, ContextCodes8):
                    self._attention(b, node, node.src[0], layers.get(node))
                elif node not in b.done:
                    feed_forward(b, node)
            elif is_op(node, Output) and isinstance(node.type, Codes):
                self._cross(b, node, start)
            elif is_op(node, Output) and isinstance(node.type, Residual):
                store_stream(b, node, at[node.name])
            elif is_op(node, LmHead):
                lm_head(b, node, at[NEXT])

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
        self,
        b: CallBuilder,
        node: Node[LinearResidual],
        context: Node[ContextCodes | ContextCodes8],
        second: Node[LinearResidual] | None,
    ) -> None:
        """Attention; of an overlapped layer also the feed-forward, which ends with ``second``."""
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
            k_new, v_new = (of_k, keys, None), (of_v, values, None)
            if second:
                self._layer(b, node, second, k_new, v_new)
            else:
                self._projected(b, node, k_new, v_new, b.tokens)
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

    def _layer(
        self, b: CallBuilder, node: Node[LinearResidual], second: Node[LinearResidual], k: Projected, v: Projected
    ) -> None:
        """Keys, and values too where codes to make them of do not fit as a whole; then the rest of the layer."""
        (of_k, keys, _), (of_v, values, _) = k, v
        for first, stop in b.each_block("keys"):
            project_keys(b, of_k, keys, first, stop)
            if b.blocks["keys"] > 1:
                b.release(of_k.src[0], stop)
        try:
            quantized(b, of_v.src[0], 0, b.tokens)
            new = [NewKeys(*v, partial(self._stored, b, v, 0, b.tokens))]
        except BlockError:
            new = []
            for first, stop in b.each_block("keys"):
                project_keys(b, of_v, values, first, stop)
                if b.blocks["keys"] > 1:
                    b.release(of_v.src[0], stop)
        layer(b, node, second, keys, values, new)

    def _stored(self, b: CallBuilder, each: Projected, first: int, stop: int) -> None:
        _, keys, cache = each
        if cache:
            self._store(b, cache.name, keys, b.past + first, b.past + stop)


def _layers(graph: Graph) -> dict[Node[LinearResidual], Node[LinearResidual]]:
    """Output projections of attention to the call's own tokens -> fc2 of the feed-forward that comes next."""
    residuals = [node for node in graph.nodes() if is_op(node, LinearResidual)]
    result: dict[Node[LinearResidual], Node[LinearResidual]] = {}
    for node, second in pairwise(residuals):
        if is_op(node.src[0], ContextCodes, ContextCodes8) and not is_op(second.src[0], ContextCodes, ContextCodes8):
            if not is_op(node.src[0].src[1], Input, Cache):
                result[node] = second
    return result


def _projections(node: Node[LinearResidual]) -> list[Node[GraphOp]]:
    """Queries, keys and values of the attention that ends with ``node``."""
    context = as_op(node.src[0], ContextCodes, ContextCodes8)
    scores = as_op(as_op(context.src[0], SoftmaxCodes).src[0], Scores)
    return [*scores.src, context.src[1]]


def _split(
    builder: Callable[[dict[str, int], bool, bool], CallBuilder],
    build: Callable[[CallBuilder], None],
    blocks: dict[str, int],
    *,
    overlapped: bool,
) -> CallBuilder:
    """The call in as few blocks per stage, from ``blocks`` on, as fit. Raises BlockError."""
    pipelined = True
    while True:
        b = builder(blocks, pipelined, overlapped)
        try:
            build(b)
            return b
        except BlockError:
            if b.can_split(b.stage):
                blocks[b.stage] += 1
            elif pipelined and not overlapped:
                pipelined, blocks = False, dict.fromkeys(STAGES, 1)
            else:
                raise


def _keys_shape(hw: HwConfig, x: Node[GraphOp], heads: int, capacity: int, transposed: bool) -> Keys:
    return keys_shape(hw, x.expect(Codes).kind, heads, features(x.type), capacity, transposed)


def _encoded(instructions: Sequence[Instruction], items: Sequence[Item]) -> bytes:
    try:
        return encode_all(instructions)
    except InputError:
        for instruction, item in zip(instructions, items, strict=False):
            try:
                encode(instruction)
            except InputError as error:
                raise InputError(f"{item.op}: {error}") from None
        raise


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
