"""On-chip memories: banks of the ``ternbin_ram`` primitive behind fixed-priority arbiters that check every address."""

from collections.abc import Mapping

from amaranth import C, Cat, ClockSignal, Instance, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.counters import memory_events
from ternbin.contract.isa import ADDR, Unit
from ternbin.contract.memories import Memory
from ternbin.rtl.parts.interfaces import ReadPort, TransposedWritePort, WriteInterface, WritePort, events_signature
from ternbin.rtl.parts.primitives import popcount


def address_bits(memory: Memory) -> int:
    return max(1, (memory.words - 1).bit_length())


def holds(memory: Memory, addr: Value) -> Value:
    """Whether a word address lies in the memory: 1 where every address does."""
    return C(1, 1) if memory.words >> ADDR else addr < memory.words


def ram(memory: Memory, **ports) -> Instance:
    """A bank."""
    return Instance(
        "ternbin_ram",
        p_DEPTH=memory.words,
        p_WIDTH=memory.bits,
        p_ADDR=address_bits(memory),
        p_ELEMENTS=memory.elements,
        p_PLANES=memory.planes,
        i_clk=ClockSignal(),
        **ports,
    )


def read_port(memory: Memory) -> ReadPort:
    return ReadPort(memory.banks, memory.bits)


def write_port(memory: Memory) -> WritePort:
    return WritePort(memory.banks, memory.bits * memory.write_words, memory.elements)


def _any_of(values: list[Value]) -> Value:
    return Cat(values).any()


