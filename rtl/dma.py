"""LOAD and STORE: bursts of external memory to and from words of on-chip memories.

Each unit has two decoupled stages, so that the bus streams across instructions: ``Bursts`` turns a transfer into addresses of
bursts, and a data stage walks the words. What every field means is in docs/architecture.md, "LOAD, STORE".
"""

from amaranth import C, Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ternbin.hw import HwConfig
from ternbin.isa import ADDR, FIELDS, HEADER, Mem, Op
from ternbin.rtl.axi import PAGE_BYTES, Burst, ReadBeat, WriteBeat
from ternbin.rtl.interfaces import UnitPort, WritePort
from ternbin.rtl.memory import geometries

LUT_ENTRIES = 256
DESCRIPTORS = 4  # transfers that the two stages of a unit may be apart
OUTSTANDING = 16  # bursts asked for and not answered
_HEADER_BITS = sum(width for _, width in HEADER)


class Transfer(data.StructLayout):
    """The fields of LOAD and STORE."""

    def __init__(self):
        super().__init__(dict(FIELDS[Op.LOAD]))


def transfer_view(instruction: Value) -> data.View:
    """The fields of a LOAD or STORE instruction word."""
    layout = Transfer()
    return data.View(layout, instruction[_HEADER_BITS:_HEADER_BITS + layout.size])


def word_beats(hw: HwConfig) -> dict[Mem, int]:
    """Bus beats of one word of every memory that can be transferred; a power of two."""
    bits = hw.axi_data_bits
    code = hw.code_word_bits // bits
    return {
        Mem.ABUF: code, Mem.WBUF: code, Mem.KBUF: code, Mem.RBUF: hw.res_word_bits // bits,
        Mem.PBUF: hw.param_word_bits // bits, Mem.IDBUF: 1, Mem.LUTV: 1, Mem.LUTX: 1,
    }


def bank_count(hw: HwConfig) -> dict[Mem, int]:
    """Banks of every memory that can be transferred; a power of two."""
    banks = {Mem.ABUF: hw.cols, Mem.WBUF: hw.rows, Mem.KBUF: hw.rows}
    return {mem: banks.get(mem, 1) for mem in word_beats(hw)}


def lut_beats(hw: HwConfig) -> int:
    return LUT_ENTRIES * 16 // hw.axi_data_bits


def _lookup(m: Module, target: Signal, selector: Value, values: dict[Mem, int]) -> None:
    with m.Switch(selector):
        for mem, value in values.items():
            with m.Case(mem):
                m.d.comb += target.eq(value)


def _saturated(value: Value, bits: int) -> Value:
    """``bits`` low bits and one more that says whether anything was lost."""
    return Cat(value[:bits], value[bits:].any())


def transfer_fault(hw: HwConfig, m: Module, transfer: data.View, store: Value) -> Value:
    """1 for a combination of fields that no unit can execute.

    These are: a memory that cannot be transferred (score words; tables cannot be stored), a bank that does not exist, an empty
    transfer, an address or stride that is not aligned to the bus, an external address beyond the bus, ``expand`` of anything but
    a load of code words of a ternary array in whole beats, ``indirect`` on a store.
    """
    align = hw.axi_bytes - 1
    banks, code, loadable = Signal(7), Signal(), Signal()
    _lookup(m, banks, transfer.mem, bank_count(hw))
    codes = {Mem.ABUF: 1, Mem.WBUF: 1, Mem.KBUF: 1}
    _lookup(m, code, transfer.mem, codes)
    _lookup(m, loadable, transfer.mem, dict.fromkeys(word_beats(hw), 1))
    lut = (transfer.mem == Mem.LUTV) | (transfer.mem == Mem.LUTX)
    whole = 1 if word_beats(hw)[Mem.ABUF] > 1 else ~transfer.inner[0]
    can_expand = code & ~store & whole if hw.kind == "ternary" else C(0, 1)
    beyond = transfer.dram[hw.axi_addr_bits:].any() if hw.axi_addr_bits < len(transfer.dram) else C(0, 1)
    fault = Signal(name="transfer_fault")
    m.d.comb += fault.eq(
        ~loadable | (store & lut) | (transfer.bank >= banks) | (transfer.inner == 0) | (transfer.outer == 0)
        | (transfer.dram & align).any() | (transfer.stride & align).any() | beyond
        | (transfer.expand & ~can_expand) | (transfer.indirect & store)
    )
    return fault


