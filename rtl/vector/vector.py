"""Vector unit: LAYERNORM, SOFTMAX, QUANT and EMBED on ``rows`` lanes, one instruction at a time."""

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ternbin.contract.counters import VECTOR_EVENTS
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS, UNIT_OF, Op, Unit
from ternbin.rtl.parts.arithmetic import fields_of
from ternbin.rtl.parts.interfaces import (
    ReadInterface,
    ReadPort,
    UnitInterface,
    UnitPort,
    WriteInterface,
    WritePort,
    events_signature,
)
from ternbin.rtl.parts.legality import impossible as refused
from ternbin.rtl.vector.layernorm import LayerNorm
from ternbin.rtl.vector.masked_softmax import MaskedSoftmax
from ternbin.rtl.vector.quant import CodeWriter, Embed, Quant
from ternbin.rtl.vector.softmax import Softmax

SCORES = ("sbuf_codes", "sbuf_sum", "sbuf_maximum")  # ports that read SBUF, the first to be served first


class State(enum.Enum, shape=3):
    IDLE = 0
    CHECK = 1  # start, or fault
    RUN = 2
    DONE = 3


class VectorUnit(wiring.Component):
    """See docs/instruction-set.md, "Vector unit".

    ``fault``: an opcode of another unit, or fields that break a rule of ``contract.effects.vector``.
    ``lutv_w`` takes one beat of the exp table (address: number
    of the beat) every cycle; ``lutv_error`` is a pulse for a beat beyond the table.

    Words a cycle, undisturbed: LAYERNORM reads each residual word twice (sums, normalisation), SOFTMAX each score word three
    times, a word of each of three queries a cycle where these lie in three banks; QUANT and EMBED once, one word a cycle. Of four
    tokens together LAYERNORM takes at least 4 cycles per word for parameters, of each token at least 14 for the reciprocal root; an
    8-bit code word takes 8 writes; each query of a uint8 SOFTMAX at least 26 cycles for its division.

    ``fpga`` (constructor): an instruction is checked, and its opcode decoded, while it is taken.
    """

    port: UnitInterface
    rbuf_r: ReadInterface
    rbuf_w: WriteInterface
    sbuf_w: WriteInterface
    pbuf_r: ReadInterface
    abuf_r: ReadInterface
    abuf_w: WriteInterface
    lutv_w: WriteInterface
    lutv_error: Signal
    ev_ln_sum_words: Signal
    ev_ln_norm_words: Signal
    ev_ln_rsqrt: Signal
    ev_softmax_max_words: Signal
    ev_softmax_exp_words: Signal
    ev_softmax_code_words: Signal
    ev_divides: Signal
    ev_quant_words: Signal
    ev_embed_words: Signal
    ev_plane_writes: Signal
    ev_stall_read: Signal
    ev_stall_write: Signal
    ev_saturations: Signal

    EVENTS = VECTOR_EVENTS

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        if bits_for(hw.rows) > self.EVENTS["saturations"]:
            raise ValueError(f"rows must be counted by {self.EVENTS['saturations']} bits, not be {hw.rows}")
        self.hw, self._fpga = hw, fpga
        super().__init__(
            {
                "port": In(UnitPort()),
                "rbuf_r": Out(ReadPort(1, hw.res_word_bits)),
                "rbuf_w": Out(WritePort(1, hw.res_word_bits, hw.rows)),
                **{name: Out(ReadPort(hw.cols, hw.score_word_bits)) for name in SCORES},
                "sbuf_w": Out(WritePort(hw.cols, hw.score_word_bits, 1)),
                "pbuf_r": Out(ReadPort(1, hw.param_word_bits)),
                "abuf_r": Out(ReadPort(hw.cols, hw.code_word_bits)),
                "abuf_w": Out(WritePort(hw.cols, hw.code_word_bits, hw.lanes)),
                "lutv_w": In(WritePort(1, hw.axi_data_bits, 1)),
                "lutv_error": Out(1),
                **events_signature(self.EVENTS),
            }
        )

    @property
    def awake(self) -> Value:
        """Whether the unit needs its clock."""
        return self.port.busy | self.port.instruction.valid | self.lutv_w.valid

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        m.submodules.layernorm = layernorm = LayerNorm(hw, fpga=self._fpga)
        m.submodules.softmax = softmax = (Softmax if hw.search is None else MaskedSoftmax)(hw, fpga=self._fpga)
        m.submodules.quant = quant = Quant(hw)
        m.submodules.embed = embed = Embed(hw)
        m.submodules.writer = writer = CodeWriter(hw)
        instruction, state, start = Signal(INSTRUCTION_BITS), Signal(State), Signal()
        opcode = instruction[:8]
        mine = [op for op, unit in UNIT_OF.items() if unit == Unit.VECTOR]
        if self._fpga:
            impossible, chosen = Signal(), Signal(range(len(mine)))
            m.d.sync += impossible.eq(refused(hw, self.port.instruction.payload, *mine))
        else:
            impossible, chosen = refused(hw, instruction, *mine), opcode
        numbers = {op: number if self._fpga else int(op) for number, op in enumerate(mine)}
        done = layernorm.done | embed.done | writer.done
        m.d.comb += [
            self.port.instruction.ready.eq(state == State.IDLE),
            self.port.busy.eq(state != State.IDLE),
            self.port.fault.eq((state == State.CHECK) & impossible),
            start.eq((state == State.CHECK) & ~impossible),
            self.port.done.eq(state == State.DONE),
        ]
        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(self.port.instruction.valid):
                    m.d.sync += [instruction.eq(self.port.instruction.payload), state.eq(State.CHECK)]
                    if self._fpga:
                        with m.Switch(self.port.instruction.payload[:8]):
                            for op, number in numbers.items():
                                with m.Case(op):
                                    m.d.sync += chosen.eq(number)
            with m.Case(State.CHECK):
                m.d.sync += state.eq(Mux(impossible, State.IDLE, State.RUN))
            with m.Case(State.RUN):
                with m.If(done):
                    m.d.sync += state.eq(State.DONE)
            with m.Default():
                m.d.sync += state.eq(State.IDLE)
        engines = {Op.LAYERNORM: layernorm, Op.SOFTMAX: softmax, Op.QUANT: quant, Op.EMBED: embed}
        for op, engine in engines.items():
            m.d.comb += [engine.start.eq(start & (chosen == numbers[op])), engine.f.eq(fields_of(instruction, op))]
        is_quant = chosen == numbers[Op.QUANT]
        writes = is_quant | (chosen == numbers[Op.SOFTMAX])
        self._writer(m, writer, start & writes, instruction, is_quant, quant, softmax)
        self._memories(m, chosen, numbers, layernorm, embed, quant, softmax, writer)
        self._events(m, layernorm, embed, quant, softmax, writer)
        return m

    def _writer(
        self,
        m: Module,
        writer: CodeWriter,
        start: Value,
        instruction: Value,
        is_quant: Value,
        quant: Quant,
        softmax: Softmax,
    ) -> None:
        """QUANT and SOFTMAX share the writer of codes."""
        q, s = fields_of(instruction, Op.QUANT), fields_of(instruction, Op.SOFTMAX)
        m.d.comb += [
            writer.start.eq(start),
            *(
                getattr(writer, name).eq(Mux(is_quant, q[name], s[name]))
                for name in ("dst_addr", "dst_stride", "dst_plane", "kind")
            ),
            writer.tokens.eq(Mux(is_quant, q.tokens, s.queries)),
            writer.words.eq(Mux(is_quant, q.words, s.granules)),
            writer.features.eq(Mux(is_quant, q.features, s.granules << exact_log2(self.hw.rows))),
            writer.i.valid.eq(Mux(is_quant, quant.o.valid, softmax.o.valid)),
            writer.i.payload.eq(Mux(is_quant, quant.o.payload, softmax.o.payload)),
            quant.o.ready.eq(writer.i.ready & is_quant),
            softmax.o.ready.eq(writer.i.ready & ~is_quant),
        ]

    def _memories(
        self,
        m: Module,
        chosen: Value,
        numbers: dict[Op, int],
        layernorm: LayerNorm,
        embed: Embed,
        quant: Quant,
        softmax: Softmax,
        writer: CodeWriter,
    ) -> None:
        for name in (*SCORES, "sbuf_w", "lutv_w"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(softmax, name))
        for mine, inner in ((self.abuf_r, embed.abuf_r), (self.abuf_w, writer.port)):
            wiring.connect(m, wiring.flipped(mine), inner)
        m.d.comb += self.lutv_error.eq(softmax.lutv_error)
        shared = (
            (self.rbuf_r, {Op.LAYERNORM: layernorm.rbuf_r, Op.QUANT: quant.rbuf_r, Op.EMBED: embed.rbuf_r}),
            (
                self.pbuf_r,
                {Op.LAYERNORM: layernorm.pbuf_r, Op.EMBED: embed.pbuf_r}
                | ({Op.SOFTMAX: softmax.pbuf_r} if isinstance(softmax, MaskedSoftmax) else {}),
            ),
            (self.rbuf_w, {Op.LAYERNORM: layernorm.rbuf_w, Op.EMBED: embed.rbuf_w}),
        )
        for mine, users in shared:
            with m.Switch(chosen):
                for op, inner in users.items():
                    with m.Case(numbers[op]):
                        wiring.connect(m, wiring.flipped(mine), inner)

    def _events(
        self, m: Module, layernorm: LayerNorm, embed: Embed, quant: Quant, softmax: Softmax, writer: CodeWriter
    ) -> None:
        reads = (self.rbuf_r, *(getattr(self, name) for name in SCORES), self.pbuf_r, self.abuf_r)
        writes = (self.rbuf_w, self.abuf_w, self.sbuf_w)
        waits = lambda ports: sum((port.valid & ~port.ready for port in ports), Const(0, 1)) != 0  # noqa: E731
        m.d.comb += [
            self.ev_ln_sum_words.eq(layernorm.ev_sum_words),
            self.ev_ln_norm_words.eq(layernorm.ev_norm_words),
            self.ev_ln_rsqrt.eq(layernorm.ev_rsqrt),
            self.ev_softmax_max_words.eq(softmax.ev_max_words),
            self.ev_softmax_exp_words.eq(softmax.ev_exp_words),
            self.ev_softmax_code_words.eq(softmax.ev_code_words),
            self.ev_divides.eq(softmax.ev_divides),
            self.ev_quant_words.eq(quant.ev_words),
            self.ev_embed_words.eq(embed.ev_words),
            self.ev_plane_writes.eq(self.abuf_w.valid & self.abuf_w.ready & Value.cast(writer.kind)[1]),
            self.ev_stall_read.eq(waits(reads)),
            self.ev_stall_write.eq(waits(writes)),
            # one operation at a time: the others count nothing
            self.ev_saturations.eq(layernorm.ev_saturations | embed.ev_saturations | quant.ev_saturations),
        ]
