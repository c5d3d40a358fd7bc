"""LOAD and STORE: bursts of external memory to and from words of on-chip memories.

Each unit has two decoupled stages, so that the bus streams across instructions: ``Bursts`` turns a transfer into addresses of
bursts, and a data stage walks the words. What every field means is in docs/instruction-set.md, "LOAD, STORE".
"""

from amaranth import C, Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, Mem
from ternbin.contract.memories import ID_BITS, TABLES, banked
from ternbin.contract.pipeline import DESCRIPTORS, OUTSTANDING, READ_AHEAD
from ternbin.contract.transfers import (
    LOADABLE,
    STORABLE,
    bank_words,
    beat_words,
    can_expand,
    transfer_banks,
    transfer_words,
    word_beats,
)
from ternbin.rtl.parts.banks import read_port, write_port
from ternbin.rtl.parts.interfaces import ReadInterface, Stream, UnitInterface, UnitPort, WriteInterface, WritePort
from ternbin.rtl.transfer.axi import Burst, BurstView, ReadBeat, ReadBeatView, WriteBeat, WriteBeatView
from ternbin.rtl.transfer.trits import Unpack
from ternbin.rtl.transfer.words import Bursts, Transfer, Words, lookup, packs, transfer_view


def _names(memories: tuple[Mem, ...]) -> list[str]:
    return [mem.name.lower() for mem in memories]


class TransferUnit(wiring.Component):
    """Ports that LOAD and STORE have in common.

    ``abort`` is held until ``busy`` of ``port`` is 0: what the bus has begun is finished, the rest dropped. ``address_fault``: an on-chip
    or external address of the transfer is out of range. ``bus_fault``: an error response, to the burst at byte address ``bus_addr``.
    """

    port: UnitInterface
    abort: Signal
    address_fault: Signal
    bus_fault: Signal
    bus_addr: Signal

    def __init__(self, hw: HwConfig, ports: dict[str, wiring.Member], fpga: bool):
        self.hw, self._fpga = hw, fpga
        super().__init__(
            {
                "port": In(UnitPort()),
                "abort": In(1),
                "address_fault": Out(1),
                "bus_fault": Out(1),
                "bus_addr": Out(hw.axi_addr_bits),
                **ports,
            }
        )

    @property
    def _goes_on(self) -> Value:
        """Whether memories are accessed: not from the first cycle of ``abort`` on, or in the form for FPGAs the second, without words."""
        return C(1, 1) if self._fpga else ~self.abort


def _descriptors(m: Module, unit: TransferUnit, bursts: Bursts, words: Words) -> None:
    """An instruction goes to both stages at once; the data stage may lag by DESCRIPTORS transfers."""
    transfer = transfer_view(unit.port.instruction.payload)
    fifo = SyncFIFO(width=Transfer().size, depth=DESCRIPTORS)
    m.submodules.descriptors = ResetInserter(unit.abort)(fifo)
    valid = unit.port.instruction.valid
    m.d.comb += [
        bursts.i.payload.eq(transfer),
        bursts.i.valid.eq(valid & fifo.w_rdy),
        unit.port.instruction.ready.eq(bursts.i.ready & fifo.w_rdy),
        fifo.w_data.eq(transfer),
        fifo.w_en.eq(valid & bursts.i.ready & fifo.w_rdy),
        words.i.payload.eq(fifo.r_data),
        words.i.valid.eq(fifo.r_rdy),
        fifo.r_en.eq(words.i.ready),
    ]


