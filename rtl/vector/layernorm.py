"""LAYERNORM: exact sums, reciprocal square root by digit recurrence, normalisation; see numerics rule 3.

Tokens are handled in groups of GROUP: first the sums of a group, token by token, later its normalisation, word by word and within
a word token by token, so that the four parameter words of a residual word serve the whole group. The sums of a group come before
the normalisation of the previous one, which hides the recurrences; state for two groups is kept.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, Op
from ternbin.contract.memories import PARAM_BITS
from ternbin.contract.pipeline import NORM_GROUP, SCALE_WORDS
from ternbin.graph.fixedpoint import MUL_BITS
from ternbin.rtl.parts.arithmetic import (
    COUNT,
    WIDE,
    ReadBuffer,
    Walk,
    Word,
    add_tree,
    clip,
    clip_address,
    clipped_shift,
    instruction_fields,
    outside,
    residual_range,
    round_shift,
    split_lanes,
)
from ternbin.rtl.parts.divsqrt import RECIPROCAL_BITS, Rsqrt
from ternbin.rtl.parts.interfaces import ReadInterface, ReadPort, Record, Stream, WriteInterface, WritePort
from ternbin.rtl.parts.primitives import instance, popcount, shared_inputs

LANE = "ternbin_layernorm_lane"
GROUP = NORM_GROUP  # as many tokens as a residual word has parameter words
SLOTS = 2 * GROUP
SLOT_BITS = exact_log2(SLOTS)
FEATURE_BITS = 14
EPS_BITS = 64
XHAT_BITS = 29  # sign, sqrt(16383) < 2^7, 20 fractional bits, one to spare for the truncated reciprocal


def sum_bits(hw: HwConfig) -> int:
    """Signed sum of 2^14 residual values."""
    return hw.res_bits + FEATURE_BITS


def square_bits(hw: HwConfig) -> int:
    """Sum of 2^14 squares of residual values, unsigned."""
    return 2 * hw.res_bits - 1 + FEATURE_BITS


def variance_bits(hw: HwConfig) -> int:
    """``n*q - s^2 + E``: at most ``n^2 * 2^(2 res_bits - 2) + 2^64``."""
    return max(2 * FEATURE_BITS + 2 * hw.res_bits - 2, EPS_BITS) + 1


class NormItem(Record):
    src: Value
    dst: Value
    slot: Value
    word_last: Value
    row_last: Value
    last: Value


class NormOrder(wiring.Component):
    """Order of the normalisation: groups, in them words, in them tokens. ``start`` as for Walk."""

    start: Signal
    f: data.View
    group_end: Signal
    o: Stream[NormItem]

    def __init__(self):
        super().__init__(
            {
                "start": In(1),
                "f": In(instruction_fields(Op.LAYERNORM)),
                "group_end": Out(1),
                "o": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "src": ADDR,
                                "dst": ADDR,
                                "slot": SLOT_BITS,
                                "word_last": 1,
                                "row_last": 1,
                                "last": 1,
                            }
                        )
                    )
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        f, item = self.f, self.o.payload
        left, words_left = Signal(COUNT), Signal(COUNT)  # tokens from this group on, words from this one on
        token, half = Signal(exact_log2(GROUP)), Signal()
        take = Signal()
        m.d.comb += [
            take.eq(self.o.valid & self.o.ready),
            item.slot.eq(Cat(token, half)),
            item.word_last.eq((token == GROUP - 1) | (token == left - 1)),
            item.row_last.eq(words_left == 1),
            item.last.eq(item.word_last & item.row_last & (left <= GROUP)),
            self.group_end.eq(take & item.word_last & item.row_last),
        ]
        with m.If(take):
            m.d.sync += token.eq(Mux(item.word_last, 0, token + 1))
            with m.If(item.word_last):
                m.d.sync += words_left.eq(words_left - 1)
                with m.If(item.row_last):
                    m.d.sync += [
                        words_left.eq(f.words),
                        left.eq(left - GROUP),
                        half.eq(~half),
                        self.o.valid.eq(~item.last),
                    ]
        with m.If(self.start):
            m.d.sync += [token.eq(0), half.eq(0), left.eq(f.tokens), words_left.eq(f.words), self.o.valid.eq(1)]
        self._address(m, "src", item.src, f.src_addr, f.src_stride, take)
        self._address(m, "dst", item.dst, f.dst_addr, f.dst_stride, take)
        return m

    def _address(self, m: Module, name: str, out: Value, base: Value, stride: Value, take: Value) -> None:
        group, column, addr = (Signal(WIDE, name=f"{name}_{part}") for part in ("group", "column", "addr"))
        next_column, next_group = Signal(WIDE, name=f"{name}_next_column"), Signal(WIDE, name=f"{name}_next_group")
        item = self.o.payload
        m.d.comb += [
            out.eq(clip_address(addr)),
            next_group.eq(group + (stride << exact_log2(GROUP))),
            next_column.eq(Mux(item.row_last, next_group, column + 1)),
        ]
        with m.If(take & item.word_last):
            m.d.sync += [column.eq(next_column), addr.eq(next_column)]
            with m.If(item.row_last):
                m.d.sync += group.eq(next_group)
        with m.Elif(take):
            m.d.sync += addr.eq(addr + stride)
        with m.If(self.start):
            m.d.sync += [group.eq(base), column.eq(base), addr.eq(base)]


class SummedWord(Record):
    word: Value
    end: Value


class Statistics(Record):
    s: Value
    v: Value


class Variance(wiring.Component):
    """Sums of a token's words to ``s`` and ``V = n*q - s^2 + E``; five stages that wait together."""

    features: Signal
    eps: Signal
    i: Stream[SummedWord]
    o: Stream[Statistics]

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__(
            {
                "features": In(FEATURE_BITS),
                "eps": In(EPS_BITS),
                "i": In(stream.Signature(data.StructLayout({"word": hw.res_word_bits, "end": 1}))),
                "o": Out(stream.Signature(data.StructLayout({"s": signed(sum_bits(hw)), "v": variance_bits(hw)}))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw, out = self.hw, self.o.payload
        values = split_lanes(self.i.payload.word, hw.rows, hw.res_bits)
        square = [Signal(2 * hw.res_bits - 1, name=f"square{e}") for e in range(hw.rows)]
        part, part2 = Signal(signed(sum_bits(hw))), Signal(signed(sum_bits(hw)))
        part_square = Signal(square_bits(hw))
        s, q, s_done, q_done = Signal.like(part), Signal.like(part_square), Signal.like(part), Signal.like(part_square)
        s_mul = Signal.like(part)
        nq, ss = Signal(variance_bits(hw)), Signal(variance_bits(hw))
        valid, end = Signal(2), Signal(2)
        done, multiplied = Signal(), Signal()
        s_next, q_next = Signal.like(s), Signal.like(q)
        m.d.comb += [
            self.i.ready.eq(~self.o.valid | self.o.ready),
            s_next.eq(s + part2),
            q_next.eq(q + part_square),
        ]
        with m.If(self.i.ready):
            m.d.sync += [
                valid.eq(Cat(self.i.valid, valid[0])),
                end.eq(Cat(self.i.payload.end, end[0])),
                done.eq(valid[1] & end[1]),
                multiplied.eq(done),
                self.o.valid.eq(multiplied),
            ]
            with m.If(self.i.valid):
                m.d.sync += part.eq(add_tree(values))
                m.d.sync += [register.eq(value * value) for register, value in zip(square, values, strict=True)]
            with m.If(valid[0]):
                m.d.sync += [part2.eq(part), part_square.eq(add_tree(square))]
            with m.If(valid[1]):
                m.d.sync += [s.eq(Mux(end[1], 0, s_next)), q.eq(Mux(end[1], 0, q_next))]
                with m.If(end[1]):
                    m.d.sync += [s_done.eq(s_next), q_done.eq(q_next)]
            with m.If(done):
                m.d.sync += [nq.eq(self.features * q_done), ss.eq(s_done * s_done), s_mul.eq(s_done)]
            with m.If(multiplied):
                m.d.sync += [out.v.eq(nq - ss + self.eps), out.s.eq(s_mul)]
        return m


class Parameters(wiring.Component):
    """Fetches SCALE_WORDS words per residual word, the next ones while ``o`` shows the current ones (rows x 64 bits)."""

    start: Signal
    addr: Signal
    groups: Signal
    words: Signal
    port: ReadInterface
    o: Stream[Value]

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__(
            {
                "start": In(1),
                "addr": In(ADDR),
                "groups": In(COUNT),
                "words": In(12),
                "port": Out(ReadPort(1, hw.param_word_bits)),
                "o": Out(stream.Signature(hw.rows * SCALE_WORDS * PARAM_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        m.submodules.walk = walk = Walk()
        m.submodules.buffer = buffer = ReadBuffer(1, hw.param_word_bits, data.StructLayout({}))
        wiring.connect(m, wiring.flipped(self.port), buffer.port)
        collected = Signal(data.ArrayLayout(hw.param_word_bits, SCALE_WORDS))
        count, full, move = Signal(exact_log2(SCALE_WORDS)), Signal(), Signal()
        m.d.comb += [
            walk.start.eq(self.start),
            walk.base.eq(self.addr),
            walk.outer.eq(self.groups),
            walk.inner.eq(self.words << exact_log2(SCALE_WORDS)),
            buffer.i.valid.eq(walk.o.valid),
            walk.o.ready.eq(buffer.i.ready),
            buffer.i.payload.addr.eq(walk.o.payload.addr),
            buffer.i.payload.mask.eq(1),
            buffer.i.payload.read.eq(1),
            move.eq(full & (~self.o.valid | self.o.ready)),
            buffer.o.ready.eq(~full | move),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(move):
            m.d.sync += [
                full.eq(0),
                self.o.valid.eq(1),
                self.o.payload.eq(
                    Cat(
                        collected[j][e * PARAM_BITS : (e + 1) * PARAM_BITS]
                        for e in range(hw.rows)
                        for j in range(SCALE_WORDS)
                    )
                ),
            ]
        with m.If(buffer.o.valid & buffer.o.ready):
            m.d.sync += [collected[count].eq(buffer.o.payload.data), count.eq(count + 1)]
            with m.If(count.all()):
                m.d.sync += full.eq(1)
        return m


class Lane(wiring.Component):
    """What the normalisation does with one value: n*x - s; times r; shift; times G plus Bt; shift and saturate.

    Each is a register that is loaded with its bit of ``steps``. ``parameter``: G (MUL_BITS), Bt. ``clips``: the last step saturates.
    ``fpga`` (constructor): that is found beside the rounding.
    """

    steps: Signal
    features: Signal
    s: Signal
    r: Signal
    r_shift: Signal
    shift: Signal
    x: Signal
    parameter: Signal
    y: Signal
    clips: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        super().__init__(
            {
                "steps": In(5),
                "features": In(FEATURE_BITS),
                "s": In(signed(sum_bits(hw))),
                "r": In(RECIPROCAL_BITS),
                "r_shift": In(6),
                "shift": In(6),
                "x": In(signed(hw.res_bits)),
                "parameter": In(SCALE_WORDS * PARAM_BITS),
                "y": Out(signed(hw.res_container)),
                "clips": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        centred = Signal(signed(sum_bits(self._hw) + 1))
        scaled = Signal(signed(sum_bits(self._hw) + 1 + RECIPROCAL_BITS))
        normal = Signal(signed(XHAT_BITS))
        affine, result = Signal(signed(XHAT_BITS + MUL_BITS + 1)), Signal(signed(XHAT_BITS + MUL_BITS + 1))
        gamma, beta = self.parameter[:MUL_BITS].as_signed(), self.parameter[MUL_BITS:].as_signed()
        low, high = residual_range(self._hw.res_bits)
        if self._fpga:
            y, clips = clipped_shift(affine, self.shift, low, high)
        else:
            m.d.comb += result.eq(round_shift(affine, self.shift))
            y, clips = clip(result, low, high), outside(result, low, high)
        m.d.comb += self.clips.eq(clips)
        steps = (
            centred.eq(self.x * self.features - self.s),
            scaled.eq(centred * self.r),
            normal.eq(round_shift(scaled, self.r_shift)),
            affine.eq(normal * gamma + (beta << 8)),
            self.y.eq(y),
        )
        for now, step in zip(self.steps, steps, strict=True):
            with m.If(now):
                m.d.sync += step
        return m


class LayerNorm(wiring.Component):
    """The whole instruction. ``start`` (one cycle, when idle); ``f`` must then stay until ``done``, a pulse with the last write."""

    start: Signal
    done: Signal
    f: data.View
    rbuf_r: ReadInterface
    pbuf_r: ReadInterface
    rbuf_w: WriteInterface
    ev_sum_words: Signal
    ev_norm_words: Signal
    ev_rsqrt: Signal
    ev_saturations: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self.hw, self._fpga = hw, fpga
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "f": In(instruction_fields(Op.LAYERNORM)),
                "rbuf_r": Out(ReadPort(1, hw.res_word_bits)),
                "pbuf_r": Out(ReadPort(1, hw.param_word_bits)),
                "rbuf_w": Out(WritePort(1, hw.res_word_bits, hw.rows)),
                "ev_sum_words": Out(1),
                "ev_norm_words": Out(1),
                "ev_rsqrt": Out(1),
                "ev_saturations": Out(bits_for(hw.rows)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw, f = self.hw, self.f
        # end: of a token's sums, or of a word's use of the parameters; free: the token's last word
        tag = data.StructLayout({"norm": 1, "slot": SLOT_BITS, "end": 1, "free": 1, "last": 1, "dst": ADDR})
        m.submodules.buffer = buffer = ReadBuffer(1, hw.res_word_bits, tag)
        wiring.connect(m, wiring.flipped(self.rbuf_r), buffer.port)
        self._requests(m, buffer)

        m.submodules.variance = variance = Variance(hw)
        m.submodules.rsqrt = rsqrt = Rsqrt(variance_bits(hw), fpga=self._fpga)
        slots_s = Array(Signal(signed(sum_bits(hw)), name=f"slot_s{i}") for i in range(SLOTS))
        slots_r = Array(Signal(RECIPROCAL_BITS, name=f"slot_r{i}") for i in range(SLOTS))
        slots_shift = Array(Signal(6, name=f"slot_shift{i}") for i in range(SLOTS))
        ready = Signal(SLOTS)  # slots whose reciprocal root has come and is still needed
        s_slot, r_slot = Signal(SLOT_BITS), Signal(SLOT_BITS)
        norm_ready, head = Signal(), buffer.o.payload
        norm_take = Signal()
        m.d.comb += [
            variance.features.eq(f.features),
            variance.eps.eq(f.eps),
            variance.i.valid.eq(buffer.o.valid & ~head.tag.norm),
            variance.i.payload.word.eq(head.data),
            variance.i.payload.end.eq(head.tag.end),
            buffer.o.ready.eq(Mux(head.tag.norm, norm_ready & ready.bit_select(head.tag.slot, 1), variance.i.ready)),
            norm_take.eq(buffer.o.valid & buffer.o.ready & head.tag.norm),
            rsqrt.i.valid.eq(variance.o.valid),
            rsqrt.i.payload.eq(variance.o.payload.v),
            variance.o.ready.eq(rsqrt.i.ready),
            rsqrt.o.ready.eq(1),
            self.ev_rsqrt.eq(rsqrt.o.valid),
            self.ev_norm_words.eq(norm_take),
            self.ev_sum_words.eq(buffer.o.valid & buffer.o.ready & ~head.tag.norm),
        ]
        with m.If(variance.o.valid & variance.o.ready):
            m.d.sync += [slots_s[s_slot].eq(variance.o.payload.s), s_slot.eq(s_slot + 1)]
        with m.If(norm_take & head.tag.free):
            m.d.sync += ready.bit_select(head.tag.slot, 1).eq(0)
        with m.If(rsqrt.o.valid):
            m.d.sync += [
                slots_r[r_slot].eq(rsqrt.o.payload.r),
                slots_shift[r_slot].eq(rsqrt.o.payload.shift),
                ready.bit_select(r_slot, 1).eq(1),
                r_slot.eq(r_slot + 1),
            ]
        with m.If(self.start):
            m.d.sync += [s_slot.eq(0), r_slot.eq(0)]
        slot = head.tag.slot
        self._normalise(m, head, norm_take, norm_ready, slots_s[slot], slots_r[slot], slots_shift[slot])
        return m

    def _requests(self, m: Module, buffer: ReadBuffer) -> None:
        """The sums of as many tokens as there are slots, else the normalisation."""
        f = self.f
        m.submodules.sums = sums = Walk()
        m.submodules.order = order = NormOrder()
        credit, turn = Signal(range(SLOTS + 1)), Signal()  # tokens whose sums may still begin
        finished = Signal()
        request, item = buffer.i.payload, order.o.payload
        m.d.comb += [
            sums.start.eq(self.start),
            sums.base.eq(f.src_addr),
            sums.stride.eq(f.src_stride),
            sums.outer.eq(f.tokens),
            sums.inner.eq(f.words),
            order.start.eq(self.start),
            order.f.eq(f),
            turn.eq(sums.o.valid & (credit != 0)),
            finished.eq(sums.o.ready & sums.o.payload.row_last),
            buffer.i.valid.eq(turn | order.o.valid),
            sums.o.ready.eq(turn & buffer.i.ready),
            order.o.ready.eq(~turn & buffer.i.ready),
            # No If here: beside one, Yosys writes the constants as always blocks that never run.
            request.read.eq(1),
            request.mask.eq(1),
            request.tag.norm.eq(~turn),
            request.addr.eq(Mux(turn, sums.o.payload.addr, item.src)),
            request.tag.end.eq(Mux(turn, sums.o.payload.row_last, item.word_last)),
            request.tag.dst.eq(item.dst),
            request.tag.slot.eq(item.slot),
            request.tag.free.eq(item.row_last),
            request.tag.last.eq(item.last),
        ]
        with m.If(self.start):
            m.d.sync += credit.eq(SLOTS)
        with m.Else():
            m.d.sync += credit.eq(credit - finished + Mux(order.group_end, GROUP, 0))

    def _normalise(self, m: Module, head: Word, take: Value, ready: Value, s: Value, r: Value, shift: Value) -> None:
        """The stages of the lanes; the last one is the write."""
        hw, f, port = self.hw, self.f, self.rbuf_w
        m.submodules.parameters = parameters = Parameters(hw)
        m.d.comb += [
            parameters.start.eq(self.start),
            parameters.addr.eq(f.param_addr),
            parameters.words.eq(f.words),
            parameters.groups.eq((f.tokens + (GROUP - 1)) >> exact_log2(GROUP)),
        ]
        wiring.connect(m, wiring.flipped(self.pbuf_r), parameters.port)

        stages = 4
        valid = Signal(stages)
        tags = [Signal(data.StructLayout({"end": 1, "last": 1, "dst": ADDR}), name=f"tag{i}") for i in range(stages)]
        out_ready, last = Signal(), Signal()
        r1, shift1, shift2 = Signal(RECIPROCAL_BITS), Signal(6), Signal(6)
        m.d.comb += [
            out_ready.eq(~port.valid | port.ready),
            ready.eq(out_ready & (~valid[2] | parameters.o.valid)),
            parameters.o.ready.eq(out_ready & valid[2] & tags[2].end),
            port.mask.eq(1),
            port.lane_mask.eq(~Const(0, hw.rows)),
            self.done.eq(port.valid & port.ready & last),
        ]
        with m.If(out_ready):
            m.d.sync += port.valid.eq(valid[3] & ready)
        with m.If(ready):
            m.d.sync += [
                valid.eq(Cat(take, valid)),
                r1.eq(r),
                shift1.eq(shift),
                shift2.eq(shift1),
                tags[0].end.eq(head.tag.end),
                tags[0].last.eq(head.tag.last),
                tags[0].dst.eq(head.tag.dst),
                *(tags[i].eq(tags[i - 1]) for i in range(1, stages)),
                port.addr.eq(tags[3].dst),
                last.eq(tags[3].last),
            ]
        clipped, clips = Signal(hw.rows), Signal(hw.rows)
        common = shared_inputs(
            m,
            {
                "steps": Cat(take, valid) & ready.replicate(5),
                "features": f.features,
                "s": s,
                "r": r1,
                "r_shift": shift2,
                "shift": f.shift,
            },
        )
        pitch = hw.res_container
        for e, x in enumerate(split_lanes(head.data, hw.rows, hw.res_bits)):
            instance(
                m,
                f"lane{e}",
                LANE,
                **common,
                i_x=x,
                i_parameter=parameters.o.payload[e * 64 : (e + 1) * 64],
                o_y=port.data[e * pitch : (e + 1) * pitch],
                o_clips=clips[e],
            )
        with m.If(ready & valid[3]):
            m.d.sync += clipped.eq(clips)
        with m.If(port.valid & port.ready):
            m.d.comb += self.ev_saturations.eq(popcount(m, "saturations", clipped))
