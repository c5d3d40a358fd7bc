"""Mapping: a folded model and a hardware configuration to a program.

Call 0 runs the encoder on ``source_len`` tokens and leaves the keys and values of every cross-attention in KBUF (or, with
``kv_external``, in external memory); call 1+t runs the decoder for the one token at position t. docs/architecture.md,
"Hardware", says what the instructions do; ternbin/mapping/ holds the parts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from ternbin.errors import InputError
from ternbin.hw import HwConfig
from ternbin.ir import Codes, Graph, Lowered, Node
from ternbin.isa import INSTRUCTION_BYTES, UNIT_OF, Instruction, Op, Unit, encode
from ternbin.mapping.attention import attention, project_keys
from ternbin.mapping.call import STAGES, CallBuilder, Keys, keys_shape
from ternbin.mapping.memory import Allocator, CapacityError, Image
from ternbin.mapping.schedule import Item, Sight
from ternbin.mapping.tokenwise import embed, feed_forward, layernorm, lm_head, quantized
from ternbin.program import Call, Probe, Program
from ternbin.sync import insert_tokens

MAX_TOKENS = 4095  # what the instruction fields hold


def map_model(lowered: Lowered, hw: HwConfig, source_len: int, max_new_tokens: int) -> Program:
    """The program for texts of exactly ``source_len`` tokens and at most ``max_new_tokens`` new ones.

    Raises InputError naming op, need and limit for whatever the hardware cannot hold or compute.
    """
    for name, value in (("source_len", source_len), ("max_new_tokens", max_new_tokens)):
        limit = min(MAX_TOKENS, lowered.meta["max_positions"])
        if not 1 <= value <= limit:
            raise InputError(f"{name} must be from 1 to {limit}, not {value}")
    return _Mapping(lowered, hw, source_len, max_new_tokens).run()


@dataclass
class _Mapping:
    """One mapping in progress: what the calls share."""

    lowered: Lowered
    hw: HwConfig
    source_len: int
    max_new_tokens: int
    image: Image = field(default_factory=Image)
    keys: dict[str, Keys] = field(default_factory=dict)  # by cache, cross input or output name

    def run(self) -> Program:
        hw = self.hw
        source = self.image.reserve(self.source_len * hw.axi_bytes)
        target = self.image.reserve((self.max_new_tokens + 1) * hw.axi_bytes)
        writable = (0, self.image.size)
        kbuf = Allocator("KBUF", hw.kbuf_words)
        self._place_keys(kbuf)
        items = [self._encoder(kbuf, source)]
        items += [self._decoder(kbuf, target, step) for step in range(self.max_new_tokens)]
        names: dict[str, int] = {}
        calls, probes = [], []
        for number, call in enumerate(items):
            calls.append(self._assemble(call, names, writable[1]))
            probes += _probes(number, call)
        return Program(
            hw=hw, image=self.image.bytes(), calls=tuple(calls), names=tuple(names), probes=tuple(probes),
            source_addr=source, target_addr=target, source_len=self.source_len, max_new_tokens=self.max_new_tokens,
            writable=(writable,), info=self._info(),
        )

    def _info(self) -> dict:
        meta = self.lowered.meta
        ids = {name: value for name, value in meta.items() if name.endswith("_id")}
        return {"vocab": meta["vocab_size"], "max_positions": meta["max_positions"]} | ids

    def _assemble(self, items: list[Item], names: dict[str, int], writable: int) -> Call:
        """Tokens, encoding, and a place in the image."""
        instructions = insert_tokens(self.hw, [item.instruction for item in items], (writable, 1 << 62))
        data = b"".join(
            _encode(instruction, item.op) for instruction, item in zip(instructions, items, strict=True)
        ) + _encode(Instruction(Op.END), "end")
        ops = [names.setdefault(item.op, len(names)) for item in items]
        ops.append(names.setdefault("end", len(names)))
        return Call(self.image.put(("call", len(self.image.places)), lambda: data), len(ops), tuple(ops))

    # ---- keys and values --------------------------------------------------------------------------------------------

    def _place_keys(self, kbuf: Allocator) -> None:
        """Room for the keys and values that decoding keeps."""
        for node in self.lowered.decoder.nodes():
            for side, transposed in ((1, False), (2, True)):
                source = _side(node, side)
                if source is None or source.name in self.keys:
                    continue
                capacity = self.max_new_tokens if source.op == "cache" else self.source_len
                shape = keys_shape(self.hw, source.type.kind, node["heads"], source.type.shape[-1], capacity, transposed)
                try:
                    address = kbuf.take(shape.size, f"keys and values {source.name}")
                except CapacityError as error:
                    raise InputError(str(error)) from None
                self.keys[source.name] = Keys(**{**shape.__dict__, "addr": address})

    # ---- calls ------------------------------------------------------------------------------------------------------

    def _encoder(self, kbuf: Allocator, ids: int) -> list[Item]:
        def build(b: CallBuilder) -> None:
            self._stack(b, self.lowered.encoder, ids, 0)

        return self._fit(kbuf, self.source_len, 0, build)

    def _decoder(self, kbuf: Allocator, slots: int, step: int) -> list[Item]:
        address = slots + step * self.hw.axi_bytes

        def build(b: CallBuilder) -> None:
            self._stack(b, self.lowered.decoder, address, address + self.hw.axi_bytes)

        return self._fit(kbuf, 1, step, build)

    def _fit(self, kbuf: Allocator, tokens: int, past: int, build: Callable[[CallBuilder], None]) -> list[Item]:
        """Build a call with as few token blocks per stage as fit."""
        blocks = dict.fromkeys(STAGES, 1)
        while True:
            b = CallBuilder(self.hw, self.image, self.lowered.weights, tokens, past, kbuf.copy(), blocks)
            try:
                build(b)
                return b.schedule.items()
            except CapacityError:
                if not b.can_split(b.stage):
                    raise
                blocks[b.stage] += 1

    def _stack(self, b: CallBuilder, graph: Graph, ids: int, result: int) -> None:
        """The instructions of a graph: every op that changes the residual stream or ends a chain pulls in its sources."""
        for node in graph.nodes():
            if node.op == "embed":
                embed(b, node, ids)
            elif node.op == "layernorm":
                self._layernorm(b, node)
            elif node.op == "linear_residual":
                (self._attention if node.src[0].op.startswith("context") else feed_forward)(b, node)
            elif node.op == "output" and isinstance(node.type, Codes):
                self._cross(b, node)
            elif node.op == "lm_head":
                lm_head(b, node, result)

    def _layernorm(self, b: CallBuilder, node: Node) -> None:
        b.check_stream(node, node.src[0])
        layernorm(b, node, 0, b.tokens)
        b.stream = node

    def _cross(self, b: CallBuilder, node: Node) -> None:
        """Keys or values of a cross-attention, kept for all decoder calls."""
        source = node.src[0]
        for first, stop in b.each_block("keys"):
            project_keys(b, source, self.keys[node.name], first, stop)
        b.release(source.src[0])

    def _attention(self, b: CallBuilder, node: Node) -> None:
        context = node.src[0]
        k, v = _side(context.src[0].src[0], 1), _side(context, 2)
        query = context.src[0].src[0].src[0]
        if k.op == "input":
            attention(b, node, self.keys[k.name], self.keys[v.name], self.source_len, [])
            return
        if k.op == "cache":
            keys, values = self.keys[k.name], self.keys[v.name]
            k, v, count = k.src[0], v.src[0], b.past + b.tokens
        else:
            count, heads = b.tokens, context["heads"]
            keys, values = (
                b.new_keys(f"keys and values {x.name}",
                           keys_shape(self.hw, x.type.kind, heads, x.type.shape[-1], count, transposed))
                for x, transposed in ((k, False), (v, True))
            )
        self._projected(b, node, query, (k, keys), (v, values), count)
        if keys.addr not in (shape.addr for shape in self.keys.values()):
            b.kbuf.free(keys.addr)
            b.kbuf.free(values.addr)

    def _projected(self, b: CallBuilder, node: Node, query: Node, k: tuple[Node, Keys], v: tuple[Node, Keys], count: int) -> None:
        """Attention whose keys and values are projected first."""
        if b.blocks["attention"] == b.blocks["keys"] == 1:
            b.stage = "attention"
            quantized(b, query.src[0], 0, b.tokens)
            project_keys(b, *k, 0, b.tokens)
            quantized(b, v[0].src[0], 0, b.tokens)
            attention(b, node, k[1], v[1], count, [lambda: project_keys(b, *v, 0, b.tokens)])
        else:
            for first, stop in b.each_block("keys"):
                for source, region in (k, v):
                    project_keys(b, source, region, first, stop)
                    b.release(source.src[0])
            attention(b, node, k[1], v[1], count, [])
        for source in (k[0].src[0], v[0].src[0]):
            b.release(source)


def _side(node: Node, side: int) -> Node | None:
    """Keys (side 1) of a scores op, values (side 2) of a context op."""
    if side == 1:
        return node.src[1] if node.op == "scores" else None
    return node.src[1] if node.op.startswith("context") else None


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
