"""State of one call under construction, and the instructions that move data and multiply."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ternbin.errors import InputError
from ternbin.hw import HwConfig
from ternbin.ir import Node, Residual, Weights
from ternbin.isa import Dest, Instruction, Mem, Op
from ternbin.layout import ceil_div, int_bytes, transfer_words
from ternbin.mapping.fold import operand
from ternbin.mapping.linear import Lanes, Plan, plan_linear
from ternbin.mapping.memory import Allocator, CapacityError, Image
from ternbin.mapping.schedule import Item, Lease, Ring, Schedule, Sight
from ternbin.program import Region, View
from ternbin.qtypes import KINDS

MOST_PARTS, PART_TILES = 4, 8  # a projection is loaded in up to 4 parts of at least 8 row tiles
STAGES = ("embed", "keys", "attention", "feed_forward")


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

    @property
    def plane(self) -> int:
        return self.words


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
    """

    hw: HwConfig
    image: Image
    weights: Weights
    tokens: int
    past: int
    kbuf: Allocator
    blocks: dict[str, int]
    stage: str = ""
    codes: dict[Node, list[Codes]] = field(default_factory=dict)
    stream: Node | None = None  # whose value the residual stream holds

    def __post_init__(self) -> None:
        hw = self.hw
        self.abuf, self.sbuf = Allocator("ABUF", hw.abuf_words), Allocator("SBUF", hw.sbuf_words)
        self.schedule = Schedule(hw.queue_depth)
        self.wbuf, self.pbuf, self.ids = Ring(hw.wbuf_words), Ring(hw.pbuf_words), Ring(hw.idbuf_words)
        self.lutv, self.lutx = Ring(1), Ring(1)

    # ---- instructions -----------------------------------------------------------------------------------------------

    def load(self, op: str, lease: tuple[Ring, Lease] | None, **fields: int) -> None:
        """A LOAD for the next computation, with ``lease`` as early as its room is free."""
        self.schedule.load(Item(Instruction(Op.LOAD, _ints(fields)), op), *(lease or ()))

    def compute(self, opcode: Op, op: str, *leases: Lease, sights: Sequence[Sight] = (), **fields: int) -> None:
        self.schedule.compute(Item(Instruction(opcode, _ints(fields)), op, list(sights)), *leases)

    def each_block(self, stage: str) -> Iterator[tuple[int, int]]:
        """Token ranges of a stage: whole column tiles, but for the last."""
        self.stage = stage
        tiles = ceil_div(self.tokens, self.hw.cols)
        size = ceil_div(tiles, self.blocks[stage]) * self.hw.cols
        for first in range(0, self.tokens, size):
            yield first, min(first + size, self.tokens)

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

    def params(self, op: str, address: int, words: int) -> Lease:
        """Load parameter words; raises InputError where they exceed half of PBUF."""
        if words > self.pbuf.most:
            raise InputError(f"{op}: PBUF words must be at most {self.pbuf.most} (half of PBUF), not {words}")
        lease = self.pbuf.lease(words)
        self.load(op, (self.pbuf, lease), mem=Mem.PBUF, addr=lease.addr, inner=words, outer=1, dram=address)
        return lease

    # ---- codes in ABUF ----------------------------------------------------------------------------------------------

    def new_codes(self, op: str, kind: str, lanes: Lanes, first: int, stop: int, words: int = 0) -> Codes:
        """Room for codes of tokens [first, stop); raises CapacityError."""
        operand(self.hw, kind, op)
        words = words or ceil_div(lanes.extent, self.hw.lanes)
        stride = words * KINDS[kind].planes
        addr = self.abuf.take(ceil_div(stop - first, self.hw.cols) * stride, op)
        return Codes(addr, first, stop, kind, lanes, words, stride)

    def free(self, codes: Codes) -> None:
        self.abuf.free(codes.addr)

    def keep(self, node: Node, codes: Codes) -> None:
        """Let later blocks and stages find these codes of ``node``."""
        self.codes.setdefault(node, []).append(codes)

    def kept(self, node: Node, first: int, stop: int) -> Codes | None:
        return next((c for c in self.codes.get(node, ()) if c.first <= first and stop <= c.stop), None)

    def release(self, node: Node, upto: int | None = None) -> None:
        """Give up the kept codes of ``node``, or those of tokens below ``upto``."""
        codes = self.codes.pop(node, [])
        self.codes[node] = [c for c in codes if upto is not None and c.stop > upto]
        for each in codes:
            if each not in self.codes[node]:
                self.free(each)

    def codes_sight(self, node: Node, c: Codes, part: tuple[tuple[int, int], ...] | None = None) -> Sight:
        """All of the codes, or with ``part`` one head's [1, queries, keys]."""
        tiles = ceil_div(c.stop - c.first, self.hw.cols)
        view = View("tokens", c.stop - c.first, c.lanes.width, c.stride, c.lanes.groups, c.lanes.pitch, c.plane, c.kind,
                    lead=part is not None)
        whole = ((c.first, c.stop), (0, c.lanes.features))
        return Sight(node.name, Region(Mem.ABUF, c.addr, tiles * c.stride, 0, self.hw.cols), view, part or whole)

    # ---- keys and values in KBUF ------------------------------------------------------------------------------------

    def new_keys(self, op: str, shape: Keys) -> Keys:
        operand(self.hw, shape.kind, op)
        try:
            return replace(shape, addr=self.kbuf.take(shape.size, op))
        except CapacityError as error:
            raise InputError(str(error)) from None  # splitting into token blocks does not help

    def keys_sight(self, name: str, k: Keys, first: int, stop: int, at: int = 0) -> Sight:
        """Keys or values [first, stop), which are rows from ``at`` on of tensor ``name``."""
        view = View("transposed" if k.transposed else "keys", stop - first, k.lanes.width, k.stride, k.lanes.groups,
                    k.lanes.pitch, k.plane, k.kind, first=first)
        region = Region(Mem.KBUF, k.addr, k.size, 0, self.hw.rows)
        return Sight(name, region, view, ((at, at + stop - first), (0, k.lanes.features)))

    # ---- residual stream --------------------------------------------------------------------------------------------

    def residual_words(self, features: int) -> int:
        """Words of a token; the stream starts at word 0. Raises InputError where it does not fit."""
        words = ceil_div(features, self.hw.rows)
        if words * self.tokens > self.hw.rbuf_words:
            raise InputError(f"residual stream of {self.tokens} tokens: RBUF words must be at most {self.hw.rbuf_words}, "
                             f"not {words * self.tokens}")
        return words

    def residual_sight(self, node: Node, first: int, stop: int) -> Sight:
        features = node.type.shape[-1]
        words = self.residual_words(features)
        region = Region(Mem.RBUF, first * words, (stop - first) * words)
        return Sight(node.name, region, View("residual", stop - first, features, words), ((first, stop), (0, features)))

    def check_stream(self, node: Node, source: Node) -> None:
        """The stream is updated in place: its present value must be the one that ``node`` reads."""
        if source is not self.stream:
            raise InputError(f"{node.op} {node.name}: residual source must be the stream, not {source.name}")
        if isinstance(node.type, Residual):
            self.check_bits(node)

    def check_bits(self, node: Node) -> None:
        if node.type.bits != self.hw.res_bits:
            raise InputError(f"{node.name}: residual bits must be {self.hw.res_bits} (res_bits), not {node.type.bits}")

    # ---- products ---------------------------------------------------------------------------------------------------

    def columns(self, x: Codes, first: int, stop: int, chunks: int, word: int = 0) -> dict[str, int]:
        """GEMM fields of column operand tokens [first, stop) from word ``word`` on."""
        op = operand(self.hw, x.kind, "column operand")
        assert (first - x.first) % self.hw.cols == 0, "blocks start at column tiles"
        return dict(
            col_addr=x.addr + (first - x.first) // self.hw.cols * x.stride + word, col_stride=x.stride, col_plane=x.plane,
            col_planes=op.planes, col_signed=op.signed, chunks=chunks, tokens=stop - first,
            col_tiles=ceil_div(stop - first, self.hw.cols),
        )

    def plan(self, node: Node, x: Lanes, groups: int = 1) -> Plan:
        return plan_linear(self.hw, self.image, self.weights, node, x, groups)

    def linear(self, plan: Plan, x: Codes, first: int, stop: int, place: Callable[[int], dict[str, int]],
               pitch_tiles: int, sights: Sequence[Sight] = (), tables: Sequence[Lease] = ()) -> None:
        """GEMMs of one linear op, as many weight tiles at a time as half of WBUF and PBUF hold.

        ``place(tile)`` gives the destination fields from row tile ``tile`` on, valid up to the next multiple of
        ``pitch_tiles``.
        """
        size = min(self.wbuf.most // plan.inner, self.pbuf.most // plan.params)
        if size == 0:
            raise InputError(f"{plan.name}: words of a row tile must be at most {self.wbuf.most} of WBUF and "
                             f"{self.pbuf.most} of PBUF (half each), not {plan.inner} and {plan.params}")
        # even where all fits at once, so that the array need not wait for the last row of weights
        parts = max(ceil_div(plan.tiles, size), min(MOST_PARTS, plan.tiles // PART_TILES))
        size = ceil_div(plan.tiles, parts)
        columns = self.columns(x, first, stop, plan.chunks)
        for tile in range(0, plan.tiles, size):
            count = min(size, plan.tiles - tile)
            w, p = self._load_tiles(plan, tile, count)
            start = tile
            while start < tile + count:
                run = min(pitch_tiles - start % pitch_tiles, tile + count - start)
                end = start + run == plan.tiles
                self.compute(
                    Op.GEMM, plan.name, w, p, *tables, sights=sights if end else (), **columns, **plan.fields,
                    row_addr=w.addr + (start - tile) * plan.inner, row_stride=plan.inner, row_planes=1, row_tiles=run,
                    param_addr=p.addr + (start - tile) * plan.params, **place(start),
                )
                start += run

    def _load_tiles(self, plan: Plan, tile: int, count: int) -> tuple[Lease, Lease]:
        rows = self.hw.rows
        w = self.wbuf.lease(count * plan.inner)
        self.load(plan.name, (self.wbuf, w), mem=Mem.WBUF, addr=w.addr, inner=plan.inner, outer=count * rows, stride=plan.row_bytes,
                  dram=plan.weight_addr + tile * rows * plan.row_bytes, expand=plan.expand)
        tile_bytes = plan.params * self.hw.param_word_bits // 8
        return w, self.params(plan.name, plan.param_addr + tile * tile_bytes, count * plan.params)

    def to_tokens(self, plan: Plan, out: Codes) -> dict:
        """``place`` and ``pitch_tiles`` for codes into ABUF."""
        return self._along_lanes(plan, out.addr, out.lanes.pitch, dict(dest=Dest.TOKENS, dst_stride=out.stride,
                                                                       dst_plane=out.plane))

    def to_keys(self, plan: Plan, out: Keys, key: int) -> dict:
        """The same for keys or values into KBUF, the first of them key number ``key``."""
        fields = dict(dst_stride=out.stride, dst_plane=out.plane, key=key)
        if not out.transposed:
            return self._along_lanes(plan, out.addr, out.lanes.pitch, fields | dict(dest=Dest.KEYS))
        fields["dest"] = Dest.TRANSPOSED
        return dict(place=lambda tile: fields | dict(dst_addr=out.addr + tile * out.stride), pitch_tiles=plan.tiles)

    def _along_lanes(self, plan: Plan, addr: int, pitch: int, fields: dict[str, int]) -> dict:
        hw, per_group = self.hw, plan.tiles_per_group
        contiguous = plan.groups == 1 or per_group * hw.rows == pitch

        def place(tile: int) -> dict[str, int]:
            group, within = (0, tile) if contiguous else divmod(tile, per_group)
            lane = group * pitch + within * hw.rows
            return fields | dict(dst_addr=addr + lane // hw.lanes, lane=lane % hw.lanes)

        return dict(place=place, pitch_tiles=plan.tiles if contiguous else per_group)


def _ints(fields: dict[str, object]) -> dict[str, int]:
    return {name: int(value) for name, value in fields.items()}

