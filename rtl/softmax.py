"""SOFTMAX: scores to probability codes, numerics rules 7 and 8.

Each query takes three passes over its scores: maximum, sum of the exponentials, codes (the exponentials again, from the table).
The passes of three queries interleave - maximum of t+1, sum of t, codes of t-1, maximum of t+2, ... - which hides the latency of
the reductions and, for 8-bit codes, of the division.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.hw import HwConfig
from ternbin.isa import ADDR, Kind, Op
from ternbin.rtl.divsqrt import Divide
from ternbin.rtl.interfaces import ReadPort, WritePort
from ternbin.rtl.primitives import instance, shared_inputs
from ternbin.rtl.quant import CODE_BITS
from ternbin.rtl.vector_parts import (
    WIDE,
    ReadBuffer,
    add_tree,
    clip_address,
    instruction_fields,
    round_shift,
    split_lanes,
    tree,
)

LANE = "ternbin_softmax_lane"
ENTRIES = 256
ENTRY_BITS = 16
KEY_BITS = 13  # keys a query may see: 4095 + 4094
BEAM_BITS = 4  # of the number of a query in a mask
MAX_SLOTS = 4  # maxima kept: three queries are under way
SUM_SLOTS = 2
TOTAL_BITS = ENTRY_BITS + KEY_BITS
RECIP_BITS = 48  # of N
POINT = 36  # fractional bits of R


class Pass(enum.Enum, shape=2):
    MAXIMUM = 0
    SUM = 1
    CODES = 2


class ExpTable(wiring.Component):
    """LUTV: 256 x 16 bits, ``rows`` lookups a cycle; ``entry`` follows ``index`` after an enabled edge.

    ``port`` writes beats: address = number of the beat, data = axi_data_bits / 16 entries. ``error``: a beat beyond the table.
    """

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__({
            "port": In(WritePort(1, hw.axi_data_bits, 1)), "error": Out(1), "enable": In(1),
            "index": In(data.ArrayLayout(8, hw.rows)), "entry": Out(data.ArrayLayout(ENTRY_BITS, hw.rows)),
        })

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


class PassOrder(wiring.Component):
    """Score words in the order of the passes. ``start`` as for Walk.

    With beams, ``mask_addr`` is the word of the mask that belongs to them, and ``beam`` the bit of its elements that is the query's.
    ``count`` keys of a word are valid, from the first on; a word without any needs no read (``read`` = 0). ``end``: last word of
    the pass over this query. ``query``: its number modulo MAX_SLOTS.
    """

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__({
            "start": In(1), "f": In(instruction_fields(Op.SOFTMAX)),
            "o": Out(stream.Signature(data.StructLayout({
                "addr": ADDR, "mask": hw.cols, "read": 1, "count": exact_log2(hw.rows) + 1, "end": 1, "step": Pass, "query": 2,
                **({"mask_addr": ADDR, "beam": BEAM_BITS} if hw.beams > 1 else {}),
            }))),
        })

    def elaborate(self, platform):
        m = Module()
        f, item, rows = self.f, self.o.payload, self.hw.rows
        # of the three queries under way, newest first: first word, bank, valid keys, number, whether it exists
        row = [Signal(WIDE, name=f"row{i}") for i in range(3)]
        bank = [Signal(self.hw.cols, init=1, name=f"bank{i}") for i in range(3)]
        keys = [Signal(KEY_BITS, name=f"keys{i}") for i in range(3)]
        number = [Signal(2 if self.hw.beams == 1 else BEAM_BITS, name=f"number{i}") for i in range(3)]
        exists = Signal(3)
        busy, step, skip, advance = Signal(), Signal(Pass), Signal(), Signal()
        queries_left, word, left = Signal(12), Signal(12), Signal(KEY_BITS)
        new_keys = Signal(KEY_BITS)
        here = {Pass.MAXIMUM: 0, Pass.SUM: 1, Pass.CODES: 2}
        with m.Switch(step):
            for one, i in here.items():
                with m.Case(one):
                    m.d.comb += [
                        item.addr.eq(clip_address(row[i] + word)), item.mask.eq(bank[i]), item.query.eq(number[i]), skip.eq(~exists[i]),
                    ]
                    if self.hw.beams > 1:
                        m.d.comb += item.beam.eq(number[i] + f.mask_bit)
        if self.hw.beams > 1:
            m.d.comb += item.mask_addr.eq(clip_address(f.mask_addr + word))
        m.d.comb += [
            self.o.valid.eq(busy & ~skip),
            item.step.eq(step),
            item.read.eq(left != 0),
            item.count.eq(Mux(left > rows, rows, left)),
            item.end.eq(Mux(step == Pass.CODES, word == f.granules - 1, left <= rows)),
            advance.eq(busy & (skip | (self.o.ready & item.end))),
            new_keys.eq(keys[0] + f.causal),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [word.eq(word + 1), left.eq(Mux(left > rows, left - rows, 0))]
        with m.If(advance):
            m.d.sync += word.eq(0)
            with m.Switch(step):
                with m.Case(Pass.MAXIMUM):
                    m.d.sync += [step.eq(Pass.SUM), left.eq(keys[1])]
                with m.Case(Pass.SUM):
                    m.d.sync += [step.eq(Pass.CODES), left.eq(keys[2])]
                with m.Default():
                    m.d.sync += [
                        step.eq(Pass.MAXIMUM), left.eq(new_keys), busy.eq(exists[:2].any()),
                        row[0].eq(Mux(bank[0][-1], row[0] + f.src_stride, row[0])), row[1].eq(row[0]), row[2].eq(row[1]),
                        bank[0].eq(bank[0].rotate_left(1)), bank[1].eq(bank[0]), bank[2].eq(bank[1]),
                        keys[0].eq(new_keys), keys[1].eq(keys[0]), keys[2].eq(keys[1]),
                        number[0].eq(number[0] + 1), number[1].eq(number[0]), number[2].eq(number[1]),
                        exists.eq(Cat(queries_left > 1, exists)),
                        queries_left.eq(Mux(queries_left == 0, 0, queries_left - 1)),
                    ]
        with m.If(self.start):
            m.d.sync += [
                busy.eq(1), step.eq(Pass.MAXIMUM), word.eq(0), left.eq(f.keys), queries_left.eq(f.queries), exists.eq(1),
                row[0].eq(f.src_addr), bank[0].eq(1), keys[0].eq(f.keys), number[0].eq(0),
            ]
        return m


class Lane(wiring.Component):
    """What SOFTMAX does with one score of a word.

    ``candidate``: the score if it counts for the maximum (``keep``), else the lowest number. With ``advance``, every stage takes what
    the one before it has: distance (``take``), product (``multiply``), table index and exponent, ``exponential`` of the table's
    ``entry``, code (``load``); ``keep2``, ``keep3`` are ``keep`` as the exponential's and the code's stage see it.
    """

    def __init__(self, hw: HwConfig):
        self._hw = hw
        score = signed(hw.acc_bits)
        super().__init__({
            "advance": In(1), "take": In(1), "multiply": In(1), "load": In(1), "keep": In(1), "keep2": In(1), "keep3": In(1),
            "score": In(score), "maximum": In(score), "candidate": Out(score), "power": In(1), "mul": In(ENTRY_BITS), "shift": In(6),
            "index": Out(8), "entry": In(ENTRY_BITS), "exponential": Out(ENTRY_BITS),
            "c1": In(20 + TOTAL_BITS), "c2": In(20 + TOTAL_BITS), "recip": In(RECIP_BITS), "uint8": In(1), "binary": In(1),
            "code": Out(CODE_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        bits = self._hw.acc_bits
        distance, product, scaled = Signal(bits), Signal(bits + ENTRY_BITS), Signal(bits + ENTRY_BITS)
        exponent, exponent1 = Signal(5), Signal(5)
        above, probability = Signal(2), Signal(RECIP_BITS + ENTRY_BITS)
        rounded = Signal(RECIP_BITS + ENTRY_BITS + 1 - POINT)
        m.d.comb += [
            self.candidate.eq(Mux(self.keep, self.score, Const(-(1 << bits - 1), signed(bits)))),
            scaled.eq(product >> self.shift), rounded.eq(round_shift(probability, POINT)),
        ]
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
        with m.If(self.load):
            m.d.sync += [
                above.eq(Cat((self.exponential << 16) > self.c1, (self.exponential << 16) >= self.c2) & self.keep3.replicate(2)),
                probability.eq(Mux(self.uint8, self.exponential * self.recip, 0)),
            ]
        with m.If(self.uint8):
            m.d.comb += self.code.eq(Mux(rounded > 255, 255, rounded[:8]))
        with m.Elif(self.binary):
            m.d.comb += self.code.eq(Mux(above[0], 1, 0xFF))
        with m.Else():
            m.d.comb += self.code.eq(above[0] + above[1] - 1)
        return m


class Softmax(wiring.Component):
    """SOFTMAX without its writes: codes in the order of the writer's granules. ``start`` (one cycle, when idle), ``f`` must stay."""

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__({
            "start": In(1), "f": In(instruction_fields(Op.SOFTMAX)), "sbuf_r": Out(ReadPort(hw.cols, hw.score_word_bits)),
            "lutv_w": In(WritePort(1, hw.axi_data_bits, 1)), "lutv_error": Out(1),
            "o": Out(stream.Signature(hw.rows * CODE_BITS)),
            **({"pbuf_r": Out(ReadPort(1, hw.param_word_bits))} if hw.beams > 1 else {}),
            "ev_max_words": Out(1), "ev_exp_words": Out(1), "ev_code_words": Out(1), "ev_divides": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        m.submodules.order = order = PassOrder(hw)
        tag = data.StructLayout({"count": exact_log2(hw.rows) + 1, "end": 1, "step": Pass, "query": 2})
        m.submodules.buffer = buffer = ReadBuffer(hw.cols, hw.score_word_bits, tag)
        wiring.connect(m, wiring.flipped(self.sbuf_r), buffer.port)
        request, head = buffer.i.payload, buffer.o.payload
        m.d.comb += [
            order.start.eq(self.start), order.f.eq(self.f),
            request.addr.eq(order.o.payload.addr), request.read.eq(order.o.payload.read), request.mask.eq(order.o.payload.mask),
            *(request.tag[name].eq(order.o.payload[name]) for name in tag.members),
        ]
        ready = Signal(name="head_ready")
        head_valid, keep = self._words(m, order, buffer, ready)
        advance, take, totals_ready = Signal(), Signal(), Signal(SUM_SLOTS)
        maxima = Array(Signal(signed(hw.acc_bits), name=f"maximum{i}") for i in range(MAX_SLOTS))
        maxima_ready = Signal(MAX_SLOTS)
        maximum_ready = maxima_ready.bit_select(head.tag.query, 1)
        with m.Switch(head.tag.step):
            with m.Case(Pass.MAXIMUM):
                m.d.comb += [ready.eq(1), self.ev_max_words.eq(head_valid)]
            with m.Case(Pass.SUM):
                m.d.comb += [ready.eq(advance & maximum_ready), self.ev_exp_words.eq(take)]
            with m.Default():
                total_ready = totals_ready.bit_select(head.tag.query[0], 1)
                m.d.comb += [ready.eq(advance & maximum_ready & total_ready), self.ev_code_words.eq(take)]
        m.d.comb += take.eq(head_valid & ready & (head.tag.step != Pass.MAXIMUM))
        with m.If(take & head.tag.end & (head.tag.step == Pass.CODES)):
            m.d.sync += [
                maxima_ready.bit_select(head.tag.query, 1).eq(0), totals_ready.bit_select(head.tag.query[0], 1).eq(0),
            ]
        before, last = self._stages(m, head, keep, take, advance)
        exponentials = [Signal(ENTRY_BITS, name=f"exponential{e}") for e in range(hw.rows)]
        factors = self._totals(m, exponentials, before, last, advance, totals_ready)
        candidates = self._lanes(m, head, keep, take, advance, maxima[head.tag.query], factors, exponentials)
        self._maximum(m, head, candidates, head_valid & (head.tag.step == Pass.MAXIMUM), maxima, maxima_ready)
        return m

    def _words(self, m: Module, order, buffer, ready):
        """Connects the buffer of score words, and with beams that of their masks. Returns whether a word is there, and its valid keys."""
        hw, f, head = self.hw, self.f, buffer.o.payload
        keep = Signal(hw.rows)
        inside = Cat(head.tag.count > e for e in range(hw.rows))
        if hw.beams == 1:
            m.d.comb += [
                buffer.i.valid.eq(order.o.valid), order.o.ready.eq(buffer.i.ready), buffer.o.ready.eq(ready), keep.eq(inside),
            ]
            return buffer.o.valid, keep
        m.submodules.masks = masks = ReadBuffer(1, hw.param_word_bits, BEAM_BITS)
        wiring.connect(m, wiring.flipped(self.pbuf_r), masks.port)
        valid, had, has = Signal(name="head_valid"), Signal(2), Signal(2)  # had, has: buffers that have the item of order.o
        seen = Cat(word.bit_select(masks.o.payload.tag, 1) for word in split_lanes(masks.o.payload.data, hw.rows, 16))
        m.d.comb += [
            buffer.i.valid.eq(order.o.valid & ~had[0]), masks.i.valid.eq(order.o.valid & ~had[1]),
            has.eq(had | Cat(buffer.i.ready, masks.i.ready)), order.o.ready.eq(has.all()),
            masks.i.payload.addr.eq(order.o.payload.mask_addr), masks.i.payload.mask.eq(1),
            masks.i.payload.read.eq(order.o.payload.read & f.masked), masks.i.payload.tag.eq(order.o.payload.beam),
            valid.eq(buffer.o.valid & masks.o.valid), buffer.o.ready.eq(valid & ready), masks.o.ready.eq(valid & ready),
            keep.eq(inside & (seen | (~f.masked).replicate(hw.rows))),
        ]
        with m.If(order.o.valid):
            m.d.sync += had.eq(Mux(has.all(), 0, has))
        return valid, keep

    def _maximum(self, m: Module, head, candidates, take, maxima, maxima_ready) -> None:
        """Stage 1: largest candidate of a word. Stage 2: of the query."""
        score = signed(self.hw.acc_bits)
        best, running = Signal(score, name="best"), Signal(score, name="running")
        valid, end, query, started = Signal(), Signal(), Signal(2), Signal()

        def larger(a, b) -> Signal:
            """A signal, for an expression that is used twice is built twice."""
            result = Signal(score, name="larger")
            m.d.comb += result.eq(Mux(a > b, a, b))
            return result

        m.d.sync += valid.eq(take)
        with m.If(take):
            m.d.sync += [best.eq(tree(larger, candidates)), end.eq(head.tag.end), query.eq(head.tag.query)]
        overall = Signal(score, name="overall")
        m.d.comb += overall.eq(Mux(started, larger(running, best), best))
        with m.If(valid):
            m.d.sync += [running.eq(overall), started.eq(~end)]
            with m.If(end):
                m.d.sync += [maxima[query].eq(overall), maxima_ready.bit_select(query, 1).eq(1)]

    def _stages(self, m: Module, head, keep, take, advance):
        """The pipeline of the lanes: their stages' tags. Returns the one behind the exponentials and the last one."""
        layout = data.StructLayout({"valid": 1, "codes": 1, "end": 1, "slot": 1, "keep": self.hw.rows})
        self._tags = tags = [Signal(layout, name=f"stage{i}") for i in range(5)]
        with m.If(advance):
            m.d.sync += [
                tags[0].valid.eq(take), tags[0].codes.eq(head.tag.step == Pass.CODES), tags[0].end.eq(head.tag.end),
                tags[0].slot.eq(head.tag.query[0]), tags[0].keep.eq(keep), *(tags[i].eq(tags[i - 1]) for i in range(1, 5)),
            ]
        m.d.comb += self.o.valid.eq(tags[4].valid & tags[4].codes)
        return tags[3], tags[4]

    def _lanes(self, m: Module, head, keep, take, advance, maximum, factors, exponentials) -> list[Value]:
        """Scores to exponentials and codes, by way of the table. Returns the lanes' candidates for the maximum."""
        hw, f, tags = self.hw, self.f, self._tags
        m.submodules.table = table = ExpTable(hw)
        wiring.connect(m, wiring.flipped(self.lutv_w), table.port)
        m.d.comb += [table.enable.eq(advance), self.lutv_error.eq(table.error)]
        common = shared_inputs(m, {
            "advance": advance, "take": advance & take, "multiply": advance & tags[0].valid,
            "load": advance & tags[3].valid & tags[3].codes, "maximum": maximum, "power": f.power, "mul": Mux(f.power, f.mul, 1),
            "shift": Mux(f.power, f.shift, 0), "uint8": f.kind == Kind.UINT8, "binary": f.kind == Kind.BINARY,
            **{name: array[tags[3].slot] for name, array in zip(("c1", "c2", "recip"), factors, strict=True)},
        })
        candidates = []
        for e, score in enumerate(split_lanes(head.data, hw.rows, hw.acc_bits)):
            candidate = Signal(signed(hw.acc_bits), name=f"candidate{e}")
            instance(
                m, f"lane{e}", LANE, **common, i_keep=keep[e], i_keep2=tags[2].keep[e], i_keep3=tags[3].keep[e],
                i_score=score, o_candidate=candidate, o_index=table.index[e], i_entry=table.entry[e],
                o_exponential=exponentials[e], o_code=self.o.payload[e * CODE_BITS : (e + 1) * CODE_BITS],
            )
            candidates.append(candidate)
        return candidates

    def _totals(self, m: Module, exponentials, before, last, advance, totals_ready):
        """Sum of the exponentials of a query, then c1*sum and c2*sum, or N/sum; arrays of the three, by slot."""
        f = self.f
        m.submodules.divide = divide = Divide(RECIP_BITS, TOTAL_BITS, RECIP_BITS)
        c1, c2, recip = (
            Array(Signal(bits, name=f"{name}_{i}") for i in range(SUM_SLOTS))
            for name, bits in (("c1_total", 20 + TOTAL_BITS), ("c2_total", 20 + TOTAL_BITS), ("recip", RECIP_BITS))
        )
        part, running, total, total_next = (Signal(TOTAL_BITS, name=n) for n in ("part", "running", "total", "total_next"))
        waiting, slot, divide_slot, free = Signal(), Signal(), Signal(), Signal()
        uint8 = f.kind == Kind.UINT8
        ends = last.valid & ~last.codes & last.end
        m.d.comb += [
            total_next.eq(running + part),
            free.eq(~waiting | ~uint8 | divide.i.ready),
            advance.eq(Mux(last.valid & last.codes, self.o.ready, ~ends | free)),
            divide.i.valid.eq(waiting & uint8),
            divide.i.payload.num.eq(f.recip), divide.i.payload.den.eq(total),
            divide.o.ready.eq(1),
            self.ev_divides.eq(divide.o.valid),
        ]
        with m.If(free):
            m.d.sync += waiting.eq(0)
        with m.If(waiting & ~uint8):
            m.d.sync += [
                c1[slot].eq(total * f.c1), c2[slot].eq(total * f.c2), totals_ready.bit_select(slot, 1).eq(1),
            ]
        with m.If(divide.i.valid & divide.i.ready):
            m.d.sync += divide_slot.eq(slot)
        with m.If(divide.o.valid):
            m.d.sync += [recip[divide_slot].eq(divide.o.payload), totals_ready.bit_select(divide_slot, 1).eq(1)]
        with m.If(advance & before.valid & ~before.codes):
            m.d.sync += part.eq(add_tree(exponentials))
        with m.If(advance & last.valid & ~last.codes):
            m.d.sync += running.eq(Mux(last.end, 0, total_next))
            with m.If(last.end):
                m.d.sync += [total.eq(total_next), slot.eq(last.slot), waiting.eq(1)]
        return c1, c2, recip