class LoadUnit(TransferUnit):
    """External memory to on-chip memories.

    Done: the last word was written. ``lutv``, ``lutx``: tables, ``addr`` = beat number. ``busy`` of the port stays until every beat that
    was asked for has come.
    """

    lutv_w: WriteInterface
    lutx_w: WriteInterface
    idbuf_r: ReadInterface
    ar: Stream[BurstView]
    r: Stream[ReadBeatView]

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        shapes = banked(hw)
        targets = {f"{name}_w": Out(write_port(shapes[name])) for name in _names(LOADABLE) if name in shapes}
        super().__init__(
            hw,
            {
                **targets,
                "lutv_w": Out(WritePort(1, hw.axi_data_bits, 1)),
                "lutx_w": Out(WritePort(1, hw.axi_data_bits, 1)),
                "idbuf_r": Out(read_port(shapes["idbuf"])),
                "ar": Out(stream.Signature(Burst(hw))),
                "r": In(stream.Signature(ReadBeat(hw))),
            },
            fpga,
        )

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        bursts, words = Bursts(hw, indirect=True, ahead=self._fpga), Words(hw, ahead=self._fpga)
        m.submodules.bursts = ResetInserter(self.abort)(bursts)
        m.submodules.words = ResetInserter(self.abort)(words)
        _descriptors(m, self, bursts, words)
        wiring.connect(m, bursts.idbuf_r, wiring.flipped(self.idbuf_r))
        waiting = self._ask(m, bursts)
        stored, full, taken, part = self._assemble(m, words)
        weights = self._codes(stored[: self._places(Mem.WBUF)])
        if hw.sign_words > hw.load_words:
            plain = self._codes(stored[: word_beats(hw, Mem.WBUF, False)])
            weights = Mux(words.t.expand, weights, plain.replicate(hw.sign_words // hw.load_words))
        if hw.weight_pack == "5trit":
            weights, full = self._unpack(m, words, weights, full, taken)
        m.d.comb += words.next.eq(full & taken)
        self._write(m, words, stored, weights, full, taken, part)
        lut = (words.t.mem == Mem.LUTV) | (words.t.mem == Mem.LUTX)
        over = full & (words.over | (lut & (words.addr >= transfer_words(hw, Mem.LUTV))))
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
            self.ar.payload.eq(bursts.o.payload.burst),
            self.ar.valid.eq(bursts.o.valid & fifo.w_rdy & ~self.abort),
            bursts.o.ready.eq(self.ar.ready & fifo.w_rdy & ~self.abort),
            fifo.w_data.eq(bursts.o.payload.burst.addr),
            fifo.w_en.eq(self.ar.valid & self.ar.ready),
            fifo.r_en.eq(self.r.valid & self.r.ready & self.r.payload.last),
            self.bus_fault.eq(self.r.valid & self.r.ready & self.r.payload.error & ~self.abort),
            self.bus_addr.eq(fifo.r_data),
        ]
        return fifo.r_rdy

    def _places(self, mem: Mem) -> int:
        """Beats that are kept of a word of ``mem``, or for several; with ``expand`` a beat fills two."""
        plain = word_beats(self.hw, mem, False)
        return max(plain, 2 * word_beats(self.hw, mem, True)) if can_expand(self.hw, mem) else plain

    def _pair(self, beat: Value) -> list[Value]:
        """The two beats of code words that a beat of 1-bit codes stands for."""
        half = self.hw.axi_data_bits // 2
        part = min(half, self.hw.lanes)
        words = [Cat(C(-1, part), ~beat[at : at + part]) for at in range(0, len(beat), part)]
        return [Cat(words[: len(words) // 2]), Cat(words[len(words) // 2 :])]

    def _assemble(self, m: Module, words: Words) -> tuple[list[Signal], Signal, Signal, Signal]:
        """Collects a word, or a beat of words; returns the beats, whether a word is there, the signal that says it is being written,
        and which word of a beat it is. With ``expand`` a beat fills the places of two."""
        expand = words.t.expand if self.hw.is_ternary else None
        count = max(self._places(mem) for mem in LOADABLE)
        slot, last_slot = Signal(range(max(2, count))), Signal(range(max(2, count)))
        stored = [Signal(self.hw.axi_data_bits, name=f"beat{i}") for i in range(count)]
        full, taken = Signal(), Signal()
        several = beat_words(self.hw, Mem.ABUF, self.hw.is_ternary)
        part, last_part = Signal(range(several)), Signal(range(several))
        used = Signal(init=1)  # a beat is used up with its last word, or the last of a row
        if several > 1:
            lookup(m, last_part, self.hw, words.t, lambda *of: beat_words(*of) - 1)
            m.d.comb += used.eq(words.row_last | (part == last_part))
        lookup(m, last_slot, self.hw, words.t, lambda *of: word_beats(*of) - 1 << of[-1])
        valid, ready = Signal(), Signal()
        m.d.comb += [
            valid.eq(self.r.valid & words.active & ~packs(self.hw, words.t)),
            ready.eq(~full | (taken & used & ~words.last)),  # beats after the last word belong to the next transfer
            self.r.ready.eq(ready & words.active | self.abort),
        ]
        with m.If(words.next):
            m.d.sync += [full.eq(~used), part.eq(Mux(used, 0, part + 1))]
        with m.If(valid & ready):
            beat = self.r.payload.data
            pair = self._pair(beat) if expand is not None else []
            for i, register in enumerate(stored):
                at, data = i, beat
                if expand is not None and i < self._places(Mem.WBUF):
                    at, data = Mux(expand, i & ~1, i) if i % 2 else i, Mux(expand, pair[i % 2], beat)
                with m.If(slot == at):
                    m.d.sync += register.eq(data)
            following = slot + (1 if expand is None else expand + 1)
            m.d.sync += [slot.eq(Mux(slot == last_slot, 0, following)), full.eq(slot == last_slot)]
        with m.If(self.abort):
            m.d.sync += [slot.eq(0), full.eq(0), part.eq(0)]
        return stored, full, taken, part

    def _codes(self, parts: list[Signal]) -> Value:
        """Code words of beats: several of each, or one of all."""
        if self.hw.kind == "binary" or self.hw.axi_data_bits >= self.hw.code_word_bits:
            return Cat(parts)
        half = self.hw.axi_data_bits // 2
        return Cat(*(beat[:half] for beat in parts), *(beat[half:] for beat in parts))

    def _unpack(self, m: Module, words: Words, weights: Value, full: Signal, taken: Signal) -> tuple[Value, Value]:
        """Packed trits beside other words: returns what WBUF is written with, and whether a word is there."""
        trits = words.active & packs(self.hw, words.t)
        m.submodules.unpack = unpack = ResetInserter(self.abort)(Unpack(self.hw))
        m.d.comb += [
            unpack.i.payload.eq(self.r.payload.data),
            unpack.i.valid.eq(self.r.valid & trits),
            unpack.o.ready.eq(taken),
            unpack.drop.eq(words.tile_last),
            unpack.last.eq(words.last),
        ]
        with m.If(trits):
            m.d.comb += self.r.ready.eq(unpack.i.ready | self.abort)
        return Mux(trits, unpack.o.payload, weights), full | unpack.o.valid

    def _write(
        self, m: Module, words: Words, stored: list[Signal], weights: Value, full: Value, taken: Signal, part: Signal
    ) -> None:
        count = {mem: self._places(mem) for mem in LOADABLE}
        code = self._codes(stored[: count[Mem.ABUF]]).word_select(part, self.hw.code_word_bits)
        contents = {
            Mem.ABUF: code,
            Mem.WBUF: weights,
            Mem.KBUF: code,
            Mem.RBUF: Cat(stored[: count[Mem.RBUF]]),
            Mem.PBUF: Cat(stored[: count[Mem.PBUF]]),
            Mem.IDBUF: stored[0][:ID_BITS],
            Mem.LUTV: stored[0],
            Mem.LUTX: stored[0],
        }
        for mem, word in contents.items():
            port = getattr(self, f"{mem.name.lower()}_w")
            mine = full & words.of(mem)
            groups = [bank_words(self.hw, mem, expand) for expand in (False, True)]
            limit = transfer_words(self.hw, mem) if mem in TABLES else 1 << ADDR
            m.d.comb += [
                port.valid.eq(mine & ~words.over & (words.addr < limit) & self._goes_on),
                port.addr.eq(words.addr),
                port.mask.eq(Cat(self._is_for(words, bank, *groups) for bank in range(len(port.mask)))),
                port.data.eq(word),
                port.lane_mask.eq(~0),
            ]
            with m.If(port.valid & port.ready):
                m.d.comb += taken.eq(1)

    def _is_for(self, words: Words, bank: int, plain: int, expanded: int) -> Value:
        """Whether a word is for ``bank``, a word being one each of so many banks."""
        if plain == expanded:
            return words.bank == bank // plain
        return words.bank == Mux(words.t.expand, bank // expanded, bank // plain)


class StoreUnit(TransferUnit):
    """On-chip memories to external memory. Done: every burst of the transfer was answered."""

    aw: Stream[BurstView]
    w: Stream[WriteBeatView]
    b: Stream[Value]

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        sources = {f"{name}_r": Out(read_port(banked(hw)[name])) for name in _names(STORABLE)}
        super().__init__(
            hw,
            {
                **sources,
                "aw": Out(stream.Signature(Burst(hw))),
                "w": Out(stream.Signature(WriteBeat(hw))),
                "b": In(stream.Signature(1)),
            },
            fpga,
        )

    def elaborate(self, platform):
        m = Module()
        bursts, words = Bursts(self.hw, indirect=False, ahead=self._fpga), Words(self.hw, ahead=self._fpga)
        m.submodules.bursts = ResetInserter(self.abort)(bursts)
        m.submodules.words = ResetInserter(self.abort)(words)
        _descriptors(m, self, bursts, words)
        waiting, lengths = self._ask(m, bursts)
        queue, head, reading = self._read(m, words)
        self._send(m, queue, head, lengths)
        m.d.comb += [
            self.address_fault.eq(bursts.fault | (words.active & words.over)),
            self.port.busy.eq(
                bursts.busy | words.active | words.i.valid | waiting | lengths.r_rdy | reading | queue.r_rdy
            ),
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
            self.aw.payload.eq(bursts.o.payload.burst),
            self.aw.valid.eq(bursts.o.valid & room),
            bursts.o.ready.eq(self.aw.ready & room),
            fifo.w_data.eq(Cat(bursts.o.payload.burst.addr, bursts.o.payload.last)),
            fifo.w_en.eq(sent),
            lengths.w_data.eq(bursts.o.payload.burst.len),
            lengths.w_en.eq(sent),
            self.b.ready.eq(1),
            fifo.r_en.eq(self.b.valid),
            self.bus_addr.eq(head.addr),
            self.bus_fault.eq(self.b.valid & self.b.payload & ~self.abort),
            self.port.done.eq(self.b.valid & ~self.b.payload & head.last & ~self.abort),
        ]
        return fifo.r_rdy, lengths

    def _read(self, m: Module, words: Words) -> tuple[SyncFIFO, data.View, Value]:
        """Reads words ahead into a queue; returns it, its head (beats, number of beats - 1), and whether a word comes.

        An entry holds a word, or all words of a beat.
        """
        count = {mem: word_beats(self.hw, mem, False) for mem in STORABLE}
        bits = self.hw.axi_data_bits * max(count.values())
        last_bits = max(1, (bits // self.hw.axi_data_bits - 1).bit_length())
        layout = data.StructLayout({"word": bits, "last": last_bits})
        fifo = SyncFIFO(width=layout.size, depth=READ_AHEAD)
        m.submodules.queue = ResetInserter(self.abort)(fifo)
        taken, mem, bank, row_last = Signal(), Signal(4), Signal.like(words.bank), Signal()
        complete = Signal(init=1)
        wanted = words.active & ~words.over & self._room(m, fifo, words.next, taken, complete) & self._goes_on
        for source in STORABLE:
            port = getattr(self, f"{source.name.lower()}_r")
            m.d.comb += [
                port.valid.eq(wanted & words.of(source)),
                port.addr.eq(words.addr),
                port.mask.eq(1 << words.bank),
            ]
            with m.If(port.valid & port.ready):
                m.d.comb += words.next.eq(1)
        m.d.sync += [
            taken.eq(words.next & ~self.abort),
            mem.eq(words.t.mem),
            bank.eq(words.bank),
            row_last.eq(words.row_last),
        ]
        word, last = Signal(bits), Signal(last_bits)
        with m.If(taken), m.Switch(mem):
            for source in STORABLE:
                with m.Case(source):
                    m.d.comb += [word.eq(self._beats(m, source, bank)), last.eq(count[source] - 1)]
        m.d.comb += [fifo.w_data.eq(Cat(word, last)), fifo.w_en.eq(taken & complete)]
        several = beat_words(self.hw, Mem.ABUF, False)
        if several > 1:
            part, earlier = Signal(range(several)), Signal(self.hw.axi_data_bits)
            with m.If((mem == Mem.ABUF) | (mem == Mem.KBUF)):
                beat = Signal(bits)
                m.d.comb += [
                    beat.eq(earlier | (word[: self.hw.code_word_bits] << part * self.hw.code_word_bits)),
                    fifo.w_data.eq(Cat(beat, last)),
                    complete.eq(row_last | part.all()),
                ]
                with m.If(taken):
                    m.d.sync += [part.eq(Mux(complete, 0, part + 1)), earlier.eq(Mux(complete, 0, beat))]
            with m.If(self.abort):
                m.d.sync += [part.eq(0), earlier.eq(0)]
        return fifo, data.View(layout, fifo.r_data), taken

    def _room(self, m: Module, fifo: SyncFIFO, asked: Value, taken: Value, complete: Value) -> Value:
        """Whether the queue has a place for one more word; ``asked`` for it now, or ``taken`` a cycle ago."""
        if not self._fpga:
            level = fifo.level  # pyright: ignore[reportAttributeAccessIssue]  # not in the stub
            return level + taken < READ_AHEAD
        count, without, room = Signal(range(READ_AHEAD + 1)), Signal(range(READ_AHEAD + 1)), Signal(init=1)
        m.d.comb += without.eq(count - (fifo.r_en & fifo.r_rdy) - (taken & ~complete))
        m.d.sync += [
            count.eq(without + asked),
            room.eq(Mux(asked, without < READ_AHEAD - 1, without < READ_AHEAD)),
        ]
        with m.If(self.abort):
            m.d.sync += [count.eq(0), room.eq(1)]
        return room

    def _beats(self, m: Module, source: Mem, bank: Signal) -> Value:
        """The word that was read, its beats one after the other."""
        words = getattr(self, f"{source.name.lower()}_r").data
        word = Signal(len(Value.cast(words[0])), name=f"{source.name.lower()}_word")
        with m.Switch(bank):
            for number in range(transfer_banks(self.hw, source, False)):
                with m.Case(number):
                    m.d.comb += word.eq(words[number])
        if source == Mem.IDBUF:
            return word[:ID_BITS]
        if self.hw.kind == "binary" or beat_words(self.hw, source, False) > 1 or source not in (Mem.ABUF, Mem.KBUF):
            return word
        half, lanes = self.hw.axi_data_bits // 2, self.hw.lanes
        return Cat(Cat(word[at : at + half], word[lanes + at : lanes + at + half]) for at in range(0, lanes, half))

    def _send(self, m: Module, queue: SyncFIFO, head: data.View, lengths: SyncFIFO) -> None:
        """Beats of the queued words under the bursts asked for; while aborting, beats that write nothing."""
        slot, beat = Signal.like(head.last), Signal(8)
        last_slot = slot == head.last
        m.d.comb += [
            self.w.valid.eq(lengths.r_rdy & (queue.r_rdy | self.abort)),
            self.w.payload.strobe.eq(~self.abort),
            self.w.payload.data.eq(head.word.word_select(slot, self.hw.axi_data_bits)),
            self.w.payload.last.eq(beat == lengths.r_data),
        ]
        with m.If(self.w.valid & self.w.ready):
            m.d.comb += [lengths.r_en.eq(self.w.payload.last), queue.r_en.eq(last_slot)]
            m.d.sync += [
                beat.eq(Mux(self.w.payload.last, 0, beat + 1)),
                slot.eq(Mux(last_slot, 0, slot + 1)),
            ]
        with m.If(self.abort):
            m.d.sync += slot.eq(0)
