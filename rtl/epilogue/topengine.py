"""What works through columns of logits for TOP (rule 11): the largest of each of its beams, and the sum of their exponentials."""

from typing import NamedTuple

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import ID_BITS, ceil_div
from ternbin.contract.pipeline import ENGINES, LOGITS
from ternbin.graph import fixedpoint
from ternbin.rtl.parts.arithmetic import clip

NATS, OCTAVES = 36, 33  # bits of a logit with 16 fractional bits, of its base-2 form with 12
TOTAL_BITS = 56  # of the sum
EXPONENT = OCTAVES - fixedpoint.OCTAVE_BITS
TERM_BITS = fixedpoint.EXP_BITS + 1
ENTRY_ID = 25  # bits of an id of the list; below zero where there is none
POINT = fixedpoint.TOTAL_POINT - fixedpoint.EXP_BITS  # fractional bits that a term gets
FARTHEST = 63  # shift of a term that counts for nothing


def entry_layout(bits: int) -> data.StructLayout:
    """An entry of a list of the largest."""
    return data.StructLayout({"logit": signed(bits), "id": signed(ENTRY_ID)})


SUM_LAYOUT = data.StructLayout({"m": signed(EXPONENT), "s": TOTAL_BITS})


class Pair(NamedTuple):
    """The logits of a cycle, of one beam, in the order of their ids; ``fresh``: what was kept before counts for nothing."""

    valid: Value
    fresh: Value
    logits: list[Value]
    counts: list[Value]
    ids: list[Value]
    own: Value


