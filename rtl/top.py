# amaranth: UnusedElaboratable=no
"""The accelerator: units, memories, control, bus, registers and counters, connected."""

from dataclasses import dataclass
from typing import Any, get_type_hints

from amaranth import Cat, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from ternbin.contract.counters import counter, counters, events
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import WATCHDOG_CYCLES, Unit
from ternbin.contract.memories import banked
from ternbin.rtl.control.control import Control
from ternbin.rtl.control.counters import Counters
from ternbin.rtl.control.registers import Registers, slave_ports
from ternbin.rtl.execute import ExecuteUnit
from ternbin.rtl.parts.banks import BankedMemory, ScoreMemory
from ternbin.rtl.parts.plane_memory import PlaneMemory
from ternbin.rtl.parts.primitives import apart, gated
from ternbin.rtl.transfer.axi import AxiMaster, master_ports
from ternbin.rtl.transfer.dma import LoadUnit, StoreUnit
from ternbin.rtl.vector.vector import SCORES, VectorUnit

# Who reads and writes each memory but SBUF, highest priority first: unit -> its port. The bus can ask for no more than a word every few
# cycles. Results of the array come before the vector unit, whose work is to hide under the array's, and leave it most cycles; but an
# array that reads in every cycle comes after it.
READERS = {
    "abuf": {"store": "abuf_r", "vector": "abuf_r", "execute": "abuf"},
    "wbuf": {"execute": "wbuf"},
    "kbuf": {"store": "kbuf_r", "execute": "kbuf"},
    "rbuf": {"store": "rbuf_r", "execute": "rbuf_r", "vector": "rbuf_r"},
    "pbuf": {"store": "pbuf_r", "execute": "pbuf", "vector": "pbuf_r"},
    "idbuf": {"load": "idbuf_r", "store": "idbuf_r"},
}
WRITERS = {
    "abuf": {"load": "abuf_w", "execute": "abuf_w", "vector": "abuf_w"},
    "wbuf": {"load": "wbuf_w"},
    "kbuf": {"load": "kbuf_w", "execute": "kbuf_w"},
    "rbuf": {"load": "rbuf_w", "execute": "rbuf_w", "vector": "rbuf_w"},
    "pbuf": {"load": "pbuf_w"},
    "idbuf": {"load": "idbuf_w", "execute": "idbuf_w"},
}
TRANSPOSED = {"kbuf": ("execute", "kbuf_t")}
WHOLE_CODES = "abuf"  # read by execute, on an array that takes whole 8-bit codes, all planes at once


def _unit(name: str) -> Unit:
    return Unit[name.upper()]


def memories(hw: HwConfig, *, fpga: bool = False) -> dict[str, BankedMemory]:
    """The memories of an accelerator but SBUF, by instance name."""
    shapes = banked(hw)
    result: dict[str, BankedMemory] = {}
    for name in READERS:
        units = {
            "readers": {unit: _unit(unit) for unit in READERS[name]},
            "writers": {unit: _unit(unit) for unit in WRITERS[name]},
        }
        if name == WHOLE_CODES and hw.whole_columns:
            result[name] = PlaneMemory(hw, "execute", **units, fpga=fpga)
            continue
        transposed = (TRANSPOSED[name][0], _unit(TRANSPOSED[name][0])) if name in TRANSPOSED else None
        result[name] = BankedMemory(shapes[name], **units, transposed=transposed, fpga=fpga)
    return result


@dataclass(frozen=True)
class Units:
    """The units by the names of isa.Unit, in the order of their counters."""

    load: LoadUnit
    execute: ExecuteUnit
    vector: VectorUnit
    store: StoreUnit


UNITS: dict[str, Any] = get_type_hints(Units)
# Compute units by the module that each is generated as, apart. They sleep without work and are reset after an error; load and store first
# finish what the bus has begun.
APART = {"execute": "ternbin_execute", "vector": "ternbin_vector"}


def top_ports(hw: HwConfig) -> dict:
    """Ports of the accelerator, without clock and reset."""
    return {
        **master_ports(hw),
        **slave_ports(),
        "irq": Out(1),
        "trace_start": Out(len(Unit)),
        "trace_done": Out(len(Unit)),
    }


