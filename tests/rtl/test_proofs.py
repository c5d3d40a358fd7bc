# amaranth: UnusedElaboratable=no
"""Small stateful blocks proven for all inputs and all times: what buses demand, and naive models."""

import os
from collections.abc import Iterable

import pytest
from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import Elaboratable
from amaranth.lib import data
from proof import Assert, Assume, Claim, mutants, opened, prove, yosys

from ternbin.contract import isa
from ternbin.contract.hw import NAMED
from ternbin.contract.isa import INSTRUCTION_BYTES, Unit
from ternbin.contract.memories import Memory
from ternbin.contract.pipeline import IN_FLIGHT, PAGE_BYTES, PREFETCH, TOKEN_BITS
from ternbin.rtl.control.control import Tokens, UnitQueue
from ternbin.rtl.control.counters import COUNTER_BITS, Counters
from ternbin.rtl.control.fetch import Fetch
from ternbin.rtl.control.registers import Registers
from ternbin.rtl.parts.banks import BankedMemory
from ternbin.rtl.parts.primitives import primitives
from ternbin.rtl.transfer.axi import AxiMaster, Slice
from ternbin.rtl.transfer.words import Bursts

pytest.importorskip("pyosys")
HW = NAMED["tiny"]
WRITABLE = (isa.REG_CTRL, isa.REG_STATUS, isa.REG_PROGRAM, isa.REG_PROGRAM_HI)


class Harness(Elaboratable):
    """A block with free inputs, and what is claimed of it. ``claim`` gets this, the module and the block; ``inside``: local
    variables of its elaborate."""

    def __init__(self, dut, claim):
        self.dut, self._claim, self.inputs = dut, claim, []
        self.module, self.inside = opened(dut)

    def free(self, shape, name: str) -> Signal:
        signal = Signal(shape, name=name)
        self.inputs.append(signal)
        return signal

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = self.module
        self._claim(self, m, self.dut)
        return m


def ports(dut, flow: str) -> list[tuple[str, Value]]:
    """Leaves of a component's signature that flow "In" or "Out": name, value."""
    return [
        ("__".join(map(str, path)), Value.cast(value))
        for path, member, value in dut.signature.flatten(dut)
        if member.flow.name == flow
    ]


def drive(h: Harness, m: Module, dut, *given: str) -> dict[str, Signal]:
    """Every input of the block but ``given`` is free; returns them by name."""
    found = {}
    for name, value in ports(dut, "In"):
        if name not in given:
            found[name] = h.free(len(value), f"in_{name}")
            m.d.comb += value.eq(found[name])
    return found


def before(m: Module, value, name: str, init: int = 0) -> Signal:
    """What it was in the cycle before; ``init`` after reset."""
    signal = Signal(len(Value.cast(value)), name=name, init=init)
    m.d.sync += signal.eq(value)
    return signal


def holds(m: Module, name: str, valid, ready, *payload) -> None:
    """What a channel offers stays until it is taken, and nothing is offered right after reset."""
    waits = before(m, valid & ~ready, f"{name}_waits")
    old = before(m, Cat(*payload), f"{name}_old")
    first = before(m, 0, f"{name}_first", init=1)
    m.d.comb += [
        Assert(~waits | valid & (Cat(*payload) == old)),
        Assert(~first | ~valid),
    ]


def passes(m: Module, name: str, taken, what, out: tuple, payload) -> None:
    """What is taken is offered (``out``: valid, ready) from the next cycle on, once."""
    count = Signal(4, name=f"{name}_inside")  # taken, and not gone out
    m.d.sync += count.eq(count + taken - (out[0] & out[1]))
    new, old = before(m, taken, f"{name}_new"), before(m, what, f"{name}_taken")
    m.d.comb += [Assert(count == out[0]), Assert(~new | out[0] & (payload == old))]


def check(dut, claim, peeks: dict[str, str] | None = None, depth: int = 3) -> None:
    """Prove a claim. ``peeks``: name of a free input -> path of the signal inside that it stands for."""
    harness = Harness(dut, claim)
    module = harness.elaborate(None)
    prove(Claim(module, harness.inputs, peeks or {}, depth))


# ---- streams and buses ------------------------------------------------------------------------------------------------


