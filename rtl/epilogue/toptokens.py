"""The largest logits and the sum of the exponentials of every beam (rule 11), a logit each of two beams a cycle."""

from typing import NamedTuple

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from ternbin.contract.hw import HwConfig, SearchConfig
from ternbin.contract.memories import ID_BITS, LOGIT_BITS
from ternbin.contract.pipeline import ENGINES
from ternbin.graph import fixedpoint
from ternbin.rtl.epilogue.argmax import ArgMax, LogitUnit
from ternbin.rtl.parts.arithmetic import clip
from ternbin.rtl.parts.gemm_fields import POINTER, address, clamp, gemm_fields, place_layout

NATS, OCTAVES, TOTAL_BITS = (
    36,
    33,
    56,
)  # bits of a logit with 16 fractional bits, of its base-2 form with 12, of the sum
EXPONENT = OCTAVES - fixedpoint.OCTAVE_BITS
TERM_BITS = fixedpoint.EXP_BITS + 1


Entries = list[tuple[Signal, Signal]]  # of a list, largest first: logit, id
Sum = tuple[Signal, Signal]  # m, s


class Engine(NamedTuple):
    """Whether it can take a column, whether it has one, whether terms of sums are under way; of each of its beams list and sum."""

    free: Value
    active: Value
    adding: Value
    best: list[Entries]
    sums: list[Sum]


