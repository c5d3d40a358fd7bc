"""On-chip memories: banks of the ``ternbin_ram`` primitive behind fixed-priority arbiters that check every address."""

from collections.abc import Mapping
from dataclasses import dataclass

from amaranth import C, Cat, ClockSignal, Instance, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, Unit
from ternbin.contract.memories import ID_WORD_BITS
from ternbin.rtl.parts.interfaces import ReadPort, TransposedWritePort, WriteInterface, WritePort, events_signature
from ternbin.rtl.parts.primitives import popcount


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Shape of one memory.

    ``elements`` are the separately writable parts of a word, ``planes`` how often the element mask repeats in it: bit e of the
    mask covers ``word_bits / (elements * planes)`` bits of every plane. A write brings ``write_words`` words: word w for the banks
    b with ``b % write_words == w``.
    """

    banks: int
    depth: int
    word_bits: int
    elements: int = 1
    planes: int = 1
    write_words: int = 1

    @property
    def addr_bits(self) -> int:
        return max(1, (self.depth - 1).bit_length())

    @property
    def events(self) -> dict[str, int]:
        """Event name -> bits, as ``events_signature`` wants them: banks accessed."""
        return {"reads": self.banks.bit_length(), "writes": self.banks.bit_length()}

    def holds(self, addr: Value) -> Value:
        return C(1, 1) if self.depth >> ADDR else addr < self.depth

    def ram(self, **ports) -> Instance:
        """A bank."""
        return Instance(
            "ternbin_ram",
            p_DEPTH=self.depth,
            p_WIDTH=self.word_bits,
            p_ADDR=self.addr_bits,
            p_ELEMENTS=self.elements,
            p_PLANES=self.planes,
            i_clk=ClockSignal(),
            **ports,
        )

    def read_port(self) -> ReadPort:
        return ReadPort(self.banks, self.word_bits)

    def write_port(self) -> WritePort:
        return WritePort(self.banks, self.word_bits * self.write_words, self.elements)


def geometries(hw: HwConfig) -> dict[str, Geometry]:
    """Name -> shape of the memories of an accelerator, in the order of ``isa.Mem``."""
    code = {"word_bits": hw.code_word_bits, "elements": hw.lanes, "planes": hw.planes}
    return {
        "abuf": Geometry(banks=hw.cols, depth=hw.abuf_words, **code),
        "wbuf": Geometry(banks=hw.rows, depth=hw.wbuf_words, write_words=hw.load_words, **code),
        "kbuf": Geometry(banks=hw.rows, depth=hw.kbuf_words, **code),
        "rbuf": Geometry(banks=1, depth=hw.rbuf_words, word_bits=hw.res_word_bits, elements=hw.rows),
        "pbuf": Geometry(banks=1, depth=hw.pbuf_words, word_bits=hw.param_word_bits, elements=hw.rows),
        "idbuf": Geometry(banks=1, depth=hw.idbuf_words, word_bits=ID_WORD_BITS),
        "sbuf": Geometry(banks=hw.cols, depth=hw.sbuf_words, word_bits=hw.score_word_bits, write_words=hw.cols),
    }


def _any_of(values: list[Value]) -> Value:
    return Cat(values).any()


class BankedMemory(wiring.Component):
    """``geometry.banks`` equal banks; one read and one write of one address of any banks are served in a cycle.

    ``readers`` and ``writers`` map port names to the unit behind them, highest priority first: a request is taken when no earlier
    one is valid. ``transposed`` names one more writer, of lowest priority, with a TransposedWritePort (``geometry.planes`` code
    planes, one lane of every bank). Low-rate requesters should come first: then nobody starves.

    A request with an address at or above the depth is taken, touches nothing, and raises ``fault[unit]`` in that cycle.
    ``active``: a request was taken. Events: ``reads`` and ``writes`` in banks accessed.
    """

    fault: Signal
    active: Signal
    ev_reads: Signal
    ev_writes: Signal

    def __init__(
        self,
        geometry: Geometry,
        *,
        readers: Mapping[str, Unit],
        writers: Mapping[str, Unit],
        transposed: tuple[str, Unit] | None = None,
    ):
        self.geometry = geometry
        self._readers, self._writers, self._transposed = dict(readers), dict(writers), transposed
        ports = {f"r_{name}": In(geometry.read_port()) for name in readers}
        ports |= {f"w_{name}": In(geometry.write_port()) for name in writers}
        if transposed is not None:
            ports[f"t_{transposed[0]}"] = In(TransposedWritePort(geometry.banks, geometry.planes, geometry.elements))
        super().__init__(
            {
                **ports,
                "fault": Out(len(Unit)),
                "active": Out(1),
                **events_signature(geometry.events),
            }
        )

    def elaborate(self, platform):
        m = Module()
        geometry = self.geometry
        self._faults = {unit: [] for unit in Unit}
        read = self._arbitrate(m, {getattr(self, f"r_{name}"): unit for name, unit in self._readers.items()}, "read")
        requesters = {getattr(self, f"w_{name}"): unit for name, unit in self._writers.items()}
        if self._transposed is not None:
            requesters[getattr(self, f"t_{self._transposed[0]}")] = self._transposed[1]
        write = self._arbitrate(m, requesters, "write")
        data, mask = self._write_data(m, [port for port in requesters])
        words = Signal(geometry.word_bits * geometry.banks, name="rdata")
        for bank in range(geometry.banks):
            m.submodules[f"bank{bank}"] = geometry.ram(
                i_ren=read.mask[bank],
                i_raddr=read.addr[: geometry.addr_bits],
                o_rdata=words.word_select(bank, geometry.word_bits),
                i_wen=write.mask[bank],
                i_waddr=write.addr[: geometry.addr_bits],
                i_wdata=data[bank],
                i_wmask=mask,
            )
        m.d.comb += [
            *(getattr(self, f"r_{name}").data.eq(words) for name in self._readers),
            self.fault.eq(Cat(_any_of(self._faults[unit]) if self._faults[unit] else C(0, 1) for unit in Unit)),
            self.active.eq(read.taken | write.taken),
            self.ev_reads.eq(popcount(m, "banks_read", read.mask)),
            self.ev_writes.eq(popcount(m, "banks_written", write.mask)),
        ]
        return m

    def _arbitrate(self, m: Module, requesters: dict, kind: str) -> "_Grant":
        """Ready of every requester; the address, the banks and the validity of the access of this cycle."""
        grant = _Grant(self.geometry.banks, kind)
        busy = C(0, 1)
        addr, mask = C(0, ADDR), C(0, self.geometry.banks)
        for port in reversed(requesters):  # the first becomes the outermost choice
            addr, mask = Mux(port.valid, port.addr, addr), Mux(port.valid, port.mask, mask)
        for port, unit in requesters.items():
            m.d.comb += port.ready.eq(~busy)
            self._faults[unit].append(port.valid & ~busy & ~grant.in_range)
            busy = busy | port.valid
        m.d.comb += [
            grant.addr.eq(addr),
            grant.taken.eq(busy),
            grant.in_range.eq(self.geometry.holds(grant.addr)),
            grant.mask.eq(Mux(grant.in_range, mask, 0)),
        ]
        return grant

    def _write_data(self, m: Module, ports: list) -> tuple[list[Value], Value]:
        """Data of every bank and the element mask, from the first valid requester."""
        geometry = self.geometry
        normal = ports if self._transposed is None else ports[:-1]
        data, lane_mask = C(0, geometry.word_bits * geometry.write_words), C(0, geometry.elements)
        for port in reversed(normal):
            data, lane_mask = Mux(port.valid, port.data, data), Mux(port.valid, port.lane_mask, lane_mask)
        word, mask = Signal.like(data, name="wdata"), Signal(geometry.elements, name="wmask")
        m.d.comb += [word.eq(data), mask.eq(lane_mask)]
        if self._transposed is None:
            words = [
                word.word_select(bank % geometry.write_words, geometry.word_bits) for bank in range(geometry.banks)
            ]
            return words, mask
        port = ports[-1]
        mine = Signal(name="transposed")
        m.d.comb += mine.eq(~_any_of([p.valid for p in normal]))
        with m.If(mine):
            m.d.comb += mask.eq(1 << port.lane)
        codes = [
            Cat(
                port.codes[plane * geometry.banks + bank].replicate(geometry.elements)
                for plane in range(geometry.planes)
            )
            for bank in range(geometry.banks)
        ]
        return [Mux(mine, code, word) for code in codes], mask


class _Grant:
    """The access of one side of the memory in this cycle."""

    def __init__(self, banks: int, kind: str):
        self.addr = Signal(ADDR, name=f"{kind}_addr")
        self.mask = Signal(banks, name=f"{kind}_banks")
        self.in_range = Signal(name=f"{kind}_in_range")
        self.taken = Signal(name=f"{kind}_taken")


class ScoreMemory(wiring.Component):
    """SBUF: banks with an address each, of one element a word. Reads of different banks are served in the same cycle; where two of
    ``readers`` want one bank, the first comes first. A ``tile`` (a word for each of its banks) is written before a ``word``.

    All requests are of the vector unit but ``tile``, of execute. Out of range, ``fault``, ``active`` and events: as in BankedMemory.
    """

    tile: WriteInterface
    word: WriteInterface
    fault: Signal
    active: Signal
    ev_reads: Signal
    ev_writes: Signal

    def __init__(self, geometry: Geometry, readers: tuple[str, ...]):
        self.geometry, self._readers = geometry, readers
        super().__init__(
            {
                **{name: In(geometry.read_port()) for name in readers},
                "tile": In(geometry.write_port()),
                "word": In(WritePort(geometry.banks, geometry.word_bits, 1)),
                "fault": Out(len(Unit)),
                "active": Out(1),
                **events_signature(geometry.events),
            }
        )

    def elaborate(self, platform):
        m = Module()
        shape, readers = self.geometry, [getattr(self, name) for name in self._readers]
        reads, read_addr = self._serve(m, readers, "read")
        writes, write_addr = self._serve(m, [self.tile, self.word], "write")
        words = Signal(shape.word_bits * shape.banks, name="rdata")
        for bank in range(shape.banks):
            mine = Mux(
                self.tile.valid & self.tile.mask[bank],
                self.tile.data.word_select(bank, shape.word_bits),
                self.word.data,
            )
            m.submodules[f"bank{bank}"] = shape.ram(
                i_ren=reads[bank],
                i_raddr=read_addr[bank],
                o_rdata=words.word_select(bank, shape.word_bits),
                i_wen=writes[bank],
                i_waddr=write_addr[bank],
                i_wdata=mine,
                i_wmask=C(1, 1),
            )
        wrong = {port: port.valid & port.ready & ~shape.holds(port.addr) for port in (*readers, self.tile, self.word)}
        faults = {Unit.EXECUTE: wrong.pop(self.tile), Unit.VECTOR: _any_of(list(wrong.values()))}
        m.d.comb += [
            *(port.data.eq(words) for port in readers),
            self.fault.eq(Cat(faults.get(unit, C(0, 1)) for unit in Unit)),
            self.active.eq(_any_of([port.valid for port in (*readers, self.tile, self.word)])),
            self.ev_reads.eq(popcount(m, "banks_read", reads)),
            self.ev_writes.eq(popcount(m, "banks_written", writes)),
        ]
        return m

    def _serve(self, m: Module, ports: list, kind: str) -> tuple[Signal, list[Value]]:
        """Ready of every port; of every bank, whether it is accessed, and its address."""
        banks = self.geometry.banks
        enable, addr, taken = Signal(banks, name=f"{kind}_banks"), [C(0, ADDR)] * banks, C(0, banks)
        for port in reversed(ports):  # the first becomes the outermost choice
            addr = [Mux(port.valid & port.mask[bank], port.addr, addr[bank]) for bank in range(banks)]
        accessed = C(0, banks)
        for port in ports:
            m.d.comb += port.ready.eq(~(taken & port.mask).any())
            accessed = accessed | Mux(port.valid & port.ready & self.geometry.holds(port.addr), port.mask, 0)
            taken = taken | Mux(port.valid, port.mask, 0)
        m.d.comb += enable.eq(accessed)
        return enable, [value[: self.geometry.addr_bits] for value in addr]