def test_a_proof_can_fail():
    """What goes into a register slice need not hold."""

    def claim(h, m, dut):
        drive(h, m, dut)
        holds(m, "i", dut.i.valid, dut.i.ready, dut.i.payload.as_value())

    with pytest.raises(AssertionError, match="model found"):
        check(Slice(data.StructLayout({"x": 4})), claim)


def test_slice_loses_and_repeats_nothing():
    def claim(h, m, dut):
        drive(h, m, dut)
        holds(m, "o", dut.o.valid, dut.o.ready, dut.o.payload.as_value())
        full, item = Signal(), Signal(4)  # the naive model: a box for one item
        with m.If(dut.o.valid & dut.o.ready):
            m.d.sync += full.eq(0)
        with m.If(dut.i.valid & dut.i.ready):
            m.d.sync += [full.eq(1), item.eq(dut.i.payload.as_value())]
        m.d.comb += [Assert(dut.o.valid == full), Assert(~full | (dut.o.payload.as_value() == item))]
        m.d.comb += Assert(dut.i.ready == (~full | dut.o.ready))

    check(Slice(data.StructLayout({"x": 4})), claim)


def test_axi_master():
    """Its channels hold; every burst goes out once, of the requester that had it taken; every beat goes to whom its ID names."""

    def claim(h, m, dut):
        drive(h, m, dut)
        for name in ("ar", "aw"):
            own = [getattr(dut, f"m_axi_{name}{part}") for part in ("addr", "len", "id", "size", "burst", "cache")]
            holds(m, name, getattr(dut, f"m_axi_{name}valid"), getattr(dut, f"m_axi_{name}ready"), *own)
            size, burst = own[3], own[4]
            m.d.comb += [Assert(1 << size == HW.axi_bytes), Assert(burst == 1)]
        holds(m, "w", dut.m_axi_wvalid, dut.m_axi_wready, dut.m_axi_wdata, dut.m_axi_wstrb, dut.m_axi_wlast)
        m.d.comb += Assert(dut.m_axi_wstrb.all() | ~dut.m_axi_wstrb.any())
        loads, fetches = dut.load_ar.valid & dut.load_ar.ready, dut.fetch_ar.valid & dut.fetch_ar.ready
        m.d.comb += Assert(~(loads & fetches))
        asked = Cat(Mux(fetches, dut.fetch_ar.payload.as_value(), dut.load_ar.payload.as_value()), fetches)
        passes(
            m,
            "ar",
            loads | fetches,
            asked,
            (dut.m_axi_arvalid, dut.m_axi_arready),
            Cat(dut.m_axi_araddr, dut.m_axi_arlen, dut.m_axi_arid),
        )
        passes(
            m,
            "aw",
            dut.aw.valid & dut.aw.ready,
            dut.aw.payload.as_value(),
            (dut.m_axi_awvalid, dut.m_axi_awready),
            Cat(dut.m_axi_awaddr, dut.m_axi_awlen),
        )
        beat = Cat(dut.m_axi_wdata, dut.m_axi_wstrb[0], dut.m_axi_wlast)
        passes(m, "w", dut.w.valid & dut.w.ready, dut.w.payload.as_value(), (dut.m_axi_wvalid, dut.m_axi_wready), beat)
        m.d.comb += [
            Assert(dut.b.valid == dut.m_axi_bvalid),
            Assert(dut.m_axi_bready == dut.b.ready),
            Assert(dut.b.payload == dut.m_axi_bresp[1]),
            Assert(Cat(dut.load_r.payload.data, dut.load_r.payload.error) == Cat(dut.m_axi_rdata, dut.m_axi_rresp[1])),
            Assert(dut.fetch_r.payload.as_value() == dut.load_r.payload.as_value()),
            Assert(dut.load_r.payload.last == dut.m_axi_rlast),
        ]
        load, fetch = dut.load_r, dut.fetch_r
        m.d.comb += [
            Assert(dut.m_axi_rvalid == (load.valid | fetch.valid)),
            Assert(~(load.valid & fetch.valid)),
            Assert(~fetch.valid | dut.m_axi_rid),
            Assert((dut.m_axi_rvalid & dut.m_axi_rready) == (load.valid & load.ready | fetch.valid & fetch.ready)),
        ]

    check(AxiMaster(HW), claim)


