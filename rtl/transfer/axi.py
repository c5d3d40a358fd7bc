"""AXI4 master: internal streams, the shared read channel, port names; a register slice for outputs that must hold."""

from typing import Generic

from amaranth import Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.counters import AXI_EVENTS
from ternbin.contract.hw import HwConfig
from ternbin.rtl.parts.interfaces import Payload, Record, Stream, events_signature

ID_BITS = 1
LOAD_ID, FETCH_ID = 0, 1


class Burst(data.StructLayout):
    """One incrementing burst: byte address, aligned to the bus, and beats - 1 (``len``)."""

    addr: Signal
    len: Signal

    def __init__(self, hw: HwConfig):
        super().__init__({"addr": hw.axi_addr_bits, "len": 8})


class BurstView(Record):
    addr: Value
    len: Value


class TaggedBurst(Record):
    burst: BurstView
    id: Value


class ReadBeat(data.StructLayout):
    """One beat of a read burst; ``error`` for any response but OKAY and EXOKAY."""

    data: Signal
    error: Signal
    last: Signal

    def __init__(self, hw: HwConfig):
        super().__init__({"data": hw.axi_data_bits, "error": 1, "last": 1})


class ReadBeatView(Record):
    data: Value
    error: Value
    last: Value


class WriteBeat(data.StructLayout):
    """One beat of a write burst; all bytes are written, or none (``strobe`` 0)."""

    data: Signal
    strobe: Signal
    last: Signal

    def __init__(self, hw: HwConfig):
        super().__init__({"data": hw.axi_data_bits, "strobe": 1, "last": 1})


class WriteBeatView(Record):
    data: Value
    strobe: Value
    last: Value


def _address_channel(hw: HwConfig, prefix: str) -> dict:
    return {
        f"{prefix}id": Out(ID_BITS),
        f"{prefix}addr": Out(hw.axi_addr_bits),
        f"{prefix}len": Out(8),
        f"{prefix}size": Out(3),
        f"{prefix}burst": Out(2),
        f"{prefix}lock": Out(1),
        f"{prefix}cache": Out(4),
        f"{prefix}prot": Out(3),
        f"{prefix}valid": Out(1),
        f"{prefix}ready": In(1),
    }


class MasterPorts:
    """The ports of the AXI4 master, for a type checker."""

    m_axi_arid: Signal
    m_axi_araddr: Signal
    m_axi_arlen: Signal
    m_axi_arsize: Signal
    m_axi_arburst: Signal
    m_axi_arlock: Signal
    m_axi_arcache: Signal
    m_axi_arprot: Signal
    m_axi_arvalid: Signal
    m_axi_arready: Signal
    m_axi_awid: Signal
    m_axi_awaddr: Signal
    m_axi_awlen: Signal
    m_axi_awsize: Signal
    m_axi_awburst: Signal
    m_axi_awlock: Signal
    m_axi_awcache: Signal
    m_axi_awprot: Signal
    m_axi_awvalid: Signal
    m_axi_awready: Signal
    m_axi_rid: Signal
    m_axi_rdata: Signal
    m_axi_rresp: Signal
    m_axi_rlast: Signal
    m_axi_rvalid: Signal
    m_axi_rready: Signal
    m_axi_wdata: Signal
    m_axi_wstrb: Signal
    m_axi_wlast: Signal
    m_axi_wvalid: Signal
    m_axi_wready: Signal
    m_axi_bid: Signal
    m_axi_bresp: Signal
    m_axi_bvalid: Signal
    m_axi_bready: Signal


