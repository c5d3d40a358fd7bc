"""SOFTMAX: scores to probability codes, numerics rules 7 and 8.

Three passes over the scores of a query work at the same time, each on a query of its own: maximum; exponentials, which replace the
scores, and their sum; codes. They read a word a cycle each, from the banks of their queries; where two meet in one bank the later pass
comes first. Up to ``SLOTS`` queries wait between two passes, which hides the latency of reductions and, for 8-bit codes, of divisions.
"""

from amaranth.hdl import Array, C, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, Kind, Op
from ternbin.contract.pipeline import SLOTS
from ternbin.rtl.parts.arithmetic import (
    WIDE,
    ReadBuffer,
    add_tree,
    clip_address,
    instruction_fields,
    round_shift,
    split_lanes,
    tree,
)
from ternbin.rtl.parts.divsqrt import Divide
from ternbin.rtl.parts.interfaces import ReadInterface, ReadPort, Record, Stream, WriteInterface, WritePort
from ternbin.rtl.parts.primitives import instance, shared_inputs
from ternbin.rtl.vector.quant import CODE_BITS

EXP_LANE, CODE_LANE = "ternbin_exp_lane", "ternbin_code_lane"
ENTRIES = 256
ENTRY_BITS = 16
KEY_BITS = 13  # keys a query may see: 4095 + 4094
BEAM_BITS = 4  # of the number of a query in a mask
TOTAL_BITS = ENTRY_BITS + KEY_BITS
RECIP_BITS = 48  # of N
POINT = 36  # fractional bits of R


