"""External memory in block RAM: an AXI4 slave for the accelerator, a port for the host."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.rtl.transfer.axi import MasterPorts, master_ports

OKAY, DECERR = 0, 3
WORD = 32  # bits of the host's accesses
AHEAD = 4  # beats that are read before they are taken: block RAM does not wait for the bus


class BoardMemory(MasterPorts, wiring.Component):
    """``words`` (a power of two) words of the bus. One burst is served in each direction at a time, a beat a cycle.

    The host's access (``valid`` until ``ready``; ``data`` is valid in the cycle of ``ready``) is of 32 bits at byte address ``addr``, and
    comes before those of the bus.
    """

    valid: Signal
    ready: Signal
    write: Signal
    addr: Signal
    value: Signal
    data: Signal

    def __init__(self, hw: HwConfig, words: int):
        self._hw, self._words = hw, words
        super().__init__(
            {
                **{name: member.flip() for name, member in master_ports(hw).items()},
                "valid": In(1),
                "ready": Out(1),
                "write": In(1),
                "addr": In(31),
                "value": In(WORD),
                "data": Out(WORD),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width, shift = self._hw.axi_data_bits, exact_log2(self._hw.axi_bytes)
        m.submodules.memory = memory = Memory(shape=width, depth=self._words, init=[])
        self._place = slice(shift, shift + exact_log2(self._words))
        self._read_port = memory.read_port()
        self._write_port = memory.write_port(granularity=WORD)
        read, write = Signal(), Signal()  # of the host, this cycle
        self._host(m, read, write)
        self._reads(m, read)
        self._writes(m, write)
        return m

    def _host(self, m: Module, read: Signal, write: Signal) -> None:
        fetched, lane = Signal(), self.addr[2 : exact_log2(self._hw.axi_bytes)]
        m.d.comb += [
            write.eq(self.valid & self.write),
            read.eq(self.valid & ~self.write & ~fetched),
            self.ready.eq(write | fetched),
            self.data.eq(self._read_port.data.word_select(lane, WORD)),
        ]
        m.d.sync += fetched.eq(read)

    def _reads(self, m: Module, host: Signal) -> None:
        at, left, more = Signal(self._hw.axi_addr_bits), Signal(8), Signal()
        step, arrives, last, response = Signal(), Signal(), Signal(), Signal(2)
        places = Signal(range(AHEAD + 1), init=AHEAD)  # for beats that are not asked for
        m.submodules.beats = beats = SyncFIFO(width=self._hw.axi_data_bits + 3, depth=AHEAD)
        m.d.comb += [
            self.m_axi_arready.eq(~more & (places == AHEAD)),
            step.eq(more & (places != 0) & ~host),
            self._read_port.en.eq(step | host),
            self._read_port.addr.eq(at[self._place]),
            beats.w_en.eq(arrives),
            beats.w_data.eq(Cat(last, response, self._read_port.data)),
            beats.r_en.eq(self.m_axi_rready),
            self.m_axi_rvalid.eq(beats.r_rdy),
            Cat(self.m_axi_rlast, self.m_axi_rresp, self.m_axi_rdata).eq(beats.r_data),
        ]
        with m.If(host):
            m.d.comb += self._read_port.addr.eq(self.addr[self._place])
        m.d.sync += [arrives.eq(step), places.eq(places - step + (self.m_axi_rvalid & self.m_axi_rready))]
        with m.If(step):
            m.d.sync += [
                last.eq(left == 0),
                response.eq(OKAY),
                at.eq(at + self._hw.axi_bytes),
                left.eq(left - 1),
                more.eq(left != 0),
            ]
            with m.If(at[self._place.stop :].any()):
                m.d.sync += response.eq(DECERR)
        with m.If(self.m_axi_arvalid & self.m_axi_arready):
            m.d.sync += [
                at.eq(self.m_axi_araddr),
                left.eq(self.m_axi_arlen),
                self.m_axi_rid.eq(self.m_axi_arid),
                more.eq(1),
            ]

    def _writes(self, m: Module, host: Signal) -> None:
        port, words = self._write_port, self._hw.axi_data_bits // WORD
        at, more, outside = Signal(self._hw.axi_addr_bits), Signal(), Signal()
        wrong = at[self._place.stop :].any()
        m.d.comb += [
            self.m_axi_awready.eq(~more & ~self.m_axi_bvalid),
            self.m_axi_wready.eq(more & ~host),
            port.addr.eq(at[self._place]),
            port.data.eq(self.m_axi_wdata),
        ]
        with m.If(host):
            m.d.comb += [port.addr.eq(self.addr[self._place]), port.data.eq(self.value.replicate(words))]
            m.d.comb += port.en.eq(1 << self.addr[2 : exact_log2(self._hw.axi_bytes)])
        with m.If(self.m_axi_bready):
            m.d.sync += self.m_axi_bvalid.eq(0)
        with m.If(self.m_axi_wvalid & self.m_axi_wready):
            with m.If(~wrong):  # the accelerator writes all bytes of a beat, or none
                m.d.comb += port.en.eq(self.m_axi_wstrb[0].replicate(words))
            m.d.sync += [at.eq(at + self._hw.axi_bytes), outside.eq(outside | wrong)]
            with m.If(self.m_axi_wlast):
                m.d.sync += [more.eq(0), self.m_axi_bvalid.eq(1), self.m_axi_bresp.eq(OKAY)]
                with m.If(outside | wrong):
                    m.d.sync += self.m_axi_bresp.eq(DECERR)
        with m.If(self.m_axi_awvalid & self.m_axi_awready):
            m.d.sync += [at.eq(self.m_axi_awaddr), self.m_axi_bid.eq(self.m_axi_awid), more.eq(1), outside.eq(0)]
