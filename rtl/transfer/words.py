"""What LOAD and STORE mean in addresses: fields, checks, bursts of external memory, words of on-chip memories."""

from collections.abc import Callable

from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, FIELDS, HEADER, Mem, Op
from ternbin.contract.memories import memories
from ternbin.contract.pipeline import PAGE_BYTES
from ternbin.contract.transfers import (
    LOADABLE,
    beat_words,
    can_expand,
    packs_trits,
    tile_rows,
    transfer_banks,
    word_beats,
)
from ternbin.rtl.parts.banks import read_port
from ternbin.rtl.parts.interfaces import ReadInterface, Record, Stream
from ternbin.rtl.transfer.axi import Burst, BurstView

_HEADER_BITS = sum(width for _, width in HEADER)


class Transfer(data.StructLayout):
    """The fields of LOAD and STORE."""

    def __init__(self):
        super().__init__(dict(FIELDS[Op.LOAD]))


def transfer_view(instruction: Value) -> data.View:
    """The fields of a LOAD or STORE instruction word."""
    layout = Transfer()
    return data.View(layout, instruction[_HEADER_BITS : _HEADER_BITS + layout.size])


def packs(hw: HwConfig, transfer: data.View) -> Value:
    """Whether a load reads five codes from a byte."""
    return packs_trits(hw, transfer.mem, transfer.expand) if hw.weight_pack == "5trit" else C(0, 1)


def lookup(m: Module, target: Signal, hw: HwConfig, t: data.View, value: Callable[[HwConfig, Mem, bool], int]) -> None:
    """``target`` gets ``value`` of the memory that ``t`` loads, as it is or with ``expand``."""
    with m.Switch(t.mem):
        for mem in LOADABLE:
            plain, expanded = (value(hw, mem, expand and can_expand(hw, mem)) for expand in (False, True))
            with m.Case(mem):
                m.d.comb += target.eq(plain if plain == expanded else Mux(t.expand, expanded, plain))


def _saturated(value: Value, bits: int) -> Value:
    """``bits`` low bits and one more that says whether anything was lost."""
    return Cat(value[:bits], value[bits:].any())