class TopEngine(wiring.Component):
    """``LOGITS`` logits of a column a cycle; of each of its beams the largest ones, the first to come on ties, and (m, s).

    ``take``, while ``free``: ``values`` are a column of beam ``own``, the first of them the logit of token ``ident``. ``restart``:
    what was kept of the beam is forgotten. Ids from ``features`` on count for nothing. ``shift``: of rule 11. ``busy`` until
    ``best`` and ``sums`` hold all.
    """

    take: Signal
    values: data.View
    ident: Signal
    own: Signal
    restart: Signal
    features: Signal
    shift: Signal
    free: Signal
    busy: Signal
    best: data.View
    sums: data.View

    def __init__(self, hw: HwConfig, bits: int):
        self._hw, self._bits, self._own = hw, bits, ceil_div(hw.beams, ENGINES)
        super().__init__(
            {
                "take": In(1),
                "values": In(data.ArrayLayout(signed(bits), hw.rows)),
                "ident": In(ID_BITS),
                "own": In(range(max(2, self._own))),
                "restart": In(1),
                "features": In(ID_BITS),
                "shift": In(4),
                "free": Out(1),
                "busy": Out(1),
                "best": Out(data.ArrayLayout(data.ArrayLayout(entry_layout(bits), hw.top), self._own)),
                "sums": Out(data.ArrayLayout(SUM_LAYOUT, self._own)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pair, active = self._pairs(m)
        self._list(m, pair)
        adding = self._sum(m, pair)
        m.d.comb += self.busy.eq(active | pair.valid | adding)
        return m

    def _pairs(self, m: Module) -> tuple[Pair, Value]:
        """The column, held, and what of it is next, in registers. Returns these, and whether there is a column."""
        groups = self._hw.rows // LOGITS
        column = Signal(self.values.shape(), reset_less=True)
        active, restart, group = Signal(), Signal(reset_less=True), Signal(range(groups))
        base, own = Signal(ID_BITS, reset_less=True), Signal.like(self.own, reset_less=True)
        ends = active & (group == groups - 1)
        m.d.comb += self.free.eq(~active | ends)
        with m.If(self.take):
            m.d.sync += [
                column.eq(self.values),
                base.eq(self.ident),
                own.eq(self.own),
                restart.eq(self.restart),
                active.eq(1),
                group.eq(0),
            ]
        with m.Elif(active):
            m.d.sync += [base.eq(base + LOGITS), restart.eq(0), group.eq(group + 1), active.eq(~ends)]
        pair = Pair(
            Signal(name="pair"),
            Signal(reset_less=True, name="fresh"),
            [Signal(signed(self._bits), reset_less=True, name=f"logit{i}") for i in range(LOGITS)],
            [Signal(reset_less=True, name=f"count{i}") for i in range(LOGITS)],
            [Signal(ID_BITS, reset_less=True, name=f"ident{i}") for i in range(LOGITS)],
            Signal.like(own, reset_less=True, name="pair_own"),
        )
        m.d.sync += pair.valid.eq(active)
        with m.If(active):
            m.d.sync += [pair.fresh.eq(restart), pair.own.eq(own)]
            for i in range(LOGITS):
                chosen = Array(column[LOGITS * g + i] for g in range(groups))[group]
                m.d.sync += [
                    pair.logits[i].eq(chosen),
                    pair.counts[i].eq(base + i < self.features),
                    pair.ids[i].eq(base + i),
                ]
        return pair, active

    def _list(self, m: Module, pair: Pair) -> None:
        """Both logits go before the first smaller one; the larger of them first, on ties the first to come."""
        bits, entries = self._bits, range(self._hw.top)
        least = C(-(1 << bits - 1), signed(bits))  # below every logit
        none = least, C(-1, signed(ENTRY_ID))
        kept = [
            [
                tuple(
                    Signal(part.shape(), name=f"{name}{b}_{k}", init=part.value)
                    for part, name in zip(none, ("logit", "id"), strict=True)
                )
                for k in entries
            ]
            for b in range(self._own)
        ]
        swap = Signal()
        m.d.comb += swap.eq(pair.counts[1] & (pair.logits[1] > pair.logits[0]))
        ids = [i[: ENTRY_ID - 1] for i in pair.ids]
        large = Mux(swap, pair.logits[1], pair.logits[0]), Mux(swap, ids[1], ids[0])
        small = Mux(swap, pair.logits[0], pair.logits[1]), Mux(swap, ids[0], ids[1])
        old: list[tuple[Value, Value]] = []
        over: list[tuple[Value, Value]] = []  # whether the larger, the smaller, is larger than the old entry
        for k in entries:
            entry = Signal(signed(bits), name=f"old_logit{k}"), Signal(signed(ENTRY_ID), name=f"old_id{k}")
            for part, (value, forgotten) in enumerate(zip(entry, none, strict=True)):
                was = Array(own[k][part] for own in kept)[pair.own]
                m.d.comb += value.eq(Mux(pair.fresh, forgotten, was))
            old.append(entry)
            over.append((pair.counts[0] & (large[0] > entry[0]), pair.counts[1] & (small[0] > entry[0])))
        for b, own in enumerate(kept):
            for k in entries:
                m.d.comb += [self.best[b][k].logit.eq(own[k][0]), self.best[b][k].id.eq(own[k][1])]
            with m.If(pair.valid & (pair.own == b)):
                for k in entries:
                    for part in range(2):
                        new = Mux(over[k][0], large[part], old[k][part])
                        if k:
                            pushed = Mux(over[k - 1][1], small[part], old[k - 1][part])
                            if k > 1:
                                pushed = Mux(over[k - 2][1], old[k - 2][part], pushed)
                            new = Mux(over[k - 1][0], pushed, new)
                        m.d.sync += own[k][part].eq(new)

    def _sum(self, m: Module, pair: Pair) -> Value:
        """Stages: base-2 form of the logits; exponentials; m and the shifts of rule 11; shifted terms; s. Returns whether any works."""
        begun = Cat(pair.valid, pair.fresh, *pair.counts)
        stages = [Signal.like(begun, name=f"stage{i}") for i in range(5)]
        owners = [Signal.like(pair.own, name=f"owner{i}", reset_less=True) for i in range(5)]
        for before, stage in zip([begun, *stages], stages, strict=False):
            m.d.sync += stage.eq(before)
        for before, owner in zip([pair.own, *owners], owners, strict=False):
            m.d.sync += owner.eq(before)
        exponents, terms = zip(*(self._exponential(m, pair, i, stages) for i in range(LOGITS)), strict=True)

        _, fresh, *counts = stages[2]
        largest = [Signal(signed(EXPONENT), name=f"m{b}", init=fixedpoint.NO_EXPONENT) for b in range(self._own)]
        before = Signal(signed(EXPONENT), name="m_before")
        m.d.comb += before.eq(Mux(fresh, fixedpoint.NO_EXPONENT, Array(largest)[owners[2]]))
        later = before
        shifted: list[tuple[Signal, Signal]] = []  # of what there is so far, of the term
        held: list[Signal] = []
        for i, (exponent, term, counts_too) in enumerate(zip(exponents, terms, counts, strict=True)):
            larger, distance = Signal(name=f"larger{i}"), Signal(signed(EXPONENT + 2), name=f"distance{i}")
            amount, after = Signal(6, name=f"amount{i}"), Signal(signed(EXPONENT), name=f"m_after{i}")
            both = Signal(6, reset_less=True, name=f"so_far{i}"), Signal(6, reset_less=True, name=f"by{i}")
            kept = Signal(TERM_BITS, reset_less=True, name=f"kept{i}")
            m.d.comb += [
                larger.eq(counts_too & (exponent > later)),
                distance.eq(Mux(larger, exponent - later, later - exponent)),
                amount.eq(Mux(distance > FARTHEST, FARTHEST, distance[:6])),
                after.eq(Mux(larger, exponent, later)),
            ]
            with m.If(stages[2][0]):
                m.d.sync += [
                    both[0].eq(Mux(larger, amount, 0)),
                    both[1].eq(Mux(larger, 0, amount)),
                    kept.eq(Mux(counts_too, term, 0)),
                ]
            shifted.append(both)
            held.append(kept)
            later = after
        for b, kept in enumerate(largest):
            with m.If(stages[2][0] & (owners[2] == b)):
                m.d.sync += kept.eq(later)

        totals = [Signal(TOTAL_BITS, name=f"s{b}") for b in range(self._own)]
        total = Signal(TOTAL_BITS, name="s_before")
        m.d.comb += total.eq(Mux(stages[4][1], 0, Array(totals)[owners[4]]))
        for i, ((so_far, by), kept) in enumerate(zip(shifted, held, strict=True)):
            addend, shift = Signal(TERM_BITS + POINT, reset_less=True, name=f"addend{i}"), Signal.like(so_far)
            with m.If(stages[3][0]):
                m.d.sync += [addend.eq((kept << POINT) >> by), shift.eq(so_far)]
            now = Signal(TOTAL_BITS, name=f"s_after{i}")
            m.d.comb += now.eq((total >> shift) + addend)
            total = now
        for b, kept in enumerate(totals):
            with m.If(stages[4][0] & (owners[4] == b)):
                m.d.sync += kept.eq(total)
            m.d.comb += [self.sums[b].m.eq(largest[b]), self.sums[b].s.eq(kept)]
        return Cat(stage[0] for stage in stages).any()

    def _exponential(self, m: Module, pair: Pair, i: int, stages: list[Signal]) -> tuple[Signal, Signal]:
        """Exponent and term of logit ``i``, three stages later."""
        nats = Signal(signed(NATS), reset_less=True, name=f"nats{i}")
        octaves = Signal(signed(OCTAVES), reset_less=True, name=f"octaves{i}")
        exponent = Signal(signed(EXPONENT), reset_less=True, name=f"exponent{i}")
        term = Signal(TERM_BITS, reset_less=True, name=f"term{i}")
        product = Signal(signed(NATS + fixedpoint.LOG2_E.bit_length() + 1), name=f"product{i}")
        power = Signal(2 * TERM_BITS, name=f"power{i}")
        high, low = (Array(C(int(entry), TERM_BITS) for entry in lut) for lut in fixedpoint.exp2_luts())
        m.d.comb += [
            product.eq(nats * fixedpoint.LOG2_E),
            power.eq(high[octaves[6:12]] * low[octaves[:6]]),
        ]
        with m.If(pair.valid):
            m.d.sync += nats.eq(clip(pair.logits[i] >> self.shift, -(1 << NATS - 1), (1 << NATS - 1) - 1))
        with m.If(stages[0][0]):
            m.d.sync += octaves.eq(product >> 20 + fixedpoint.NATS_BITS - fixedpoint.OCTAVE_BITS)
        with m.If(stages[1][0]):
            m.d.sync += [exponent.eq(octaves >> fixedpoint.OCTAVE_BITS), term.eq(power >> fixedpoint.EXP_BITS)]
        return exponent, term