def test_axi_lite_slave():
    """Answers hold, each belongs to one request, none comes without, all come in time."""

    def claim(h, m, dut):
        drive(h, m, dut)
        holds(m, "b", dut.s_axil_bvalid, dut.s_axil_bready, dut.s_axil_bresp)
        holds(m, "r", dut.s_axil_rvalid, dut.s_axil_rready, dut.s_axil_rresp, dut.s_axil_rdata)
        aw, w = dut.s_axil_awvalid & dut.s_axil_awready, dut.s_axil_wvalid & dut.s_axil_wready
        ar = dut.s_axil_arvalid & dut.s_axil_arready
        written, asked, waited = Signal(4), Signal(4), Signal(4)
        m.d.sync += written.eq(written + aw - (dut.s_axil_bvalid & dut.s_axil_bready))
        m.d.sync += asked.eq(asked + ar - (dut.s_axil_rvalid & dut.s_axil_rready))
        m.d.sync += waited.eq(Mux(asked.any() & ~dut.s_axil_rvalid, waited + 1, 0))
        m.d.comb += [
            Assert(aw == w),
            Assert(written == dut.s_axil_bvalid),
            Assert(asked <= 1),
            Assert(~dut.s_axil_rvalid | (asked == 1)),
            Assert(waited <= 2),
        ]

    check(Registers(5), claim, depth=5)


def test_registers():
    """Writes and reads over the bus against a table of registers."""
    counters = 5

    def claim(h, m, dut):
        drive(h, m, dut)
        aw, ar = dut.s_axil_awvalid & dut.s_axil_awready, dut.s_axil_arvalid & dut.s_axil_arready
        whole, data = aw & dut.s_axil_wstrb.all(), dut.s_axil_wdata
        to = {offset: whole & (dut.s_axil_awaddr == offset) for offset in WRITABLE}
        enabled, program, good, where = Signal(), Signal(64), Signal(), Signal(12)
        m.d.sync += [
            enabled.eq(Mux(to[isa.REG_CTRL], data[1], enabled)),
            program[:32].eq(Mux(to[isa.REG_PROGRAM], data, program[:32])),
            program[32:].eq(Mux(to[isa.REG_PROGRAM_HI], data, program[32:])),
            good.eq(Mux(aw, Cat(to.values()).any(), good)),
            where.eq(Mux(ar, dut.s_axil_araddr, where)),
        ]
        table = {
            isa.REG_ID: isa.ID_VALUE,
            isa.REG_CTRL: enabled << 1,
            isa.REG_STATUS: Cat(dut.busy, dut.done, dut.error != 0),
            isa.REG_ERROR: dut.error,
            isa.REG_ERROR_ADDR: dut.error_addr[:32],
            isa.REG_ERROR_ADDR_HI: dut.error_addr[32:],
            isa.REG_PROGRAM: program[:32],
            isa.REG_PROGRAM_HI: program[32:],
        }
        for number in range(counters):
            table |= {
                isa.REG_COUNTERS + 8 * number + 4 * half: dut.value[32 * half : 32 * half + 32] for half in (0, 1)
            }
            asked = (where >= isa.REG_COUNTERS + 8 * number) & (where < isa.REG_COUNTERS + 8 * number + 8)
            m.d.comb += Assert(~h.inside["pending"] | ~asked | (dut.index == number))
        value, known = Signal(32), Signal()
        with m.Switch(where):
            for offset, content in table.items():
                with m.Case(offset):
                    m.d.comb += [value.eq(content), known.eq(1)]
        old = before(m, Cat(value, known), "answer")
        new = before(m, ~dut.s_axil_rvalid, "new") & dut.s_axil_rvalid
        asking, answered = Signal(), dut.s_axil_rvalid & dut.s_axil_rready
        m.d.sync += asking.eq(ar | asking & ~answered)
        m.d.comb += [
            Assert(aw == (dut.s_axil_awvalid & dut.s_axil_wvalid & ~dut.s_axil_bvalid)),
            Assert(ar == (dut.s_axil_arvalid & ~asking)),
            Assert(asking == (h.inside["pending"] | dut.s_axil_rvalid)),
            Assert(~h.inside["pending"] | (h.inside["addr"] == where)),
            Assert(~(h.inside["pending"] & dut.s_axil_rvalid)),
            Assert(~new | (dut.s_axil_rdata == Mux(old[-1], old[:32], 0)) & (dut.s_axil_rresp == Mux(old[-1], 0, 2))),
            Assert(~dut.s_axil_bvalid | (dut.s_axil_bresp == Mux(good, 0, 2))),
            Assert(h.inside["enabled"] == enabled),
            Assert(dut.program == program),
            Assert(dut.start == (to[isa.REG_CTRL] & data[0])),
            Assert(dut.clear_counters == (to[isa.REG_CTRL] & data[2])),
            Assert(dut.clear_status == to[isa.REG_STATUS]),
            Assert(dut.irq == before(m, enabled & (dut.done | dut.error.any()), "irq_due")),
        ]

    check(Registers(counters), claim, depth=5)


