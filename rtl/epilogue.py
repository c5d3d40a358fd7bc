"""The epilogue: finished columns to codes, 8-bit codes, residual words, the running arg-max or the best tokens of beams."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.hw import HwConfig
from ternbin.isa import INSTRUCTION_BITS, Kind
from ternbin.rtl.argmax import ArgMax
from ternbin.rtl.code_writer import BYTE_RANGE, ByteWriter, CodeWriter
from ternbin.rtl.gemm import Mode, column_layout, gemm_fields, place_layout
from ternbin.rtl.interfaces import ReadPort, TransposedWritePort, WritePort, events_signature
from ternbin.rtl.params import Parameters
from ternbin.rtl.primitives import popcount
from ternbin.rtl.toptokens import TopTokens
from ternbin.rtl.vector_parts import clip, outside, residual_range, round_shift, split_lanes

MUL_BITS, BIAS_BITS = 24, 40
EVENTS = {
    "stall_write": 1, "drained_codes": 1, "drained_codes8": 1, "drained_residual": 1, "drained_argmax": 1,
    "saturations": 7,
}


class Epilogue(wiring.Component):
    """An elastic pipeline: product or codes, sum, shift, result; a column a cycle (8-bit codes: a column in eight).

    ``busy`` while a column is inside. All requests come from registers. Events count columns taken, by mode, cycles in which a
    write waits, and saturated residual values.
    """

    def __init__(self, hw: HwConfig):
        self._hw = hw
        super().__init__({
            "instruction": In(INSTRUCTION_BITS), "start": In(1), "i": In(stream.Signature(column_layout(hw))), "busy": Out(1),
            "pbuf": Out(ReadPort(1, hw.param_word_bits)), "rbuf_r": Out(ReadPort(1, hw.res_word_bits)),
            "rbuf_w": Out(WritePort(1, hw.res_word_bits, hw.rows)),
            "abuf_w": Out(WritePort(hw.cols, hw.code_word_bits, hw.lanes)),
            "kbuf_w": Out(WritePort(hw.rows, hw.code_word_bits, hw.lanes)),
            "kbuf_t": Out(TransposedWritePort(hw.rows, hw.planes, hw.lanes)),
            "idbuf_w": Out(WritePort(1, 96, 1)), "lutx_w": In(WritePort(1, hw.axi_data_bits, 1)),
            **events_signature(EVENTS),
        })

    def elaborate(self, platform):
        m = Module()
        hw = self._hw
        f = gemm_fields(self.instruction)
        self._mode = mode = Mode(f, hw.beams)
        m.submodules.parameters = parameters = Parameters(hw)
        m.submodules.writer = writer = CodeWriter(hw)
        m.submodules.bytes = byte_writer = ByteWriter(hw)
        sum_bits = max(hw.acc_bits + MUL_BITS, BIAS_BITS) + 1
        for part in (parameters, writer, byte_writer):
            m.d.comb += part.instruction.eq(self.instruction)
        for port, inner in (
            (self.pbuf, parameters.pbuf), (self.abuf_w, writer.abuf_w), (self.kbuf_w, writer.kbuf_w),
            (self.kbuf_t, writer.kbuf_t),
        ):
            wiring.connect(m, wiring.flipped(port), inner)
        wiring.connect(m, wiring.flipped(self.lutx_w), byte_writer.lutx_w)
        m.d.comb += parameters.start.eq(self.start)

        free1, free2, free3, read_done = Signal(), Signal(), Signal(), Signal()
        pop = Signal()
        m.d.comb += [
            self.i.ready.eq(parameters.valid & free1), pop.eq(self.i.valid & self.i.ready),
            parameters.release.eq(pop & self.i.payload.last),
        ]
        valid1, place1 = self._stage(m, "1", free1, pop, self.i.payload)
        nz, neg = self._codes(m, f, parameters.o, pop)
        products, biases = self._products(m, parameters.o, pop)
        valid2, place2 = self._stage(m, "2", free2, valid1 & mode.scaled, place1)
        sums = self._sums(m, free2 & valid1 & mode.scaled, products, biases, sum_bits)
        valid3, place3 = self._stage(m, "3", free3, valid2 & ~mode.logits & read_done, place2)
        bits = max(BYTE_RANGE, hw.res_bits + 2)
        scaled = self._scaled(m, f, valid2, free3 & valid2 & ~mode.logits & read_done, sums, bits)
        old = self._old_values(m, valid2, place2, free3, read_done)
        logits_free, logits_busy = self._logits(m, valid2, place2, sums, sum_bits)
        residual_free, valid4 = self._residual(m, valid3, place3, scaled, old)

        m.d.comb += [
            free1.eq(~valid1 | Mux(mode.scaled, free2, writer.ready)),
            free2.eq(~valid2 | Mux(mode.logits, logits_free, free3 & read_done)),
            free3.eq(~valid3 | Mux(mode.residual, residual_free, byte_writer.i.ready)),
            byte_writer.i.valid.eq(valid3 & mode.codes8), byte_writer.i.payload.place.eq(place3),
            byte_writer.i.payload.values.eq(Cat(clip(x, -(1 << BYTE_RANGE - 1), (1 << BYTE_RANGE - 1) - 1)[:BYTE_RANGE]
                                                for x in scaled)),
            writer.valid.eq(Mux(mode.codes, valid1, byte_writer.valid)), byte_writer.ready.eq(writer.ready),
            writer.addr.eq(Mux(mode.codes, place1.addr, byte_writer.addr)),
            writer.place.eq(Mux(mode.codes, place1, byte_writer.place)),
            writer.nz.eq(Mux(mode.codes, nz, byte_writer.bits)), writer.neg.eq(Mux(mode.codes, neg, 0)),
            self.busy.eq(self.i.valid | valid1 | valid2 | valid3 | valid4 | byte_writer.busy | logits_busy),
        ]
        self._events(m, pop)
        return m

    def _stage(self, m, name, free, valid, place):
        """Valid flag and place of a pipeline stage that takes something whenever it is ``free``."""
        full = Signal(name=f"valid{name}")
        kept = Signal(place_layout(self._hw), name=f"place{name}", reset_less=True)
        with m.If(free):
            m.d.sync += full.eq(valid)
            with m.If(valid):
                m.d.sync += [getattr(kept, member).eq(getattr(place, member)) for member in place_layout(self._hw).members]
        return full, kept

    def _codes(self, m, f, parameters, load):
        """Stage 1, CODES: thresholds to stored codes, two bits a row."""
        nz, neg = (Signal(self._hw.rows, name=name, reset_less=True) for name in ("nz", "neg"))
        binary = f.kind == Kind.BINARY
        for r in range(self._hw.rows):
            acc, code = self.i.payload.values[r], Signal(signed(4), name=f"code{r}")
            terms = [
                Mux((j < f.thresholds) & (acc >= parameters[r].word_select(j, 16).as_signed()),
                    Mux(f.dirs[j], C(1, signed(2)), C(-1, signed(2))), C(0, signed(2))) for j in range(4)
            ]
            positive = code > 0
            with m.If(self.i.valid & self._mode.codes):
                m.d.comb += code.eq(f.base + ((terms[0] + terms[1]) + (terms[2] + terms[3])))
            with m.If(load & self._mode.codes):
                if self._hw.kind == "binary":
                    m.d.sync += nz[r].eq(positive)
                else:
                    m.d.sync += [nz[r].eq(binary | (code != 0)), neg[r].eq(Mux(binary, ~positive, code < 0))]
        return nz, neg

    def _products(self, m, parameters, load):
        """Stage 1: acc*M, and the biases that belong to it."""
        products, biases = [], []
        for r in range(self._hw.rows):
            acc, parameter = self.i.payload.values[r], parameters[r]
            product = Signal(signed(self._hw.acc_bits + MUL_BITS), name=f"product{r}", reset_less=True)
            bias = Signal(signed(BIAS_BITS), name=f"bias{r}", reset_less=True)
            with m.If(load & self._mode.scaled):
                m.d.sync += product.eq(acc * parameter[:MUL_BITS].as_signed())
            with m.If(load & self._mode.scaled & self.i.payload.first):
                m.d.sync += bias.eq(parameter[MUL_BITS:].as_signed())
            products.append(product)
            biases.append(bias)
        return products, biases

    def _sums(self, m, load, products, biases, bits):
        """Stage 2: acc*M + B."""
        sums = []
        for r, (product, bias) in enumerate(zip(products, biases, strict=True)):
            total = Signal(signed(bits), name=f"sum{r}", reset_less=True)
            with m.If(load):
                m.d.sync += total.eq(product + bias)
            sums.append(total)
        return sums

    def _scaled(self, m, f, valid, load, sums, bits):
        """Stage 3: rshift, saturated to ``bits``: enough for every later clip to see which side a value is on."""
        values = []
        for r, total in enumerate(sums):
            value = Signal(signed(bits), name=f"scaled{r}", reset_less=True)
            shifted = Signal.like(total, name=f"shifted{r}")
            with m.If(valid & ~self._mode.logits):
                m.d.comb += shifted.eq(round_shift(total, f.shift))
            with m.If(load):
                m.d.sync += value.eq(clip(shifted, *residual_range(bits)))
            values.append(value)
        return values

    def _logits(self, m, valid, place, sums, bits):
        """Stage 3, ARGMAX and, with beams, TOP. Returns ready and busy."""
        mode, write = self._mode, self.idbuf_w
        m.submodules.argmax = argmax = ArgMax(self._hw, bits)
        takers = [(argmax, mode.argmax)]
        if mode.top is not None:
            m.submodules.top = top = TopTokens(self._hw, bits)
            takers.append((top, mode.top))
        for part, chosen in takers:
            m.d.comb += [
                part.instruction.eq(self.instruction), part.start.eq(self.start), part.i.valid.eq(valid & chosen),
                part.i.payload.place.eq(place), part.i.payload.values.eq(Cat(sums)),
            ]
        if mode.top is None:
            wiring.connect(m, wiring.flipped(write), argmax.idbuf_w)
            return argmax.i.ready, argmax.busy
        for name in ("valid", "addr", "mask", "lane_mask", "data"):
            m.d.comb += getattr(write, name).eq(Mux(mode.top, *(getattr(part.idbuf_w, name) for part in (top, argmax))))
        m.d.comb += [part.idbuf_w.ready.eq(write.ready) for part in (top, argmax)]
        return Mux(mode.top, top.i.ready, argmax.i.ready), argmax.busy | top.busy

    def _old_values(self, m, valid2, place2, free3, done):
        """Reads the residual word of the column in stage 2; returns it as stage 3 sees it.

        The word arrives in the cycle after the request was taken, with the column still in stage 2 or already in stage 3; what
        cannot be used in that cycle is kept.
        """
        word_bits = self._hw.res_word_bits
        taken, now, arrives, moved = Signal(), Signal(), Signal(), Signal()
        kept2, kept3, word2, word3 = (Signal(word_bits, name=f"old_{name}") for name in ("kept2", "kept3", "at2", "at3"))
        m.d.comb += [
            self.rbuf_r.valid.eq(valid2 & self._mode.residual & ~taken), self.rbuf_r.addr.eq(place2.addr),
            self.rbuf_r.mask.eq(1), now.eq(self.rbuf_r.valid & self.rbuf_r.ready),
            done.eq(~self._mode.residual | taken | now),
            word2.eq(Mux(arrives & ~moved, self.rbuf_r.data[0], kept2)),
            word3.eq(Mux(arrives & moved, self.rbuf_r.data[0], kept3)),
        ]
        m.d.sync += [taken.eq((taken | now) & ~free3), arrives.eq(now), moved.eq(free3)]
        with m.If(arrives):
            m.d.sync += [kept2.eq(word2), kept3.eq(word3)]
        with m.If(free3):
            m.d.sync += kept3.eq(word2)
        return word3

    def _residual(self, m, valid3, place3, scaled, old):
        """Stage 4, RESIDUAL: add, saturate, write."""
        hw = self._hw
        low, high = residual_range(hw.res_bits)
        valid, free = Signal(name="valid4"), Signal(name="free4")
        load = Signal(name="load4")
        m.d.comb += [
            free.eq(~valid | self.rbuf_w.ready), load.eq(free & valid3 & self._mode.residual),
            self.rbuf_w.valid.eq(valid), self.rbuf_w.mask.eq(1), self.rbuf_w.lane_mask.eq(~C(0, hw.rows)),
        ]
        words, saturated = [], []
        for value, before in zip(scaled, split_lanes(old, hw.rows, hw.res_bits), strict=True):
            total, word = Signal(signed(len(value) + 1)), Signal(signed(hw.res_container))
            with m.If(valid3 & self._mode.residual):
                m.d.comb += [total.eq(before + value), word.eq(clip(total, low, high))]
            words.append(word)
            saturated.append(outside(total, low, high))
        m.d.comb += self.ev_saturations.eq(Mux(load, popcount(m, "saturations", Cat(saturated)), 0))
        with m.If(free):
            m.d.sync += valid.eq(load)
            with m.If(load):
                m.d.sync += [self.rbuf_w.data.eq(Cat(words)), self.rbuf_w.addr.eq(place3.addr)]
        return free, valid

    def _events(self, m, pop):
        waits = [port.valid & ~port.ready for port in (
            self.rbuf_w, self.abuf_w, self.kbuf_w, self.kbuf_t, self.idbuf_w,
        )]
        m.d.comb += self.ev_stall_write.eq(Cat(waits).any())
        drained = {"codes": self._mode.codes, "codes8": self._mode.codes8, "residual": self._mode.residual, "argmax": self._mode.logits}
        for name, mode in drained.items():
            m.d.comb += getattr(self, f"ev_drained_{name}").eq(pop & mode)
