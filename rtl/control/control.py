"""Control: checks and dispatches instructions, keeps the tokens, collects errors, watches for standstill."""

from amaranth import C, Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ternbin.contract.counters import CONTROL_EVENTS
from ternbin.contract.effects.transfer import rules
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import (
    CHECK,
    INSTRUCTION_BITS,
    INSTRUCTION_BYTES,
    UNIT_OF,
    WATCHDOG_CYCLES,
    ErrorCode,
    Op,
    Unit,
    layout,
)
from ternbin.contract.pipeline import IN_FLIGHT, TOKEN_BITS
from ternbin.rtl.control.fetch import Fetch
from ternbin.rtl.parts.arithmetic import registered
from ternbin.rtl.parts.interfaces import Record, Stream, UnitInterface, UnitPort, events_signature
from ternbin.rtl.parts.legality import any_broken
from ternbin.rtl.transfer.axi import Burst, BurstView, ReadBeat, ReadBeatView
from ternbin.rtl.transfer.words import transfer_view


def header_field(word: Value, name: str) -> Value:
    """A field of the header, the same in all instructions."""
    low, bits, _ = layout(Op.END)[name]
    return word[low : low + bits]


class Queued(data.StructLayout):
    """What a unit's queue holds: the instruction and its byte address."""

    word: Signal
    addr: Signal

    def __init__(self, hw: HwConfig):
        super().__init__({"word": INSTRUCTION_BITS, "addr": hw.axi_addr_bits})


class QueuedView(Record):
    word: Value
    addr: Value


