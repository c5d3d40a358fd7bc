"""SOFTMAX of an accelerator for searches: every query sees the keys that a mask in PBUF names, a bit of each element for each beam."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Out

from ternbin.contract.hw import HwConfig
from ternbin.rtl.parts.arithmetic import ReadBuffer, split_lanes
from ternbin.rtl.parts.interfaces import ReadInterface, ReadPort
from ternbin.rtl.vector.scores import BEAM_BITS, MaskedScoreWalk
from ternbin.rtl.vector.softmax import Pass, Softmax


class MaskedSoftmax(Softmax):
    """As Softmax; with the instruction's ``masked``, keys whose bit in the mask is 0 count for nothing."""

    Walk = MaskedScoreWalk

    pbuf_r: ReadInterface

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        super().__init__(hw, {"pbuf_r": Out(ReadPort(1, hw.param_word_bits))}, fpga=fpga)
        self._mask_ports: list[ReadInterface] = []

    def elaborate(self, platform):
        m = super().elaborate(platform)
        self._share(m)
        return m

    def _join(self, m: Module, name: str, a: Pass) -> None:
        """Asks for the word of the mask with that of the scores; both must be there."""
        rows, masked = self.hw.rows, self.f.masked
        if not isinstance(a.walk, MaskedScoreWalk):
            raise TypeError(f"walk must be one of masked scores, not a {type(a.walk).__name__}")
        item = a.walk.o.payload
        m.submodules[f"{name}_masks"] = masks = ReadBuffer(1, self.hw.param_word_bits, BEAM_BITS)
        self._mask_ports.append(masks.port)
        had, has = Signal(2, name=f"{name}_had"), Signal(2, name=f"{name}_has")  # buffers that have the walk's item
        seen = Cat(word.bit_select(masks.o.payload.tag, 1) for word in split_lanes(masks.o.payload.data, rows, 16))
        m.d.comb += [
            a.buffer.i.valid.eq(a.begin & ~had[0]),
            masks.i.valid.eq(a.begin & ~had[1]),
            has.eq(had | Cat(a.buffer.i.ready, masks.i.ready)),
            a.walk.o.ready.eq(a.begin & has.all()),
            masks.i.payload.addr.eq(item.mask_addr),
            masks.i.payload.mask.eq(1),
            masks.i.payload.read.eq(masked),
            masks.i.payload.tag.eq(item.beam),
            a.valid.eq(a.buffer.o.valid & masks.o.valid),
            a.buffer.o.ready.eq(a.valid & a.taken),
            masks.o.ready.eq(a.valid & a.taken),
            a.keep.eq(a.inside & (seen | (~masked).replicate(rows))),
        ]
        with m.If(a.begin):
            m.d.sync += had.eq(Mux(has.all(), 0, has))

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
