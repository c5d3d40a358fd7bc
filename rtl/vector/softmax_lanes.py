"""What SOFTMAX does with one score: its exponential, and the code of an exponential; the table of exponentials of all lanes."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Op, layout
from ternbin.contract.memories import TABLE_BITS as ENTRY_BITS
from ternbin.contract.memories import TABLE_ENTRIES as ENTRIES
from ternbin.graph.fixedpoint import RECIP_POINT as POINT
from ternbin.rtl.parts.arithmetic import round_shift
from ternbin.rtl.parts.interfaces import WriteInterface, WritePort
from ternbin.rtl.vector.quant import CODE_BITS
from ternbin.rtl.vector.scores import KEY_BITS

EXP_LANE, CODE_LANE = "ternbin_exp_lane", "ternbin_code_lane"
TOTAL_BITS = ENTRY_BITS + KEY_BITS
RECIP_BITS = layout(Op.SOFTMAX)["recip"][1]  # of N


class ExpTable(wiring.Component):
    """LUTV: 256 x 16 bits, ``rows`` lookups a cycle; ``entry`` follows ``index`` after an enabled edge.

    ``port`` writes beats: address = number of the beat, data = axi_data_bits / 16 entries. ``error``: a beat beyond the table. ``fpga``
    (constructor): what a look-up shows that meets a write of its entry is open: no program without a race has that.
    """

    port: WriteInterface
    error: Signal
    enable: Signal
    index: data.View
    entry: data.View

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self.hw, self._fpga = hw, fpga
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
        # Yosys: without the attribute, logic beside block RAM sees to look-ups that meet a write.
        attributes: Any = {"no_rw_check": 1} if self._fpga else {}  # the stub has texts only
        m.submodules.table = table = memory.Memory(shape=ENTRY_BITS, depth=ENTRIES, init=[], attrs=attributes)
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
    """Code of an exponential, in the cycle after ``load``; of 0 unless ``keep``. ``fpga`` (constructor): products wait for no ``keep`` and
    ``uint8``, which saves time, not energy."""

    load: Signal
    keep: Signal
    exponential: Signal
    c1: Signal
    c2: Signal
    recip: Signal
    uint8: Signal
    binary: Signal
    code: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._fpga = fpga
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
        m.d.comb += exponential.eq(Mux(self.keep, self.exponential, 0))
        if self._fpga:
            kept, product = Signal(), self.exponential * self.recip
            m.d.comb += rounded.eq(Mux(kept, round_shift(probability, POINT), 0))
            with m.If(self.load):
                m.d.sync += kept.eq(self.keep)
        else:
            product = Mux(self.uint8, exponential * self.recip, 0)
            m.d.comb += rounded.eq(round_shift(probability, POINT))
        with m.If(self.load):
            m.d.sync += [
                above.eq(Cat((exponential << 16) > self.c1, (exponential << 16) >= self.c2)),
                probability.eq(product),
            ]
        with m.If(self.uint8):
            m.d.comb += self.code.eq(Mux(rounded > 255, 255, rounded[:8]))
        with m.Elif(self.binary):
            m.d.comb += self.code.eq(Mux(above[0], 1, 0xFF))
        with m.Else():
            m.d.comb += self.code.eq(above[0] + above[1] - 1)
        return m