def test_bursts_of_transfers_stay_within_pages():
    """No burst of LOAD or STORE crosses a page or is too long, all begin at a beat; as long as beats are left, of which mapped programs
    that run tell (a product of fields, hard for a solver)."""

    def claim(h, m, dut):
        drive(h, m, dut)
        low, t, row, at, left = (
            (HW.axi_bytes - 1).bit_length(),
            *(h.inside[name] for name in ("t", "row", "at", "left")),
        )
        m.d.comb += [
            Assume(dut.i.payload.dram[:low] == 0),  # rules of transfers
            Assume(dut.i.payload.stride[:low] == 0),
            Assume(~dut.o.valid | left.any()),
        ]
        burst = dut.o.payload.burst
        end = burst.addr[: PAGE_BYTES.bit_length() - 1] + ((burst.len + 1) << low)
        m.d.comb += [
            Assert(at[:low] == 0),
            Assert(row[:low] == 0),
            Assert(t.dram[:low] == 0),
            Assert(t.stride[:low] == 0),
            Assert(~dut.o.valid | (end <= PAGE_BYTES)),
            Assert(~dut.o.valid | (burst.len < HW.burst_beats)),
        ]

    check(Bursts(HW, indirect=False), claim)


# ---- counters and credits -----------------------------------------------------------------------------------------------


def test_tokens():
    """Each ordered pair of units has a counter of its own, which says whether a token is there and when one too many comes."""
    pairs = [(giver, taker) for giver in Unit for taker in Unit if giver != taker]

    def claim(h, m, dut):
        drive(h, m, dut)
        overflow = {unit: 0 for unit in Unit}
        for giver, taker in pairs:
            give = getattr(dut, f"give_{giver.name.lower()}")[taker]
            take = getattr(dut, f"take_{taker.name.lower()}")[giver]
            there = getattr(dut, f"there_{taker.name.lower()}")[giver]
            inside = h.free(TOKEN_BITS, f"{giver.name.lower()}_to_{taker.name.lower()}_inside")
            tokens = Signal(TOKEN_BITS + 1, name=f"{giver.name}_{taker.name}")
            full = tokens == (1 << TOKEN_BITS) - 1
            m.d.comb += [Assume(there | ~take), Assume(~(give & ~take & full) | dut.clear)]
            m.d.sync += tokens.eq(Mux(dut.clear, 0, tokens + give - take))
            m.d.comb += [Assert(there == tokens.any()), Assert(inside == tokens)]
            overflow[giver] = overflow[giver] | give & ~take & full
        m.d.comb += [Assert(dut.overflow[unit] == own) for unit, own in overflow.items()]

    names = [(giver.name.lower(), taker.name.lower()) for giver, taker in pairs]
    check(Tokens(), claim, {f"{a}_to_{b}_inside": f"dut.{a}_to_{b}" for a, b in names})


def counts(h: Harness, m: Module, dut: Counters, names: Iterable[str]) -> None:
    """Each adds what it is told from 0 on and after each clear; the one that is asked for is read a cycle later."""
    drive(h, m, dut)
    for name in names:
        number, value = list(dut.names).index(name), h.free(COUNTER_BITS, f"{name}_inside")
        due = before(m, Mux(dut.clear, 0, (value + getattr(dut, f"inc_{name}"))[:COUNTER_BITS]), f"{name}_due")
        read = before(m, Mux(dut.index == number, value, 0), f"{name}_read")
        asked = before(m, dut.index == number, f"{name}_asked")
        m.d.comb += [Assert(value == due), Assert(~asked | (dut.value == read))]


