"""Issue side of the execute unit: the loops of a GEMM, paired reads of both operands, steps of the array."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ternbin.contract.counters import SEQUENCER_EVENTS
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS
from ternbin.rtl.parts.arithmetic import add_tree, registered
from ternbin.rtl.parts.gemm_fields import POINTER, Mode, address, clamp, gemm_fields
from ternbin.rtl.parts.interfaces import ReadInterface, ReadPort, events_signature

COUNT = SEQUENCER_EVENTS["array_columns"]  # bits of a number of columns


class Sequencer(wiring.Component):
    """Runs the loops rt, ct, plane pairs by falling pr + pc, chunks, from a ``start`` pulse on.

    Both operands of a step are requested together; a request that is taken first waits for the other. Their data arrives in
    the cycle after (``row_load``, ``col_load``), the step runs in the cycle after both are in the array's registers, so a step
    that was issued is never held. The first step of a tile is issued only when its sums are sure to find the accumulators
    free: at most two tiles, of one or two instructions, are between first issue and ``tile_free``, the pulse of a tile's last
    drained column. Tiles of scores are drained as fast as they come: these only wait for ``scores_open``, the drain's being ready
    for them. ``running`` while steps are to be issued: the last one runs two cycles later, so ``instruction`` must stay as long.

    ``fpga`` (constructor): the numbers of the last chunk and tiles are registers, and so are the next pair of planes and its addresses.

    ``finish``: the last step of a tile runs in this cycle, in columns ``en``. On an array that takes whole 8-bit codes, ``abuf_whole``: the
    request is for all eight planes.
    """

    instruction: Signal
    start: Signal
    tile_free: Signal
    scores_open: Signal
    abuf: ReadInterface
    abuf_whole: Signal
    wbuf: ReadInterface
    kbuf: ReadInterface
    row_load: Signal
    col_load: Signal
    en: Signal
    first: Signal
    double: Signal
    subtract: Signal
    finish: Signal
    running: Signal
    ev_array_active: Signal
    ev_array_columns: Signal
    ev_rowsum_active: Signal
    ev_stall_read: Signal
    ev_stall_drain: Signal

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        super().__init__(
            {
                "instruction": In(INSTRUCTION_BITS),
                "start": In(1),
                "tile_free": In(1),
                "scores_open": In(1),
                "abuf": Out(ReadPort(hw.cols, hw.column_word_bits)),
                **({"abuf_whole": Out(1)} if hw.whole_columns else {}),
                "wbuf": Out(ReadPort(hw.rows, hw.code_word_bits)),
                "kbuf": Out(ReadPort(hw.rows, hw.code_word_bits)),
                "row_load": Out(1),
                "col_load": Out(hw.cols),
                "en": Out(hw.cols),
                "first": Out(1),
                "double": Out(1),
                "subtract": Out(1),
                "finish": Out(1),
                "running": Out(1),
                **events_signature(SEQUENCER_EVENTS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        f = gemm_fields(self.instruction)
        running, fresh, double = self.running, Signal(), Signal()
        issue, advance = Signal(), Signal()
        subtract, mask, columns = Signal(), Signal(self._hw.cols), Signal(COUNT)
        last_step = self._loops(m, f, running, fresh, double, subtract, mask, columns, advance)
        scores = Mode(f).scores
        if self._fpga:
            scores = registered(m, scores, "scores")
        self._credits(m, scores, running, fresh, issue, advance)
        self._requests(m, f, issue, advance, mask)
        self._steps(
            m,
            advance,
            {
                "first": fresh,
                "double": double,
                "subtract": subtract,
                "finish": last_step,
                "columns": columns,
            },
            mask,
        )
        m.d.comb += [
            self.ev_rowsum_active.eq(self.ev_array_active & f.rowsum),
            self.ev_stall_read.eq(issue & ~advance),
            self.ev_stall_drain.eq(running & ~issue),
        ]
        return m

    def _credits(self, m: Module, scores: Value, running: Value, fresh: Value, issue: Value, advance: Value) -> None:
        """May the next step be issued? ``credits`` more tiles may begin."""
        credits = Signal(2, init=2)
        taken = Signal()
        m.d.comb += [
            issue.eq(running & Mux(scores, self.scores_open, ~fresh | (credits != 0) | self.tile_free)),
            taken.eq(advance & fresh & ~scores),
        ]
        with m.If(taken & ~self.tile_free):
            m.d.sync += credits.eq(credits - 1)
        with m.Elif(~taken & self.tile_free):
            m.d.sync += credits.eq(credits + 1)

    def _loops(
        self,
        m: Module,
        f: data.View,
        running: Value,
        fresh: Value,
        double: Value,
        subtract: Value,
        mask: Value,
        columns: Value,
        advance: Value,
    ) -> Value:
        """Counters and pointers of the step to be issued. Returns whether it is the last of its tile."""
        row_tile, col_tile, chunk = Signal(16), Signal(10), Signal(12)
        pr, pc, next_pr, next_pc = Signal(3), Signal(3), Signal(3), Signal(3)
        row_base, col_base, next_row_base, next_col_base = (Signal(POINTER) for _ in range(4))
        row_ptr, col_ptr = Signal(POINTER), Signal(POINTER)
        top_pr = f.row_planes[3].replicate(3)
        top_pc = C(0, 3) if self._hw.whole_columns else f.col_planes[3].replicate(3)

        last_chunk, last_pair, last_col, last_row = Signal(), Signal(), Signal(), Signal()
        highest = [f.chunks - 1, f.col_tiles - 1, f.row_tiles - 1]
        if self._fpga:  # not looked at in the first cycle of an instruction
            registers = [Signal.like(value) for value in highest]
            m.d.sync += [register.eq(value) for register, value in zip(registers, highest, strict=True)]
            highest = registers
        same_weight, weight = Signal(), Signal(4)
        m.d.comb += [
            last_chunk.eq(chunk == highest[0]),
            last_pair.eq((pr | pc) == 0),
            last_col.eq(col_tile == highest[1]),
            last_row.eq(row_tile == highest[2]),
            same_weight.eq((pr != 0) & (pc != top_pc)),
            weight.eq(pr + pc - 1),
            next_row_base.eq(row_base),
            next_col_base.eq(col_base),
        ]
        moves = self.start | (advance & last_chunk)

        def follow(restart: Value, of: tuple[Value, Value], same: Value, weight: Value, pr: Value, pc: Value) -> None:
            """The pair after ``of``: the next of the same weight, else the one with the largest ``pr`` of the next weight."""
            with m.If(restart):
                m.d.comb += [pr.eq(top_pr), pc.eq(top_pc)]
            with m.Elif(same):
                m.d.comb += [pr.eq(of[0] - 1), pc.eq(of[1] + 1)]
            with m.Else():
                m.d.comb += [pr.eq(Mux(weight[3], 7, weight[:3]) & top_pr), pc.eq(weight - pr)]

        if self._fpga:
            top, planes = (top_pr, top_pc), (f.row_plane, f.col_plane)
            after = (Signal(3), Signal(3))  # the pair after (pr, pc), and how far its planes are from the first
            offset = (Signal(POINTER + 3), Signal(POINTER + 3))

            def ahead(of: tuple[Value, Value]) -> list[tuple[Value, Value]]:
                """Of either operand the pair after ``of`` and its offset."""
                pair, weight = (Signal(3), Signal(3)), Signal(4)
                m.d.comb += weight.eq(of[0] + of[1] - 1)
                follow((of[0] | of[1]) == 0, of, (of[0] != 0) & (of[1] != top_pc), weight, *pair)
                sums = [
                    add_tree([Mux(n[i], plane << i, 0) for i in range(3)])
                    for n, plane in zip(pair, planes, strict=True)
                ]
                return list(zip(pair, sums, strict=True))

            first, later = ahead(top), ahead(after)
            for side in range(2):
                pair, far = (Mux(self.start, *values) for values in zip(first[side], later[side], strict=True))
                with m.If(moves):
                    m.d.sync += [after[side].eq(pair), offset[side].eq(far)]
            m.d.comb += [
                value.eq(Mux(self.start, *of)) for value, *of in zip((next_pr, next_pc), top, after, strict=True)
            ]
            next_row, next_col = (
                Mux(self.start, Mux(top[side][0], (planes[side] << 3) - planes[side], 0), offset[side])
                for side in range(2)
            )
        else:
            follow(self.start | last_pair, (pr, pc), same_weight, weight, next_pr, next_pc)
            next_row, next_col = next_pr * f.row_plane, next_pc * f.col_plane
        with m.If(self.start):
            m.d.comb += [next_row_base.eq(f.row_addr), next_col_base.eq(f.col_addr)]
        with m.Elif(last_pair):
            m.d.comb += next_col_base.eq(Mux(last_col, f.col_addr, clamp(col_base + f.col_stride)))
            with m.If(last_col):
                m.d.comb += next_row_base.eq(clamp(row_base + f.row_stride))

        with m.If(self.start):
            m.d.sync += [row_tile.eq(0), col_tile.eq(0), running.eq(1)]
        with m.Elif(advance & last_chunk & last_pair):
            m.d.sync += col_tile.eq(Mux(last_col, 0, col_tile + 1))
            with m.If(last_col):
                m.d.sync += [row_tile.eq(row_tile + 1), running.eq(~last_row)]
        with m.If(moves):
            m.d.sync += [
                chunk.eq(0),
                pr.eq(next_pr),
                pc.eq(next_pc),
                row_base.eq(next_row_base),
                col_base.eq(next_col_base),
                row_ptr.eq(clamp(next_row_base + next_row)),
                col_ptr.eq(clamp(next_col_base + next_col)),
                fresh.eq(self.start | last_pair),
                double.eq(~self.start & ~last_pair & ~same_weight),
            ]
        with m.Elif(advance):
            m.d.sync += [
                chunk.eq(chunk + 1),
                row_ptr.eq(clamp(row_ptr + 1)),
                col_ptr.eq(clamp(col_ptr + 1)),
                fresh.eq(0),
                double.eq(0),
            ]
        if self._hw.whole_columns:
            m.d.comb += self.abuf_whole.eq(f.col_planes[3])
        last_of_tile = Signal(exact_log2(self._hw.cols))
        m.d.comb += [
            self.abuf.addr.eq(address(col_ptr)),
            self.wbuf.addr.eq(address(row_ptr)),
            self.kbuf.addr.eq(address(row_ptr)),
            subtract.eq((f.row_signed & (pr == 7)) ^ (f.col_signed & (pc == 7))),
            last_of_tile.eq(Mux(last_col, (f.tokens - 1)[: len(last_of_tile)], self._hw.cols - 1)),
            mask.eq(Cat(c <= last_of_tile for c in range(self._hw.cols))),
            columns.eq(last_of_tile + 1),
        ]
        return last_chunk & last_pair

    def _requests(self, m: Module, f: data.View, issue: Value, advance: Value, mask: Value) -> None:
        """Reads of both operands; ``advance`` when the later of the two is taken."""
        col_taken, row_taken = Signal(), Signal()
        col_now, row_now = Signal(), Signal()
        row_valid = Signal()
        m.d.comb += [
            self.abuf.valid.eq(issue & ~col_taken),
            row_valid.eq(issue & ~row_taken),
            self.wbuf.valid.eq(row_valid & ~f.row_kbuf),
            self.kbuf.valid.eq(row_valid & f.row_kbuf),
            self.abuf.mask.eq(mask),
            self.wbuf.mask.eq(~C(0, self._hw.rows)),
            self.kbuf.mask.eq(~C(0, self._hw.rows)),
            col_now.eq(self.abuf.valid & self.abuf.ready),
            row_now.eq((self.wbuf.valid & self.wbuf.ready) | (self.kbuf.valid & self.kbuf.ready)),
        ]
        if self._fpga:  # never are both taken without an advance; what memories say comes beside ``issue``
            row_ready = Mux(f.row_kbuf, self.kbuf.ready, self.wbuf.ready)
            m.d.comb += advance.eq(issue & ((col_taken | self.abuf.ready) & (row_taken | row_ready)))
        else:
            m.d.comb += advance.eq((col_taken | col_now) & (row_taken | row_now))
        m.d.sync += [
            col_taken.eq((col_taken | col_now) & ~advance),
            row_taken.eq((row_taken | row_now) & ~advance),
            self.row_load.eq(row_now),
            self.col_load.eq(Mux(col_now, mask, 0)),
        ]

    def _steps(self, m: Module, advance: Value, step: dict, mask: Value) -> None:
        """Two registers between issue and execution: read, operand register."""
        valid, late = Signal(), Signal()
        arrived = {name: Signal.like(value, name=f"arrived_{name}") for name, value in step.items()}
        arrived_mask = Signal.like(mask)
        columns = Signal(COUNT)
        outputs = {
            "first": self.first,
            "double": self.double,
            "subtract": self.subtract,
            "finish": self.finish,
            "columns": columns,
        }
        m.d.sync += [valid.eq(advance), late.eq(valid), self.en.eq(Mux(valid, arrived_mask, 0))]
        with m.If(advance):
            m.d.sync += [arrived[name].eq(value) for name, value in step.items()] + [arrived_mask.eq(mask)]
        with m.If(valid):
            m.d.sync += [outputs[name].eq(value) for name, value in arrived.items()]
        with m.Else():
            m.d.sync += self.finish.eq(0)
        m.d.comb += [self.ev_array_active.eq(late), self.ev_array_columns.eq(Mux(late, columns, 0))]
