"""The execute unit: one GEMM at a time through sequencer, array, drain and epilogue."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.hw import HwConfig
from ternbin.isa import INSTRUCTION_BITS
from ternbin.rtl import epilogue, sequencer
from ternbin.rtl.array import Array
from ternbin.rtl.drain import Drain
from ternbin.rtl.gemm import gemm_fields, impossible
from ternbin.rtl.interfaces import ReadPort, TransposedWritePort, UnitPort, WritePort, events_signature


class ExecuteUnit(wiring.Component):
    """Runs GEMM instructions as docs/architecture.md defines them; ``fault`` for what ``gemm.impossible`` lists.

    ``lutx_w`` writes the GELU table: ``addr`` counts beats, data is one bus beat of 16-bit entries; always ready, addresses beyond
    the table touch nothing. The Verilog needs ``pe.pe_verilog(hw)`` and the primitives beside it.
    """

    EVENTS = sequencer.EVENTS | epilogue.EVENTS

    def __init__(self, hw: HwConfig):
        self._hw = hw
        code = hw.code_word_bits
        super().__init__({
            "port": In(UnitPort()),
            "abuf": Out(ReadPort(hw.cols, code)), "wbuf": Out(ReadPort(hw.rows, code)), "kbuf": Out(ReadPort(hw.rows, code)),
            "pbuf": Out(ReadPort(1, hw.param_word_bits)), "rbuf_r": Out(ReadPort(1, hw.res_word_bits)),
            "rbuf_w": Out(WritePort(1, hw.res_word_bits, hw.rows)), "sbuf_w": Out(WritePort(1, hw.score_word_bits, 1)),
            "abuf_w": Out(WritePort(hw.cols, code, hw.lanes)), "kbuf_w": Out(WritePort(hw.rows, code, hw.lanes)),
            "kbuf_t": Out(TransposedWritePort(hw.rows, hw.planes, hw.lanes)),
            "idbuf_w": Out(WritePort(1, 96, 1)), "lutx_w": In(WritePort(1, hw.axi_data_bits, 1)),
            **events_signature(self.EVENTS),
        })

    def elaborate(self, platform):
        m = Module()
        instruction = Signal(INSTRUCTION_BITS, reset_less=True)
        m.submodules.sequencer = seq = sequencer.Sequencer(self._hw)
        m.submodules.array = array = Array(self._hw)
        m.submodules.drain = drain = Drain(self._hw)
        m.submodules.epilogue = epi = epilogue.Epilogue(self._hw)
        for part in (seq, drain, epi):
            m.d.comb += part.instruction.eq(instruction)
        start = self._control(m, instruction, seq.busy | drain.busy | epi.busy)
        m.d.comb += [part.start.eq(start) for part in (seq, drain, epi)]
        self._array(m, gemm_fields(instruction), seq, array, drain)
        wiring.connect(m, drain.o, epi.i)
        for part, names in (
            (seq, ("abuf", "wbuf", "kbuf")),
            (epi, ("pbuf", "rbuf_r", "rbuf_w", "sbuf_w", "abuf_w", "kbuf_w", "kbuf_t", "idbuf_w", "lutx_w")),
        ):
            for name in names:
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(part, name))
        for part, events in ((seq, sequencer.EVENTS), (epi, epilogue.EVENTS)):
            m.d.comb += [getattr(self, f"ev_{name}").eq(getattr(part, f"ev_{name}")) for name in events]
        return m

    def _control(self, m: Module, instruction, working):
        """Takes, checks, starts and finishes instructions. Returns the start pulse."""
        start = Signal()
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.port.instruction.ready.eq(1)
                with m.If(self.port.instruction.valid):
                    m.d.sync += instruction.eq(self.port.instruction.payload)
                    m.next = "check"
            with m.State("check"):
                wrong = impossible(m, self._hw, instruction)
                m.d.comb += [self.port.busy.eq(1), start.eq(~wrong), self.port.fault.eq(wrong)]
                m.next = "run"
                with m.If(wrong):
                    m.next = "idle"
            with m.State("run"):
                m.d.comb += self.port.busy.eq(1)
                with m.If(~working):
                    m.d.comb += self.port.done.eq(1)
                    m.next = "idle"
        return start

    def _array(self, m: Module, f, seq, array, drain):
        for r in range(self._hw.rows):
            m.d.comb += array.row[r].eq(Mux(f.row_kbuf, self.kbuf.data[r], self.wbuf.data[r]))
        m.d.comb += [
            array.col.eq(self.abuf.data), array.row_load.eq(seq.row_load), array.col_load.eq(seq.col_load),
            array.en.eq(seq.en), array.first.eq(seq.first), array.double.eq(seq.double), array.subtract.eq(seq.subtract),
            array.rowsum.eq(f.rowsum), array.init.eq(f.acc_init),
            array.capture.eq(drain.capture), array.capture_cols.eq(drain.capture_cols), array.column.eq(drain.column),
            drain.values.eq(array.o), drain.finish.eq(seq.finish), drain.finish_cols.eq(seq.en),
            seq.tile_free.eq(drain.tile_free),
        ]