class TopTokens(LogitUnit):
    """Columns of ``rows`` logits in, beam by beam; of each beam the ``top`` largest, the first to come on ties, and (m, s).

    Kept from instruction to instruction; the ``first`` flag of the instruction forgets what was kept. The id of row r in row tile
    rt is ``index + rt*rows + r``; ids from ``features`` on count for nothing. ``last`` writes the results, three words for each, beam by
    beam, once the last column has been worked through.
    """

    def __init__(self, hw: HwConfig, search: SearchConfig, bits: int):
        self._search = search
        super().__init__(hw, bits)

    def elaborate(self, platform):
        m = Module()
        hw, search, f = self._hw, self._search, gemm_fields(self.instruction)
        place = self.i.payload.place
        base, beam, before = (
            Signal(ID_BITS),
            Signal(range(search.beams)),
            Signal(range(search.beams)),
        )  # beam of this column, of the one before
        waiting, writing, take = Signal(), Signal(), Signal()
        m.d.comb += [beam.eq(Mux(place.first, 0, before + 1)), take.eq(self.i.valid & self.i.ready)]
        engines = [self._engine(m, f, number, take, base, beam) for number in range(ENGINES)]
        working = Cat(engine.active | engine.adding for engine in engines).any()
        m.d.comb += self.i.ready.eq(~waiting & ~writing & Array(engine.free for engine in engines)[beam % ENGINES])
        with m.If(take):
            m.d.sync += [before.eq(beam), waiting.eq(place.last & place.last_tile & f.last)]
        with m.Elif(waiting & ~working):
            m.d.sync += [waiting.eq(0), writing.eq(1)]
        with m.If(self.start):
            m.d.sync += base.eq(f.index)
        with m.Elif(take & place.last):
            m.d.sync += base.eq(base + hw.rows)
        best = [engines[b % ENGINES].best[b // ENGINES] for b in range(search.beams)]
        sums = [engines[b % ENGINES].sums[b // ENGINES] for b in range(search.beams)]
        self._write(m, f, best, sums, before, writing)
        m.d.comb += self.busy.eq(working | waiting | writing)
        return m

    def _engine(self, m: Module, f: data.View, number: int, take: Value, base: Value, beam: Value) -> Engine:
        """What works through a column of each of its beams in turn."""
        hw, search = self._hw, self._search
        # the column that is worked through: its first value is the row's
        values = [Signal(signed(self._bits), name=f"value{number}_{r}", reset_less=True) for r in range(hw.rows)]
        place, active, row = Signal(place_layout(hw), reset_less=True), Signal(), Signal(range(hw.rows))
        ident, own = Signal(ID_BITS), Signal(range(-(-search.beams // ENGINES)))
        ends, fresh, count = Signal(), Signal(), Signal()
        m.d.comb += [
            ends.eq(active & (row == hw.rows - 1)),
            fresh.eq(f.first & place.first_tile & (row == 0)),
            count.eq(ident < f.features),
        ]
        with m.If(take & (beam % ENGINES == number)):
            m.d.sync += [
                *(value.eq(self.i.payload.values[r]) for r, value in enumerate(values)),
                place.eq(self.i.payload.place),
                active.eq(1),
                row.eq(0),
                ident.eq(base),
                own.eq(beam // ENGINES),
            ]
        with m.Elif(active):
            m.d.sync += [
                *(value.eq(new) for value, new in zip(values, values[1:], strict=False)),
                row.eq(row + 1),
                ident.eq(ident + 1),
            ]
            with m.If(ends):
                m.d.sync += active.eq(0)
        beams = range(number, search.beams, ENGINES)
        best = self._list(m, beams, active, fresh, count, values[0], ident, own)
        sums, adding = self._sum(m, f, beams, active, fresh, count, values[0], own)
        return Engine(~active | ends, active, adding, best, sums)

    def _list(
        self,
        m: Module,
        beams: range,
        active: Value,
        fresh: Value,
        count: Value,
        logit: Value,
        ident: Value,
        beam: Value,
    ) -> list[Entries]:
        """The logit goes before the first smaller one. Returns (logit, id) of each of ``beams`` and place in the list."""
        search = self._search
        least = C(-(1 << self._bits - 1), signed(self._bits))  # below every logit
        kept = [
            [
                (
                    Signal(least.shape(), name=f"logit{b}_{k}", init=least.value),
                    Signal(signed(25), name=f"id{b}_{k}", init=-1),
                )
                for k in range(search.top)
            ]
            for b in beams
        ]
        before = []
        for k in range(search.top):
            old_logit, old_id = Signal(signed(self._bits), name=f"old_logit{k}"), Signal(signed(25), name=f"old_id{k}")
            m.d.comb += [
                old_logit.eq(Mux(fresh, least, Array(entries[k][0] for entries in kept)[beam])),
                old_id.eq(Mux(fresh, -1, Array(entries[k][1] for entries in kept)[beam])),
            ]
            before.append((old_logit, old_id, count & (logit > old_logit)))
        for b, entries in enumerate(kept):
            with m.If(active & (beam == b)):
                for k, (entry_logit, entry_id) in enumerate(entries):
                    old_logit, old_id, larger = before[k]
                    pushed = before[k - 1][2] if k else C(0, 1)
                    above = before[k - 1] if k else before[k]
                    m.d.sync += [
                        entry_logit.eq(Mux(pushed, above[0], Mux(larger, logit, old_logit))),
                        entry_id.eq(Mux(pushed, above[1], Mux(larger, ident[:24], old_id))),
                    ]
        return kept

    def _sum(
        self,
        m: Module,
        f: data.View,
        beams: range,
        active: Value,
        fresh: Value,
        count: Value,
        logit: Value,
        beam: Value,
    ) -> tuple[list[Sum], Value]:
        """Base-2 form of the logit; exponential; sum: a stage each. Returns (m, s) of each of ``beams``, and whether any is under way."""
        stages = [Signal(3, name=f"stage{i}") for i in range(3)]  # valid, fresh, count
        owners = [Signal.like(beam, name=f"beam{i}", reset_less=True) for i in range(3)]
        m.d.sync += [stages[0].eq(Cat(active, fresh, count)), stages[1].eq(stages[0]), stages[2].eq(stages[1])]
        m.d.sync += [owners[0].eq(beam), owners[1].eq(owners[0]), owners[2].eq(owners[1])]
        nats, octaves = Signal(signed(NATS), reset_less=True), Signal(signed(OCTAVES), reset_less=True)
        exponent, term = Signal(signed(EXPONENT), reset_less=True), Signal(TERM_BITS, reset_less=True)
        product = Signal(signed(NATS + fixedpoint.LOG2_E.bit_length() + 1))
        high, low = (Array(C(int(entry), TERM_BITS) for entry in lut) for lut in fixedpoint.exp2_luts())
        power = Signal(2 * TERM_BITS)
        m.d.comb += [
            product.eq(nats * fixedpoint.LOG2_E),
            power.eq(high[octaves[6:12]] * low[octaves[:6]]),
        ]
        with m.If(active):
            m.d.sync += nats.eq(clip(logit >> f.shift[:4], -(1 << NATS - 1), (1 << NATS - 1) - 1))
        with m.If(stages[0][0]):
            m.d.sync += octaves.eq(product >> 20 + fixedpoint.NATS_BITS - fixedpoint.OCTAVE_BITS)
        with m.If(stages[1][0]):
            m.d.sync += [exponent.eq(octaves >> fixedpoint.OCTAVE_BITS), term.eq(power >> fixedpoint.EXP_BITS)]
        sums = [
            (Signal(signed(EXPONENT), name=f"m{b}", init=fixedpoint.NO_EXPONENT), Signal(TOTAL_BITS, name=f"s{b}"))
            for b in beams
        ]
        old_m, old_s = Signal(signed(EXPONENT)), Signal(TOTAL_BITS)
        new_m, new_s = Signal(signed(EXPONENT)), Signal(TOTAL_BITS)
        _, begins, counts = stages[2]
        larger, distance, amount = Signal(), Signal(signed(EXPONENT + 2)), Signal(6)
        one, other = Signal(TOTAL_BITS), Signal(TOTAL_BITS)
        scaled = term << fixedpoint.TOTAL_POINT - fixedpoint.EXP_BITS
        m.d.comb += [
            old_m.eq(Mux(begins, fixedpoint.NO_EXPONENT, Array(pair[0] for pair in sums)[owners[2]])),
            old_s.eq(Mux(begins, 0, Array(pair[1] for pair in sums)[owners[2]])),
            larger.eq(exponent > old_m),
            distance.eq(Mux(larger, exponent - old_m, old_m - exponent)),
            amount.eq(Mux(distance > 63, 63, distance[:6])),
            one.eq(Mux(larger, old_s, scaled)),
            other.eq(Mux(larger, scaled, old_s)),
            new_m.eq(Mux(counts & larger, exponent, old_m)),
            new_s.eq(Mux(counts, (one >> amount) + other, old_s)),
        ]
        for b, (kept_m, kept_s) in enumerate(sums):
            with m.If(stages[2][0] & (owners[2] == b)):
                m.d.sync += [kept_m.eq(new_m), kept_s.eq(new_s)]
        return sums, Cat(stage[0] for stage in stages).any()

    def _write(
        self,
        m: Module,
        f: data.View,
        best: list[Entries],
        sums: list[Sum],
        last_beam: Value,
        writing: Value,
    ) -> None:
        """Of each beam up to ``last_beam`` a word a cycle: (id, logit), the logit's low half, its high half; for the last entry (m, s)."""
        search, port = self._search, self.idbuf_w
        beam, entry, part, pointer = (
            Signal(range(search.beams)),
            Signal(range(search.top + 1)),
            Signal(2),
            Signal(POINTER),
        )
        ids = [Array([*(pair[1] for pair in best[b]), sums[b][0]])[entry] for b in range(search.beams)]
        values = [Array([*(pair[0] for pair in best[b]), sums[b][1]])[entry] for b in range(search.beams)]
        ident, value = Signal(signed(ID_BITS)), Signal(signed(LOGIT_BITS))
        m.d.comb += [
            ident.eq(Array(ids)[beam]),
            value.eq(Array(values)[beam]),
            port.valid.eq(writing),
            port.addr.eq(address(pointer)),
            port.data.eq(Mux(part == 0, Cat(ident, value), Mux(part == 1, value[:32], value[32:]))),
            port.mask.eq(1),
            port.lane_mask.eq(1),
        ]
        with m.If(self.start):
            m.d.sync += pointer.eq(f.dst_addr)
        with m.Elif(port.valid & port.ready):
            m.d.sync += [pointer.eq(clamp(pointer + 1)), part.eq(Mux(part == 2, 0, part + 1))]
            with m.If(part == 2):
                m.d.sync += entry.eq(Mux(entry == search.top, 0, entry + 1))
                with m.If(entry == search.top):
                    m.d.sync += [beam.eq(Mux(beam == last_beam, 0, beam + 1)), writing.eq(beam != last_beam)]


def logit_units(hw: HwConfig, bits: int) -> dict[str, LogitUnit]:
    """What works on logits of ``bits``, by name: the running best of each column; for searches also the best of each beam."""
    units: dict[str, LogitUnit] = {"argmax": ArgMax(hw, bits)}
    if hw.search is not None:
        units["top"] = TopTokens(hw, hw.search, bits)
    return units
