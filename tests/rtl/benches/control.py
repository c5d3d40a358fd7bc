"""Control with its registers and the fetch side of the bus; the bench plays all four units."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Unit
from ternbin.rtl.control.control import Control
from ternbin.rtl.control.counters import Counters
from ternbin.rtl.control.registers import Registers, slave_ports
from ternbin.rtl.parts.interfaces import UnitPort
from ternbin.rtl.transfer.axi import AxiMaster, master_ports


class ControlBench(wiring.Component):
    """Ports ``unit_<name>`` as control drives them, faults to raise, bus, registers with the counters of control."""

    address_fault: Signal
    quiet: Signal
    abort: Signal
    irq: Signal
    trace_start: Signal
    trace_done: Signal

    def __init__(self, hw: HwConfig, watchdog: int):
        self.hw, self._watchdog = hw, watchdog
        super().__init__(
            {
                **{f"unit_{unit.name.lower()}": Out(UnitPort()) for unit in Unit},
                "address_fault": In(len(Unit)),
                "quiet": In(1),
                "abort": Out(1),
                "irq": Out(1),
                "trace_start": Out(len(Unit)),
                "trace_done": Out(len(Unit)),
                **master_ports(hw),
                **slave_ports(),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.control = control = Control(self.hw, self._watchdog)
        m.submodules.axi = axi = AxiMaster(self.hw)
        m.submodules.registers = registers = Registers(len(Control.EVENTS))
        m.submodules.counters = counters = Counters(Control.EVENTS)
        for unit in Unit:
            name = f"unit_{unit.name.lower()}"
            wiring.connect(m, getattr(control, name), wiring.flipped(getattr(self, name)))
        wiring.connect(m, control.ar, axi.fetch_ar)
        wiring.connect(m, axi.fetch_r, control.r)
        for ports, part in ((master_ports(self.hw), axi), (slave_ports(), registers)):
            for name, flow in ports.items():
                inner, outer = getattr(part, name), getattr(self, name)
                m.d.comb += outer.eq(inner) if flow.flow == Out else inner.eq(outer)
        for name in Control.EVENTS:
            m.d.comb += getattr(counters, f"inc_{name}").eq(getattr(control, f"ev_{name}"))
        m.d.comb += [
            self.irq.eq(registers.irq),
            control.start.eq(registers.start),
            control.clear.eq(registers.clear_status),
            control.program.eq(registers.program),
            registers.busy.eq(control.busy),
            registers.done.eq(control.done),
            registers.error.eq(control.error),
            registers.error_addr.eq(control.error_addr),
            counters.clear.eq(registers.clear_counters),
            counters.index.eq(registers.index),
            registers.value.eq(counters.value),
            control.address_fault.eq(self.address_fault),
            control.active.eq(axi.active),
            control.quiet.eq(self.quiet & ~axi.busy),
            self.abort.eq(control.abort),
            self.trace_start.eq(control.trace_start),
            self.trace_done.eq(control.trace_done),
        ]
        return m
