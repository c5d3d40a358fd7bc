"""The load and store units with their memories and the bus, without control: what the DMA benches drive."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Unit
from ternbin.contract.memories import banked
from ternbin.rtl.parts.banks import BankedMemory, read_port
from ternbin.rtl.parts.interfaces import UnitPort, WritePort
from ternbin.rtl.transfer.axi import AxiMaster, master_ports
from ternbin.rtl.transfer.dma import LoadUnit, StoreUnit

MEMORIES = ("abuf", "wbuf", "kbuf", "rbuf", "pbuf", "idbuf")


class DmaBench(wiring.Component):
    """Unit ports ``load`` and ``store``, the bus, the tables' write ports, and a read port ``probe_<memory>`` for every memory.

    ``faults``: address faults of the units and the memories, then bus faults of load and store.
    """

    faults: Signal

    def __init__(self, hw: HwConfig):
        self.hw = hw
        shapes = banked(hw)
        super().__init__(
            {
                "load": In(UnitPort()),
                "store": In(UnitPort()),
                "faults": Out(4),
                **master_ports(hw),
                "lutv_w": Out(WritePort(1, hw.axi_data_bits, 1)),
                "lutx_w": Out(WritePort(1, hw.axi_data_bits, 1)),
                **{f"probe_{name}": In(read_port(shapes[name])) for name in MEMORIES},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.load_unit = load = LoadUnit(self.hw)
        m.submodules.store_unit = store = StoreUnit(self.hw)
        m.submodules.axi = axi = AxiMaster(self.hw)
        for unit, name in ((load, "load"), (store, "store")):
            wiring.connect(m, wiring.flipped(getattr(self, name)), unit.port)
        memory_fault = 0
        for name in MEMORIES:
            readers = {"load": Unit.LOAD} if name == "idbuf" else {}
            readers |= ({} if name == "wbuf" else {"store": Unit.STORE}) | {"probe": Unit.EXECUTE}
            memory = BankedMemory(banked(self.hw)[name], readers=readers, writers={"load": Unit.LOAD})
            m.submodules[name] = memory
            users = {"w_load": getattr(load, f"{name}_w"), "r_probe": wiring.flipped(getattr(self, f"probe_{name}"))}
            if name != "wbuf":
                users["r_store"] = getattr(store, f"{name}_r")
            if name == "idbuf":
                users["r_load"] = load.idbuf_r
            for port, user in users.items():
                wiring.connect(m, user, getattr(memory, port))
            memory_fault = memory_fault | memory.fault.any()
        for source, sink in (
            (load.ar, axi.load_ar),
            (axi.load_r, load.r),
            (store.aw, axi.aw),
            (store.w, axi.w),
            (axi.b, store.b),
            *((getattr(load, name), wiring.flipped(getattr(self, name))) for name in ("lutv_w", "lutx_w")),
        ):
            wiring.connect(m, source, sink)
        for name, flow in master_ports(self.hw).items():
            inner, outer = getattr(axi, name), getattr(self, name)
            m.d.comb += outer.eq(inner) if flow.flow == Out else inner.eq(outer)
        m.d.comb += [
            self.faults[0].eq(load.address_fault | store.address_fault),
            self.faults[1].eq(memory_fault),
            self.faults[2].eq(load.bus_fault),
            self.faults[3].eq(store.bus_fault),
        ]
        return m