def counters_inside(names: Iterable[str]) -> dict[str, str]:
    return {f"{name}_inside": f"dut.ctr_{name}" for name in names}


def test_counters():
    names = {"a": 1, "b": 3, "c": 2, "d": 7, "e": 1}
    check(Counters(names), lambda h, m, dut: counts(h, m, dut, names), counters_inside(names))


def test_fetch_asks_for_no_more_than_fits():
    """Credits: room that is free, beats in the buffer and beats under way are what the buffer holds; so no beat is ever lost."""
    beats = INSTRUCTION_BYTES // HW.axi_bytes
    burst, capacity = min(beats, HW.burst_beats), PREFETCH * beats

    def claim(h, m, dut):
        free = drive(h, m, dut)
        space, due, running, level = *(h.inside[name] for name in ("space", "due", "running")), h.inside["fifo"].level
        sent = dut.ar.valid & dut.ar.ready
        under_way, of_burst = Signal(range(2 * capacity)), Signal(range(burst + 1))
        m.d.sync += under_way.eq(under_way + Mux(sent, burst, 0) - dut.r.valid)
        m.d.sync += of_burst.eq(Mux(dut.r.valid, Mux(dut.r.payload.last, 0, of_burst + 1), of_burst))
        m.d.comb += [
            Assume(~dut.r.valid | under_way.any()),  # memory gives what it was asked for
            Assume(dut.r.payload.last == (of_burst == burst - 1)),
            Assume(~dut.start | ~under_way.any() & ~running & ~level.any()),  # control starts what is idle
            Assume(free["base"][:6] == 0),
            Assert(of_burst < burst),
            Assert(under_way == due * burst - of_burst),
            Assert(~running | (space + level + under_way == capacity)),
            Assert(running | (under_way <= capacity)),
            Assert(dut.ar.payload.addr[: (burst * HW.axi_bytes - 1).bit_length()] == 0),
            Assert(dut.busy == under_way.any()),
        ]

    check(Fetch(HW), claim)


def test_queue_of_a_unit():
    """An instruction begins with all its tokens there, and takes and gives them once; never more in flight than counted for."""

    def claim(h, m, dut):
        drive(h, m, dut)
        own, flight, queue = 1 << dut.unit, h.inside["flight"], h.inside["queue"]
        word = dut.port.instruction.payload
        wait = word[8:12]
        flying = Signal(8)
        m.d.sync += flying.eq(Mux(dut.flush, 0, flying + dut.started - dut.done))
        m.d.comb += [
            Assert(flying == flight.level),
            Assert(flying <= IN_FLIGHT),
            Assert(dut.flying == flying.any()),
            Assert(dut.waiting == queue.level.any()),
            Assert(~dut.started | ~(wait & ~own & ~dut.tokens).any()),
            Assert(dut.take == Mux(dut.started, wait & ~own, 0)),
            Assert(~dut.started | ~wait[dut.unit] | ~flying.any()),
            Assert(~dut.done | flying.any()),
            Assert(dut.done | ~dut.give.any()),
            Assert(~dut.give[dut.unit]),
            Assert(~dut.flush | ~(dut.started | dut.done)),
        ]

    check(UnitQueue(HW, Unit.VECTOR), claim)


def test_arbiters_of_a_memory():
    """Of those that ask, the first is served, and every one that is told so; an address beyond the depth touches nothing and is a fault."""
    memory, order = Memory(words=5, bits=4, banks=2, elements=1), {"store": Unit.STORE, "vector": Unit.VECTOR}

    def claim(h, m, dut):
        drive(h, m, dut)
        for kind in ("r", "w"):
            first, second = (getattr(dut, f"{kind}_{name}") for name in order)
            banks = h.inside["read" if kind == "r" else "write"].mask
            chosen = Mux(first.valid, first.mask, second.mask)
            inside = Mux(first.valid, first.addr, second.addr) < memory.words
            asked = first.valid | second.valid
            m.d.comb += [
                Assert(first.ready),
                Assert(second.ready == ~first.valid),
                Assert(banks == Mux(asked & inside, chosen, 0)),
            ]
        for name, unit in order.items():
            own = [getattr(dut, f"{kind}_{name}") for kind in ("r", "w")]
            wrong = [port.valid & port.ready & (port.addr >= memory.words) for port in own]
            m.d.comb += Assert(dut.fault[unit] == (wrong[0] | wrong[1]))
        m.d.comb += Assert(
            dut.active == (dut.r_store.valid | dut.r_vector.valid | dut.w_store.valid | dut.w_vector.valid)
        )

    check(BankedMemory(memory, readers=order, writers=order), claim)