class UnitQueue(wiring.Component):
    """Instructions of one unit: waiting for their tokens, and issued but not done.

    ``tokens[v]``: a token from unit v is there; ``take[v]`` takes it, ``give[v]`` gives one to v. ``oldest``: byte address of the oldest
    instruction in flight, else of the one waiting. ``flush`` (level) empties it.
    """

    i: Stream[QueuedView]
    port: UnitInterface
    flush: Signal
    tokens: Signal
    take: Signal
    give: Signal
    waiting: Signal
    flying: Signal
    oldest: Signal
    started: Signal
    done: Signal
    wait_token: Signal

    def __init__(self, hw: HwConfig, unit: Unit):
        self.hw, self.unit = hw, unit
        units = len(Unit)
        super().__init__(
            {
                "i": In(stream.Signature(Queued(hw))),
                "port": Out(UnitPort()),
                "flush": In(1),
                "tokens": In(units),
                "take": Out(units),
                "give": Out(units),
                "waiting": Out(1),
                "flying": Out(1),
                "oldest": Out(hw.axi_addr_bits),
                "started": Out(1),
                "done": Out(1),
                "wait_token": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        hw, own = self.hw, 1 << self.unit
        queued, flying = Queued(hw), data.StructLayout({"signal": len(Unit), "addr": hw.axi_addr_bits})
        m.submodules.queue = queue = ResetInserter(self.flush)(SyncFIFO(width=queued.size, depth=hw.queue_depth))
        m.submodules.flight = flight = ResetInserter(self.flush)(SyncFIFO(width=flying.size, depth=IN_FLIGHT))
        head, first = data.View(queued, queue.r_data), data.View(flying, flight.r_data)
        wait = header_field(head.word, "wait")
        allowed = Signal()
        m.d.comb += [
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            allowed.eq(~(wait & ~(self.tokens | own)).any() & ~(wait[self.unit] & flight.r_rdy)),
            self.port.instruction.payload.eq(head.word),
            self.port.instruction.valid.eq(queue.r_rdy & allowed & flight.w_rdy & ~self.flush),
            self.started.eq(self.port.instruction.valid & self.port.instruction.ready),
            queue.r_en.eq(self.started),
            flight.w_en.eq(self.started),
            flight.w_data.eq(Cat(header_field(head.word, "signal"), head.addr)),
            self.take.eq(Mux(self.started, wait & ~own, 0)),
            self.done.eq(self.port.done & flight.r_rdy & ~self.flush),
            flight.r_en.eq(self.done),
            self.give.eq(Mux(self.done, first.signal & ~own, 0)),
            self.waiting.eq(queue.r_rdy),
            self.flying.eq(flight.r_rdy),
            self.wait_token.eq(queue.r_rdy & ~allowed),
            self.oldest.eq(Mux(flight.r_rdy, first.addr, head.addr)),
        ]
        return m


class Tokens(wiring.Component):
    """A counter for every ordered pair of units; ``there_u[v]`` says that unit v has given u a token that u has not taken.

    ``overflow[v]``: unit v gave one more than fits.
    """

    overflow: Signal
    clear: Signal

    def __init__(self):
        units = len(Unit)
        ports = {
            f"{kind}_{u.name.lower()}": flow
            for u in Unit
            for kind, flow in (("give", In(units)), ("take", In(units)), ("there", Out(units)))
        }
        super().__init__({**ports, "overflow": Out(units), "clear": In(1)})

    def elaborate(self, platform):
        m = Module()
        for giver in Unit:
            full = []
            for taker in Unit:
                if giver == taker:
                    continue
                count = Signal(TOKEN_BITS, name=f"{giver.name.lower()}_to_{taker.name.lower()}")
                give = getattr(self, f"give_{giver.name.lower()}")[taker]
                take = getattr(self, f"take_{taker.name.lower()}")[giver]
                m.d.comb += getattr(self, f"there_{taker.name.lower()}")[giver].eq(count.any())
                m.d.sync += count.eq(count + give - take)
                full.append(give & ~take & count.all())
                with m.If(self.clear):
                    m.d.sync += count.eq(0)
            m.d.comb += self.overflow[giver].eq(Cat(full).any())
        return m


class Control(wiring.Component):
    """Runs a program: ``start`` (with ``program``, its byte address) until END or the first error.

    ``done`` and ``error`` (an ErrorCode, with ``error_addr``) stay until ``clear`` or ``start``. ``address_fault`` has a bit per unit.
    ``active``: something moved on the bus or in a memory this cycle; ``quiet``: nothing is under way on the bus. After an error
    ``abort`` resets or stops the units until the bus is quiet; ``busy`` falls then. ERROR_ADDR of a fault of a unit is its oldest
    unfinished instruction; of TIMEOUT the oldest one of the first unit that has any, else the next one to be dispatched.
    Events, per unit: busy (has instructions in flight), wait_token (its next instruction waits for tokens), instructions.
    ``fpga`` (constructor): errors are seen a cycle later, from registers; ``abort`` is one.
    """

    start: Signal
    clear: Signal
    program: Signal
    busy: Signal
    done: Signal
    error: Signal
    error_addr: Signal
    abort: Signal
    ar: Stream[BurstView]
    r: Stream[ReadBeatView]
    address_fault: Signal
    read_fault: Signal
    read_addr: Signal
    write_fault: Signal
    write_addr: Signal
    active: Signal
    quiet: Signal
    trace_start: Signal
    trace_done: Signal
    ev_cycles: Signal

    EVENTS = CONTROL_EVENTS

    def __init__(self, hw: HwConfig, watchdog: int = WATCHDOG_CYCLES, *, fpga: bool = False):
        self.hw, self._watchdog, self._fpga = hw, watchdog, fpga
        addr, units = hw.axi_addr_bits, len(Unit)
        super().__init__(
            {
                "start": In(1),
                "clear": In(1),
                "program": In(64),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(4),
                "error_addr": Out(64),
                "abort": Out(1),
                "ar": Out(stream.Signature(Burst(hw))),
                "r": In(stream.Signature(ReadBeat(hw))),
                **{f"unit_{unit.name.lower()}": Out(UnitPort()) for unit in Unit},
                "address_fault": In(units),
                "read_fault": In(1),
                "read_addr": In(addr),
                "write_fault": In(1),
                "write_addr": In(addr),
                "active": In(1),
                "quiet": In(1),
                "trace_start": Out(units),
                "trace_done": Out(units),
                **events_signature(self.EVENTS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = Fetch(self.hw)
        m.submodules.tokens = tokens = Tokens()
        queues = {}
        for unit in Unit:
            name = unit.name.lower()
            m.submodules[name] = queues[unit] = UnitQueue(self.hw, unit)
            wiring.connect(m, queues[unit].port, wiring.flipped(getattr(self, f"unit_{name}")))
        wiring.connect(m, fetch.ar, wiring.flipped(self.ar))
        wiring.connect(m, fetch.r, wiring.flipped(self.r))
        self._connect_tokens(m, tokens, queues)
        ended, refused, refused_code = self._dispatch(m, fetch, queues)
        stuck, stuck_addr = self._watch(m, fetch, queues)
        raised, code, addr = self._errors(m, fetch, tokens, queues, refused, refused_code, stuck, stuck_addr)
        self._state(m, fetch, tokens, queues, ended, raised, code, addr)
        for unit, queue in queues.items():
            name = unit.name.lower()
            m.d.comb += [
                self.trace_start[unit].eq(queue.started),
                self.trace_done[unit].eq(queue.done),
                getattr(self, f"ev_{name}_busy").eq(queue.flying),
                getattr(self, f"ev_{name}_wait_token").eq(queue.wait_token),
                getattr(self, f"ev_{name}_instructions").eq(queue.started),
            ]
        return m

    def _connect_tokens(self, m: Module, tokens: Tokens, queues: dict[Unit, UnitQueue]) -> None:
        for unit, queue in queues.items():
            name = unit.name.lower()
            m.d.comb += [
                getattr(tokens, f"give_{name}").eq(queue.give),
                getattr(tokens, f"take_{name}").eq(queue.take),
                queue.tokens.eq(getattr(tokens, f"there_{name}")),
                queue.flush.eq(self.abort),
            ]

    def _dispatch(self, m: Module, fetch: Fetch, queues: dict[Unit, UnitQueue]) -> tuple[Value, Value, Signal]:
        """Fetched instructions into the queues; returns whether this is END, whether it is refused, and why."""
        item = fetch.o.payload
        opcode = header_field(item.word, "opcode")
        store, transfer = opcode == Op.STORE, (opcode == Op.LOAD) | (opcode == Op.STORE)
        bad_field = transfer & any_broken(rules(self.hw, transfer_view(item.word), store))
        known, code, ended = Signal(), Signal(4), Signal()
        m.d.comb += known.eq(Cat(opcode == op for op in Op).any())
        reasons = [
            (item.bus_error, ErrorCode.BUS_READ),
            (item.check != CHECK, ErrorCode.CHECK),
            (~known, ErrorCode.OPCODE),
            (bad_field, ErrorCode.FIELD),
        ]
        for condition, reason in reversed(reasons):
            with m.If(condition):
                m.d.comb += code.eq(reason)
        good = fetch.o.valid & (code == ErrorCode.NONE)
        if self._fpga:  # a transfer that breaks a rule is dropped with all else before it asks for anything
            good = fetch.o.valid & known & (item.check == CHECK) & ~item.bus_error
        m.d.comb += ended.eq(good & (opcode == Op.END))
        for unit, queue in queues.items():
            mine = Cat(opcode == op for op, owner in UNIT_OF.items() if owner == unit).any()
            m.d.comb += [
                queue.i.payload.word.eq(item.word),
                queue.i.payload.addr.eq(item.addr),
                queue.i.valid.eq(good & mine),
            ]
            with m.If(mine):
                m.d.comb += fetch.o.ready.eq(queue.i.ready & good)
        return ended, fetch.o.valid & (code != ErrorCode.NONE), code

    def _watch(self, m: Module, fetch: Fetch, queues: dict[Unit, UnitQueue]) -> tuple[Value, Value]:
        """Whether nothing has moved for too long, and the address to blame."""
        still = Signal(range(self._watchdog + 1))
        moved = Cat(self.trace_start, self.trace_done, self.active, fetch.o.valid & fetch.o.ready).any()
        if self._fpga:
            moved = registered(m, moved, "result")
        m.d.sync += still.eq(Mux(moved | ~self.busy, 0, still + 1))
        addr = fetch.o.payload.addr
        for queue in reversed(queues.values()):
            addr = Mux(queue.waiting | queue.flying, queue.oldest, addr)
        return still == self._watchdog, addr

    def _errors(
        self,
        m: Module,
        fetch: Fetch,
        tokens: Tokens,
        queues: dict[Unit, UnitQueue],
        refused: Value,
        refused_code: Value,
        stuck: Value,
        stuck_addr: Value,
    ) -> tuple[Signal, Signal, Signal]:
        """The first error of this cycle: whether there is one, its code and its address."""
        found = [
            (self.read_fault, ErrorCode.BUS_READ, self.read_addr),
            (self.write_fault, ErrorCode.BUS_WRITE, self.write_addr),
        ]
        for unit, queue in queues.items():
            found += [
                (queue.port.fault, ErrorCode.FIELD, queue.oldest),
                (self.address_fault[unit], ErrorCode.ADDRESS, queue.oldest),
                (tokens.overflow[unit], ErrorCode.TOKEN, queue.oldest),
            ]
        found += [(refused, refused_code, fetch.o.payload.addr), (stuck, ErrorCode.TIMEOUT, stuck_addr)]
        raised, code, addr = Signal(), Signal(4), Signal(self.hw.axi_addr_bits)
        if self._fpga:
            found = [
                (
                    registered(m, condition, "result"),
                    reason if isinstance(reason, int) else registered(m, reason, "result"),
                    registered(m, where, "result"),
                )
                for condition, reason, where in found
            ]
        for condition, reason, where in reversed(found):
            with m.If(condition):
                m.d.comb += [raised.eq(1), code.eq(reason), addr.eq(where)]
        return raised, code, addr

    def _state(
        self,
        m: Module,
        fetch: Fetch,
        tokens: Tokens,
        queues: dict[Unit, UnitQueue],
        ended: Value,
        raised: Value,
        code: Value,
        addr: Value,
    ) -> None:
        limit, align = self.hw.axi_addr_bits, INSTRUCTION_BYTES - 1
        unusable = self.program[limit:].any() | (self.program & align).any()
        idle = ~Cat(q.waiting | q.flying | q.port.busy for q in queues.values()).any()
        m.d.comb += [fetch.base.eq(self.program), self.ev_cycles.eq(self.busy)]
        with m.If(self.clear):
            m.d.sync += [self.done.eq(0), self.error.eq(0)]

        def fail(reason: Value, where: Value) -> None:
            m.d.sync += [self.error.eq(reason), self.error_addr.eq(where)]

        def give_up() -> None:
            fail(code, addr)
            m.next = "ABORT"
            if self._fpga:
                m.d.sync += self.abort.eq(1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += tokens.clear.eq(1)
                with m.If(self.start):
                    m.d.sync += [self.done.eq(0), self.error.eq(0)]
                    with m.If(unusable):
                        fail(C(ErrorCode.FIELD, 4), self.program)
                    with m.Else():
                        m.d.comb += fetch.start.eq(1)
                        m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.busy.eq(1)
                with m.If(ended):
                    m.next = "FINISH"
                with m.If(raised):
                    give_up()
            with m.State("FINISH"):
                m.d.comb += [self.busy.eq(1), fetch.stop.eq(1)]
                with m.If(idle & ~fetch.busy & self.quiet):
                    m.d.sync += self.done.eq(1)
                    m.next = "IDLE"
                with m.If(raised):
                    give_up()
                    m.d.sync += self.done.eq(0)
            with m.State("ABORT"):
                m.d.comb += [self.busy.eq(1), fetch.stop.eq(1), tokens.clear.eq(1)]
                if not self._fpga:
                    m.d.comb += self.abort.eq(1)
                with m.If(~fetch.busy & self.quiet):
                    m.next = "IDLE"
                    if self._fpga:
                        m.d.sync += self.abort.eq(0)