class ExpTable(wiring.Component):
    """LUTV: 256 x 16 bits, ``rows`` lookups a cycle; ``entry`` follows ``index`` after an enabled edge.

    ``port`` writes beats: address = number of the beat, data = axi_data_bits / 16 entries. ``error``: a beat beyond the table.
    """

    port: WriteInterface
    error: Signal
    enable: Signal
    index: data.View
    entry: data.View

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__(
            {
                "port": In(WritePort(1, hw.axi_data_bits, 1)),
                "error": Out(1),
                "enable": In(1),
                "index": In(data.ArrayLayout(8, hw.rows)),
                "entry": Out(data.ArrayLayout(ENTRY_BITS, hw.rows)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        per_beat = self.hw.axi_data_bits // ENTRY_BITS
        m.submodules.table = table = memory.Memory(shape=ENTRY_BITS, depth=ENTRIES, init=[])
        inside = Signal()
        m.d.comb += [
            inside.eq(self.port.addr < ENTRIES // per_beat),
            self.port.ready.eq(1),
            self.error.eq(self.port.valid & self.port.mask & ~inside),
        ]
        for e in range(per_beat):
            write = table.write_port()
            m.d.comb += [
                write.addr.eq(Cat(Const(e, exact_log2(per_beat)), self.port.addr)),
                write.data.eq(self.port.data.word_select(e, ENTRY_BITS)),
                write.en.eq(self.port.valid & self.port.mask & self.port.lane_mask & inside),
            ]
        for e in range(self.hw.rows):
            read = table.read_port()
            m.d.comb += [read.addr.eq(self.index[e]), read.en.eq(self.enable), self.entry[e].eq(read.data)]
        return m


class ScoreItem(Record):
    addr: Value
    mask: Value
    read: Value
    count: Value
    end: Value
    slot: Value
    mask_addr: Value
    beam: Value


class ScoreWalk(wiring.Component):
    """Score words of a pass, query by query. ``start`` as for Walk.

    A pass ``over_granules`` takes all words that its codes fill, else only those with valid keys. ``count`` keys of a word are valid,
    from the first on; a word without any needs no read (``read`` = 0). ``end``: last word of a query; ``slot``: where its maximum and
    its sum stand. With beams, ``mask_addr`` is the word of the mask that belongs to the scores, and ``beam`` the bit of its elements
    that is the query's.
    """

    start: Signal
    f: data.View
    o: Stream[ScoreItem]

    def __init__(self, hw: HwConfig, over_granules: bool = False):
        self.hw, self.over_granules = hw, over_granules
        super().__init__(
            {
                "start": In(1),
                "f": In(instruction_fields(Op.SOFTMAX)),
                "o": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "addr": ADDR,
                                "mask": hw.cols,
                                "read": 1,
                                "count": exact_log2(hw.rows) + 1,
                                "end": 1,
                                "slot": range(SLOTS),
                                **({"mask_addr": ADDR, "beam": BEAM_BITS} if hw.beams > 1 else {}),
                            }
                        )
                    )
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        f, item, rows = self.f, self.o.payload, self.hw.rows
        row, bank, word, queries_left = Signal(WIDE), Signal(self.hw.cols), Signal(12), Signal(12)
        keys, left, next_keys = Signal(KEY_BITS), Signal(KEY_BITS), Signal(KEY_BITS)
        m.d.comb += [
            item.addr.eq(clip_address(row + word)),
            item.mask.eq(bank),
            item.read.eq(left != 0),
            item.count.eq(Mux(left > rows, rows, left)),
            next_keys.eq(keys + f.causal),
            item.end.eq((word == f.granules - 1) if self.over_granules else (left <= rows)),
        ]
        if self.hw.beams > 1:
            beam = Signal(BEAM_BITS)
            m.d.comb += [item.mask_addr.eq(clip_address(f.mask_addr + word)), item.beam.eq(beam + f.mask_bit)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [word.eq(word + 1), left.eq(Mux(left > rows, left - rows, 0))]
            with m.If(item.end):
                m.d.sync += [
                    word.eq(0),
                    keys.eq(next_keys),
                    left.eq(next_keys),
                    item.slot.eq(item.slot + 1),
                    bank.eq(bank.rotate_left(1)),
                    row.eq(Mux(bank[-1], row + f.src_stride, row)),
                    queries_left.eq(queries_left - 1),
                    self.o.valid.eq(queries_left != 1),
                ]
                if self.hw.beams > 1:
                    m.d.sync += beam.eq(beam + 1)
        with m.If(self.start):
            m.d.sync += [
                self.o.valid.eq(1),
                word.eq(0),
                left.eq(f.keys),
                keys.eq(f.keys),
                queries_left.eq(f.queries),
                row.eq(f.src_addr),
                bank.eq(1),
                item.slot.eq(0),
                *([beam.eq(0)] if self.hw.beams > 1 else []),
            ]
        return m


class ExpLane(wiring.Component):
    """Exponential of a score. With ``advance``, every stage takes what the one before it has: distance (``take``), product
    (``multiply``), table index and exponent, ``exponential`` of the table's ``entry``; 0 unless ``keep``, ``keep2`` as its stage sees it.
    """

    advance: Signal
    take: Signal
    multiply: Signal
    keep: Signal
    keep2: Signal
    score: Signal
    maximum: Signal
    power: Signal
    mul: Signal
    shift: Signal
    index: Signal
    entry: Signal
    exponential: Signal

    def __init__(self, hw: HwConfig):
        self._hw = hw
        score = signed(hw.acc_bits)
        super().__init__(
            {
                "advance": In(1),
                "take": In(1),
                "multiply": In(1),
                "keep": In(1),
                "keep2": In(1),
                "score": In(score),
                "maximum": In(score),
                "power": In(1),
                "mul": In(ENTRY_BITS),
                "shift": In(6),
                "index": Out(8),
                "entry": In(ENTRY_BITS),
                "exponential": Out(ENTRY_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self._hw.acc_bits
        distance, product, scaled = Signal(bits), Signal(bits + ENTRY_BITS), Signal(bits + ENTRY_BITS)
        exponent, exponent1 = Signal(5), Signal(5)
        m.d.comb += scaled.eq(product >> self.shift)
        with m.If(self.power):
            m.d.comb += [self.index.eq(scaled[:8]), exponent.eq(Mux(scaled[8:] > 31, 31, scaled[8:13]))]
        with m.Else():
            m.d.comb += self.index.eq(Mux(scaled[8:].any(), 255, scaled[:8]))
        with m.If(self.take):
            m.d.sync += distance.eq(Mux(self.keep, self.maximum - self.score, 0))
        with m.If(self.multiply):
            m.d.sync += product.eq(distance * self.mul)
        with m.If(self.advance):
            m.d.sync += [exponent1.eq(exponent), self.exponential.eq(Mux(self.keep2, self.entry >> exponent1, 0))]
        return m


class CodeLane(wiring.Component):
    """Code of an exponential, in the cycle after ``load``; of 0 unless ``keep``."""

    load: Signal
    keep: Signal
    exponential: Signal
    c1: Signal
    c2: Signal
    recip: Signal
    uint8: Signal
    binary: Signal
    code: Signal

    def __init__(self, hw: HwConfig):
        super().__init__(
            {
                "load": In(1),
                "keep": In(1),
                "exponential": In(ENTRY_BITS),
                "c1": In(20 + TOTAL_BITS),
                "c2": In(20 + TOTAL_BITS),
                "recip": In(RECIP_BITS),
                "uint8": In(1),
                "binary": In(1),
                "code": Out(CODE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        exponential, above, probability = Signal(ENTRY_BITS), Signal(2), Signal(RECIP_BITS + ENTRY_BITS)
        rounded = Signal(RECIP_BITS + ENTRY_BITS + 1 - POINT)
        m.d.comb += [exponential.eq(Mux(self.keep, self.exponential, 0)), rounded.eq(round_shift(probability, POINT))]
        with m.If(self.load):
            m.d.sync += [
                above.eq(Cat((exponential << 16) > self.c1, (exponential << 16) >= self.c2)),
                probability.eq(Mux(self.uint8, exponential * self.recip, 0)),
            ]
        with m.If(self.uint8):
            m.d.comb += self.code.eq(Mux(rounded > 255, 255, rounded[:8]))
        with m.Elif(self.binary):
            m.d.comb += self.code.eq(Mux(above[0], 1, 0xFF))
        with m.Else():
            m.d.comb += self.code.eq(above[0] + above[1] - 1)
        return m


class Softmax(wiring.Component):
    """SOFTMAX without its writes of codes: these come in the order of the writer's granules. ``start`` (one cycle, when idle), ``f`` must
    stay."""

    start: Signal
    f: data.View
    sbuf_maximum: ReadInterface
    sbuf_sum: ReadInterface
    sbuf_codes: ReadInterface
    sbuf_w: WriteInterface
    lutv_w: WriteInterface
    lutv_error: Signal
    o: Stream[Value]
    pbuf_r: ReadInterface
    ev_max_words: Signal
    ev_exp_words: Signal
    ev_code_words: Signal
    ev_divides: Signal

    def __init__(self, hw: HwConfig):
        self.hw = hw
        scores = ReadPort(hw.cols, hw.score_word_bits)
        super().__init__(
            {
                "start": In(1),
                "f": In(instruction_fields(Op.SOFTMAX)),
                "sbuf_maximum": Out(scores),
                "sbuf_sum": Out(scores),
                "sbuf_codes": Out(scores),
                "sbuf_w": Out(WritePort(hw.cols, hw.score_word_bits, 1)),
                "lutv_w": In(WritePort(1, hw.axi_data_bits, 1)),
                "lutv_error": Out(1),
                "o": Out(stream.Signature(hw.rows * CODE_BITS)),
                **({"pbuf_r": Out(ReadPort(1, hw.param_word_bits))} if hw.beams > 1 else {}),
                "ev_max_words": Out(1),
                "ev_exp_words": Out(1),
                "ev_code_words": Out(1),
                "ev_divides": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        self._mask_ports = []
        every = (1 << SLOTS) - 1
        maxima = Array(Signal(signed(hw.acc_bits), name=f"maximum{i}") for i in range(SLOTS))
        maxima_free, maxima_ready = Signal(SLOTS, init=every), Signal(SLOTS)
        totals_free, totals_ready = Signal(SLOTS, init=every), Signal(SLOTS)
        self._maximum(m, maxima, maxima_free, maxima_ready)
        self._sum(m, maxima, maxima_free, maxima_ready, totals_free, totals_ready)
        self._codes(m, totals_free, totals_ready)
        if hw.beams > 1:
            self._share(m)
        return m

    def _words(self, m: Module, name: str, free: Value | None = None):
        """The scores of a pass. A query is begun when its slot is ``free``. Returns their buffer, whether a word is there, what takes it,
        and its valid keys."""
        hw = self.hw
        m.submodules[f"{name}_walk"] = walk = ScoreWalk(hw)
        tag = data.StructLayout({"count": exact_log2(hw.rows) + 1, "end": 1, "slot": range(SLOTS)})
        m.submodules[f"{name}_buffer"] = buffer = ReadBuffer(hw.cols, hw.score_word_bits, tag)
        wiring.connect(m, wiring.flipped(getattr(self, f"sbuf_{name}")), buffer.port)
        item, request, head = walk.o.payload, buffer.i.payload, buffer.o.payload
        valid, taken = Signal(name=f"{name}_valid"), Signal(name=f"{name}_taken")
        keep, begin = Signal(hw.rows, name=f"{name}_keep"), Signal(name=f"{name}_begin")
        inside = Cat(head.tag.count > e for e in range(hw.rows))
        m.d.comb += [
            walk.start.eq(self.start),
            walk.f.eq(self.f),
            request.addr.eq(item.addr),
            request.read.eq(1),
            request.mask.eq(item.mask),
            *(request.tag[field].eq(item[field]) for field in tag.members),
            begin.eq(walk.o.valid & (C(1, 1) if free is None else free.bit_select(item.slot, 1))),
        ]
        if hw.beams == 1:
            m.d.comb += [
                buffer.i.valid.eq(begin),
                walk.o.ready.eq(buffer.i.ready & begin),
                buffer.o.ready.eq(taken),
                valid.eq(buffer.o.valid),
                keep.eq(inside),
            ]
            return walk, head, valid, taken, keep
        m.submodules[f"{name}_masks"] = masks = ReadBuffer(1, hw.param_word_bits, BEAM_BITS)
        self._mask_ports.append(masks.port)
        had, has = Signal(2, name=f"{name}_had"), Signal(2, name=f"{name}_has")  # buffers that have the walk's item
        seen = Cat(word.bit_select(masks.o.payload.tag, 1) for word in split_lanes(masks.o.payload.data, hw.rows, 16))
        masked = self.f.masked
        m.d.comb += [
            buffer.i.valid.eq(begin & ~had[0]),
            masks.i.valid.eq(begin & ~had[1]),
            has.eq(had | Cat(buffer.i.ready, masks.i.ready)),
            walk.o.ready.eq(begin & has.all()),
            masks.i.payload.addr.eq(item.mask_addr),
            masks.i.payload.mask.eq(1),
            masks.i.payload.read.eq(masked),
            masks.i.payload.tag.eq(item.beam),
            valid.eq(buffer.o.valid & masks.o.valid),
            buffer.o.ready.eq(valid & taken),
            masks.o.ready.eq(valid & taken),
            keep.eq(inside & (seen | (~masked).replicate(hw.rows))),
        ]
        with m.If(begin):
            m.d.sync += had.eq(Mux(has.all(), 0, has))
        return walk, head, valid, taken, keep

    def _share(self, m: Module) -> None:
        """Masks of two passes through one port; those of the sum first."""
        maximum, total = self._mask_ports
        m.d.comb += [
            self.pbuf_r.valid.eq(maximum.valid | total.valid),
            self.pbuf_r.addr.eq(Mux(total.valid, total.addr, maximum.addr)),
            self.pbuf_r.mask.eq(1),
            total.ready.eq(self.pbuf_r.ready),
            maximum.ready.eq(self.pbuf_r.ready & ~total.valid),
            maximum.data.eq(self.pbuf_r.data),
            total.data.eq(self.pbuf_r.data),
        ]

    def _maximum(self, m: Module, maxima, free, ready) -> None:
        """Stage 1: largest valid score of a word. Stage 2: of the query."""
        hw, score = self.hw, signed(self.hw.acc_bits)
        walk, head, take, taken, keep = self._words(m, "maximum", free)
        best, running, overall = (Signal(score, name=name) for name in ("best", "running", "overall"))
        valid, end, slot, started = Signal(), Signal(), Signal(range(SLOTS)), Signal()
        lowest = Const(-(1 << hw.acc_bits - 1), score)

        def larger(a, b) -> Signal:
            """A signal, for an expression that is used twice is built twice."""
            result = Signal(score, name="larger")
            m.d.comb += result.eq(Mux(a > b, a, b))
            return result

        candidates = [Signal(score, name=f"candidate{e}") for e in range(hw.rows)]
        for e, word in enumerate(split_lanes(head.data, hw.rows, hw.acc_bits)):
            m.d.comb += candidates[e].eq(Mux(keep[e], word, lowest))
        m.d.comb += [taken.eq(1), self.ev_max_words.eq(take), overall.eq(Mux(started, larger(running, best), best))]
        m.d.sync += valid.eq(take)
        with m.If(walk.o.valid & walk.o.ready & walk.o.payload.end):
            m.d.sync += free.bit_select(walk.o.payload.slot, 1).eq(0)
        with m.If(take):
            m.d.sync += [best.eq(tree(larger, candidates)), end.eq(head.tag.end), slot.eq(head.tag.slot)]
        with m.If(valid):
            m.d.sync += [running.eq(overall), started.eq(~end)]
            with m.If(end):
                m.d.sync += [maxima[slot].eq(overall), ready.bit_select(slot, 1).eq(1)]

    def _sum(self, m: Module, maxima, maxima_free, maxima_ready, totals_free, totals_ready) -> None:
        """Exponentials, which replace the scores, and their sum."""
        hw, f = self.hw, self.f
        _, head, valid, taken, keep = self._words(m, "sum")
        layout = data.StructLayout({"valid": 1, "end": 1, "slot": range(SLOTS), "keep": hw.rows})
        tags = [Signal(layout, name=f"stage{i}") for i in range(5)]
        advance, take, go = Signal(), Signal(), Signal()
        slot = head.tag.slot
        m.d.comb += [
            taken.eq(advance & maxima_ready.bit_select(slot, 1) & totals_free.bit_select(slot, 1)),
            take.eq(valid & taken),
            self.ev_exp_words.eq(take),
        ]
        with m.If(take & head.tag.end):
            m.d.sync += [
                maxima_ready.bit_select(slot, 1).eq(0),
                maxima_free.bit_select(slot, 1).eq(1),
                totals_free.bit_select(slot, 1).eq(0),
            ]
        with m.If(advance):
            m.d.sync += [
                tags[0].valid.eq(take),
                tags[0].end.eq(head.tag.end),
                tags[0].slot.eq(slot),
                tags[0].keep.eq(keep),
                *(tags[i].eq(tags[i - 1]) for i in range(1, 5)),
            ]
        exponentials = [Signal(ENTRY_BITS, name=f"exponential{e}") for e in range(hw.rows)]
        self._exponentials(m, head, keep, tags, advance, take, maxima[slot], exponentials)
        m.submodules.written = written = ScoreWalk(hw)
        m.d.comb += [
            written.start.eq(self.start),
            written.f.eq(f),
            written.o.ready.eq(self.sbuf_w.valid & self.sbuf_w.ready),
            self.sbuf_w.valid.eq(tags[3].valid & go),
            self.sbuf_w.addr.eq(written.o.payload.addr),
            self.sbuf_w.mask.eq(written.o.payload.mask),
            self.sbuf_w.lane_mask.eq(1),
            self.sbuf_w.data.eq(Cat(Cat(value, C(0, hw.acc_bits - ENTRY_BITS)) for value in exponentials)),
            advance.eq(go & (~tags[3].valid | self.sbuf_w.ready)),
        ]
        self._totals(m, exponentials, tags, advance, go, totals_ready)

    def _exponentials(self, m: Module, head, keep, tags, advance, take, maximum, exponentials) -> None:
        hw, f = self.hw, self.f
        m.submodules.table = table = ExpTable(hw)
        wiring.connect(m, wiring.flipped(self.lutv_w), table.port)
        m.d.comb += [table.enable.eq(advance), self.lutv_error.eq(table.error)]
        common = shared_inputs(
            m,
            {
                "advance": advance,
                "take": take,
                "multiply": advance & tags[0].valid,
                "maximum": maximum,
                "power": f.power,
                "mul": Mux(f.power, f.mul, 1),
                "shift": Mux(f.power, f.shift, 0),
            },
        )
        for e, score in enumerate(split_lanes(head.data, hw.rows, hw.acc_bits)):
            instance(
                m,
                f"lane{e}",
                EXP_LANE,
                **common,
                i_keep=keep[e],
                i_keep2=tags[2].keep[e],
                i_score=score,
                o_index=table.index[e],
                i_entry=table.entry[e],
                o_exponential=exponentials[e],
            )

    def _totals(self, m: Module, exponentials, tags, advance, go, ready) -> None:
        """Sum of the exponentials of a query, then c1*sum and c2*sum, or N/sum, by slot; ``go`` unless the division holds up the next."""
        f, before, last = self.f, tags[3], tags[4]
        m.submodules.divide = divide = Divide(RECIP_BITS, TOTAL_BITS, RECIP_BITS)
        self._factors = c1, c2, recip = [
            Array(Signal(bits, name=f"{name}_{i}") for i in range(SLOTS))
            for name, bits in (("c1_total", 20 + TOTAL_BITS), ("c2_total", 20 + TOTAL_BITS), ("recip", RECIP_BITS))
        ]
        part, running, total, total_next = (
            Signal(TOTAL_BITS, name=n) for n in ("part", "running", "total", "total_next")
        )
        waiting, free, slot, divide_slot = Signal(), Signal(), Signal(range(SLOTS)), Signal(range(SLOTS))
        uint8 = f.kind == Kind.UINT8
        m.d.comb += [
            total_next.eq(running + part),
            free.eq(~waiting | ~uint8 | divide.i.ready),
            go.eq(~(last.valid & last.end) | free),
            divide.i.valid.eq(waiting & uint8),
            divide.i.payload.num.eq(f.recip),
            divide.i.payload.den.eq(total),
            divide.o.ready.eq(1),
            self.ev_divides.eq(divide.o.valid),
        ]
        with m.If(free):
            m.d.sync += waiting.eq(0)
        with m.If(waiting & ~uint8):
            m.d.sync += [c1[slot].eq(total * f.c1), c2[slot].eq(total * f.c2), ready.bit_select(slot, 1).eq(1)]
        with m.If(divide.i.valid & divide.i.ready):
            m.d.sync += divide_slot.eq(slot)
        with m.If(divide.o.valid):
            m.d.sync += [recip[divide_slot].eq(divide.o.payload), ready.bit_select(divide_slot, 1).eq(1)]
        with m.If(advance & before.valid):
            m.d.sync += part.eq(add_tree(exponentials))
        with m.If(advance & last.valid):
            m.d.sync += running.eq(Mux(last.end, 0, total_next))
            with m.If(last.end):
                m.d.sync += [total.eq(total_next), slot.eq(last.slot), waiting.eq(1)]

    def _codes(self, m: Module, free, ready) -> None:
        """Codes of the exponentials that stand where the scores were."""
        hw, f = self.hw, self.f
        m.submodules.codes_walk = walk = ScoreWalk(hw, over_granules=True)
        tag = data.StructLayout({"read": 1, "end": 1, "slot": range(SLOTS)})
        m.submodules.codes_buffer = buffer = ReadBuffer(hw.cols, hw.score_word_bits, tag)
        wiring.connect(m, wiring.flipped(self.sbuf_codes), buffer.port)
        item, request, head, take = walk.o.payload, buffer.i.payload, buffer.o.payload, Signal()
        slot = head.tag.slot
        begin = Signal(name="codes_begin")
        m.d.comb += [
            walk.start.eq(self.start),
            walk.f.eq(f),
            walk.o.ready.eq(buffer.i.ready & begin),
            buffer.i.valid.eq(begin),
            begin.eq(walk.o.valid & ready.bit_select(item.slot, 1)),
            *(request[field].eq(item[field]) for field in ("addr", "read", "mask")),
            *(request.tag[field].eq(item[field]) for field in tag.members),
            buffer.o.ready.eq(~self.o.valid | self.o.ready),
            take.eq(buffer.o.valid & buffer.o.ready),
            self.ev_code_words.eq(take),
        ]
        with m.If(walk.o.valid & walk.o.ready & item.end):
            m.d.sync += ready.bit_select(item.slot, 1).eq(0)
        with m.If(take & head.tag.end):
            m.d.sync += free.bit_select(slot, 1).eq(1)
        with m.If(buffer.o.ready):
            m.d.sync += self.o.valid.eq(take)
        common = shared_inputs(
            m,
            {
                "load": take,
                "keep": head.tag.read,
                "uint8": f.kind == Kind.UINT8,
                "binary": f.kind == Kind.BINARY,
                **{name: array[slot] for name, array in zip(("c1", "c2", "recip"), self._factors, strict=True)},
            },
        )
        for e, exponential in enumerate(split_lanes(head.data, hw.rows, hw.acc_bits)):
            instance(
                m,
                f"code_lane{e}",
                CODE_LANE,
                **common,
                i_exponential=exponential[:ENTRY_BITS],
                o_code=self.o.payload[e * CODE_BITS : (e + 1) * CODE_BITS],
            )