class Bursts(wiring.Component):
    """The addresses of a transfer, one stream item per burst, in order.

    ``o.last`` marks the last burst of a transfer. Rows that lie end to end become one region. With ``indirect`` (constructor), rows
    may be picked by IDBUF. ``fault``: an external address is beyond the bus; the stage then waits for reset.
    """

    def __init__(self, hw: HwConfig, *, indirect: bool):
        self.hw, self._indirect = hw, indirect
        idbuf = geometries(hw)["idbuf"]
        super().__init__({
            "i": In(stream.Signature(Transfer())),
            "o": Out(stream.Signature(data.StructLayout({"burst": Burst(hw), "last": 1}))),
            "fault": Out(1), "busy": Out(1),
            **({"idbuf_r": Out(idbuf.read_port())} if indirect else {}),
        })

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        bits, shift = hw.axi_addr_bits, (hw.axi_bytes - 1).bit_length()
        t = Signal(Transfer())
        most = max(word_beats(hw).values())
        row_beats = Signal(16 + most.bit_length())
        per_row, left = Signal.like(row_beats), Signal(len(row_beats) + 16)
        rows = Signal(16)
        row, at = Signal(bits + 1), Signal(bits + 1)
        size = Signal(range(PAGE_BYTES // hw.axi_bytes + 1))
        _lookup_shift(m, row_beats, t, word_beats(hw))
        one_region = ~t.indirect & ((t.outer == 1) | (t.stride == row_beats << shift))
        to_page = (PAGE_BYTES // hw.axi_bytes) - at[shift:PAGE_BYTES.bit_length() - 1]
        cap = min(hw.burst_beats, PAGE_BYTES // hw.axi_bytes)
        limit = Signal.like(size)
        m.d.comb += [
            limit.eq(Mux(to_page < cap, to_page, cap)), size.eq(Mux(left < limit, left, limit)),
            self.o.payload.burst.addr.eq(at), self.o.payload.burst.len.eq(size - 1),
            self.o.payload.last.eq((left == size) & (rows == 1)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += t.eq(self.i.payload)
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.sync += [
                    per_row.eq(row_beats), left.eq(Mux(one_region, row_beats * t.outer, row_beats)),
                    rows.eq(Mux(one_region, 1, t.outer)), row.eq(t.dram[:bits]), at.eq(t.dram[:bits]),
                ]
                m.next = "BURST"
                if self._indirect:
                    with m.If(t.indirect):
                        m.next = "LOOKUP"
            with m.State("BURST"):
                m.d.comb += [self.o.valid.eq(~at[bits]), self.fault.eq(at[bits])]
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += [at.eq(at[:bits] + (size << shift)), left.eq(left - size)]
                    with m.If(left == size):
                        following = _saturated(row + t.stride, bits)
                        m.d.sync += [row.eq(following), at.eq(following), left.eq(per_row), rows.eq(rows - 1)]
                        with m.If(rows == 1):
                            m.next = "IDLE"
                        if self._indirect:
                            with m.Elif(t.indirect):
                                m.next = "LOOKUP"
            if self._indirect:
                self._lookup_states(m, t, at)
        m.d.comb += self.busy.eq(~self.i.ready)
        return m

    def _lookup_states(self, m: Module, t: data.View, at: Signal) -> None:
        """Address of a row: id of entry ``index`` + row number times stride. One multiplication a row, in a cycle of its own."""
        entry = Signal(32)
        m.d.comb += [self.idbuf_r.addr.eq(t.index), self.idbuf_r.mask.eq(1)]
        with m.State("LOOKUP"):
            m.d.comb += self.idbuf_r.valid.eq(1)
            with m.If(self.idbuf_r.ready):
                m.d.sync += t.index.eq(t.index + 1)
                m.next = "ENTRY"
        with m.State("ENTRY"):
            m.d.sync += entry.eq(self.idbuf_r.data[0][:32])
            m.next = "SCALE"
        with m.State("SCALE"):
            m.d.sync += at.eq(_saturated(t.dram + entry * t.stride, self.hw.axi_addr_bits))
            m.next = "BURST"


def _lookup_shift(m: Module, row_beats: Signal, t: data.View, beats: dict[Mem, int]) -> None:
    """Bus beats of ``inner`` words of the memory of ``t``."""
    full = Signal.like(row_beats)
    with m.Switch(t.mem):
        for mem, count in beats.items():
            with m.Case(mem):
                m.d.comb += full.eq(t.inner << (count - 1).bit_length())
    m.d.comb += row_beats.eq(Mux(t.expand, full >> 1, full))


class Words(wiring.Component):
    """Bank and address of each word of a transfer, in order; ``next`` steps.

    A transfer is taken from ``i`` when none is active or with its last word's ``next`` one cycle later. ``over``: the address does
    not fit ADDR bits. ``last``: this is the last word.
    """

    def __init__(self, hw: HwConfig):
        self.hw = hw
        super().__init__({
            "i": In(stream.Signature(Transfer())), "active": Out(1), "next": In(1), "t": Out(Transfer()), "bank": Out(6),
            "addr": Out(ADDR), "over": Out(1), "last": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        base, word, row, last_bank = Signal(ADDR + 1), Signal(16), Signal(16), Signal(6)
        last_word = word == self.t.inner - 1
        address = base + word
        _lookup(m, last_bank, self.t.mem, {mem: banks - 1 for mem, banks in bank_count(self.hw).items()})
        m.d.comb += [
            self.i.ready.eq(~self.active), self.addr.eq(address), self.over.eq(address[ADDR:].any()),
            self.last.eq(last_word & (row == self.t.outer - 1)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.active.eq(1), self.t.eq(self.i.payload), self.bank.eq(self.i.payload.bank),
                base.eq(self.i.payload.addr), word.eq(0), row.eq(0),
            ]
        with m.If(self.next):
            m.d.sync += [word.eq(Mux(last_word, 0, word + 1)), self.active.eq(~self.last)]
            with m.If(last_word):
                m.d.sync += [row.eq(row + 1), self.bank.eq(self.bank + 1)]
                with m.If(self.bank == last_bank):
                    # Once out of range it stays there: ADDR + 1 bits and a sticky top bit.
                    wide = base + self.t.inner
                    m.d.sync += [self.bank.eq(0), base.eq(Cat(wide[:ADDR], base[ADDR] | wide[ADDR:].any()))]
        return m


def _descriptors(m: Module, unit, bursts: Bursts, words: Words) -> None:
    """An instruction goes to both stages at once; the data stage may lag by DESCRIPTORS transfers."""
    transfer = transfer_view(unit.port.instruction.payload)
    fifo = SyncFIFO(width=Transfer().size, depth=DESCRIPTORS)
    m.submodules.descriptors = ResetInserter(unit.abort)(fifo)
    valid = unit.port.instruction.valid
    m.d.comb += [
        bursts.i.payload.eq(transfer), bursts.i.valid.eq(valid & fifo.w_rdy),
        unit.port.instruction.ready.eq(bursts.i.ready & fifo.w_rdy),
        fifo.w_data.eq(transfer), fifo.w_en.eq(valid & bursts.i.ready & fifo.w_rdy),
        words.i.payload.eq(fifo.r_data), words.i.valid.eq(fifo.r_rdy), fifo.r_en.eq(words.i.ready),
    ]


_UNIT_PORTS = {
    "port": In(UnitPort()),
    "abort": In(1),  # hold until ``busy`` is 0: finishes what the bus has begun, drops the rest
    "address_fault": Out(1),  # an on-chip or external address of the transfer is out of range
    "bus_fault": Out(1),  # an error response
}


class LoadUnit(wiring.Component):
    """External memory to on-chip memories.

    ``bus_addr``: byte address of the burst that ``bus_fault`` is about. Done: the last word was written. ``lutv``, ``lutx``: tables,
    ``addr`` = beat number. ``busy`` of the port stays until every beat that was asked for has come.
    """

    def __init__(self, hw: HwConfig):
        self.hw = hw
        shapes = geometries(hw)
        targets = {f"{name}_w": Out(shapes[name].write_port()) for name in ("abuf", "wbuf", "kbuf", "rbuf", "pbuf", "idbuf")}
        super().__init__({
            **_UNIT_PORTS, **targets, "bus_addr": Out(hw.axi_addr_bits),
            "lutv_w": Out(WritePort(1, hw.axi_data_bits, 1)), "lutx_w": Out(WritePort(1, hw.axi_data_bits, 1)),
            "idbuf_r": Out(shapes["idbuf"].read_port()),
            "ar": Out(stream.Signature(Burst(hw))), "r": In(stream.Signature(ReadBeat(hw))),
        })

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        bursts, words = Bursts(hw, indirect=True), Words(hw)
        m.submodules.bursts = ResetInserter(self.abort)(bursts)
        m.submodules.words = ResetInserter(self.abort)(words)
        _descriptors(m, self, bursts, words)
        wiring.connect(m, bursts.idbuf_r, wiring.flipped(self.idbuf_r))
        waiting = self._ask(m, bursts)
        beat_valid, beat, beat_ready = self._internal_beats(m, words)
        stored, full, ready = self._assemble(m, words, beat_valid, beat, beat_ready)
        self._write(m, words, stored, full, ready)
        lut = (words.t.mem == Mem.LUTV) | (words.t.mem == Mem.LUTX)
        over = full & (words.over | (lut & (words.addr >= lut_beats(hw))))
        m.d.comb += [
            self.address_fault.eq(bursts.fault | over),
            self.port.busy.eq(bursts.busy | words.active | waiting | words.i.valid),
            self.port.done.eq(words.next & words.last & ~self.abort),
        ]
        return m

    def _ask(self, m: Module, bursts: Bursts) -> Value:
        """Read addresses, remembered until the last beat; returns whether beats are due."""
        m.submodules.outstanding = fifo = SyncFIFO(width=self.hw.axi_addr_bits, depth=OUTSTANDING)
        m.d.comb += [
            self.ar.payload.eq(bursts.o.payload.burst), self.ar.valid.eq(bursts.o.valid & fifo.w_rdy & ~self.abort),
            bursts.o.ready.eq(self.ar.ready & fifo.w_rdy & ~self.abort),
            fifo.w_data.eq(bursts.o.payload.burst.addr), fifo.w_en.eq(self.ar.valid & self.ar.ready),
            fifo.r_en.eq(self.r.valid & self.r.ready & self.r.payload.last),
            self.bus_fault.eq(self.r.valid & self.r.ready & self.r.payload.error & ~self.abort),
            self.bus_addr.eq(fifo.r_data),
        ]
        return fifo.r_rdy

    def _internal_beats(self, m: Module, words: Words):
        """Beats as the memories see them: bus beats, or two for each (its halves as signs) with ``expand``."""
        half = Signal()
        valid, beat, ready = Signal(), Signal(self.hw.axi_data_bits), Signal()
        m.d.comb += [
            valid.eq(self.r.valid & words.active), beat.eq(self.r.payload.data),
            self.r.ready.eq(ready & words.active | self.abort),
        ]
        if self.hw.kind == "ternary":
            bits = self.hw.axi_data_bits // 2
            with m.If(words.t.expand):
                m.d.comb += [
                    beat.eq(Cat(C(-1, bits), ~self.r.payload.data.word_select(half, bits))),
                    self.r.ready.eq(ready & words.active & half | self.abort),
                ]
                with m.If(valid & ready):
                    m.d.sync += half.eq(~half)
            with m.If(self.abort):
                m.d.sync += half.eq(0)
        return valid, beat, ready

    def _assemble(self, m: Module, words: Words, valid: Value, beat: Value, ready: Signal):
        """Collects a word; returns its beats, whether it is complete, and the signal that says it is being written."""
        beats = word_beats(self.hw)
        slot, last_slot = Signal(range(max(2, *beats.values()))), Signal(range(max(2, *beats.values())))
        stored = [Signal(self.hw.axi_data_bits, name=f"beat{i}") for i in range(max(beats.values()))]
        full, taken = Signal(), Signal()
        _lookup(m, last_slot, words.t.mem, {mem: count - 1 for mem, count in beats.items()})
        m.d.comb += [
            words.next.eq(full & taken),
            ready.eq(~full | (taken & ~words.last)),  # beats after the last word belong to the next transfer
        ]
        with m.If(words.next):
            m.d.sync += full.eq(0)
        with m.If(valid & ready):
            for i, register in enumerate(stored):
                with m.If(slot == i):
                    m.d.sync += register.eq(beat)
            m.d.sync += [slot.eq(Mux(slot == last_slot, 0, slot + 1)), full.eq(slot == last_slot)]
        with m.If(self.abort):
            m.d.sync += [slot.eq(0), full.eq(0)]
        return stored, full, taken

    def _write(self, m: Module, words: Words, stored: list[Signal], full: Signal, taken: Signal) -> None:
        half = self.hw.axi_data_bits // 2
        count = word_beats(self.hw)
        code = Cat(stored[:count[Mem.ABUF]])
        if self.hw.kind == "ternary":
            parts = stored[:count[Mem.ABUF]]
            code = Cat(*(beat[:half] for beat in parts), *(beat[half:] for beat in parts))
        contents = {
            Mem.ABUF: code, Mem.WBUF: code, Mem.KBUF: code, Mem.RBUF: Cat(stored[:count[Mem.RBUF]]),
            Mem.PBUF: Cat(stored[:count[Mem.PBUF]]), Mem.IDBUF: stored[0][:32],
            Mem.LUTV: stored[0], Mem.LUTX: stored[0],
        }
        for mem, word in contents.items():
            port = getattr(self, f"{mem.name.lower()}_w")
            mine = full & (words.t.mem == mem)
            limit = lut_beats(self.hw) if mem in (Mem.LUTV, Mem.LUTX) else 1 << ADDR
            m.d.comb += [
                port.valid.eq(mine & ~words.over & (words.addr < limit) & ~self.abort), port.addr.eq(words.addr),
                port.mask.eq(1 << words.bank), port.data.eq(word), port.lane_mask.eq(~0),
            ]
            with m.If(port.valid & port.ready):
                m.d.comb += taken.eq(1)


class StoreUnit(wiring.Component):
    """On-chip memories to external memory. Done: every burst of the transfer was answered.

    ``bus_addr``: byte address of the burst that ``bus_fault`` is about.
    """

    SOURCES = (Mem.ABUF, Mem.WBUF, Mem.KBUF, Mem.RBUF, Mem.PBUF, Mem.IDBUF)
    READ_AHEAD = 4  # words

    def __init__(self, hw: HwConfig):
        self.hw = hw
        shapes = geometries(hw)
        sources = {f"{mem.name.lower()}_r": Out(shapes[mem.name.lower()].read_port()) for mem in self.SOURCES}
        super().__init__({
            **_UNIT_PORTS, **sources, "bus_addr": Out(hw.axi_addr_bits), "aw": Out(stream.Signature(Burst(hw))),
            "w": Out(stream.Signature(WriteBeat(hw))), "b": In(stream.Signature(1)),
        })

    def elaborate(self, platform):
        m = Module()
        bursts, words = Bursts(self.hw, indirect=False), Words(self.hw)
        m.submodules.bursts = ResetInserter(self.abort)(bursts)
        m.submodules.words = ResetInserter(self.abort)(words)
        _descriptors(m, self, bursts, words)
        waiting, lengths = self._ask(m, bursts)
        queue, head, reading = self._read(m, words)
        self._send(m, queue, head, lengths)
        m.d.comb += [
            self.address_fault.eq(bursts.fault | (words.active & words.over)),
            self.port.busy.eq(bursts.busy | words.active | words.i.valid | waiting | lengths.r_rdy | reading | queue.r_rdy),
        ]
        return m

    def _ask(self, m: Module, bursts: Bursts) -> tuple[Value, SyncFIFO]:
        """Write addresses; returns whether answers are due, and the lengths of the bursts whose data is still to be sent."""
        layout = data.StructLayout({"addr": self.hw.axi_addr_bits, "last": 1})
        m.submodules.outstanding = fifo = SyncFIFO(width=layout.size, depth=OUTSTANDING)
        m.submodules.lengths = lengths = SyncFIFO(width=8, depth=OUTSTANDING)
        head = data.View(layout, fifo.r_data)
        room = fifo.w_rdy & lengths.w_rdy & ~self.abort
        sent = self.aw.valid & self.aw.ready
        m.d.comb += [
            self.aw.payload.eq(bursts.o.payload.burst), self.aw.valid.eq(bursts.o.valid & room),
            bursts.o.ready.eq(self.aw.ready & room),
            fifo.w_data.eq(Cat(bursts.o.payload.burst.addr, bursts.o.payload.last)), fifo.w_en.eq(sent),
            lengths.w_data.eq(bursts.o.payload.burst.len), lengths.w_en.eq(sent),
            self.b.ready.eq(1), fifo.r_en.eq(self.b.valid), self.bus_addr.eq(head.addr),
            self.bus_fault.eq(self.b.valid & self.b.payload & ~self.abort),
            self.port.done.eq(self.b.valid & ~self.b.payload & head.last & ~self.abort),
        ]
        return fifo.r_rdy, lengths

    def _read(self, m: Module, words: Words) -> tuple[SyncFIFO, data.View, Value]:
        """Reads words ahead into a queue; returns it, its head (beats of a word, number of beats - 1), and whether a word comes."""
        count = word_beats(self.hw)
        bits = self.hw.axi_data_bits * max(count[mem] for mem in self.SOURCES)
        last_bits = max(1, (bits // self.hw.axi_data_bits - 1).bit_length())
        layout = data.StructLayout({"word": bits, "last": last_bits})
        fifo = SyncFIFO(width=layout.size, depth=self.READ_AHEAD)
        m.submodules.queue = ResetInserter(self.abort)(fifo)
        taken, mem, bank = Signal(), Signal(4), Signal.like(words.bank)
        wanted = words.active & ~words.over & (fifo.level + taken < self.READ_AHEAD) & ~self.abort
        for source in self.SOURCES:
            port = getattr(self, f"{source.name.lower()}_r")
            m.d.comb += [
                port.valid.eq(wanted & (words.t.mem == source)), port.addr.eq(words.addr), port.mask.eq(1 << words.bank),
            ]
            with m.If(port.valid & port.ready):
                m.d.comb += words.next.eq(1)
        m.d.sync += [taken.eq(words.next & ~self.abort), mem.eq(words.t.mem), bank.eq(words.bank)]
        word, last = Signal(bits), Signal(last_bits)
        with m.Switch(mem):
            for source in self.SOURCES:
                with m.Case(source):
                    m.d.comb += [word.eq(self._beats(source, bank)), last.eq(count[source] - 1)]
        m.d.comb += [fifo.w_data.eq(Cat(word, last)), fifo.w_en.eq(taken)]
        return fifo, data.View(layout, fifo.r_data), taken

    def _beats(self, source: Mem, bank: Signal) -> Value:
        """The word that was read, its beats one after the other."""
        words = getattr(self, f"{source.name.lower()}_r").data
        banks = bank_count(self.hw)[source]
        word = words[bank[:(banks - 1).bit_length()]] if banks > 1 else words[0]
        if source == Mem.IDBUF:
            return word[:32]
        if self.hw.kind == "binary" or source not in (Mem.ABUF, Mem.WBUF, Mem.KBUF):
            return word
        half, lanes = self.hw.axi_data_bits // 2, self.hw.lanes
        return Cat(
            Cat(word[at:at + half], word[lanes + at:lanes + at + half]) for at in range(0, lanes, half)
        )

    def _send(self, m: Module, queue: SyncFIFO, head: data.View, lengths: SyncFIFO) -> None:
        """Beats of the queued words under the bursts asked for; while aborting, beats that write nothing."""
        slot, beat = Signal.like(head.last), Signal(8)
        last_slot = slot == head.last
        m.d.comb += [
            self.w.valid.eq(lengths.r_rdy & (queue.r_rdy | self.abort)), self.w.payload.strobe.eq(~self.abort),
            self.w.payload.data.eq(head.word.word_select(slot, self.hw.axi_data_bits)), self.w.payload.last.eq(beat == lengths.r_data),
        ]
        with m.If(self.w.valid & self.w.ready):
            m.d.comb += [lengths.r_en.eq(self.w.payload.last), queue.r_en.eq(last_slot)]
            m.d.sync += [
                beat.eq(Mux(self.w.payload.last, 0, beat + 1)), slot.eq(Mux(last_slot, 0, slot + 1)),
            ]
        with m.If(self.abort):
            m.d.sync += slot.eq(0)


__all__ = ["Bursts", "LoadUnit", "StoreUnit", "Transfer", "Words", "transfer_fault", "transfer_view", "word_beats"]