class BankedMemory(wiring.Component):
    """``memory.banks`` equal banks; one read and one write of one address of any banks are served in a cycle.

    ``readers`` and ``writers`` map port names to the unit behind them, highest priority first: a request is taken when no earlier
    one is valid. ``transposed`` names one more writer, of lowest priority, with a TransposedWritePort (``memory.planes`` code
    planes, one lane of every bank; lane 0 clears the others). Low-rate requesters should come first: then nobody starves.

    A request with an address at or above the depth is taken, touches nothing, and raises ``fault[unit]`` in that cycle.
    ``active``: a request was taken. Events: ``reads`` and ``writes`` in banks accessed. ``fpga`` (constructor): every requester's
    address is checked, while it is found out whose request is taken.
    """

    fault: Signal
    active: Signal
    ev_reads: Signal
    ev_writes: Signal

    def __init__(
        self,
        memory: Memory,
        *,
        readers: Mapping[str, Unit],
        writers: Mapping[str, Unit],
        transposed: tuple[str, Unit] | None = None,
        fpga: bool = False,
    ):
        self.memory, self._fpga = memory, fpga
        self._readers, self._writers, self._transposed = dict(readers), dict(writers), transposed
        ports = {f"r_{name}": In(self._read_port(name)) for name in readers}
        ports |= {f"w_{name}": In(write_port(memory)) for name in writers}
        if transposed is not None:
            ports[f"t_{transposed[0]}"] = In(TransposedWritePort(memory.banks, memory.planes, memory.elements))
        super().__init__(
            {
                **ports,
                "fault": Out(len(Unit)),
                "active": Out(1),
                **self._events(),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._faults = {unit: [] for unit in Unit}
        read = self._arbitrate(m, {getattr(self, f"r_{name}"): unit for name, unit in self._readers.items()}, "read")
        requesters = {getattr(self, f"w_{name}"): unit for name, unit in self._writers.items()}
        if self._transposed is not None:
            requesters[getattr(self, f"t_{self._transposed[0]}")] = self._transposed[1]
        write = self._arbitrate(m, requesters, "write")
        data, mask = self._write_data(m, [port for port in requesters])
        words = self._banks(m, read, write, data, mask)
        m.d.comb += [
            *(getattr(self, f"r_{name}").data.eq(words[name]) for name in self._readers),
            self.fault.eq(Cat(_any_of(self._faults[unit]) if self._faults[unit] else C(0, 1) for unit in Unit)),
            self.active.eq(read.taken | write.taken),
        ]
        self._count(m, read, write)
        return m

    def _events(self) -> dict[str, wiring.Member]:
        return events_signature(memory_events(self.memory))

    def _read_port(self, name: str) -> ReadPort:
        """Of a reader."""
        return read_port(self.memory)

    def _banks(self, m: Module, read: "Grant", write: "Grant", data: list[Value], mask: Value) -> dict[str, Value]:
        """The banks, which get ``data``; what each reader sees."""
        memory = self.memory
        words = Signal(memory.bits * memory.banks, name="rdata")
        for bank in range(memory.banks):
            m.submodules[f"bank{bank}"] = ram(
                memory,
                i_ren=read.mask[bank],
                i_raddr=read.addr[: address_bits(memory)],
                o_rdata=words.word_select(bank, memory.bits),
                i_wen=write.mask[bank],
                i_waddr=write.addr[: address_bits(memory)],
                i_wdata=data[bank],
                i_wmask=mask,
            )
        return dict.fromkeys(self._readers, words)

    def _count(self, m: Module, read: "Grant", write: "Grant") -> None:
        m.d.comb += [
            self.ev_reads.eq(popcount(m, "banks_read", read.mask)),
            self.ev_writes.eq(popcount(m, "banks_written", write.mask)),
        ]

    def _arbitrate(self, m: Module, requesters: dict, kind: str) -> "Grant":
        """Ready of every requester; the address, the banks and the validity of the access of this cycle."""
        grant = Grant(self.memory.banks, kind)
        busy = C(0, 1)
        addr, mask = C(0, ADDR), C(0, self.memory.banks)
        for port in reversed(requesters):  # the first becomes the outermost choice
            addr, mask = Mux(port.valid, port.addr, addr), Mux(port.valid, port.mask, mask)
        for port, unit in requesters.items():
            m.d.comb += port.ready.eq(~busy)
            self._faults[unit].append(port.valid & ~busy & ~grant.in_range)
            busy = busy | port.valid
        m.d.comb += [
            grant.addr.eq(addr),
            grant.taken.eq(busy),
            grant.in_range.eq(self._holds(requesters, grant.addr)),
            grant.mask.eq(Mux(grant.in_range, mask, 0)),
        ]
        return grant

    def _holds(self, requesters: dict, addr: Value) -> Value:
        """Whether the granted one of ``requesters`` may access the word."""
        if not self._fpga:
            return holds(self.memory, addr)
        result = C(0, 1)
        for port in reversed(requesters):
            result = Mux(port.valid, holds(self.memory, port.addr), result)
        return result

    def _write_data(self, m: Module, ports: list) -> tuple[list[Value], Value]:
        """Data of every bank and the element mask, from the first valid requester."""
        memory = self.memory
        normal = ports if self._transposed is None else ports[:-1]
        data, lane_mask = C(0, memory.bits * memory.write_words), C(0, memory.elements)
        for port in reversed(normal):
            data, lane_mask = Mux(port.valid, port.data, data), Mux(port.valid, port.lane_mask, lane_mask)
        word, mask = Signal.like(data, name="wdata"), Signal(memory.elements, name="wmask")
        m.d.comb += [word.eq(data), mask.eq(lane_mask)]
        if self._transposed is None:
            words = [word.word_select(bank % memory.write_words, memory.bits) for bank in range(memory.banks)]
            return words, mask
        port = ports[-1]
        mine, first = Signal(name="transposed"), Signal(name="first_lane")
        m.d.comb += [mine.eq(~_any_of([p.valid for p in normal])), first.eq(port.lane == 0)]
        codes = list(port.codes)
        # Signals: as expressions, every lane of every bank had a gate of its own.
        others = [Signal(name=f"other_lanes{i}") for i, _ in enumerate(codes)]
        m.d.comb += [other.eq(code & ~first) for other, code in zip(others, codes, strict=True)]
        with m.If(mine):
            m.d.comb += mask.eq(Mux(first, ~0, 1 << port.lane))

        def word_of(bank: int) -> Value:
            places = [plane * memory.banks + bank for plane in range(memory.planes)]
            return Cat(Cat(codes[i], others[i].replicate(memory.elements - 1)) for i in places)

        return [Mux(mine, word_of(bank), word) for bank in range(memory.banks)], mask


class Grant:
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

    def __init__(self, memory: Memory, readers: tuple[str, ...]):
        self.memory, self._readers = memory, readers
        super().__init__(
            {
                **{name: In(read_port(memory)) for name in readers},
                "tile": In(write_port(memory)),
                "word": In(WritePort(memory.banks, memory.bits, 1)),
                "fault": Out(len(Unit)),
                "active": Out(1),
                **events_signature(memory_events(memory)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        memory, readers = self.memory, [getattr(self, name) for name in self._readers]
        reads, read_addr = self._serve(m, readers, "read")
        writes, write_addr = self._serve(m, [self.tile, self.word], "write")
        words = Signal(memory.bits * memory.banks, name="rdata")
        for bank in range(memory.banks):
            mine = Mux(
                self.tile.valid & self.tile.mask[bank],
                self.tile.data.word_select(bank, memory.bits),
                self.word.data,
            )
            m.submodules[f"bank{bank}"] = ram(
                memory,
                i_ren=reads[bank],
                i_raddr=read_addr[bank],
                o_rdata=words.word_select(bank, memory.bits),
                i_wen=writes[bank],
                i_waddr=write_addr[bank],
                i_wdata=mine,
                i_wmask=C(1, 1),
            )
        wrong = {port: port.valid & port.ready & ~holds(memory, port.addr) for port in (*readers, self.tile, self.word)}
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
        banks = self.memory.banks
        enable, addr, taken = Signal(banks, name=f"{kind}_banks"), [C(0, ADDR)] * banks, C(0, banks)
        for port in reversed(ports):  # the first becomes the outermost choice
            addr = [Mux(port.valid & port.mask[bank], port.addr, addr[bank]) for bank in range(banks)]
        accessed = C(0, banks)
        for port in ports:
            m.d.comb += port.ready.eq(~(taken & port.mask).any())
            accessed = accessed | Mux(port.valid & port.ready & holds(self.memory, port.addr), port.mask, 0)
            taken = taken | Mux(port.valid, port.mask, 0)
        m.d.comb += enable.eq(accessed)
        return enable, [value[: address_bits(self.memory)] for value in addr]
