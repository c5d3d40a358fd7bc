"""The epilogue: finished columns to codes, 8-bit codes, residual words, the running arg-max or the best tokens of beams."""

from typing import cast

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.counters import EPILOGUE_EVENTS
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS, Kind, Op
from ternbin.contract.memories import ID_WORD_BITS, PARAM_BITS
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.graph.fixedpoint import BIAS_BITS, MUL_BITS
from ternbin.rtl.epilogue.code_writer import BYTE_RANGE, ByteWriter, CodeWriter
from ternbin.rtl.epilogue.params import Parameters
from ternbin.rtl.epilogue.toptokens import logit_units
from ternbin.rtl.parts.arithmetic import (
    add_tree,
    clip,
    clipped_shift,
    instruction_fields,
    outside,
    residual_range,
    round_shift,
    split_lanes,
)
from ternbin.rtl.parts.gemm_fields import Column, Mode, Place, column_layout, gemm_fields, place_layout
from ternbin.rtl.parts.interfaces import (
    ReadInterface,
    ReadPort,
    Stream,
    TransposedInterface,
    TransposedWritePort,
    WriteInterface,
    WritePort,
    events_signature,
)
from ternbin.rtl.parts.primitives import instance, popcount, shared_inputs

LANE = "ternbin_epilogue_lane"


def sum_bits(hw: HwConfig) -> int:
    """Of acc*M + B."""
    return max(hw.acc_bits + MUL_BITS, BIAS_BITS) + 1