def fifth(value: Value) -> Value:
    """``value`` / 5, rounded up."""
    bits = len(value) + 1
    return (value + 4) * ((1 << bits + 3) // 5 + 1) >> bits + 3


def _count_beats(hw: HwConfig, m: Module, row_beats: Signal, t: data.View) -> None:
    """Bus beats of a row of ``t``; each may hold several words of ABUF or KBUF. Of packed trits a row is a row tile."""

    def count(mem: Mem, expand: bool) -> Value:
        beats, words = word_beats(hw, mem, expand), beat_words(hw, mem, expand)
        return (t.inner << (beats - 1).bit_length()) + words - 1 >> (words - 1).bit_length()

    with m.Switch(t.mem):
        for mem in LOADABLE:
            with m.Case(mem):
                plain = count(mem, False)
                m.d.comb += row_beats.eq(Mux(t.expand, count(mem, True), plain) if can_expand(hw, mem) else plain)
    with m.If(packs(hw, t)):
        m.d.comb += row_beats.eq(fifth(t.inner << (hw.rows * hw.lanes // hw.axi_bytes - 1).bit_length()))


class IssuedBurst(Record):
    burst: BurstView
    last: Value


class Bursts(wiring.Component):
    """The addresses of a transfer, one stream item per burst, in order.

    ``o.last`` marks the last burst of a transfer. Rows that lie end to end become one region. With ``indirect`` (constructor), rows
    may be picked by IDBUF. ``fault``: an external address is beyond the bus; the stage then waits for reset. ``ahead`` (constructor):
    whether a burst is the last of its region is found beside its length, and a row's number is multiplied as it comes.
    """

    i: Stream[data.View]
    o: Stream[IssuedBurst]
    fault: Signal
    busy: Signal
    idbuf_r: ReadInterface

    def __init__(self, hw: HwConfig, *, indirect: bool, ahead: bool = False):
        self.hw, self._indirect, self._ahead = hw, indirect, ahead
        super().__init__(
            {
                "i": In(stream.Signature(Transfer())),
                "o": Out(stream.Signature(data.StructLayout({"burst": Burst(hw), "last": 1}))),
                "fault": Out(1),
                "busy": Out(1),
                **({"idbuf_r": Out(read_port(memories(hw)[Mem.IDBUF]))} if indirect else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw = self.hw
        bits, shift = hw.axi_addr_bits, (hw.axi_bytes - 1).bit_length()
        t = Signal(Transfer())
        tile = hw.rows * hw.lanes // hw.axi_bytes
        most = max(*(word_beats(hw, mem, False) for mem in LOADABLE), tile if hw.weight_pack == "5trit" else 1)
        row_beats = Signal(16 + most.bit_length())
        per_row, left = Signal.like(row_beats), Signal(len(row_beats) + 16)
        rows = Signal(16)
        row, at = Signal(bits + 1), Signal(bits + 1)
        size = Signal(range(PAGE_BYTES // hw.axi_bytes + 1))
        _count_beats(hw, m, row_beats, t)
        one_region = ~t.indirect & ((t.outer == 1) | (t.stride == per_row << shift))
        to_page = (PAGE_BYTES // hw.axi_bytes) - at[shift : PAGE_BYTES.bit_length() - 1]
        cap = min(hw.burst_beats, PAGE_BYTES // hw.axi_bytes)
        limit = Signal.like(size)
        if self._ahead:
            ends, step = Signal(), limit
            short = left[: len(size)]
            m.d.comb += ends.eq(
                (left <= cap) & (short + at[shift : PAGE_BYTES.bit_length() - 1] <= PAGE_BYTES >> shift)
            )
            smaller = ends
        else:
            ends, step, smaller = left == size, size, left < limit
        m.d.comb += [
            limit.eq(Mux(to_page < cap, to_page, cap)),
            size.eq(Mux(smaller, left, limit)),
            self.o.payload.burst.addr.eq(at),
            self.o.payload.burst.len.eq(size - 1),
            self.o.payload.last.eq(ends & (rows == 1)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += t.eq(self.i.payload)
                    m.next = "COUNT"
            with m.State("COUNT"):
                m.d.sync += per_row.eq(row_beats)
                with m.If(packs(hw, t)):
                    m.d.sync += t.outer.eq(t.outer >> (tile_rows(hw) - 1).bit_length())
                m.next = "SETUP"
            with m.State("SETUP"):
                m.d.sync += [
                    left.eq(Mux(one_region, per_row * t.outer, per_row)),
                    rows.eq(Mux(one_region, 1, t.outer)),
                    row.eq(t.dram[:bits]),
                    at.eq(t.dram[:bits]),
                ]
                m.next = "BURST"
                if self._indirect:
                    with m.If(t.indirect):
                        m.next = "LOOKUP"
            with m.State("BURST"):
                m.d.comb += [self.o.valid.eq(~at[bits]), self.fault.eq(at[bits])]
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += [at.eq(at[:bits] + (step << shift)), left.eq(left - step)]
                    with m.If(ends):
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
        entry = Signal(64 if self._ahead else 32)
        m.d.comb += [self.idbuf_r.addr.eq(t.index), self.idbuf_r.mask.eq(1)]
        with m.State("LOOKUP"):
            m.d.comb += self.idbuf_r.valid.eq(1)
            with m.If(self.idbuf_r.ready):
                m.d.sync += t.index.eq(t.index + 1)
                m.next = "ENTRY"
        with m.State("ENTRY"):
            number = self.idbuf_r.data[0][:32]
            m.d.sync += entry.eq(number * t.stride if self._ahead else number)
            m.next = "SCALE"
        with m.State("SCALE"):
            m.d.sync += at.eq(_saturated(t.dram + (entry if self._ahead else entry * t.stride), self.hw.axi_addr_bits))
            m.next = "BURST"


class Words(wiring.Component):
    """Bank and address of each word of a transfer, in order; ``next`` steps.

    A transfer is taken from ``i`` when none is active or with its last word's ``next`` one cycle later. ``over``: the address does
    not fit ADDR bits. ``row_last``, ``tile_last``, ``last``: this is the last word of its row, of its row's round of all banks, of all.
    With ``ahead`` (constructor) address, the numbers of words and rows left and the memory, one bit each, are registers; else sums and
    comparisons.
    """

    i: Stream[data.View]
    active: Signal
    next: Signal
    t: data.View
    bank: Signal
    addr: Signal
    over: Signal
    row_last: Signal
    tile_last: Signal
    last: Signal

    def __init__(self, hw: HwConfig, *, ahead: bool = False):
        self.hw, self._ahead = hw, ahead
        self._of = {mem: Signal(name=f"of_{mem.name.lower()}") for mem in LOADABLE} if ahead else {}
        super().__init__(
            {
                "i": In(stream.Signature(Transfer())),
                "active": Out(1),
                "next": In(1),
                "t": Out(Transfer()),
                "bank": Out(6),
                "addr": Out(ADDR),
                "over": Out(1),
                "row_last": Out(1),
                "tile_last": Out(1),
                "last": Out(1),
            }
        )

    def of(self, mem: Mem) -> Value:
        """Whether the words are of ``mem``."""
        return self._of[mem] if self._ahead else self.t.mem == mem

    def elaborate(self, platform):
        m = Module()
        base, word, row, last_bank = Signal(ADDR + 1), Signal(16), Signal(16), Signal(6)
        # Once out of range it stays there: ADDR + 1 bits and a sticky top bit.
        wide = base + self.t.inner
        next_base = Cat(wide[:ADDR], base[ADDR] | wide[ADDR:].any())
        address, last_word, last_row = base + word, word == self.t.inner - 1, row == self.t.outer - 1
        if self._ahead:
            address, last_word, last_row = self._counted(m, Mux(self.bank == last_bank, next_base, base))
        lookup(m, last_bank, self.hw, self.t, lambda *of: transfer_banks(*of) - 1)
        m.d.comb += [
            self.i.ready.eq(~self.active),
            self.addr.eq(address),
            self.over.eq(address[ADDR:].any()),
            self.row_last.eq(last_word),
            self.tile_last.eq(self.row_last & (self.bank == last_bank)),
            self.last.eq(self.row_last & last_row),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.active.eq(1),
                self.t.eq(self.i.payload),
                self.bank.eq(self.i.payload.bank),
                base.eq(self.i.payload.addr),
                word.eq(0),
                row.eq(0),
            ]
        with m.If(self.next):
            m.d.sync += [word.eq(Mux(self.row_last, 0, word + 1)), self.active.eq(~self.last)]
            with m.If(self.row_last):
                m.d.sync += [row.eq(row + 1), self.bank.eq(self.bank + 1)]
                with m.If(self.bank == last_bank):
                    m.d.sync += [self.bank.eq(0), base.eq(next_base)]
        return m

    def _counted(self, m: Module, next_row: Value) -> tuple[Value, Value, Value]:
        """Address of the word, whether it is the last of its row, whether its row is the last: of registers that count."""
        address, words, rows = Signal(ADDR + 2), Signal(16), Signal(16)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                address.eq(self.i.payload.addr),
                words.eq(self.i.payload.inner),
                rows.eq(self.i.payload.outer),
                *(bit.eq(self.i.payload.mem == mem) for mem, bit in self._of.items()),
            ]
        with m.If(self.next):
            m.d.sync += [address.eq(address + 1), words.eq(words - 1)]
            with m.If(self.row_last):
                m.d.sync += [address.eq(next_row), words.eq(self.t.inner), rows.eq(rows - 1)]
        return address, words == 1, rows == 1
