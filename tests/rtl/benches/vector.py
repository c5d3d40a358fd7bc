"""Bench of the vector unit: random instructions on random memories, every word compared.

Expected values come twice: from plain Python integers written from docs/instruction-set.md alone (benches/vector_plain.py), and from
ternbin.emulation.machine wherever its 64-bit arithmetic reaches. Parameters: ``hw`` (fields of HwConfig), ``ops`` (names), ``count`` (of
rounds over ``ops``), ``stall``.
"""

import random
from dataclasses import replace

import cocotb
from cocotb.triggers import RisingEdge

from benches.vector_cases import Cases
from benches.vector_plain import Plain
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import FIELDS, Instruction, Kind, Mem, Op, encode
from ternbin.emulation.machine import Machine
from ternbin.rtl.vector.vector import SCORES, VectorUnit
from ternbin.sim.tb import drivers

LIMIT = 40000  # cycles an instruction may take in a bench
REQUESTS = dict.fromkeys(("rbuf_r", *SCORES, "pbuf_r", "abuf_r"), ())
REQUESTS |= dict.fromkeys(("rbuf_w", "abuf_w", "sbuf_w"), ("data", "lane_mask"))


class Bench:
    """The unit with its memories; every instruction is checked word by word."""

    def __init__(self, dut, hw: HwConfig, stall: float):
        self.dut, self.hw, self.plain = dut, hw, Plain(hw)
        model = lambda *a, **k: drivers.MemoryModel(dut, *a, stall=stall, **k)  # noqa: E731
        self.rbuf = model(banks=1, depth=hw.rbuf_words, word_bits=hw.res_word_bits, elements=hw.rows)
        self.sbuf = model(banks=hw.cols, depth=hw.sbuf_words, word_bits=hw.score_word_bits, elements=1)
        self.pbuf = model(banks=1, depth=hw.pbuf_words, word_bits=hw.param_word_bits, elements=hw.rows)
        self.abuf = model(
            banks=hw.cols, depth=hw.abuf_words, word_bits=hw.code_word_bits, elements=hw.lanes, planes=hw.planes
        )
        for name in REQUESTS:
            memory = getattr(self, name[:4])
            (memory.write_port if name.endswith("_w") else memory.read_port)(name)
        self.port = drivers.Source(dut, "port__instruction", stall=stall)
        self.table = drivers.PortMaster(dut, "lutv_w", stall=stall)
        self.events = dict.fromkeys(VectorUnit.EVENTS, 0)
        self.done = self.faults = self.cycle = 0
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        """Count pulses and events; a request that was not taken must stay as it is."""
        held = {}
        while True:
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            self.done += drivers.get(self.dut, "port__done")
            self.faults += drivers.get(self.dut, "port__fault")
            for name in self.events:
                self.events[name] += drivers.get(self.dut, f"ev_{name}")
            for name, members in REQUESTS.items():
                now = None
                if drivers.get(self.dut, f"{name}__valid"):
                    now = [drivers.get(self.dut, f"{name}__{member}") for member in ("addr", "mask", *members)]
                if held.get(name) is not None:
                    assert now == held[name], f"{name}: a request must be held until it is taken"
                held[name] = None if drivers.get(self.dut, f"{name}__ready") else now

    def _words(self, values: list[list[int]], bits: int) -> list[int]:
        return [sum((v & (1 << bits) - 1) << bits * e for e, v in enumerate(word)) for word in values]

    def _images(self, plain: Plain) -> dict[str, list[list[int]]]:
        hw = self.hw
        return {
            "rbuf": [self._words(plain.rbuf, hw.res_container)],
            "sbuf": [self._words(bank, hw.acc_bits) for bank in plain.sbuf],
            "pbuf": [self._words(plain.pbuf, 16)],
            "abuf": [self._words([sum(word, []) for word in bank], 1) for bank in plain.abuf],
        }

    def preload(self) -> None:
        for name, banks in self._images(self.plain).items():
            getattr(self, name).words = [list(words) for words in banks]

    def compare(self, what: str) -> None:
        for name, banks in self._images(self.plain).items():
            for bank, words in enumerate(banks):
                for addr, (want, got) in enumerate(zip(words, getattr(self, name).words[bank], strict=True)):
                    assert want == got, f"{what}: {name} bank {bank} word {addr} must be {want:#x}, not {got:#x}"

    async def load_table(self) -> None:
        per_beat = self.hw.axi_data_bits // 16
        for beat in range(256 // per_beat):
            entries = self.plain.lut[beat * per_beat : (beat + 1) * per_beat]
            await self.table.request(addr=beat, mask=1, lane_mask=1, data=self._words([entries], 16)[0])

    async def issue(self, word: int) -> None:
        """Send one instruction and wait until the unit is idle again."""
        before = self.done + self.faults
        self.port.send([word])
        await drivers.until(self.dut, lambda: self.done + self.faults > before, LIMIT)

    async def execute(self, i: Instruction) -> dict[str, int]:
        """Run ``i`` on the unit and on the models, compare everything; returns its event counts."""
        self.preload()
        done, faults, events = self.done, self.faults, dict(self.events)
        check_machine(self.hw, self.plain, i)
        self.plain.clipped = 0
        self.plain.run(i)
        await self.issue(encode(i))
        assert (self.done, self.faults) == (done + 1, faults), f"{i}: must end with done"
        self.compare(str(i))
        return {name: count - events[name] for name, count in self.events.items()}


def check_machine(hw: HwConfig, plain: Plain, i: Instruction) -> None:
    """The functional model of the accelerator must agree with the plain integers (both start from ``plain``)."""
    if i["eps"] >= 1 << 59 or i["shift"] > 40 or hw.res_bits > 16:
        return  # beyond the 64-bit arithmetic of the model
    import numpy as np

    machine = Machine(hw, bytearray())
    machine.memories[Mem.RBUF] = np.array(plain.rbuf)
    machine.memories[Mem.SBUF] = np.array(plain.sbuf)
    machine.memories[Mem.PBUF] = np.array([[drivers.signed(v, 16) for v in word] for word in plain.pbuf])
    machine.memories[Mem.LUTV] = np.array(plain.lut)
    machine.memories[Mem.ABUF] = np.array(plain.abuf, dtype=np.uint8)
    machine.execute(i)
    after = Plain.__new__(Plain)
    after.__dict__ = {k: [list(w) for w in v] if k in ("rbuf", "sbuf") else v for k, v in plain.__dict__.items()}
    after.abuf = [[[list(p) for p in word] for word in bank] for bank in plain.abuf]
    after.run(i)
    assert machine.memories[Mem.RBUF].tolist() == after.rbuf, f"functional model, RBUF: {i}"
    assert machine.memories[Mem.ABUF].tolist() == after.abuf, f"functional model, ABUF: {i}"
    assert machine.memories[Mem.SBUF].tolist() == after.sbuf, f"functional model, SBUF: {i}"


def check_events(hw: HwConfig, i: Instruction, counts: dict[str, int], clipped: int) -> None:
    expected = dict.fromkeys(VectorUnit.EVENTS, 0)
    words = i["tokens"] * i["words"]
    if i.op == Op.LAYERNORM:
        expected |= {"ln_sum_words": words, "ln_norm_words": words, "ln_rsqrt": i["tokens"], "saturations": clipped}
    elif i.op == Op.QUANT:
        expected |= {"quant_words": words, "saturations": clipped, "plane_writes": 8 * words * (i["kind"] == Kind.INT8)}
    elif i.op == Op.EMBED:
        expected |= {"embed_words": words, "saturations": clipped}
    else:
        valid = [-(-(i["keys"] + i["causal"] * t) // hw.rows) for t in range(i["queries"])]
        uint8 = int(i["kind"] == Kind.UINT8)
        expected |= {
            "softmax_max_words": sum(valid),
            "softmax_exp_words": sum(valid),
            "divides": uint8 * i["queries"],
            "softmax_code_words": i["queries"] * i["granules"],
            "plane_writes": 8 * uint8 * i["queries"] * i["granules"],
        }
    for name in expected.keys() - {"stall_read", "stall_write"}:
        assert counts[name] == expected[name], f"{i}: {name} must be {expected[name]}, not {counts[name]}"


async def begin(dut) -> tuple[Bench, Cases]:
    p = drivers.parameters()
    hw = HwConfig(**p["hw"])
    await drivers.start(dut)
    bench = Bench(dut, hw, p["stall"])
    return bench, Cases(bench.plain)


@cocotb.test()
async def bench_random(dut):
    """Random instructions, the operations by turns."""
    p = drivers.parameters()
    bench, cases = await begin(dut)
    cases.table()
    await bench.load_table()
    for op in [Op[name] for name in p["ops"]] * p["count"]:
        if op == Op.SOFTMAX and random.random() < 0.2:
            cases.table()
            await bench.load_table()
        i = cases.make(op)
        counts = await bench.execute(i)
        check_events(bench.hw, i, counts, bench.plain.clipped)
        if p["stall"] == 0:
            assert counts["stall_read"] == counts["stall_write"] == 0


@cocotb.test()
async def bench_faults(dut):
    """An instruction with one impossible field raises fault, writes nothing and leaves the unit usable."""
    bench, cases = await begin(dut)
    rows, binary = bench.hw.rows, bench.hw.kind == "binary"
    impossible = {
        Op.LAYERNORM: [
            {"tokens": 0},
            {"words": 0},
            {"features": 0},
            {"eps": 0},
            {"words": 1, "features": rows + 1},
            {"words": 2, "features": rows},
        ],
        Op.SOFTMAX: [
            {"queries": 0},
            {"keys": 0},
            {"granules": 0},
            {"kind": Kind.INT8},
            {"granules": 1, "keys": rows + 1},
            {"granules": 1, "keys": rows, "queries": 2, "causal": 1},
        ],
        Op.QUANT: [
            {"tokens": 0},
            {"words": 0},
            {"features": 0},
            {"kind": Kind.UINT8},
            {"words": 1, "features": rows + 1},
        ],
        Op.EMBED: [{"tokens": 0}, {"words": 0}, {"features": 0}, {"words": 1, "features": rows + 1}],
    }
    if binary:
        impossible[Op.SOFTMAX].append({"kind": Kind.TERNARY})
        impossible[Op.QUANT].append({"kind": Kind.TERNARY})
    cases.table()
    await bench.load_table()
    for op, changes in impossible.items():
        good = cases.make(op)
        bench.preload()
        for change in changes:
            done, faults = bench.done, bench.faults
            await bench.issue(encode(replace(good, fields=good.fields | change)))
            await drivers.cycles(dut, 20)
            assert (bench.done, bench.faults) == (done, faults + 1), f"{op.name} with {change} must raise fault once"
            assert drivers.get(dut, "port__busy") == 0
            bench.compare(f"{op.name} with {change}")
        await bench.execute(good)
    for opcode in (0, Op.END, Op.LOAD, Op.GEMM, 255):
        faults = bench.faults
        await bench.issue(opcode)
        assert bench.faults == faults + 1, f"opcode {opcode} must raise fault"


@cocotb.test()
async def bench_table_bounds(dut):
    """A beat beyond the exp table is an error and changes nothing."""
    bench, cases = await begin(dut)
    cases.table()
    await bench.load_table()
    beats = 256 * 16 // bench.hw.axi_data_bits
    errors = []

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk)
            errors.append(drivers.get(dut, "lutv_error"))

    cocotb.start_soon(watch())
    for addr in (beats, 2 * beats, 1 << 19):
        await bench.table.request(addr=addr, mask=1, lane_mask=1, data=0x5A5A)
    await drivers.cycles(dut, 3)
    assert sum(errors) == 3
    for _ in range(3):
        await bench.execute(cases.make(Op.SOFTMAX))


@cocotb.test()
async def bench_throughput(dut):
    """Cycles of undisturbed instructions stay within what the docstring of VectorUnit promises."""
    bench, cases = await begin(dut)
    cases.table()
    await bench.load_table()
    hw, tokens, words = bench.hw, 8, 5
    limits = []
    for op, fields, cycles in (
        (Op.LAYERNORM, {"tokens": tokens, "words": words, "features": words * hw.rows}, max(2 * words, 14) * tokens),
        (Op.LAYERNORM, {"tokens": 1, "words": words, "features": words * hw.rows}, 5 * words + 26),
        (
            Op.QUANT,
            {"tokens": tokens, "words": words, "features": words * hw.rows, "kind": Kind.BINARY},
            words * tokens,
        ),
        (
            Op.QUANT,
            {"tokens": tokens, "words": words, "features": words * hw.rows, "kind": Kind.INT8},
            8 * words * tokens,
        ),
        (Op.EMBED, {"tokens": tokens, "words": words, "features": words * hw.rows}, words * tokens),
        (
            Op.SOFTMAX,
            {"queries": tokens, "keys": words * hw.rows, "granules": words, "kind": Kind.BINARY},
            words * tokens,
        ),
        (
            Op.SOFTMAX,
            {"queries": tokens, "keys": words * hw.rows, "granules": words, "kind": Kind.UINT8},
            max(26, 8 * words) * tokens,
        ),
    ):
        base = {
            "src_stride": words,
            "dst_stride": words,
            "dst_addr": 0,
            "dst_plane": hw.abuf_words // 8,
            "eps": 1,
            "param_addr": 0,
            "shift": 30,
            "c1": 1,
            "c2": 1,
            "recip": 1,
            "mul": 1,
            "scale_addr": 0,
        }
        names = {name for name, _ in FIELDS[op]}
        i = Instruction(op, {name: value for name, value in (base | fields).items() if name in names})
        bench.preload()
        bench.port.send([encode(i)])
        start, done = bench.cycle, bench.done
        await drivers.until(dut, lambda done=done: bench.done > done, LIMIT)
        limits.append((op.name, fields, bench.cycle - start, cycles))
    for name, fields, took, cycles in limits:
        assert took <= cycles + 60, f"{name} {fields} must take at most {cycles} + 60 cycles, not {took}"
