"""QUANT and EMBED: between codes and the residual stream; and the writer of code words both QUANT and SOFTMAX use."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, STRIDE, Kind, Op
from ternbin.rtl.parts.arithmetic import (
    COUNT,
    ReadBuffer,
    Walk,
    WalkItem,
    Word,
    clip,
    clip_address,
    clipped_shift,
    instruction_fields,
    outside,
    residual_range,
    round_shift,
    split_lanes,
)
from ternbin.rtl.parts.interfaces import ReadInterface, ReadPort, Stream, WriteInterface, WritePort
from ternbin.rtl.parts.primitives import instance, popcount, shared_inputs

QUANT_LANE, EMBED_LANE = "ternbin_quant_lane", "ternbin_embed_lane"
CODE_BITS = 8  # a code between the parts of the vector unit: two's complement, or unsigned for UINT8


class CodeWriter(wiring.Component):
    """Writes codes to ABUF as TOKENS: granule w of token t, ``rows`` codes each, in order; 8-bit kinds plane by plane.

    ``start`` (one cycle, when idle) begins ``tokens`` x ``words`` granules; the other inputs must then stay. Codes of features
    at or beyond ``features`` are written as all-zero bits. ``done`` is a pulse in the cycle in which the last write is taken.
    """

    start: Signal
    dst_addr: Signal
    dst_stride: Signal
    dst_plane: Signal
    kind: Signal
    tokens: Signal
    words: Signal
    features: Signal
    done: Signal
    i: Stream[Value]
    port: WriteInterface

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__(
            {
                "start": In(1),
                "dst_addr": In(ADDR),
                "dst_stride": In(STRIDE),
                "dst_plane": In(STRIDE),
                "kind": In(Kind),
                "tokens": In(COUNT),
                "words": In(COUNT),
                "features": In(20),
                "done": Out(1),
                "i": In(stream.Signature(hw.rows * CODE_BITS)),
                "port": Out(WritePort(hw.cols, hw.code_word_bits, hw.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw, port = self.hw, self.port
        groups = hw.lanes // hw.rows
        m.submodules.walk = walk = Walk(banks=hw.cols, sub=groups, elements=hw.rows)
        codes, valid = Signal(hw.rows * CODE_BITS), Signal()
        plane, offset = Signal(exact_log2(CODE_BITS)), Signal(STRIDE + 3)
        one_write, last_plane, finish = Signal(), Signal(), Signal()
        m.d.comb += [
            walk.start.eq(self.start),
            walk.base.eq(self.dst_addr),
            walk.stride.eq(self.dst_stride),
            walk.outer.eq(self.tokens),
            walk.inner.eq(self.words),
            walk.features.eq(self.features),
            one_write.eq((self.kind == Kind.TERNARY) | (self.kind == Kind.BINARY)),
            last_plane.eq(one_write | plane.all()),
            port.valid.eq(valid & walk.o.valid),
            finish.eq(port.valid & port.ready & last_plane),
            walk.o.ready.eq(finish),
            self.i.ready.eq(~valid | finish),
            self.done.eq(finish & walk.o.payload.last),
        ]
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), codes.eq(self.i.payload)]
        with m.If(finish):
            m.d.sync += [plane.eq(0), offset.eq(0)]
        with m.Elif(port.valid & port.ready):
            m.d.sync += [plane.eq(plane + 1), offset.eq(offset + self.dst_plane)]
        self._word(m, groups, codes, plane, one_write, walk.o.payload)
        m.d.comb += [port.addr.eq(clip_address(walk.o.payload.addr + offset)), port.mask.eq(walk.o.payload.mask)]
        return m

    def _word(self, m: Module, groups: int, codes: Value, plane: Value, one_write: Value, item: WalkItem) -> None:
        """The stored word: lane 0 of a word also writes all other lanes, with zero bits."""
        hw, lanes = self.hw, [codes[e * CODE_BITS : (e + 1) * CODE_BITS] for e in range(self.hw.rows)]
        bits, minus = Signal(hw.rows), Signal(hw.rows)
        m.d.comb += minus.eq(Cat(lane[1] for lane in lanes) & item.keep & one_write.replicate(hw.rows))
        if hw.is_ternary:
            m.d.comb += bits.eq(Cat(lane.bit_select(plane, 1) for lane in lanes) & item.keep)
        else:
            plus = Cat(~lane[1] for lane in lanes)
            m.d.comb += bits.eq(Mux(one_write, plus, Cat(lane.bit_select(plane, 1) for lane in lanes)) & item.keep)
        here = [item.sub == g for g in range(groups)] if groups > 1 else [Const(1)]
        first = here[0]
        planes = [bits, minus] if hw.is_ternary else [bits]
        m.d.comb += [
            self.port.data.eq(Cat(part & on.replicate(hw.rows) for part in planes for on in here)),
            self.port.lane_mask.eq(Cat((first | on).replicate(hw.rows) for on in here)),
        ]


class QuantLane(wiring.Component):
    """One value to its code, a cycle after ``load``. ``clipped``: an 8-bit code was, and the value counts (``keep``, with the code).
    ``fpga`` (constructor): that is found beside the rounding."""

    load: Signal
    int8: Signal
    binary: Signal
    t0: Signal
    t1: Signal
    mul: Signal
    shift: Signal
    value: Signal
    keep: Signal
    code: Signal
    clipped: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        fields = instruction_fields(Op.QUANT).members
        super().__init__(
            {
                "load": In(1),
                "int8": In(1),
                "binary": In(1),
                **{name: In(fields[name]) for name in ("t0", "t1", "mul", "shift")},
                "value": In(signed(hw.res_bits)),
                "keep": In(1),
                "code": Out(CODE_BITS),
                "clipped": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        product, shifted = (Signal(signed(self._hw.res_bits + 25), name=name) for name in ("product", "shifted"))
        above = Signal(2)  # how the value compares with t0 and t1
        if self._fpga:
            code, clipped = clipped_shift(product, self.shift, -127, 127)
        else:
            m.d.comb += shifted.eq(round_shift(product, self.shift))
            code, clipped = clip(shifted, -127, 127), outside(shifted, -127, 127)
        m.d.comb += self.clipped.eq(clipped & self.keep)
        with m.If(self.load):
            m.d.sync += above.eq(Cat(self.value >= self.t0, self.value >= self.t1))
        with m.If(self.load & self.int8):
            m.d.sync += product.eq(self.value * self.mul)
        with m.If(self.int8):
            m.d.comb += self.code.eq(code)
        with m.Elif(self.binary):
            m.d.comb += self.code.eq(Mux(above[0], 1, 0xFF))
        with m.Else():
            m.d.comb += self.code.eq(above[0] + above[1] - 1)
        return m


class Quant(wiring.Component):
    """QUANT without its writes: residual words, in order of the writer's granules, to codes."""

    start: Signal
    f: data.View
    rbuf_r: ReadInterface
    o: Stream[Value]
    ev_words: Signal
    ev_saturations: Signal

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__(
            {
                "start": In(1),
                "f": In(instruction_fields(Op.QUANT)),
                "rbuf_r": Out(ReadPort(1, hw.res_word_bits)),
                "o": Out(stream.Signature(hw.rows * CODE_BITS)),
                "ev_words": Out(1),
                "ev_saturations": Out(bits_for(hw.rows)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw, f = self.hw, self.f
        m.submodules.walk = walk = Walk(elements=hw.rows)
        m.submodules.buffer = buffer = ReadBuffer(1, hw.res_word_bits, hw.rows)
        wiring.connect(m, wiring.flipped(self.rbuf_r), buffer.port)
        m.d.comb += [
            walk.start.eq(self.start),
            walk.base.eq(f.src_addr),
            walk.stride.eq(f.src_stride),
            walk.outer.eq(f.tokens),
            walk.inner.eq(f.words),
            walk.features.eq(f.features),
            buffer.i.valid.eq(walk.o.valid),
            walk.o.ready.eq(buffer.i.ready),
            buffer.i.payload.addr.eq(walk.o.payload.addr),
            buffer.i.payload.mask.eq(1),
            buffer.i.payload.read.eq(1),
            buffer.i.payload.tag.eq(walk.o.payload.keep),
        ]
        keep, clipped, int8 = Signal(hw.rows), Signal(hw.rows), Signal()
        m.d.comb += [
            int8.eq(f.kind == Kind.INT8),
            buffer.o.ready.eq(~self.o.valid | self.o.ready),
            self.ev_words.eq(buffer.o.valid & buffer.o.ready),
        ]
        with m.If(buffer.o.ready):
            m.d.sync += [self.o.valid.eq(buffer.o.valid), keep.eq(buffer.o.payload.tag)]
        common = shared_inputs(
            m,
            {
                "load": buffer.o.ready,
                "int8": int8,
                "binary": f.kind == Kind.BINARY,
                "t0": f.t0,
                "t1": f.t1,
                "mul": f.mul,
                "shift": f.shift,
            },
        )
        for e, value in enumerate(split_lanes(buffer.o.payload.data, hw.rows, hw.res_bits)):
            instance(
                m,
                f"lane{e}",
                QUANT_LANE,
                **common,
                i_value=value,
                i_keep=keep[e],
                o_clipped=clipped[e],
                o_code=self.o.payload[e * CODE_BITS : (e + 1) * CODE_BITS],
            )
        with m.If(self.o.valid & self.o.ready & int8):
            m.d.comb += self.ev_saturations.eq(popcount(m, "saturations", clipped))
        return m


class EmbedLane(wiring.Component):
    """sat(old + code*scale), a cycle after ``take``; ``clipped``: it was. ``fpga`` (constructor): the code, which comes last,
    picks one of three results."""

    take: Signal
    scale: Signal
    old: Signal
    nonzero: Signal
    negative: Signal
    result: Signal
    clipped: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        super().__init__(
            {
                "take": In(1),
                "scale": In(signed(32)),
                "old": In(signed(hw.res_bits)),
                "nonzero": In(1),
                "negative": In(1),
                "result": Out(signed(hw.res_container)),
                "clipped": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        low, high = residual_range(self._hw.res_bits)
        if self._fpga:
            less, more = self.old - self.scale, self.old + self.scale
            result = Mux(self.nonzero, Mux(self.negative, clip(less, low, high), clip(more, low, high)), self.old)
            clipped = self.nonzero & Mux(self.negative, outside(less, low, high), outside(more, low, high))
        else:
            total = Signal(signed(34))
            m.d.comb += total.eq(self.old + Mux(self.nonzero, Mux(self.negative, -self.scale, self.scale), 0))
            result, clipped = clip(total, low, high), outside(total, low, high)
        with m.If(self.take):
            m.d.sync += [self.result.eq(result), self.clipped.eq(clipped)]
        return m


class Embed(wiring.Component):
    """EMBED: ``RBUF = sat(RBUF + code*scale)`` in place. ``done`` is a pulse in the cycle in which the last write is taken."""

    start: Signal
    done: Signal
    f: data.View
    rbuf_r: ReadInterface
    abuf_r: ReadInterface
    pbuf_r: ReadInterface
    rbuf_w: WriteInterface
    ev_words: Signal
    ev_saturations: Signal

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "f": In(instruction_fields(Op.EMBED)),
                "rbuf_r": Out(ReadPort(1, hw.res_word_bits)),
                "abuf_r": Out(ReadPort(hw.cols, hw.code_word_bits)),
                "pbuf_r": Out(ReadPort(1, hw.param_word_bits)),
                "rbuf_w": Out(WritePort(1, hw.res_word_bits, hw.rows)),
                "ev_words": Out(1),
                "ev_saturations": Out(bits_for(hw.rows)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw, f = self.hw, self.f
        groups = hw.lanes // hw.rows
        code_words = (f.words + (groups - 1)) >> exact_log2(groups)
        old_tag = data.StructLayout({"addr": ADDR, "keep": hw.rows, "row_last": 1, "last": 1})
        old = self._reader(m, "old", Walk(elements=hw.rows), self.rbuf_r, f.dst_addr, f.dst_stride, f.words, old_tag)
        codes = self._reader(m, "codes", Walk(banks=hw.cols), self.abuf_r, f.src_addr, f.src_stride, code_words, None)
        scales = self._reader(m, "scales", Walk(), self.pbuf_r, f.scale_addr, Const(1), Const(1), None)

        group = Signal(exact_log2(groups))
        take, last = Signal(), Signal()
        port, tag = self.rbuf_w, old.payload.tag
        m.d.comb += [
            take.eq(old.valid & codes.valid & scales.valid & (~port.valid | port.ready)),
            old.ready.eq(take),
            codes.ready.eq(take & (tag.row_last | (group == groups - 1))),
            scales.ready.eq(take & tag.row_last),
            port.mask.eq(1),
            port.lane_mask.eq(~Const(0, hw.rows)),
            self.done.eq(port.valid & port.ready & last),
            self.ev_words.eq(take),
        ]
        clipped = Signal(hw.rows)
        nonzero, negative = self._codes(m, codes.payload.data, group)
        common = shared_inputs(m, {"take": take, "scale": scales.payload.data[:32].as_signed()})
        pitch = hw.res_container
        for e, value in enumerate(split_lanes(old.payload.data, hw.rows, hw.res_bits)):
            instance(
                m,
                f"lane{e}",
                EMBED_LANE,
                **common,
                i_old=value,
                i_nonzero=nonzero[e] & tag.keep[e],
                i_negative=negative[e],
                o_result=port.data[e * pitch : (e + 1) * pitch],
                o_clipped=clipped[e],
            )
        with m.If(take):
            m.d.sync += [port.valid.eq(1), port.addr.eq(tag.addr), last.eq(tag.last)]
            m.d.sync += group.eq(Mux(codes.ready, 0, group + 1))
        with m.Elif(port.ready):
            m.d.sync += port.valid.eq(0)
        with m.If(port.valid & port.ready):
            m.d.comb += self.ev_saturations.eq(popcount(m, "saturations", clipped))
        return m

    def _codes(self, m: Module, word: Value, group: Value) -> tuple[Signal, Signal]:
        """Of the codes of group ``group`` of a code word: which are not zero, which are negative."""
        hw, rows = self.hw, self.hw.rows
        nonzero, negative = Signal(rows, name="nonzero"), Signal(rows, name="negative")
        planes = [
            word[plane * hw.lanes : (plane + 1) * hw.lanes].word_select(group, rows) for plane in range(hw.planes)
        ]
        both = planes if hw.is_ternary else (Const(-1, rows), ~planes[0])
        m.d.comb += [nonzero.eq(both[0]), negative.eq(both[1])]
        return nonzero, negative

    def _reader(
        self,
        m: Module,
        name: str,
        walk: Walk,
        port: ReadInterface,
        base: Value,
        stride: Value,
        inner: Value,
        tag: data.StructLayout | None,
    ) -> Stream[Word]:
        """Stream of the words of a region, one row a token; ``tag`` (optional) takes the walk's fields of its names."""
        banks = len(port.mask)
        word_bits = len(Value.cast(port.data)) // banks
        buffer = ReadBuffer(banks, word_bits, tag or data.StructLayout({}))
        m.submodules[f"{name}_walk"], m.submodules[f"{name}_buffer"] = walk, buffer
        wiring.connect(m, wiring.flipped(port), buffer.port)
        item, request = walk.o.payload, buffer.i.payload
        m.d.comb += [
            walk.start.eq(self.start),
            walk.base.eq(base),
            walk.stride.eq(stride),
            walk.outer.eq(self.f.tokens),
            walk.inner.eq(inner),
            walk.features.eq(self.f.features),
            buffer.i.valid.eq(walk.o.valid),
            walk.o.ready.eq(buffer.i.ready),
            request.addr.eq(item.addr),
            request.mask.eq(item.mask),
            request.read.eq(1),
        ]
        if tag is not None:
            m.d.comb += [request.tag[field].eq(item[field]) for field in tag.members]
        return buffer.o
