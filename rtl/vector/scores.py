"""The order in which the passes of SOFTMAX go through score words."""

from typing import ClassVar

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ADDR, Op
from ternbin.contract.pipeline import SLOTS
from ternbin.rtl.parts.arithmetic import WIDE, clip_address, instruction_fields
from ternbin.rtl.parts.interfaces import Record, Stream

KEY_BITS = 13  # keys a query may see: 4095 + 4094
BEAM_BITS = 4  # of the number of a query in a mask


class ScoreItem(Record):
    addr: Value
    mask: Value
    read: Value
    count: Value
    end: Value
    slot: Value


class ScoreWalk(wiring.Component):
    """Score words of a pass, query by query. ``start`` as for Walk.

    A pass ``over_granules`` takes all words that its codes fill, else only those with valid keys. ``count`` keys of a word are valid,
    from the first on; a word without any needs no read (``read`` = 0). ``end``: last word of a query; ``slot``: where its maximum and
    its sum stand.
    """

    MORE: ClassVar[dict[str, int]] = {}  # fields of an item: name -> bits

    start: Signal
    f: data.View
    o: Stream[ScoreItem]

    def __init__(self, hw: HwConfig, over_granules: bool = False):
        self.hw, self.over_granules = hw, over_granules
        super().__init__(
            {
                "start": In(1),
                "f": In(instruction_fields(Op.SOFTMAX)),
                "o": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "addr": ADDR,
                                "mask": hw.cols,
                                "read": 1,
                                "count": exact_log2(hw.rows) + 1,
                                "end": 1,
                                "slot": range(SLOTS),
                                **self.MORE,
                            }
                        )
                    )
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        f, item, rows = self.f, self.o.payload, self.hw.rows
        row, bank, word, queries_left = Signal(WIDE), Signal(self.hw.cols), Signal(12), Signal(12)
        keys, left, next_keys = Signal(KEY_BITS), Signal(KEY_BITS), Signal(KEY_BITS)
        m.d.comb += [
            item.addr.eq(clip_address(row + word)),
            item.mask.eq(bank),
            item.read.eq(left != 0),
            item.count.eq(Mux(left > rows, rows, left)),
            next_keys.eq(keys + f.causal),
            item.end.eq((word == f.granules - 1) if self.over_granules else (left <= rows)),
        ]
        following, beginning = self._more(m, word)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [word.eq(word + 1), left.eq(Mux(left > rows, left - rows, 0))]
            with m.If(item.end):
                m.d.sync += [
                    word.eq(0),
                    keys.eq(next_keys),
                    left.eq(next_keys),
                    item.slot.eq(item.slot + 1),
                    bank.eq(bank.rotate_left(1)),
                    row.eq(Mux(bank[-1], row + f.src_stride, row)),
                    queries_left.eq(queries_left - 1),
                    self.o.valid.eq(queries_left != 1),
                    *following,
                ]
        with m.If(self.start):
            m.d.sync += [
                self.o.valid.eq(1),
                word.eq(0),
                left.eq(f.keys),
                keys.eq(f.keys),
                queries_left.eq(f.queries),
                row.eq(f.src_addr),
                bank.eq(1),
                item.slot.eq(0),
                *beginning,
            ]
        return m

    def _more(self, m: Module, word: Signal) -> tuple[list, list]:
        """Drives the fields in ``MORE``; returns what its registers do when the next query begins, and when the walk does."""
        return [], []


class MaskedItem(ScoreItem):
    mask_addr: Value
    beam: Value


class MaskedScoreWalk(ScoreWalk):
    """As ScoreWalk; ``mask_addr`` is the word of the mask that belongs to the scores, ``beam`` the bit of its elements that is the
    query's."""

    MORE: ClassVar[dict[str, int]] = {"mask_addr": ADDR, "beam": BEAM_BITS}

    o: Stream[MaskedItem]  # pyright: ignore[reportIncompatibleVariableOverride]  # a payload is only ever the signature's

    def _more(self, m: Module, word: Signal) -> tuple[list, list]:
        beam = Signal(BEAM_BITS)
        item = self.o.payload
        m.d.comb += [item.mask_addr.eq(clip_address(self.f.mask_addr + word)), item.beam.eq(beam + self.f.mask_bit)]
        return [beam.eq(beam + 1)], [beam.eq(0)]
