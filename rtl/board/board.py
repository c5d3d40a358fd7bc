"""An accelerator on a board with a serial line: memory on the chip, and a bridge through which the host reaches it and the registers.

A request is an operation (``READ`` or ``WRITE``), a byte address of 4 bytes and, to write, a value of 4 bytes, lowest byte first. The
answer is a byte, the response of the bus (0: done), and after a read the value. Address bit 31: a register of the accelerator, else
memory. Accesses are of whole aligned words of 32 bits.
"""

from amaranth import C, Cat, ClockSignal, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.hw import HwConfig
from ternbin.rtl.board.memory import WORD, BoardMemory
from ternbin.rtl.board.uart import Receiver, Sender
from ternbin.rtl.control.registers import SlavePorts, slave_ports
from ternbin.rtl.top import top_ports
from ternbin.rtl.transfer.axi import master_ports

READ, WRITE = b"RW"
REGISTERS = 1 << 31  # address bit
BOARD = "ternbin_board"


class Bridge(SlavePorts, wiring.Component):
    """Bytes of the host to accesses: of memory (``valid`` until ``ready``), or of an AXI4-Lite slave."""

    rx: Signal
    tx: Signal
    valid: Signal
    ready: Signal
    write: Signal
    addr: Signal
    value: Signal
    data: Signal

    def __init__(self, divisor: int):
        self._divisor = divisor
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1),
                **{name: member.flip() for name, member in slave_ports().items()},
                "valid": Out(1),
                "ready": In(1),
                "write": Out(1),
                "addr": Out(31),
                "value": Out(WORD),
                "data": In(WORD),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = Receiver(self._divisor)
        m.submodules.sender = sender = Sender(self._divisor)
        request, count = (
            Signal(8 * 9),
            Signal(range(10)),
        )  # operation, address, value: the last byte comes in at the top
        answer, left = Signal(8 * 5), Signal(range(6))
        write, address = Signal(), Signal(32)
        asked, told = Signal(), Signal()  # the slave took the address; and the value
        m.d.comb += [
            receiver.line.eq(self.rx),
            self.tx.eq(sender.line),
            sender.i.payload.eq(answer[:8]),
            address.eq(Mux(write, request[8:40], request[40:])),
            self.write.eq(write),
            self.addr.eq(address[:31]),
            self.value.eq(request[40:]),
            self.s_axil_awaddr.eq(address),
            self.s_axil_araddr.eq(address),
            self.s_axil_wdata.eq(request[40:]),
            self.s_axil_wstrb.eq(0xF),
        ]
        with m.FSM():
            with m.State("REQUEST"):
                m.d.comb += receiver.o.ready.eq(1)
                with m.If(receiver.o.valid):
                    m.d.sync += [request.eq(Cat(request[8:], receiver.o.payload)), count.eq(count + 1)]
                    with m.If(count == 0):
                        m.d.sync += write.eq(receiver.o.payload == WRITE)
                        with m.If((receiver.o.payload != READ) & (receiver.o.payload != WRITE)):
                            m.d.sync += count.eq(0)  # not a request: what follows a break in the line
                    with m.If(count == Mux(write, 8, 4)):
                        m.d.sync += [count.eq(0), asked.eq(0), told.eq(0)]
                        m.next = "ACCESS"
            with m.State("ACCESS"):
                with m.If(address[31]):
                    self._register(m, write, asked, told, answer)
                    with m.If(Mux(write, self.s_axil_bvalid, self.s_axil_rvalid)):
                        m.d.sync += left.eq(Mux(write, 1, 5))
                        m.next = "ANSWER"
                with m.Else():
                    m.d.comb += self.valid.eq(1)
                    with m.If(self.ready):
                        m.d.sync += [answer.eq(Cat(C(0, 8), self.data)), left.eq(Mux(write, 1, 5))]
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += sender.i.valid.eq(left != 0)
                with m.If(left == 0):
                    m.next = "REQUEST"
                with m.Elif(sender.i.ready):
                    m.d.sync += [answer.eq(answer >> 8), left.eq(left - 1)]
        return m

    def _register(self, m: Module, write: Signal, asked: Signal, told: Signal, answer: Signal) -> None:
        m.d.comb += [
            self.s_axil_awvalid.eq(write & ~asked),
            self.s_axil_wvalid.eq(write & ~told),
            self.s_axil_bready.eq(1),
            self.s_axil_arvalid.eq(~write & ~asked),
            self.s_axil_rready.eq(1),
        ]
        with m.If(Mux(write, self.s_axil_awready, self.s_axil_arready)):
            m.d.sync += asked.eq(1)
        with m.If(self.s_axil_wready):
            m.d.sync += told.eq(1)
        response = Mux(write, self.s_axil_bresp, self.s_axil_rresp)
        m.d.sync += answer.eq(Cat(response, C(0, 6), self.s_axil_rdata))


class Board(wiring.Component):
    """``ternbin`` (of other Verilog) with ``words`` words of memory and a serial line of ``divisor`` cycles a bit; ``led`` is the
    interrupt."""

    rx: Signal
    tx: Signal
    led: Signal

    def __init__(self, hw: HwConfig, words: int, divisor: int):
        self._hw, self._words, self._divisor = hw, words, divisor
        super().__init__({"rx": In(1), "tx": Out(1), "led": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = bridge = Bridge(self._divisor)
        m.submodules.memory = memory = BoardMemory(self._hw, self._words)
        wires = {
            name: (member.flow == Out, Signal(member.shape, name=f"core_{name}"))
            for name, member in top_ports(self._hw).items()
        }
        for part, ports in ((memory, master_ports(self._hw)), (bridge, slave_ports())):
            for name in ports:
                output, wire = wires[name]
                m.d.comb += getattr(part, name).eq(wire) if output else wire.eq(getattr(part, name))
        pins = {f"{'o' if output else 'i'}_{name}": wire for name, (output, wire) in wires.items()}
        m.submodules.core = Instance("ternbin", i_clk=ClockSignal(), i_rst=ResetSignal(), **pins)
        m.d.comb += [
            bridge.rx.eq(self.rx),
            self.tx.eq(bridge.tx),
            self.led.eq(wires["irq"][1]),
            memory.valid.eq(bridge.valid),
            bridge.ready.eq(memory.ready),
            memory.write.eq(bridge.write),
            memory.addr.eq(bridge.addr),
            memory.value.eq(bridge.value),
            bridge.data.eq(memory.data),
        ]
        return m