def master_ports(hw: HwConfig) -> dict:
    """Ports of the AXI4 master, named as everywhere: ``m_axi_araddr``, ..."""
    bits = hw.axi_data_bits
    ports = (
        _address_channel(hw, "ar")
        | _address_channel(hw, "aw")
        | {
            "rid": In(ID_BITS),
            "rdata": In(bits),
            "rresp": In(2),
            "rlast": In(1),
            "rvalid": In(1),
            "rready": Out(1),
            "wdata": Out(bits),
            "wstrb": Out(bits // 8),
            "wlast": Out(1),
            "wvalid": Out(1),
            "wready": In(1),
            "bid": In(ID_BITS),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
        }
    )
    return {f"m_axi_{name}": flow for name, flow in ports.items()}


class Slice(wiring.Component, Generic[Payload]):
    """Registers a stream: an offered payload stays until taken, whatever happens to the source. One item a cycle."""

    i: Stream[Payload]
    o: Stream[Payload]

    def __init__(self, layout: data.Layout):
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


class AxiMaster(MasterPorts, wiring.Component):
    """The AXI4 master of the accelerator.

    Reads: ``load_ar``/``load_r`` and ``fetch_ar``/``fetch_r`` share one channel by ID, fetch first. The requester must take the beats
    it asked for without waiting for beats of the other. Writes: ``aw``, ``w``, ``b`` (payload 1: error response), one ID.
    ``busy``: an address or a beat waits in here. Events: beats by requester, bursts, cycles in which a read was awaited and
    no beat came (``read_stalls``) or a write beat was not taken (``write_stalls``).
    """

    load_ar: Stream[BurstView]
    load_r: Stream[ReadBeatView]
    fetch_ar: Stream[BurstView]
    fetch_r: Stream[ReadBeatView]
    aw: Stream[BurstView]
    w: Stream[WriteBeatView]
    b: Stream[Value]
    busy: Signal
    active: Signal
    ev_load_beats: Signal
    ev_fetch_beats: Signal
    ev_write_beats: Signal
    ev_read_bursts: Signal
    ev_write_bursts: Signal
    ev_read_stalls: Signal
    ev_write_stalls: Signal

    EVENTS = AXI_EVENTS

    def __init__(self, hw: HwConfig):
        self.hw = hw
        burst, beat = stream.Signature(Burst(hw)), stream.Signature(ReadBeat(hw))
        super().__init__(
            {
                "load_ar": In(burst),
                "load_r": Out(beat),
                "fetch_ar": In(burst),
                "fetch_r": Out(beat),
                "aw": In(burst),
                "w": In(stream.Signature(WriteBeat(hw))),
                "b": Out(stream.Signature(1)),
                "busy": Out(1),
                "active": Out(1),
                **master_ports(hw),
                **events_signature(self.EVENTS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._reads(m)
        self._writes(m)
        events = (
            self.ev_load_beats | self.ev_fetch_beats | self.ev_write_beats | self.ev_read_bursts | self.ev_write_bursts
        )
        m.d.comb += [
            self.busy.eq(self.m_axi_arvalid | self.m_axi_awvalid | self.m_axi_wvalid),
            self.active.eq(events | self.m_axi_bvalid & self.m_axi_bready),
        ]
        return m

    def _address(self, m: Module, name: str, payload: BurstView, valid: Value, ready: Value) -> None:
        """Drive the address channel ``name`` ("ar" or "aw") with full-width incrementing bursts."""

        def port(signal: str) -> Signal:
            return getattr(self, f"m_axi_{name}{signal}")

        m.d.comb += [
            port("addr").eq(payload.addr),
            port("len").eq(payload.len),
            port("size").eq((self.hw.axi_bytes - 1).bit_length()),
            port("burst").eq(1),
            port("cache").eq(0b0011),  # normal memory, bufferable
            port("valid").eq(valid),
            ready.eq(port("ready")),
        ]

    def _reads(self, m: Module) -> None:
        tagged = data.StructLayout({"burst": Burst(self.hw), "id": ID_BITS})
        ar: Slice[TaggedBurst] = Slice(tagged)
        m.submodules.ar = ar
        m.d.comb += [
            ar.i.valid.eq(self.fetch_ar.valid | self.load_ar.valid),
            self.fetch_ar.ready.eq(ar.i.ready),
            self.load_ar.ready.eq(ar.i.ready & ~self.fetch_ar.valid),
            ar.i.payload.burst.eq(self.load_ar.payload),
            ar.i.payload.id.eq(LOAD_ID),
        ]
        with m.If(self.fetch_ar.valid):
            m.d.comb += [ar.i.payload.burst.eq(self.fetch_ar.payload), ar.i.payload.id.eq(FETCH_ID)]
        self._address(m, "ar", ar.o.payload.burst, ar.o.valid, ar.o.ready)
        m.d.comb += self.m_axi_arid.eq(ar.o.payload.id)
        fetch = self.m_axi_rid == FETCH_ID
        for r, mine in ((self.load_r, ~fetch), (self.fetch_r, fetch)):
            m.d.comb += [
                r.valid.eq(self.m_axi_rvalid & mine),
                r.payload.data.eq(self.m_axi_rdata),
                r.payload.error.eq(self.m_axi_rresp[1]),
                r.payload.last.eq(self.m_axi_rlast),
            ]
            with m.If(mine):
                m.d.comb += self.m_axi_rready.eq(r.ready)
        took = Signal()
        waiting = Signal(8)  # bursts whose last beat has not come; far more than the requesters ask for
        m.d.comb += [
            took.eq(self.m_axi_rvalid & self.m_axi_rready),
            self.ev_load_beats.eq(took & ~fetch),
            self.ev_fetch_beats.eq(took & fetch),
            self.ev_read_bursts.eq(self.m_axi_arvalid & self.m_axi_arready),
            self.ev_read_stalls.eq(waiting.any() & ~took),
        ]
        m.d.sync += waiting.eq(waiting + self.ev_read_bursts - (took & self.m_axi_rlast))

    def _writes(self, m: Module) -> None:
        aw: Slice[BurstView] = Slice(Burst(self.hw))
        w: Slice[WriteBeatView] = Slice(WriteBeat(self.hw))
        m.submodules.aw, m.submodules.w = aw, w
        wiring.connect(m, aw.i, wiring.flipped(self.aw))
        wiring.connect(m, w.i, wiring.flipped(self.w))
        self._address(m, "aw", aw.o.payload, aw.o.valid, aw.o.ready)
        m.d.comb += [
            self.m_axi_wvalid.eq(w.o.valid),
            self.m_axi_wdata.eq(w.o.payload.data),
            self.m_axi_wlast.eq(w.o.payload.last),
            self.m_axi_wstrb.eq(w.o.payload.strobe.replicate(self.hw.axi_bytes)),
            w.o.ready.eq(self.m_axi_wready),
            self.b.valid.eq(self.m_axi_bvalid),
            self.b.payload.eq(self.m_axi_bresp[1]),
            self.m_axi_bready.eq(self.b.ready),
            self.ev_write_bursts.eq(self.m_axi_awvalid & self.m_axi_awready),
            self.ev_write_beats.eq(self.m_axi_wvalid & self.m_axi_wready),
            self.ev_write_stalls.eq(self.m_axi_wvalid & ~self.m_axi_wready),
        ]