class Lane(wiring.Component):
    """What the epilogue does with one accumulator and its ``parameter`` (four of 16 bits, or M and B).

    Stage 1 (``load_code``, ``load_product``, ``load_bias``): stored code ``nz``, ``neg`` by the thresholds; acc*M and the bias. Stage 2
    (``load_sum``): ``sum``, acc*M + B. Stage 3 (``load_scaled``): shifted, enough bits for every later clip to see which side a value
    is on; ``scaled`` is it for the 8-bit codes, ``word`` saturated on top of ``old`` (``saturated``: it was). ``decide``, ``scale``,
    ``add``: whether the logic before the registers works, and that behind the last one. ``fpga`` (constructor): the logic before the
    registers always works; comparisons pick one of sixteen codes, values are clipped while they are rounded.
    """

    acc: Signal
    parameter: Signal
    thresholds: Signal
    base: Signal
    dirs: Signal
    shift: Signal
    binary: Signal
    decide: Signal
    load_code: Signal
    load_product: Signal
    load_bias: Signal
    load_sum: Signal
    scale: Signal
    load_scaled: Signal
    add: Signal
    old: Signal
    nz: Signal
    neg: Signal
    sum: Signal
    scaled: Signal
    word: Signal
    saturated: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        fields = instruction_fields(Op.GEMM).members
        super().__init__(
            {
                "acc": In(signed(hw.acc_bits)),
                "parameter": In(PARAM_BITS * SCALE_WORDS),
                **{name: In(fields[name]) for name in ("thresholds", "base")},
                **{name: In(fields[name]) for name in ("dirs", "shift")},
                "binary": In(1),
                "decide": In(1),
                "load_code": In(1),
                "load_product": In(1),
                "load_bias": In(1),
                "load_sum": In(1),
                "scale": In(1),
                "load_scaled": In(1),
                "add": In(1),
                "old": In(signed(hw.res_bits)),
                "nz": Out(1),
                "neg": Out(1),
                "sum": Out(signed(sum_bits(hw))),
                "scaled": Out(signed(BYTE_RANGE)),
                "word": Out(signed(hw.res_container)),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._code(m)
        self._scaled(m)
        return m

    def _code(self, m: Module) -> None:
        code, nz, neg = Signal(signed(4)), Signal(reset_less=True), Signal(reset_less=True)
        met = [(j < self.thresholds) & (self.acc >= self.parameter.word_select(j, 16).as_signed()) for j in range(4)]
        m.d.comb += [self.nz.eq(nz), self.neg.eq(neg)]
        if self._fpga:
            codes = [Signal(signed(4), name=f"code{n}") for n in range(16)]  # by the thresholds met
            steps = [Mux(self.dirs[j], C(1, signed(2)), C(-1, signed(2))) for j in range(4)]
            for n, each in enumerate(codes):
                m.d.comb += each.eq(
                    self.base + add_tree([C(0, signed(2)), *(steps[j] for j in range(4) if n >> j & 1)])
                )
            stored = [Cat(bits).bit_select(Cat(met), 1) for bits in zip(*map(self._stored, codes), strict=True)]
        else:
            terms = [
                Mux(met[j], Mux(self.dirs[j], C(1, signed(2)), C(-1, signed(2))), C(0, signed(2))) for j in range(4)
            ]
            with m.If(self.decide):
                m.d.comb += code.eq(self.base + ((terms[0] + terms[1]) + (terms[2] + terms[3])))
            stored = self._stored(code)
        with m.If(self.load_code):
            m.d.sync += [bit.eq(value) for bit, value in zip((nz, neg), stored, strict=False)]

    def _stored(self, code: Value) -> list[Value]:
        """Its bit or bits as they are stored: ``nz``, on a ternary array ``neg``."""
        positive = code > 0
        if self._hw.kind == "binary":
            return [positive]
        return [self.binary | (code != 0), Mux(self.binary, ~positive, code < 0)]

    def _scaled(self, m: Module) -> None:
        hw, bits = self._hw, max(BYTE_RANGE, self._hw.res_bits + 2)
        product = Signal(signed(hw.acc_bits + MUL_BITS), reset_less=True)
        bias = Signal(signed(BIAS_BITS), reset_less=True)
        total, shifted = Signal(signed(sum_bits(hw)), reset_less=True), Signal(signed(sum_bits(hw)))
        scaled, result = Signal(signed(bits), reset_less=True), Signal(signed(bits + 1))
        low, high = residual_range(hw.res_bits)
        with m.If(self.load_product):
            m.d.sync += product.eq(self.acc * self.parameter[:MUL_BITS].as_signed())
        with m.If(self.load_bias):
            m.d.sync += bias.eq(self.parameter[MUL_BITS:].as_signed())
        with m.If(self.load_sum):
            m.d.sync += total.eq(product + bias)
        if self._fpga:
            clipped, _ = clipped_shift(total, self.shift, *residual_range(bits))
        else:
            with m.If(self.scale):
                m.d.comb += shifted.eq(round_shift(total, self.shift))
            clipped = clip(shifted, *residual_range(bits))
        with m.If(self.load_scaled):
            m.d.sync += scaled.eq(clipped)
        with m.If(self.add):
            m.d.comb += [result.eq(self.old + scaled), self.word.eq(clip(result, low, high))]
        m.d.comb += [
            self.sum.eq(total),
            self.scaled.eq(clip(scaled, *residual_range(BYTE_RANGE))),
            self.saturated.eq(outside(result, low, high)),
        ]


class Epilogue(wiring.Component):
    """An elastic pipeline: product or codes, sum, shift, result; a column a cycle (8-bit codes: a column in eight).

    ``busy`` while a column is inside. All requests come from registers. Events count columns taken, by mode, cycles in which a
    write waits, and saturated residual values. ``fpga`` (constructor): whether a write is taken is known late, and only picks which
    stages move. ``mode`` (constructor): that of the instruction, if it is decoded.
    """

    instruction: Signal
    start: Signal
    i: Stream[Column]
    busy: Signal
    pbuf: ReadInterface
    rbuf_r: ReadInterface
    rbuf_w: WriteInterface
    abuf_w: WriteInterface
    kbuf_w: WriteInterface
    kbuf_t: TransposedInterface
    idbuf_w: WriteInterface
    lutx_w: WriteInterface
    ev_stall_write: Signal
    ev_saturations: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False, mode: Mode | None = None):
        self._hw, self._fpga, self._decoded = hw, fpga, mode
        super().__init__(
            {
                "instruction": In(INSTRUCTION_BITS),
                "start": In(1),
                "i": In(stream.Signature(column_layout(hw))),
                "busy": Out(1),
                "pbuf": Out(ReadPort(1, hw.param_word_bits)),
                "rbuf_r": Out(ReadPort(1, hw.res_word_bits)),
                "rbuf_w": Out(WritePort(1, hw.res_word_bits, hw.rows)),
                "abuf_w": Out(WritePort(hw.cols, hw.code_word_bits, hw.lanes)),
                "kbuf_w": Out(WritePort(hw.rows, hw.code_word_bits, hw.lanes)),
                "kbuf_t": Out(TransposedWritePort(hw.rows, hw.planes, hw.lanes)),
                "idbuf_w": Out(WritePort(1, ID_WORD_BITS, 1)),
                "lutx_w": In(WritePort(1, hw.axi_data_bits, 1)),
                **events_signature(EPILOGUE_EVENTS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw = self._hw
        f = gemm_fields(self.instruction)
        self._mode = mode = self._decoded or Mode(f, hw.beams)
        m.submodules.parameters = parameters = Parameters(hw, self._decoded)
        m.submodules.writer = writer = CodeWriter(hw, self._decoded)
        m.submodules.bytes = byte_writer = ByteWriter(hw, fpga=self._fpga)
        for part in (parameters, writer, byte_writer):
            m.d.comb += part.instruction.eq(self.instruction)
        for port, inner in (
            (self.pbuf, parameters.pbuf),
            (self.abuf_w, writer.abuf_w),
            (self.kbuf_w, writer.kbuf_w),
            (self.kbuf_t, writer.kbuf_t),
        ):
            wiring.connect(m, wiring.flipped(port), inner)
        wiring.connect(m, wiring.flipped(self.lutx_w), byte_writer.lutx_w)
        m.d.comb += parameters.start.eq(self.start)

        free1, free2, free3, read_done = Signal(), Signal(), Signal(), Signal()
        pop = Signal()
        m.d.comb += [
            self.i.ready.eq(parameters.valid & free1),
            pop.eq(self.i.valid & self.i.ready),
            parameters.release.eq(pop & self.i.payload.last),
        ]
        valid1, place1 = self._stage(m, "1", free1, pop, self.i.payload)
        valid2, place2 = self._stage(m, "2", free2, valid1 & mode.scaled, place1)
        valid3, place3 = self._stage(m, "3", free3, valid2 & ~mode.logits & read_done, place2)
        old = self._old_values(m, valid2, place2, free3, read_done)
        nz, neg, saturated = (Signal(hw.rows, name=name) for name in ("nz", "neg", "saturated"))
        scaled, words = Signal(BYTE_RANGE * hw.rows), Signal(hw.res_word_bits)
        sums = [Signal(signed(sum_bits(hw)), name=f"sum{r}") for r in range(hw.rows)]
        common = shared_inputs(
            m,
            {
                "thresholds": f.thresholds,
                "base": f.base,
                "dirs": f.dirs,
                "binary": f.kind == Kind.BINARY,
                "shift": f.shift,
                "decide": self.i.valid & mode.codes,
                "load_code": pop & mode.codes,
                "load_product": pop & mode.scaled,
                "load_bias": pop & mode.scaled & self.i.payload.first,
                "load_sum": free2 & valid1 & mode.scaled,
                "scale": valid2 & ~mode.logits,
                "load_scaled": free3 & valid2 & ~mode.logits & read_done,
                "add": valid3 & mode.residual,
            },
        )
        for r, before in enumerate(split_lanes(old, hw.rows, hw.res_bits)):
            instance(
                m,
                f"lane{r}",
                LANE,
                **common,
                i_acc=self.i.payload.values[r],
                i_parameter=parameters.o[r],
                i_old=before,
                o_nz=nz[r],
                o_neg=neg[r],
                o_sum=sums[r],
                o_scaled=scaled.word_select(r, BYTE_RANGE),
                o_word=words.word_select(r, hw.res_container),
                o_saturated=saturated[r],
            )
        residual_free, valid4 = self._residual(m, valid3, place3, words, saturated)
        logits_free, logits_busy = self._logits(m, valid2, place2, sums)

        def frees(write: Value, residual: Value, bytes_: Value) -> list[Value]:
            """Which of the stages 1 to 3 take something; of writes of codes, residual words, 8-bit codes."""
            third = ~valid3 | Mux(mode.residual, residual, bytes_)
            second = ~valid2 | Mux(mode.logits, logits_free, third & read_done)
            return [~valid1 | Mux(mode.scaled, second, write), second, third]

        if self._fpga:
            taken = Mux(mode.residual, self.rbuf_w.ready, writer.ready)
            both = zip(frees(C(1), C(1), byte_writer.taken), frees(C(0), ~valid4, byte_writer.refused), strict=True)
            m.d.comb += [free.eq(Mux(taken, *pair)) for free, pair in zip((free1, free2, free3), both, strict=True)]
        else:
            m.d.comb += [
                free1.eq(~valid1 | Mux(mode.scaled, free2, writer.ready)),
                free2.eq(~valid2 | Mux(mode.logits, logits_free, free3 & read_done)),
                free3.eq(~valid3 | Mux(mode.residual, residual_free, byte_writer.i.ready)),
            ]
        m.d.comb += [
            byte_writer.i.valid.eq(valid3 & mode.codes8),
            byte_writer.i.payload.place.eq(place3),
            byte_writer.i.payload.values.eq(scaled),
            writer.valid.eq(Mux(mode.codes, valid1, byte_writer.valid)),
            byte_writer.ready.eq(writer.ready),
            writer.addr.eq(Mux(mode.codes, place1.addr, byte_writer.addr)),
            writer.place.eq(Mux(mode.codes, place1, byte_writer.place)),
            writer.nz.eq(Mux(mode.codes, nz, byte_writer.bits)),
            writer.neg.eq(Mux(mode.codes, neg, 0)),
            self.busy.eq(self.i.valid | valid1 | valid2 | valid3 | valid4 | byte_writer.busy | logits_busy),
        ]
        self._events(m, pop)
        return m

    def _stage(self, m: Module, name: str, free: Value, valid: Value, place: Place) -> tuple[Signal, Place]:
        """Valid flag and place of a pipeline stage that takes something whenever it is ``free``."""
        full = Signal(name=f"valid{name}")
        kept = Signal(place_layout(self._hw), name=f"place{name}", reset_less=True)
        with m.If(free):
            m.d.sync += full.eq(valid)
            with m.If(valid):
                m.d.sync += [
                    getattr(kept, member).eq(getattr(place, member)) for member in place_layout(self._hw).members
                ]
        return full, cast(Place, kept)

    def _logits(self, m: Module, valid: Value, place: Place, sums: list[Signal]) -> tuple[Value, Value]:
        """Stage 3, ARGMAX and, in an accelerator for searches, TOP. Returns ready and busy."""
        mode, write = self._mode, self.idbuf_w
        units = logit_units(self._hw, sum_bits(self._hw))
        chosen = {"argmax": mode.argmax, "top": mode.top}
        for name, unit in units.items():
            m.submodules[name] = unit
            m.d.comb += [
                unit.instruction.eq(self.instruction),
                unit.start.eq(self.start),
                unit.i.valid.eq(valid & chosen[name]),
                unit.i.payload.place.eq(place),
                unit.i.payload.values.eq(Cat(sums)),
            ]

        argmax, top = units["argmax"], units.get("top")
        if top is None or mode.top is None:
            wiring.connect(m, wiring.flipped(write), argmax.idbuf_w)
            return argmax.i.ready, argmax.busy
        for member in ("valid", "addr", "mask", "lane_mask", "data"):
            of_top, of_argmax = (getattr(unit.idbuf_w, member) for unit in (top, argmax))
            m.d.comb += getattr(write, member).eq(Mux(mode.top, of_top, of_argmax))
        m.d.comb += [unit.idbuf_w.ready.eq(write.ready) for unit in (top, argmax)]
        return Mux(mode.top, top.i.ready, argmax.i.ready), argmax.busy | top.busy

    def _old_values(self, m: Module, valid2: Value, place2: Place, free3: Value, done: Value) -> Signal:
        """Reads the residual word of the column in stage 2; returns it as stage 3 sees it.

        The word arrives in the cycle after the request was taken, with the column still in stage 2 or already in stage 3; what
        cannot be used in that cycle is kept.
        """
        word_bits = self._hw.res_word_bits
        taken, now, arrives, moved = Signal(), Signal(), Signal(), Signal()
        kept2, kept3, word2, word3 = (
            Signal(word_bits, name=f"old_{name}") for name in ("kept2", "kept3", "at2", "at3")
        )
        m.d.comb += [
            self.rbuf_r.valid.eq(valid2 & self._mode.residual & ~taken),
            self.rbuf_r.addr.eq(place2.addr),
            self.rbuf_r.mask.eq(1),
            now.eq(self.rbuf_r.valid & self.rbuf_r.ready),
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

    def _residual(
        self, m: Module, valid3: Value, place3: Place, words: Value, saturated: Value
    ) -> tuple[Signal, Signal]:
        """Stage 4, RESIDUAL: the write."""
        valid, free = Signal(name="valid4"), Signal(name="free4")
        load = Signal(name="load4")
        m.d.comb += [
            free.eq(~valid | self.rbuf_w.ready),
            load.eq(free & valid3 & self._mode.residual),
            self.rbuf_w.valid.eq(valid),
            self.rbuf_w.mask.eq(1),
            self.rbuf_w.lane_mask.eq(~C(0, self._hw.rows)),
            self.ev_saturations.eq(Mux(load, popcount(m, "saturations", saturated), 0)),
        ]
        with m.If(free):
            m.d.sync += valid.eq(load)
            with m.If(load):
                m.d.sync += [self.rbuf_w.data.eq(words), self.rbuf_w.addr.eq(place3.addr)]
        return free, valid

    def _events(self, m: Module, pop: Value) -> None:
        waits = [
            port.valid & ~port.ready
            for port in (
                self.rbuf_w,
                self.abuf_w,
                self.kbuf_w,
                self.kbuf_t,
                self.idbuf_w,
            )
        ]
        m.d.comb += self.ev_stall_write.eq(Cat(waits).any())
        drained = {
            "codes": self._mode.codes,
            "codes8": self._mode.codes8,
            "residual": self._mode.residual,
            "argmax": self._mode.logits,
        }
        for name, mode in drained.items():
            m.d.comb += getattr(self, f"ev_drained_{name}").eq(pop & mode)
