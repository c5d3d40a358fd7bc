"""The AXI4-Lite slave: registers of ``ternbin.contract.isa``, counters, interrupt."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract import isa
from ternbin.rtl.control.counters import COUNTER_BITS

OKAY, SLVERR = 0, 2
ADDRESS_BITS = 12
MAX_COUNTERS = ((1 << ADDRESS_BITS) - isa.REG_COUNTERS) // 8


class SlavePorts:
    """The ports of the AXI4-Lite slave, for a type checker."""

    s_axil_awaddr: Signal
    s_axil_awvalid: Signal
    s_axil_awready: Signal
    s_axil_wdata: Signal
    s_axil_wstrb: Signal
    s_axil_wvalid: Signal
    s_axil_wready: Signal
    s_axil_bresp: Signal
    s_axil_bvalid: Signal
    s_axil_bready: Signal
    s_axil_araddr: Signal
    s_axil_arvalid: Signal
    s_axil_arready: Signal
    s_axil_rdata: Signal
    s_axil_rresp: Signal
    s_axil_rvalid: Signal
    s_axil_rready: Signal


def slave_ports() -> dict:
    """Ports of the AXI4-Lite slave: ``s_axil_awaddr``, ..."""
    return {
        f"s_axil_{name}": flow
        for name, flow in {
            "awaddr": In(ADDRESS_BITS),
            "awvalid": In(1),
            "awready": Out(1),
            "wdata": In(32),
            "wstrb": In(4),
            "wvalid": In(1),
            "wready": Out(1),
            "bresp": Out(2),
            "bvalid": Out(1),
            "bready": In(1),
            "araddr": In(ADDRESS_BITS),
            "arvalid": In(1),
            "arready": Out(1),
            "rdata": Out(32),
            "rresp": Out(2),
            "rvalid": Out(1),
            "rready": In(1),
        }.items()
    }


class Registers(SlavePorts, wiring.Component):
    """Registers as ``ternbin.contract.isa`` lists them (REG_*), for ``counters`` counters.

    Writes of anything but whole aligned words, and of anything but CTRL, STATUS and PROGRAM, answer SLVERR and change nothing; so do
    reads beyond the registers. PROGRAM may be written while a program runs: it counts at the next start. The two halves of a
    counter are read apart: read counters when the core is idle. ``start`` is ignored by control while it is busy.
    """

    irq: Signal
    start: Signal
    clear_status: Signal
    clear_counters: Signal
    program: Signal
    busy: Signal
    done: Signal
    error: Signal
    error_addr: Signal
    index: Signal
    value: Signal

    def __init__(self, counters: int):
        if counters > MAX_COUNTERS:
            raise ValueError(f"counters must be at most {MAX_COUNTERS}, not {counters}")
        self._counters = counters
        super().__init__(
            {
                **slave_ports(),
                "irq": Out(1),
                "start": Out(1),
                "clear_status": Out(1),
                "clear_counters": Out(1),
                "program": Out(64),
                "busy": In(1),
                "done": In(1),
                "error": In(4),
                "error_addr": In(64),
                "index": Out(range(max(2, counters))),
                "value": In(COUNTER_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        enabled = Signal()
        m.d.sync += self.irq.eq(enabled & (self.done | self.error.any()))
        self._write(m, enabled)
        self._read(m, enabled)
        return m

    def _write(self, m: Module, enabled: Signal) -> None:
        take = Signal()
        value = self.s_axil_wdata
        m.d.comb += [
            take.eq(self.s_axil_awvalid & self.s_axil_wvalid & ~self.s_axil_bvalid),
            self.s_axil_awready.eq(take),
            self.s_axil_wready.eq(take),
        ]
        with m.If(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        with m.If(take):
            m.d.sync += [self.s_axil_bvalid.eq(1), self.s_axil_bresp.eq(SLVERR)]
            with m.If(self.s_axil_wstrb.all()), m.Switch(self.s_axil_awaddr):
                with m.Case(isa.REG_CTRL):
                    m.d.comb += [self.start.eq(value[0]), self.clear_counters.eq(value[2])]
                    m.d.sync += [enabled.eq(value[1]), self.s_axil_bresp.eq(OKAY)]
                with m.Case(isa.REG_STATUS):
                    m.d.comb += self.clear_status.eq(1)
                    m.d.sync += self.s_axil_bresp.eq(OKAY)
                with m.Case(isa.REG_PROGRAM):
                    m.d.sync += [self.program[:32].eq(value), self.s_axil_bresp.eq(OKAY)]
                with m.Case(isa.REG_PROGRAM_HI):
                    m.d.sync += [self.program[32:].eq(value), self.s_axil_bresp.eq(OKAY)]

    def _read(self, m: Module, enabled: Signal) -> None:
        """A read takes two cycles: the counters answer in the second."""
        addr, pending = Signal(ADDRESS_BITS), Signal()
        number = (addr - isa.REG_COUNTERS)[3:]
        is_counter = (addr >= isa.REG_COUNTERS) & (addr < isa.REG_COUNTERS + 8 * self._counters) & ~addr[:2].any()
        named = {
            isa.REG_ID: isa.ID_VALUE,
            isa.REG_CTRL: enabled << 1,
            isa.REG_STATUS: Cat(self.busy, self.done, self.error.any()),
            isa.REG_ERROR: self.error,
            isa.REG_ERROR_ADDR: self.error_addr[:32],
            isa.REG_ERROR_ADDR_HI: self.error_addr[32:],
            isa.REG_PROGRAM: self.program[:32],
            isa.REG_PROGRAM_HI: self.program[32:],
        }
        m.d.comb += [self.s_axil_arready.eq(~pending & ~self.s_axil_rvalid), self.index.eq(number)]
        second = Signal()
        with m.If(self.s_axil_arvalid & self.s_axil_arready):
            m.d.sync += [addr.eq(self.s_axil_araddr), pending.eq(1), second.eq(0)]
        with m.If(pending):
            m.d.sync += second.eq(1)
            with m.If(second):
                m.d.sync += [
                    pending.eq(0),
                    self.s_axil_rvalid.eq(1),
                    self.s_axil_rresp.eq(SLVERR),
                    self.s_axil_rdata.eq(0),
                ]
                with m.Switch(addr):
                    for offset, content in named.items():
                        with m.Case(offset):
                            m.d.sync += [self.s_axil_rdata.eq(content), self.s_axil_rresp.eq(OKAY)]
                    with m.Default(), m.If(is_counter):
                        m.d.sync += [
                            self.s_axil_rresp.eq(OKAY),
                            self.s_axil_rdata.eq(self.value[:32]),
                        ]
                        with m.If(addr[2]):
                            m.d.sync += self.s_axil_rdata.eq(self.value[32:])
        with m.If(self.s_axil_rvalid & self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
