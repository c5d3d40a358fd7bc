"""The largest logits and the sum of the exponentials of every beam (rule 11), columns of several beams at a time."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from ternbin.contract.hw import HwConfig, SearchConfig
from ternbin.contract.memories import ID_BITS, LOGIT_BITS
from ternbin.contract.pipeline import ENGINES
from ternbin.rtl.epilogue.argmax import ArgMax, LogitUnit
from ternbin.rtl.epilogue.topengine import TopEngine
from ternbin.rtl.parts.gemm_fields import POINTER, address, clamp, gemm_fields


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
        parts = [TopEngine(hw, self._bits) for _ in range(min(ENGINES, search.beams))]
        for number, part in enumerate(parts):
            m.submodules[f"engine{number}"] = part
            m.d.comb += [
                part.take.eq(take & (beam % ENGINES == number)),
                part.values.eq(self.i.payload.values),
                part.ident.eq(base),
                part.own.eq(beam // ENGINES),
                part.restart.eq(f.first & place.first_tile),
                part.features.eq(f.features),
                part.shift.eq(f.shift[:4]),
            ]
        working = Cat(part.busy for part in parts).any()
        m.d.comb += self.i.ready.eq(~waiting & ~writing & Array(part.free for part in parts)[beam % ENGINES])
        with m.If(take):
            m.d.sync += [before.eq(beam), waiting.eq(place.last & place.last_tile & f.last)]
        with m.Elif(waiting & ~working):
            m.d.sync += [waiting.eq(0), writing.eq(1)]
        with m.If(self.start):
            m.d.sync += base.eq(f.index)
        with m.Elif(take & place.last):
            m.d.sync += base.eq(base + hw.rows)
        results: list[list[tuple[Value, Value]]] = []
        for b in range(search.beams):
            part, own = parts[b % ENGINES], b // ENGINES
            results.append([*((e.id, e.logit) for e in part.best[own]), (part.sums[own].m, part.sums[own].s)])
        self._write(m, f, results, before, writing)
        m.d.comb += self.busy.eq(working | waiting | writing)
        return m

    def _write(
        self,
        m: Module,
        f: data.View,
        results: list[list[tuple[Value, Value]]],
        last_beam: Value,
        writing: Value,
    ) -> None:
        """A word a cycle: of each beam up to ``last_beam`` its ``results``, each as (id, logit), the logit's low half, its high half."""
        search, port = self._search, self.idbuf_w
        beam, entry, part, pointer = (
            Signal(range(search.beams)),
            Signal(range(search.top + 1)),
            Signal(2),
            Signal(POINTER),
        )
        ids, values = ([Array(pair[part] for pair in own)[entry] for own in results] for part in range(2))
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