# ---- primitives -----------------------------------------------------------------------------------------------------------


def test_popcount_for_synthesis(tmp_path):
    """The tree of adders against a sum of bits; larger trees are two of these and an adder."""
    (tmp_path / "tree.v").write_text(primitives()["ternbin_popcount_tree.v"])
    text, widths = "", (1, 2, 3, 4, 5, 7, 8, 13, 16)
    for width in widths:
        bits = " + ".join(f"bits[{i}]" for i in range(width))
        text += f"""
module top{width}(input [{width - 1}:0] bits, output equal);
  wire [{width.bit_length() - 1}:0] count;
  ternbin_popcount_tree #(.WIDTH({width})) tree (.bits(bits), .count(count));
  wire [7:0] sum = {bits};
  assign equal = count == sum;
endmodule"""
    (tmp_path / "top.v").write_text(text)
    yosys([
        f"read_verilog {tmp_path}/tree.v {tmp_path}/top.v",
        "hierarchy",
        "proc",
        "flatten",
        *(f"sat -verify -prove equal 1 top{width}" for width in widths),
    ])  # fmt: skip


def test_clock_gate_has_no_glitch(tmp_path):
    """In steps finer than the clock: the gated clock is high only while the clock is, and does not change while the clock is high."""
    (tmp_path / "gate.v").write_text(primitives()["ternbin_clock_gate.v"])
    (tmp_path / "top.v").write_text("""
module top(input clk, enable);
  wire gated;
  ternbin_clock_gate gate (.clk(clk), .enable(enable), .gated(gated));
  (* gclk *) reg step;
  reg clk_old = 0, gated_old = 0, started = 0, enable_old = 0;
  always @(posedge step) begin
    clk_old <= clk; gated_old <= gated; enable_old <= enable; started <= 1;
  end
  always @* begin
    assert (!gated || clk);
    if (started && clk && clk_old) assert (gated == gated_old);
    if (started && clk && !clk_old) assume (enable == enable_old);
    if (started && clk && !clk_old) assert (gated == enable_old);
  end
endmodule""")
    log = yosys([
        f"read_verilog -formal {tmp_path}/gate.v {tmp_path}/top.v",
        "prep -flatten -top top",
        "clk2fflogic",
        "chformal -lower",
        "opt_clean",
        "sat -verify -tempinduct -prove-asserts -set-assumes -seq 1 -maxsteps 6 top",
    ])  # fmt: skip
    assert "Induction step proven: SUCCESS!" in log


# ---- what the proofs notice -----------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize(
    ("claim", "share"),
    [
        (test_slice_loses_and_repeats_nothing, 1),
        (test_axi_master, 0.9),
        (test_registers, 0.9),
        (test_tokens, 1),
        (test_counters, 1),
        (test_fetch_asks_for_no_more_than_fits, 0.3),  # not claimed: how beats become words
        (test_queue_of_a_unit, 0.2),  # nor that a queue of the library keeps its contents
        (test_arbiters_of_a_memory, 0.5),  # nor the data
        (test_axi_lite_slave, 0.1),  # nor what registers hold: that is the claim above
        (test_bursts_of_transfers_stay_within_pages, 0.1),  # nor which bursts
    ],
)
def test_mutants_are_noticed(monkeypatch, claim, share):
    """At least so many of the mutants of a proven block; the others change what is not claimed, or nothing."""
    count, found = int(os.environ.get("TERNBIN_COUNT", "20")), {}
    monkeypatch.setitem(globals(), "prove", lambda own: found.update(mutants(own, count, seed=1)))
    claim()
    print(
        f"{claim.__name__}: {sum(found.values())} of {len(found)}",
        *(m for m, killed in found.items() if not killed),
        sep="\n  ",
    )
    assert sum(found.values()) >= share * len(found)
