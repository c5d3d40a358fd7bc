"""State of one call under construction, and the instructions that move data and multiply."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, islice, pairwise

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Dest, Instruction, Mem, Op
from ternbin.contract.memories import ceil_div
from ternbin.contract.program import Region, View
from ternbin.contract.rows import int_bytes
from ternbin.contract.transfers import transfer_banks, transfer_words
from ternbin.errors import InputError
from ternbin.graph.ir import Node, Residual, Weights, features, is_op
from ternbin.graph.ir import Op as GraphOp
from ternbin.graph.ops.stream import Layernorm
from ternbin.graph.qtypes import KINDS
from ternbin.mapping.allocator import Allocator, BlockError, CapacityError, Image
from ternbin.mapping.fold import operand
from ternbin.mapping.linear import Lanes, Linear, Plan, plan_linear
from ternbin.mapping.resident import NOTHING, Constant, Residents, Seen
from ternbin.mapping.schedule import Item, Lease, Ring, Schedule, Sight

MOST_PARTS, PART_TILES = 4, 8  # a projection is loaded in up to 4 parts of at least 8 row tiles
MANY_TILES = 64  # row tiles of a linear op of which the first and last parts may be small
PIECE_TILES = 2
STAGES: tuple[str, ...] = ("embed", "keys", "attention", "feed_forward")
Steps = list[Callable[[], None]]


@dataclass(frozen=True)
class Codes:
    """Codes of tokens [first, stop) in ABUF: token t in bank (t-first) % cols, ``stride`` words to the next ``cols`` tokens."""

    addr: int
    first: int
    stop: int
    kind: str
    lanes: Lanes
    words: int  # of one plane of one token
    stride: int
    plane: int


@dataclass(frozen=True)
class Keys:
    """Keys or transposed values in KBUF for up to ``capacity`` keys."""

    addr: int
    kind: str
    lanes: Lanes
    transposed: bool
    capacity: int
    plane: int
    stride: int
    size: int

    @property
    def planes(self) -> int:
        return KINDS[self.kind].planes


def keys_shape(hw: HwConfig, kind: str, heads: int, features: int, capacity: int, transposed: bool) -> Keys:
    """Layout, at address 0, of the keys (a head starts a word) or values (a head starts a row tile) of one attention."""
    width = features // heads
    if transposed:
        pitch = ceil_div(width, hw.rows) * hw.rows
        plane, groups = ceil_div(capacity, hw.lanes), heads * pitch // hw.rows
    else:
        pitch = ceil_div(width, hw.lanes) * hw.lanes
        plane, groups = heads * pitch // hw.lanes, ceil_div(capacity, hw.rows)
    stride = plane * KINDS[kind].planes
    return Keys(0, kind, Lanes(heads, width, pitch), transposed, capacity, plane, stride, groups * stride)


@dataclass
class CallBuilder:
    """One call: its schedule, what is where on chip, and the token blocks of each stage.

    ``tokens`` are computed, at positions from ``past`` on. ``blocks`` says into how many parts each stage splits them.
    With a ``mask``, an address in external memory, they are beams at one position; ``past`` then counts the keys before them, and the
    mask says which keys each sees (16 bits a key, a bit a beam). ``sources`` is such a mask of the source tokens of several texts.
    ``residents`` are on chip, or, of the call that ``fills`` them, are loaded once by it.
    """

    hw: HwConfig
    image: Image
    weights: Weights
    tokens: int
    past: int
    kbuf: Allocator
    blocks: dict[str, int]
    users: dict[Node[GraphOp], list[Node[GraphOp]]]
    mask: int | None = None
    sources: int | None = None
    residents: Residents = NOTHING
    fills: bool = False
    pipelined: bool = True  # quantize a piece of tokens for its users as soon as it is normalized
    overlapped: bool = False  # attention to a block of tokens over the feed-forward of the one before
    stage: str = ""
    codes: dict[Node[GraphOp], list[Codes]] = field(default_factory=dict)
    # whose values the stream and the rows beside it hold, token by token
    held: dict[bool, list[Node[GraphOp] | None]] = field(default_factory=dict)
    progress: dict[Node[GraphOp], int] = field(default_factory=dict)  # tokens that a linear op has read
    done: set[Node[GraphOp]] = field(default_factory=set)  # LayerNorms that were computed with what is before them
    seen: Seen = field(default_factory=Seen)
    staying: dict[tuple[Constant, int, int], Lease] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hw = self.hw
        self.abuf, self.sbuf = Allocator("ABUF", hw.plane_words), Allocator("SBUF", hw.sbuf_words)
        self.schedule = Schedule(hw.queue_depth)
        self.wbuf, self.pbuf = (Ring(mem.name, self.residents.ring(hw, mem)) for mem in (Mem.WBUF, Mem.PBUF))
        self.ids, self.lutv, self.lutx = Ring("IDBUF", hw.idbuf_words), Ring("LUTV", 1), Ring("LUTX", 1)
        self.regions = 1 + any(map(self.beside, self.users))  # of RBUF: the stream, and what lies beside it

    # ---- instructions -----------------------------------------------------------------------------------------------

    def load(self, op: str, lease: tuple[Ring, Lease] | None, **fields: int) -> None:
        """A LOAD for the next computation, with ``lease`` as early as its room is free."""
        self.schedule.load(Item(Instruction(Op.LOAD, _ints(fields)), op), lease)

    def compute(self, opcode: Op, op: str, *leases: Lease, sights: Sequence[Sight] = (), **fields: int) -> None:
        self.schedule.compute(Item(Instruction(opcode, _ints(fields)), op, list(sights)), *leases)

    def each_block(self, stage: str) -> Iterator[tuple[int, int]]:
        """Token ranges of a stage: whole column tiles, but for the last."""
        self.stage = stage
        tiles = ceil_div(self.tokens, self.hw.cols)
        size = ceil_div(tiles, self.blocks[stage]) * self.hw.cols
        for first in range(0, self.tokens, size):
            yield first, min(first + size, self.tokens)

    def pieces(self, first: int, stop: int, most: int = MOST_PARTS) -> list[tuple[int, int]]:
        """Parts of a token range that units hand over one by one: up to ``most`` of at least 2 column tiles."""
        tiles = ceil_div(stop - first, self.hw.cols)
        size = ceil_div(tiles, max(1, min(most, tiles // PIECE_TILES))) * self.hw.cols
        return [(start, min(start + size, stop)) for start in range(first, stop, size)]

    def can_split(self, stage: str) -> bool:
        return stage in self.blocks and self.blocks[stage] < ceil_div(self.tokens, self.hw.cols)

    def table(self, op: str, mem: Mem, name: str, entries: int = 256) -> Lease:
        """The lease of a table of which ``entries`` are used, loaded unless it is there already."""
        ring = self.lutv if mem == Mem.LUTV else self.lutx
        known = len(ring.leases)
        lease = ring.lease(1, content=(name, entries))
        if len(ring.leases) > known:
            values = self.weights[name].numpy()[None, :]
            address = self.image.put(("table", name), lambda: int_bytes(values, 2))
            beats = min(transfer_words(self.hw, mem), ceil_div(entries * 16, self.hw.axi_data_bits))
            self.load(op, (ring, lease), mem=mem, inner=beats, outer=1, dram=address)
        return lease

    def params(self, op: str, words: int, content: object, **fields: int) -> Lease:
        """Load parameter words that are others in the next call, unless the last ones loaded have the same ``content`` (None: never);
        ``fields``: of the load. Raises CapacityError where they exceed half of what goes round in PBUF."""
        self.seen.other[Mem.PBUF] = max(words, self.seen.other.get(Mem.PBUF, 0))
        return self._around(op, self.pbuf, words, content, dict(mem=Mem.PBUF) | fields)

    def constant(self, op: str, constant: Constant, tile: int = 0, count: int = 1, **fields: int) -> Lease:
        """Tiles of a constant on chip, loaded unless they stay there or were the last to be loaded; ``fields``: of the load. Raises
        CapacityError where they exceed half of what goes round."""
        words, where = count * constant.words, constant.address + tile * constant.tile_bytes
        key, at = (constant, tile, count), self.residents.address(constant, tile)
        ring = self.wbuf if constant.mem == Mem.WBUF else self.pbuf
        fields |= dict(mem=constant.mem, dram=where)
        if at is None:
            known = len(ring.leases)
            lease = self._around(op, ring, words, key, fields)
            self.seen.tiles[constant] += count * (len(ring.leases) - known)
            return lease
        if key not in self.staying:
            lease = self.staying[key] = Lease(at, frozenset())
            if self.fills:
                self.load(op, (ring, lease), addr=at, **fields)
        return self.staying[key]

    def _around(self, op: str, ring: Ring, words: int, content: object, fields: dict[str, int]) -> Lease:
        if words > ring.most:
            name = ring.name.lower()
            raise CapacityError(
                f"{op}: {ring.name} words must be at most {ring.most} (half of {ring.name}), not {words}",
                f"{name}_words",
                2 * words,
            )
        known = len(ring.leases)
        lease = ring.lease(words, content=content)
        if len(ring.leases) > known:
            self.load(op, (ring, lease), addr=lease.addr, **fields)
        return lease

    @property
    def position(self) -> int:
        """Of the first token, in the text."""
        return self.past if self.mask is None else self.past // self.tokens

    # ---- codes in ABUF ----------------------------------------------------------------------------------------------

    def new_codes(self, op: str, kind: str, lanes: Lanes, first: int, stop: int, words: int = 0) -> Codes:
        """Room for codes of tokens [first, stop); raises BlockError."""
        operand(self.hw, kind, op)
        words = words or ceil_div(lanes.extent, self.hw.lanes)
        whole = self.hw.whole_columns  # then each plane lies in words of its own, which are taken at once
        stride = words if whole else words * KINDS[kind].planes
        addr = self.abuf.take(ceil_div(stop - first, self.hw.cols) * stride, op)
        return Codes(addr, first, stop, kind, lanes, words, stride, self.hw.plane_words if whole else words)

    def free(self, codes: Codes) -> None:
        self.abuf.free(codes.addr)

    def keep(self, node: Node[GraphOp], codes: Codes) -> None:
        """Let later blocks and stages find these codes of ``node``."""
        self.codes.setdefault(node, []).append(codes)

    def kept(self, node: Node[GraphOp], first: int, stop: int) -> Codes | None:
        return next((c for c in self.codes.get(node, ()) if c.first <= first and stop <= c.stop), None)

    def release(self, node: Node[GraphOp], upto: int) -> None:
        """Give up the kept codes of ``node`` of tokens below ``upto``."""
        codes = self.codes.pop(node, [])
        self.codes[node] = [c for c in codes if c.stop > upto]
        for each in codes:
            if each.stop <= upto:
                self.free(each)

    def is_first(self, node: Node[GraphOp], first: int) -> bool:
        """Whether linear op ``node`` is the first to read tokens from ``first`` on of its input: the others find it complete."""
        return all(self.progress.get(user, 0) <= first for user in self.users[node.src[0]])

    def passed(self, node: Node[GraphOp], stop: int) -> None:
        """Linear op ``node`` has read its input up to token ``stop``: give up what no other op needs any more."""
        self.progress[node] = stop
        source = node.src[0]
        self.release(source, min(self.progress.get(user, 0) for user in self.users[source]))

    def codes_sight(
        self, node: Node[GraphOp], c: Codes, first: int, stop: int, head: tuple[tuple[int, int], ...] = ()
    ) -> Sight:
        """Tokens [first, stop) of the codes; with ``head``, its range and that of its keys, of [heads, queries, keys]."""
        view = View(
            "tokens",
            stop - first,
            c.lanes.width,
            c.stride,
            c.lanes.groups,
            c.lanes.pitch,
            c.plane,
            c.kind,
            lead=bool(head),
        )
        start, tiles = (first - c.first) // self.hw.cols, ceil_div(stop - first, self.hw.cols)
        words = (tiles - 1) * c.stride + (KINDS[c.kind].planes - 1) * c.plane + c.words
        region = Region(Mem.ABUF, c.addr + start * c.stride, words, 0, self.hw.cols)
        part = (head[0], (first, stop), head[1]) if head else ((first, stop), (0, c.lanes.features))
        return Sight(node.name, region, view, part)

    # ---- keys and values in KBUF ------------------------------------------------------------------------------------

    def new_keys(self, op: str, shape: Keys) -> Keys:
        operand(self.hw, shape.kind, op)
        try:
            return replace(shape, addr=self.kbuf.take(shape.size, op))
        except BlockError as error:  # splitting into token blocks does not help
            raise CapacityError(str(error), error.field, error.need) from None

    def keys_sight(self, name: str, k: Keys, first: int, stop: int, at: int = 0) -> Sight:
        """Keys or values [first, stop), which are rows from ``at`` on of tensor ``name``."""
        view = View(
            "transposed" if k.transposed else "keys",
            stop - first,
            k.lanes.width,
            k.stride,
            k.lanes.groups,
            k.lanes.pitch,
            k.plane,
            k.kind,
            first=first,
        )
        region = Region(Mem.KBUF, k.addr, k.size, 0, self.hw.rows)
        return Sight(name, region, view, ((at, at + stop - first), (0, k.lanes.features)))

    # ---- residual stream --------------------------------------------------------------------------------------------

    def beside(self, node: Node[GraphOp]) -> bool:
        """Whether a value lies beside the stream: a LayerNorm of what others read too (pre-norm) leaves the stream as it is."""
        return is_op(node, Layernorm) and len(self.users[node.src[0]]) > 1

    def residual_words(self, width: int) -> int:
        """Words of a token. Raises CapacityError where the stream, and what lies beside it, does not fit."""
        words = ceil_div(width, self.hw.rows)
        room = words * self.tokens * self.regions
        if room > self.hw.rbuf_words:
            raise CapacityError(
                f"residual stream of {self.tokens} tokens{' and its LayerNorm' * (self.regions > 1)}: "
                f"RBUF words must be at most {self.hw.rbuf_words}, not {room}",
                "rbuf_words",
                room,
            )
        return words

    def residual_addr(self, node: Node[GraphOp], token: int) -> int:
        """Of a token's words: those of the stream start at word 0, those of a LayerNorm beside it follow."""
        return (token + self.tokens * self.beside(node)) * self.residual_words(features(node.type))

    def residual_sight(self, node: Node[GraphOp], first: int, stop: int) -> Sight:
        width = features(node.type)
        words = self.residual_words(width)
        region = Region(Mem.RBUF, self.residual_addr(node, first), (stop - first) * words)
        return Sight(node.name, region, View("residual", stop - first, width, words), ((first, stop), (0, width)))

    def hold(self, node: Node[GraphOp], first: int, stop: int) -> None:
        """The rows of ``node`` hold its value of tokens [first, stop) from now on."""
        rows = self.held.setdefault(self.beside(node), [None] * self.tokens)
        rows[first:stop] = [node] * (stop - first)

    def check_held(self, node: Node[GraphOp], source: Node, first: int, stop: int) -> None:
        """Rows are written again and again: those of tokens [first, stop) must hold the value that ``node`` reads."""
        rows = self.held.get(self.beside(source), [None] * self.tokens)
        if any(each is not source for each in rows[first:stop]):
            raise InputError(f"{node.where}: residual source must be the stream, not {source.name}")

    def check_stream(self, node: Node[GraphOp], source: Node, first: int, stop: int) -> None:
        """``node`` updates the stream in place: it must hold the value that ``node`` adds to."""
        self.check_held(node, source, first, stop)
        self.check_bits(node)

    def check_bits(self, node: Node[GraphOp]) -> None:
        bits = node.expect(Residual).bits
        if bits != self.hw.res_bits:
            message = f"{node.name}: residual bits must be {self.hw.res_bits} (res_bits), not {bits}"
            raise CapacityError(message, "res_bits", bits)

    # ---- products ---------------------------------------------------------------------------------------------------

    def columns(self, x: Codes, first: int, stop: int, chunks: int, word: int = 0) -> dict[str, int]:
        """GEMM fields of column operand tokens [first, stop) from word ``word`` on."""
        op = operand(self.hw, x.kind, "column operand")
        if (first - x.first) % self.hw.cols:
            raise RuntimeError(f"a block must start at a column tile, not at token {first - x.first}")
        return dict(
            col_addr=x.addr + (first - x.first) // self.hw.cols * x.stride + word,
            col_stride=x.stride,
            col_plane=x.plane,
            col_planes=op.planes,
            col_signed=op.signed,
            chunks=chunks,
            tokens=stop - first,
            col_tiles=ceil_div(stop - first, self.hw.cols),
        )

    def plan(self, node: Node[Linear], x: Lanes, groups: int = 1) -> Plan:
        key = node, x, groups
        if key not in self.image.plans:
            self.image.plans[key] = plan_linear(self.hw, self.image, self.weights, node, x, groups)
        return self.image.plans[key]

    def linear(
        self,
        plan: Plan,
        x: Codes,
        first: int,
        stop: int,
        to: "Destination",
        *,
        fresh: bool = False,
        tables: Sequence[Lease] = (),
        before: Callable[[int], None] | None = None,
        after: Callable[[int, int], None] | None = None,
        most: int = MOST_PARTS,
        fine: int = 0,
        tapered: bool = False,
    ) -> Steps:
        """GEMMs of one linear op on tokens [first, stop), as many weight tiles at a time as half of WBUF and PBUF hold.

        Where ``x`` is ``fresh`` (arrives piece by piece) the first tiles, and where there is an ``after`` the last ones, are
        multiplied in up to ``most`` pieces; ``before(stop)`` goes before tokens up to ``stop`` are read, ``after(first, stop)``
        follows each piece that is complete. With ``fine`` no GEMM takes many more steps than that; ``tapered``: see :meth:`parts`.
        """
        result: Steps = []
        for tiles in self.parts(plan, (0, plan.tiles), tapered=tapered):
            follow = after if tiles[1] == plan.tiles else None
            pieces = self.pieces(first, stop, most) if follow or (fresh and tiles[0] == 0) else [(first, stop)]
            cost = (tiles[1] - tiles[0]) * self.steps_of(plan, x)  # of a column tile
            small = [self._small(*piece, fine // cost) if fine else [piece] for piece in pieces]
            steps = iter(self.steps(plan, x, tiles, [each for own in small for each in own], to, tables))
            for piece, own in zip(pieces, small, strict=True):
                result += [partial(before, piece[1])] if before else []
                result += islice(steps, len(own))
                result += [partial(follow, *piece)] if follow else []
        return result

    def steps_of(self, plan: Plan, x: Codes) -> int:
        """Steps of the array for a row tile and a column tile of a linear op."""
        return plan.chunks * plan.fields["row_planes"] * KINDS[x.kind].planes

    def _small(self, first: int, stop: int, tiles: int) -> list[tuple[int, int]]:
        """Parts of a token range of ``tiles`` column tiles, at least one."""
        size = max(1, tiles) * self.hw.cols
        return [(start, min(start + size, stop)) for start in range(first, stop, size)]

    def parts(self, plan: Plan, tiles: tuple[int, int], *, tapered: bool = False) -> list[tuple[int, int]]:
        """Row tiles [tiles[0], tiles[1]) of a linear op, as many at a time as are loaded together; what stays apart from what does not.

        ``tapered``: the first and the last ones are small where there are many: the array begins early, and ends soon after the last
        weights came.
        """
        ends = (self.residents.tiles(constant) for constant in (plan.weights, plan.params))
        cuts = sorted({*tiles, *(end for end in ends if tiles[0] < end < tiles[1])})
        return [part for piece in pairwise(cuts) for part in self._parts(plan, piece, tapered)]

    def _parts(self, plan: Plan, tiles: tuple[int, int], tapered: bool) -> list[tuple[int, int]]:
        around = [
            (ring, constant.words)
            for ring, constant in ((self.wbuf, plan.weights), (self.pbuf, plan.params))
            if self.residents.address(constant, tiles[0]) is None
        ]
        count = tiles[1] - tiles[0]
        if not around and not self.fills:
            return [tiles]
        size = min((ring.most // words for ring, words in around), default=count)
        if size == 0:
            weights, params = plan.weights.words, plan.params.words
            field, need = ("wbuf_words", weights) if weights > self.wbuf.most else ("pbuf_words", params)
            raise CapacityError(
                f"{plan.name}: words of a row tile must be at most {self.wbuf.most} of WBUF and "
                f"{self.pbuf.most} of PBUF (half each), not {weights} and {params}",
                field,
                2 * need,
            )
        # parts even where all fits at once, so that the array need not wait for the last row of weights
        parts = max(ceil_div(count, size), min(MOST_PARTS, count // PART_TILES))
        cut = _tapered if tapered and count >= MANY_TILES else _equal
        sizes = cut(count, ceil_div(count, parts))
        ends = list(accumulate(sizes, initial=tiles[0]))
        return list(pairwise(ends))

    def steps(
        self,
        plan: Plan,
        x: Codes,
        tiles: tuple[int, int],
        pieces: Sequence[tuple[int, int]],
        to: "Destination",
        tables: Sequence[Lease] = (),
    ) -> Steps:
        """Row tiles of a linear op times each of ``pieces``; the first step also loads the tiles, and so does one that finds them gone."""
        leases: list[Lease] = []

        def step(piece: tuple[int, int]) -> None:
            if not leases or any(lease.gone for lease in leases):
                leases[:] = *self._load_tiles(plan, tiles[0], tiles[1] - tiles[0]), *tables
            self._multiply(plan, x, piece, tiles, leases, to)

        return [partial(step, piece) for piece in pieces]

    def _multiply(
        self,
        plan: Plan,
        x: Codes,
        piece: tuple[int, int],
        tiles: tuple[int, int],
        leases: Sequence[Lease],
        to: "Destination",
    ) -> None:
        """Loaded row tiles times a piece of tokens, one GEMM for each run of tiles that ``to`` can take."""
        w, p, start = leases[0], leases[1], tiles[0]
        columns = self.columns(x, *piece, plan.chunks)
        while start < tiles[1]:
            run = min(to.pitch_tiles - start % to.pitch_tiles, tiles[1] - start)
            self.compute(
                Op.GEMM,
                plan.name,
                *leases,
                sights=to.sights(*piece) if start + run == plan.tiles else (),
                **columns,
                **plan.fields,
                row_addr=w.addr + (start - tiles[0]) * plan.inner,
                row_stride=plan.inner,
                row_tiles=run,
                param_addr=p.addr + (start - tiles[0]) * plan.params.words,
                **to.place(start, piece[0]),
            )
            start += run

    def _load_tiles(self, plan: Plan, tile: int, count: int) -> tuple[Lease, Lease]:
        outer = count * transfer_banks(self.hw, Mem.WBUF, plan.expand)
        fields = dict(inner=plan.inner, outer=outer, stride=plan.row_bytes, expand=plan.expand)
        weights = self.constant(plan.name, plan.weights, tile, count, **fields)
        return weights, self.constant(plan.name, plan.params, tile, count, inner=count * plan.params.words, outer=1)

    def to_tokens(self, plan: Plan, node: Node[GraphOp], out: Codes) -> "Destination":
        """Codes of ``node`` into ABUF."""
        fields = dict(dest=Dest.TOKENS, dst_stride=out.stride, dst_plane=out.plane)
        lanes, pitch_tiles = self._along_lanes(plan, out.lanes.pitch)

        def place(tile: int, token: int) -> dict[str, int]:
            word, lane = lanes(tile)
            return fields | dict(dst_addr=out.addr + (token - out.first) // self.hw.cols * out.stride + word, lane=lane)

        return Destination(place, pitch_tiles, lambda first, stop: [self.codes_sight(node, out, first, stop)])

    def to_keys(self, plan: Plan, node: Node[GraphOp], out: Keys, offset: int) -> "Destination":
        """Keys or values into KBUF; token t is key ``t + offset``."""
        fields = dict(dst_stride=out.stride, dst_plane=out.plane, dest=Dest.TRANSPOSED if out.transposed else Dest.KEYS)
        lanes, pitch_tiles = self._along_lanes(plan, out.lanes.pitch)
        if out.transposed:
            lanes, pitch_tiles = (lambda tile: (tile * out.stride, 0)), plan.tiles

        def place(tile: int, token: int) -> dict[str, int]:
            word, lane = lanes(tile)
            return fields | dict(dst_addr=out.addr + word, lane=lane, key=token + offset)

        return Destination(
            place,
            pitch_tiles,
            lambda first, stop: [self.keys_sight(node.name, out, first + offset, stop + offset, first)],
        )

    def to_stream(self, plan: Plan, node: Node[GraphOp]) -> "Destination":
        """Added to the residual stream."""
        words = self.residual_words(features(node.type))
        return Destination(
            lambda tile, token: dict(dst_addr=self.residual_addr(node, token) + tile, dst_stride=words),
            plan.tiles,
            lambda first, stop: [self.residual_sight(node, first, stop)],
        )

    def _along_lanes(self, plan: Plan, pitch: int) -> tuple[Callable[[int], tuple[int, int]], int]:
        """(word, lane) of the first row of a tile, and the tiles after which that starts anew."""
        hw, per_group = self.hw, plan.tiles_per_group
        contiguous = plan.groups == 1 or per_group * hw.rows == pitch

        def place(tile: int) -> tuple[int, int]:
            group, within = (0, tile) if contiguous else divmod(tile, per_group)
            lane = group * pitch + within * hw.rows
            return lane // hw.lanes, lane % hw.lanes

        return place, plan.tiles if contiguous else per_group


def _equal(count: int, size: int) -> list[int]:
    """Parts of ``size``, the last of what is left."""
    return [min(size, count - start) for start in range(0, count, size)]


def _tapered(count: int, size: int) -> list[int]:
    """Parts of at most ``size`` that double from PART_TILES on, and halve down to it at the end."""
    ends: list[int] = []
    while PART_TILES << len(ends) < size and 2 * (PART_TILES << len(ends) + 1) <= count:
        ends.append(PART_TILES << len(ends))
        count -= 2 * ends[-1]
    return [*ends, *_equal(count, ceil_div(count, ceil_div(count, size))), *reversed(ends)]


@dataclass(frozen=True)
class Destination:
    """Where a linear op's results go: ``place(tile, token)`` gives the GEMM fields from a row tile and token on, good up to the
    next multiple of ``pitch_tiles``; ``sights(first, stop)`` what can be seen once all tiles of these tokens are done."""

    place: Callable[[int, int], dict[str, int]]
    pitch_tiles: int
    sights: Callable[[int, int], list[Sight]]


def _ints(fields: dict[str, int]) -> dict[str, int]:
    return {name: +value for name, value in fields.items()}  # of an enumeration and of a truth value, too