class Top(wiring.Component):
    """One accelerator.

    AXI4 master ``m_axi_*``, AXI4-Lite slave ``s_axil_*``, interrupt. ``trace_start``, ``trace_done``: a bit per unit (isa.Unit),
    1 in the cycle in which an instruction is issued to the unit, or is done: then all it wrote is in the memories after this
    cycle's clock edge. The Verilog needs that of the units in ``APART``. ``fpga``: in its form for FPGAs (docs/fpga.md).
    """

    irq: Signal
    trace_start: Signal
    trace_done: Signal

    def __init__(self, hw: HwConfig, watchdog: int = WATCHDOG_CYCLES, *, fpga: bool = False):
        self.hw, self._watchdog, self._fpga = hw, watchdog, fpga
        super().__init__(top_ports(hw))

    def elaborate(self, platform):
        m = Module()
        m.submodules.control = control = self._control = Control(self.hw, self._watchdog, fpga=self._fpga)
        m.submodules.axi = self._axi = AxiMaster(self.hw)
        self._banked, self._scores = memories(self.hw, fpga=self._fpga), ScoreMemory(banked(self.hw)["sbuf"], SCORES)
        self._memories = {**self._banked, "sbuf": self._scores}
        self._units = Units(**{name: part(self.hw, fpga=self._fpga) for name, part in UNITS.items()})
        for name, memory in self._memories.items():
            m.submodules[name] = gated(m, f"{name}_clock", memory.active)(memory)
        for name, unit in vars(self._units).items():
            if name in APART:
                sleep = gated(m, f"{name}_clock", unit.awake, ResetSignal() | control.abort)
                m.submodules[name] = sleep(apart(APART[name], unit))
            else:
                m.submodules[name] = unit
            wiring.connect(m, getattr(control, f"unit_{name}"), unit.port)
        self._connect_memories(m)
        self._connect_bus(m)
        self._connect_registers(m)
        m.d.comb += [self.trace_start.eq(control.trace_start), self.trace_done.eq(control.trace_done)]
        return m

    def _connect_memories(self, m: Module) -> None:
        for kind, table in (("r", READERS), ("w", WRITERS)):
            for name, ports in table.items():
                for unit, port in ports.items():
                    wiring.connect(
                        m, getattr(getattr(self._units, unit), port), getattr(self._banked[name], f"{kind}_{unit}")
                    )
        for name, (unit, port) in TRANSPOSED.items():
            wiring.connect(m, getattr(getattr(self._units, unit), port), getattr(self._banked[name], f"t_{unit}"))
        units = self._units
        if isinstance(whole := self._banked[WHOLE_CODES], PlaneMemory):
            m.d.comb += whole.whole_codes.eq(units.execute.abuf_whole)
        for port in SCORES:
            wiring.connect(m, getattr(units.vector, port), getattr(self._scores, port))
        wiring.connect(m, units.execute.sbuf_w, self._scores.tile)
        wiring.connect(m, units.vector.sbuf_w, self._scores.word)
        wiring.connect(m, units.load.lutx_w, units.execute.lutx_w)
        wiring.connect(m, units.load.lutv_w, units.vector.lutv_w)

    def _connect_bus(self, m: Module) -> None:
        axi, control, load, store = self._axi, self._control, self._units.load, self._units.store
        for source, sink in (
            (load.ar, axi.load_ar),
            (axi.load_r, load.r),
            (control.ar, axi.fetch_ar),
            (axi.fetch_r, control.r),
            (store.aw, axi.aw),
            (store.w, axi.w),
            (axi.b, store.b),
        ):
            wiring.connect(m, source, sink)
        for name, flow in master_ports(self.hw).items():
            inner, outer = getattr(axi, name), getattr(self, name)
            m.d.comb += outer.eq(inner) if flow.flow == Out else inner.eq(outer)
        memory_faults = Cat(Cat(memory.fault[unit] for memory in self._memories.values()).any() for unit in Unit)
        dma_faults = (load.address_fault << Unit.LOAD) | (store.address_fault << Unit.STORE)
        m.d.comb += [
            load.abort.eq(control.abort),
            store.abort.eq(control.abort),
            control.address_fault.eq(memory_faults | dma_faults),
            control.read_fault.eq(load.bus_fault),
            control.read_addr.eq(load.bus_addr),
            control.write_fault.eq(store.bus_fault),
            control.write_addr.eq(store.bus_addr),
            control.active.eq(axi.active | Cat(memory.active for memory in self._memories.values()).any()),
            control.quiet.eq(~(axi.busy | load.port.busy | store.port.busy)),
        ]

    def _connect_registers(self, m: Module) -> None:
        control = self._control
        names = counters(self.hw)
        m.submodules.registers = registers = Registers(len(names))
        m.submodules.counters = bank = Counters(names, fpga=self._fpga)
        for name, flow in slave_ports().items():
            inner, outer = getattr(registers, name), getattr(self, name)
            m.d.comb += outer.eq(inner) if flow.flow == Out else inner.eq(outer)
        m.d.comb += [
            self.irq.eq(registers.irq),
            control.start.eq(registers.start),
            control.clear.eq(registers.clear_status),
            control.program.eq(registers.program),
            registers.busy.eq(control.busy),
            registers.done.eq(control.done),
            registers.error.eq(control.error),
            registers.error_addr.eq(control.error_addr),
            bank.clear.eq(registers.clear_counters),
            bank.index.eq(registers.index),
            registers.value.eq(bank.value),
        ]
        parts = {"control": control, "axi": self._axi, **vars(self._units), **self._memories}
        for instance, own in events(self.hw).items():
            for event in own:
                source = getattr(parts[instance], f"ev_{event}")
                m.d.comb += getattr(bank, f"inc_{counter(instance, event)}").eq(source)
