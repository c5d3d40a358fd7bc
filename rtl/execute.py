"""The execute unit: GEMMs through sequencer and array (front), drain and epilogue (back), each working on one instruction."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.counters import DRAIN_EVENTS, EPILOGUE_EVENTS, EXECUTE_EVENTS, SEQUENCER_EVENTS
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BITS, Op
from ternbin.contract.memories import ID_WORD_BITS
from ternbin.rtl.array.array import Array, operands
from ternbin.rtl.array.drain import Drain
from ternbin.rtl.array.sequencer import Sequencer
from ternbin.rtl.epilogue.epilogue import Epilogue
from ternbin.rtl.parts.gemm_fields import Mode, gemm_fields
from ternbin.rtl.parts.interfaces import (
    ReadInterface,
    ReadPort,
    TransposedInterface,
    TransposedWritePort,
    UnitInterface,
    UnitPort,
    WriteInterface,
    WritePort,
    events_signature,
)
from ternbin.rtl.parts.legality import impossible


class ExecuteUnit(wiring.Component):
    """Runs GEMM instructions as docs/instruction-set.md defines them; ``fault`` for what breaks a rule of ``contract.effects.gemm``.

    The array works on the next instruction while the results of the one before it are drained and written.

    ``lutx_w`` writes the GELU table: ``addr`` counts beats, data is one bus beat of 16-bit entries; always ready, addresses beyond
    the table touch nothing. The Verilog needs ``pe.pe_verilog(hw)`` and the primitives beside it.
    """

    port: UnitInterface
    abuf: ReadInterface
    abuf_whole: Signal
    wbuf: ReadInterface
    kbuf: ReadInterface
    pbuf: ReadInterface
    rbuf_r: ReadInterface
    rbuf_w: WriteInterface
    sbuf_w: WriteInterface
    abuf_w: WriteInterface
    kbuf_w: WriteInterface
    kbuf_t: TransposedInterface
    idbuf_w: WriteInterface
    lutx_w: WriteInterface

    EVENTS = EXECUTE_EVENTS

    def __init__(self, hw: HwConfig, *, fpga: bool = False):
        self._hw, self._fpga = hw, fpga
        code = hw.code_word_bits
        super().__init__(
            {
                "port": In(UnitPort()),
                "abuf": Out(ReadPort(hw.cols, hw.column_word_bits)),
                **({"abuf_whole": Out(1)} if hw.whole_columns else {}),
                "wbuf": Out(ReadPort(hw.rows, code)),
                "kbuf": Out(ReadPort(hw.rows, code)),
                "pbuf": Out(ReadPort(1, hw.param_word_bits)),
                "rbuf_r": Out(ReadPort(1, hw.res_word_bits)),
                "rbuf_w": Out(WritePort(1, hw.res_word_bits, hw.rows)),
                "sbuf_w": Out(WritePort(hw.cols, hw.score_word_bits * hw.cols, 1)),
                "abuf_w": Out(WritePort(hw.cols, code, hw.lanes)),
                "kbuf_w": Out(WritePort(hw.rows, code, hw.lanes)),
                "kbuf_t": Out(TransposedWritePort(hw.rows, hw.planes, hw.lanes)),
                "idbuf_w": Out(WritePort(1, ID_WORD_BITS, 1)),
                "lutx_w": In(WritePort(1, hw.axi_data_bits, 1)),
                **events_signature(self.EVENTS),
            }
        )

    @property
    def awake(self) -> Value:
        """Whether the unit needs its clock."""
        return self.port.busy | self.port.instruction.valid | self.lutx_w.valid

    def elaborate(self, platform):
        m = Module()
        front, back = (Signal(INSTRUCTION_BITS, name=name, reset_less=True) for name in ("front", "back"))
        m.submodules.sequencer = seq = Sequencer(self._hw, fpga=self._fpga)
        m.submodules.array = array = Array(self._hw)
        handed = Signal()  # from front to back
        mode = Mode(gemm_fields(front), self._hw.beams).kept(m, handed) if self._fpga else None
        m.submodules.drain = drain = Drain(self._hw, fpga=self._fpga, mode=mode)
        m.submodules.epilogue = epi = Epilogue(self._hw, fpga=self._fpga, mode=mode)
        m.d.comb += [seq.instruction.eq(front), drain.instruction.eq(back), epi.instruction.eq(back)]
        self._control(m, front, back, handed, seq, drain, epi)
        self._array(m, gemm_fields(front), seq, array, drain)
        wiring.connect(m, drain.o, epi.i)
        for part, names in (
            (seq, ("abuf", "wbuf", "kbuf")),
            (drain, ("sbuf_w",)),
            (epi, ("pbuf", "rbuf_r", "rbuf_w", "abuf_w", "kbuf_w", "kbuf_t", "idbuf_w", "lutx_w")),
        ):
            for name in names:
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(part, name))
        if self._hw.whole_columns:
            m.d.comb += self.abuf_whole.eq(seq.abuf_whole)
        for part, events in ((seq, SEQUENCER_EVENTS), (drain, DRAIN_EVENTS), (epi, EPILOGUE_EVENTS)):
            m.d.comb += [getattr(self, f"ev_{name}").eq(getattr(part, f"ev_{name}")) for name in events]
        return m

    def _control(
        self, m: Module, front: Value, back: Value, handed: Signal, seq: Sequencer, drain: Drain, epi: Epilogue
    ) -> None:
        """Takes and checks instructions, hands them from the front to the back, reports them done.

        An instruction that cannot be run waits for the one before it, so that the fault is that of the oldest.
        """
        wrong, begin, ahead = Signal(), Signal(), Signal()  # ahead: an instruction for the back is in the front
        working, started = Signal(), Signal()
        if self._fpga:  # checked while it is taken
            m.d.comb += drain.following.eq(front)
            with m.If(self.port.instruction.ready):
                m.d.sync += wrong.eq(impossible(self._hw, self.port.instruction.payload, Op.GEMM))
        else:
            m.d.comb += wrong.eq(impossible(self._hw, front, Op.GEMM))
        m.d.comb += [
            seq.start.eq(begin),
            drain.start.eq(started),
            epi.start.eq(started),
            seq.scores_open.eq(drain.busy & ~ahead),
            handed.eq((begin | ahead) & (~working | self.port.done)),
            self.port.done.eq(working & ~(started | drain.busy | epi.busy)),
        ]
        m.d.sync += [
            ahead.eq((begin | ahead) & ~handed),
            started.eq(handed),
            working.eq(handed | (working & ~self.port.done)),
        ]
        with m.If(handed):
            m.d.sync += back.eq(front)
        with m.FSM() as fsm:
            with m.State("idle"):
                m.d.comb += self.port.instruction.ready.eq(1)
                with m.If(self.port.instruction.valid):
                    m.d.sync += front.eq(self.port.instruction.payload)
                    m.next = "check"
            with m.State("check"):
                m.d.comb += [begin.eq(~wrong), self.port.fault.eq(wrong & ~working)]
                with m.If(begin):
                    m.next = "run"
                with m.Elif(self.port.fault):
                    m.next = "idle"
            with m.State("run"):
                with m.If(~seq.running & ~ahead):
                    m.next = "idle"
            m.d.comb += self.port.busy.eq(~fsm.ongoing("idle") | working)

    def _array(self, m: Module, f: data.View, seq: Sequencer, array: Array, drain: Drain) -> None:
        m.d.comb += [
            array.row.eq(Mux(f.row_kbuf, self.kbuf.data.as_value(), self.wbuf.data.as_value())),
            array.col.eq(operands(self._hw, f, self.abuf.data)),
            array.row_load.eq(seq.row_load),
            array.col_load.eq(seq.col_load),
            array.en.eq(seq.en),
            array.first.eq(seq.first),
            array.double.eq(seq.double),
            array.subtract.eq(seq.subtract),
            array.rowsum.eq(f.rowsum),
            array.init.eq(f.acc_init),
            array.capture.eq(drain.capture),
            array.capture_cols.eq(drain.capture_cols),
            array.column.eq(drain.column),
            drain.values.eq(array.o),
            drain.tile.eq(array.tile),
            array.tile_en.eq(drain.sbuf_w.valid),
            drain.finish.eq(seq.finish),
            drain.finish_cols.eq(seq.en),
            seq.tile_free.eq(drain.tile_free),
        ]
