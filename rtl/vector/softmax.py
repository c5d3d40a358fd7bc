"""SOFTMAX: scores to probability codes, numerics rules 7 and 8.

Three passes over the scores of a query work at the same time, each on a query of its own: maximum; exponentials, which replace the
scores, and their sum; codes. They read a word a cycle each, from the banks of their queries; where two meet in one bank the later pass
comes first. Up to ``SLOTS`` queries wait between two passes, which hides the latency of reductions and, for 8-bit codes, of divisions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from amaranth.hdl import Array, C, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Kind, Op
from ternbin.contract.pipeline import SLOTS
from ternbin.rtl.parts.arithmetic import ReadBuffer, Word, add_tree, instruction_fields, registered, split_lanes, tree
from ternbin.rtl.parts.divsqrt import Divide
from ternbin.rtl.parts.interfaces import ReadInterface, ReadPort, Stream, WriteInterface, WritePort
from ternbin.rtl.parts.primitives import instance, shared_inputs
from ternbin.rtl.vector.quant import CODE_BITS
from ternbin.rtl.vector.scores import ScoreWalk
from ternbin.rtl.vector.softmax_lanes import CODE_LANE, ENTRY_BITS, EXP_LANE, RECIP_BITS, TOTAL_BITS, ExpTable


@dataclass(frozen=True)
class Pass:
    """The scores of a pass.

    ``begin``: the walk's item may be asked for. ``inside``: the elements below the number of keys. ``valid``: a word is there, with valid
    keys ``keep``; ``taken`` takes it.
    """

    walk: ScoreWalk
    buffer: ReadBuffer
    begin: Signal
    inside: Value
    valid: Signal
    taken: Signal
    keep: Signal


class Softmax(wiring.Component):
    """SOFTMAX without its writes of codes: these come in the order of the writer's granules. ``start`` (one cycle, when idle), ``f`` must
    stay. ``fpga`` (constructor): scores are compared four by four, and what the exponentials need of ``f`` comes from registers."""

    Walk: ClassVar[type[ScoreWalk]] = ScoreWalk

    start: Signal
    f: data.View
    sbuf_maximum: ReadInterface
    sbuf_sum: ReadInterface
    sbuf_codes: ReadInterface
    sbuf_w: WriteInterface
    lutv_w: WriteInterface
    lutv_error: Signal
    o: Stream[Value]
    ev_max_words: Signal
    ev_exp_words: Signal
    ev_code_words: Signal
    ev_divides: Signal

    def __init__(self, hw: HwConfig, ports: Mapping[str, wiring.Member] | None = None, *, fpga: bool = False):
        self.hw, self._fpga = hw, fpga
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
                "ev_max_words": Out(1),
                "ev_exp_words": Out(1),
                "ev_code_words": Out(1),
                "ev_divides": Out(1),
                **(ports or {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        every = (1 << SLOTS) - 1
        maxima = Array(Signal(signed(hw.acc_bits), name=f"maximum{i}") for i in range(SLOTS))
        maxima_free, maxima_ready = Signal(SLOTS, init=every), Signal(SLOTS)
        totals_free, totals_ready = Signal(SLOTS, init=every), Signal(SLOTS)
        self._maximum(m, maxima, maxima_free, maxima_ready)
        self._sum(m, maxima, maxima_free, maxima_ready, totals_free, totals_ready)
        self._codes(m, totals_free, totals_ready)
        return m

    def _words(self, m: Module, name: str, free: Value | None = None) -> tuple[ScoreWalk, Word, Signal, Signal, Signal]:
        """The scores of a pass. A query is begun when its slot is ``free``. Returns their buffer, whether a word is there, what takes it,
        and its valid keys."""
        hw = self.hw
        m.submodules[f"{name}_walk"] = walk = self.Walk(hw)
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
        self._join(m, name, Pass(walk, buffer, begin, inside, valid, taken, keep))
        return walk, head, valid, taken, keep

    def _join(self, m: Module, name: str, a: Pass) -> None:
        """Connects walk and buffer of a pass; all keys inside are valid."""
        m.d.comb += [
            a.buffer.i.valid.eq(a.begin),
            a.walk.o.ready.eq(a.buffer.i.ready & a.begin),
            a.buffer.o.ready.eq(a.taken),
            a.valid.eq(a.buffer.o.valid),
            a.keep.eq(a.inside),
        ]

    def _maximum(self, m: Module, maxima: Array, free: Value, ready: Value) -> None:
        """Stage 1: largest valid score of a word. Stage 2: of the query."""
        hw, score = self.hw, signed(self.hw.acc_bits)
        walk, head, take, taken, keep = self._words(m, "maximum", free)
        best, running, overall = (Signal(score, name=name) for name in ("best", "running", "overall"))
        valid, end, slot, started = Signal(), Signal(), Signal(range(SLOTS)), Signal()
        lowest = Const(-(1 << hw.acc_bits - 1), score)

        def larger(a: Value, b: Value) -> Signal:
            """A signal, for an expression that is used twice is built twice."""
            result = Signal(score, name="larger")
            m.d.comb += result.eq(Mux(a > b, a, b))
            return result

        def largest(four: Sequence[Value]) -> Signal:
            """Of up to four: each pair is compared at once."""
            beats = {(i, j): Signal(name="beats") for i in range(len(four)) for j in range(i)}
            wins = [
                Cat(beats[i, j] if j < i else ~beats[j, i] for j in range(len(four)) if j != i)
                for i in range(len(four))
            ]
            result = Signal(score, name="largest")
            m.d.comb += [signal.eq(four[i] > four[j]) for (i, j), signal in beats.items()]
            m.d.comb += result.eq(
                tree(lambda a, b: a | b, [Mux(win.all(), v, 0) for win, v in zip(wins, four, strict=True)])
            )
            return result

        def best_of(values: list[Signal]) -> Value:
            if not self._fpga:
                return tree(larger, values)
            while len(values) > 1:
                values = [largest(values[i : i + 4]) for i in range(0, len(values), 4)]
            return values[0]

        candidates = [Signal(score, name=f"candidate{e}") for e in range(hw.rows)]
        for e, word in enumerate(split_lanes(head.data, hw.rows, hw.acc_bits)):
            m.d.comb += candidates[e].eq(Mux(keep[e], word, lowest))
        m.d.comb += [taken.eq(1), self.ev_max_words.eq(take), overall.eq(Mux(started, larger(running, best), best))]
        m.d.sync += valid.eq(take)
        with m.If(walk.o.valid & walk.o.ready & walk.o.payload.end):
            m.d.sync += free.bit_select(walk.o.payload.slot, 1).eq(0)
        with m.If(take):
            m.d.sync += [best.eq(best_of(candidates)), end.eq(head.tag.end), slot.eq(head.tag.slot)]
        with m.If(valid):
            m.d.sync += [running.eq(overall), started.eq(~end)]
            with m.If(end):
                m.d.sync += [maxima[slot].eq(overall), ready.bit_select(slot, 1).eq(1)]

    def _sum(
        self, m: Module, maxima: Array, maxima_free: Value, maxima_ready: Value, totals_free: Value, totals_ready: Value
    ) -> None:
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
        m.submodules.written = written = self.Walk(hw)
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

    def _exponentials(
        self,
        m: Module,
        head: Word,
        keep: Value,
        tags: list[data.View],
        advance: Value,
        take: Value,
        maximum: Value,
        exponentials: list[Signal],
    ) -> None:
        hw, f = self.hw, self.f
        m.submodules.table = table = ExpTable(hw, fpga=self._fpga)
        wiring.connect(m, wiring.flipped(self.lutv_w), table.port)
        m.d.comb += [table.enable.eq(advance), self.lutv_error.eq(table.error)]
        scale = {"power": f.power, "mul": Mux(f.power, f.mul, 1), "shift": Mux(f.power, f.shift, 0)}
        if self._fpga:  # no score is there in the first cycle of an instruction
            scale = {name: registered(m, value, f"kept_{name}") for name, value in scale.items()}
        common = shared_inputs(
            m,
            {
                "advance": advance,
                "take": take,
                "multiply": advance & tags[0].valid,
                "maximum": maximum,
                **scale,
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

    def _totals(
        self, m: Module, exponentials: list[Signal], tags: list[data.View], advance: Value, go: Value, ready: Value
    ) -> None:
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

    def _codes(self, m: Module, free: Value, ready: Value) -> None:
        """Codes of the exponentials that stand where the scores were."""
        hw, f = self.hw, self.f
        m.submodules.codes_walk = walk = self.Walk(hw, over_granules=True)
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
