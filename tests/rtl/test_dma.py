"""LOAD and STORE against the pure functions of tests/rtl/benches/transfers.py: random transfers, random stalls, every memory."""

import random
from typing import Any

import cocotb
import pytest
from benches import transfers
from benches.dma import MEMORIES, DmaBench
from cocotb.triggers import ReadOnly, RisingEdge
from cocotbext.axi import AxiBus, AxiSlave, MemoryRegion

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Instruction, Mem, Op, encode
from ternbin.contract.memories import banked, memories
from ternbin.sim.bench import run_bench
from ternbin.sim.tb import drivers

EXTERNAL = 1 << 17  # bytes: the low half is read, the high half is written
HALF = EXTERNAL // 2
WORDS: dict[str, Any] = {
    f"{name}_words": depth
    for name, depth in zip(("abuf", "wbuf", "kbuf", "rbuf", "pbuf", "idbuf"), (40, 24, 32, 50, 33, 32), strict=True)
}
CONFIGS = {
    "ternary": HwConfig(rows=4, cols=2, lanes=16, axi_data_bits=32, axi_addr_bits=24, **WORDS),
    "wide": HwConfig(rows=8, cols=2, lanes=32, axi_data_bits=64, res_bits=20, burst_beats=4, **WORDS),
    "slices": HwConfig(rows=8, cols=1, lanes=64, axi_data_bits=32, **WORDS),
    "binary": HwConfig(kind="binary", rows=4, cols=4, lanes=64, axi_data_bits=32, **WORDS),
    "trits": HwConfig(rows=4, cols=2, lanes=16, axi_data_bits=32, weight_pack="5trit", **WORDS),
    "trits, words of 8 beats": HwConfig(rows=4, cols=1, lanes=128, axi_data_bits=32, weight_pack="5trit", **WORDS),
    "trits, words of 2 beats": HwConfig(rows=8, cols=2, lanes=32, axi_data_bits=32, weight_pack="5trit", **WORDS),
    "trits, 4 words a beat": HwConfig(rows=8, cols=2, lanes=16, axi_data_bits=128, weight_pack="5trit", **WORDS),
    "2 words a beat": HwConfig(rows=4, cols=2, lanes=16, axi_data_bits=64, **WORDS),
    "4 words a beat": HwConfig(rows=8, cols=4, lanes=16, axi_data_bits=128, burst_beats=4, **WORDS),
    "8 binary words a beat": HwConfig(kind="binary", rows=8, cols=2, lanes=16, axi_data_bits=128, res_bits=20, **WORDS),
}
IDS = 16  # entries of IDBUF from here on hold small row numbers


def depth(hw, mem):
    return transfers_lut(hw) if mem in (Mem.LUTV, Mem.LUTX) else memories(hw)[mem].words


def transfers_lut(hw):
    return 256 * 16 // hw.axi_data_bits


def random_transfer(hw, mem, store):
    """A legal transfer within the memory; an id above IDS stays as it is."""
    limit = IDS if mem == Mem.IDBUF else depth(hw, mem)
    while True:
        f = {
            "mem": mem,
            "addr": random.randrange(limit),
            "inner": random.randint(1, 6),
            "outer": random.choice([1, 1, 2, 3, 7, 12]),
        }
        if mem not in (Mem.LUTV, Mem.LUTX) and random.random() < 0.1:
            f["inner"], f["outer"] = random.randint(8, limit), 1
        if not store and hw.kind == "ternary" and mem in transfers.CODE:
            f["expand"] = int(random.random() < 0.4 and transfers.whole_beats(hw, f | {"expand": 1}))
        banks = transfers.transfer_banks(hw, f)
        f["bank"] = random.randrange(banks)
        if transfers.packed(hw, f):
            f |= {"bank": 0, "outer": banks * random.choice([1, 1, 2])}
        size = transfers.row_bytes(hw, f)
        f["stride"] = size if random.random() < 0.5 else random.randrange(size, size + 300) // 64 * 64 + 64
        if not store and not transfers.packed(hw, f) and random.random() < 0.3:
            f |= {"indirect": 1, "index": IDS + random.randrange(3), "outer": min(f["outer"], 12)}
            f["stride"] = random.randrange(64, 1024) // 64 * 64
        highest = max(addr for _, (_, _, addr) in transfers.places(hw, f))
        span = f["stride"] * 20 + size + f["stride"] * f["outer"]
        if highest < limit and span < HALF:
            f["dram"] = (random.randrange(HALF - span) // hw.axi_bytes * hw.axi_bytes) + (HALF if store else 0)
            return f


class Bench:
    """The design with its bus and the model beside it."""

    def __init__(self, dut, hw):
        self.dut, self.hw, self.words = dut, hw, {}
        self.region = MemoryRegion(EXTERNAL)
        self.external = bytearray(random.randbytes(EXTERNAL))
        self.region[0:EXTERNAL] = bytes(self.external)
        self.slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=self.region)
        self.luts = {
            mem: drivers.MemoryModel(dut, banks=1, depth=transfers_lut(hw), word_bits=hw.axi_data_bits, elements=1)
            for mem in (Mem.LUTV, Mem.LUTX)
        }
        for mem, model in self.luts.items():
            model.write_port(f"{mem.name.lower()}_w")
        self.units = {
            Op.LOAD: drivers.Source(dut, "load__instruction"),
            Op.STORE: drivers.Source(dut, "store__instruction"),
        }
        self.done = dict.fromkeys(self.units, 0)
        cocotb.start_soon(self._watch())

    def stall(self, probability):
        """Random pauses of every bus channel."""

        def pauses():
            while True:
                yield random.random() < probability

        read, write = self.slave.read_if, self.slave.write_if
        assert read is not None and write is not None
        for channel in (read.ar_channel, read.r_channel, write.aw_channel, write.w_channel, write.b_channel):
            channel.set_pause_generator(pauses())

    async def _watch(self):
        while True:
            await RisingEdge(self.dut.clk)
            assert drivers.get(self.dut, "faults") == 0
            self.done[Op.LOAD] += drivers.get(self.dut, "load__done")
            self.done[Op.STORE] += drivers.get(self.dut, "store__done")

    async def run(self, transfers_of):
        """Run transfers {op: [fields]} on both units at once, on the model too; returns the cycles."""
        target = {op: self.done[op] + len(items) for op, items in transfers_of.items()}
        for op, items in transfers_of.items():
            self.units[op].send([encode(Instruction(op, f)) for f in items])
            for f in items:
                (transfers.load if op == Op.LOAD else transfers.store)(self.hw, self.words, self.external, f)
        cycles = await drivers.until(self.dut, lambda: all(self.done[op] >= n for op, n in target.items()), 200000)
        await drivers.cycles(self.dut, 20)
        assert all(self.done[op] == n for op, n in target.items())
        assert not drivers.get(self.dut, "load__busy") and not drivers.get(self.dut, "store__busy")
        return cycles

    async def check_words(self):
        """Every word that the model knows, through the probe ports."""
        for name in MEMORIES:
            mem, bits = Mem[name.upper()], banked(self.hw)[name].bits
            banks = transfers.banks(self.hw, mem)
            getattr(self.dut, f"probe_{name}__mask").value = (1 << banks) - 1
            for addr in range(depth(self.hw, mem)):
                getattr(self.dut, f"probe_{name}__addr").value = addr
                getattr(self.dut, f"probe_{name}__valid").value = 1
                await RisingEdge(self.dut.clk)
                await ReadOnly()
                data = drivers.get(self.dut, f"probe_{name}__data")
                for bank in range(banks):
                    if (mem, bank, addr) in self.words:
                        word = data >> bank * bits & (1 << bits) - 1
                        assert word == self.words[mem, bank, addr], f"{name} bank {bank} word {addr}"
                await RisingEdge(self.dut.clk)
            getattr(self.dut, f"probe_{name}__valid").value = 0
        for mem, model in self.luts.items():
            for addr, word in enumerate(model.words[0]):
                assert word == self.words.get((mem, 0, addr), 0), f"{mem.name} beat {addr}"

    def check_external(self):
        stored = bytes(self.region[0:EXTERNAL])
        wrong = next((at for at in range(EXTERNAL) if stored[at] != self.external[at]), None)
        assert wrong is None, f"byte {wrong:#x}: {stored[wrong]:#x}, not {self.external[wrong]:#x}"


async def started(dut):
    await drivers.start(dut)
    hw = CONFIGS[drivers.parameters()["config"]]
    bench = Bench(dut, hw)
    dut.rst.value = 1  # once more: the bus models start at the end of a reset
    await drivers.cycles(dut, 2)
    dut.rst.value = 0
    await drivers.cycles(dut, 2)
    return hw, bench


def fill(hw, bench):
    """Loads of every word of every memory; the upper half of IDBUF gets small ids."""
    items = []
    for mem in [m for m in Mem if m != Mem.SBUF]:
        f = {"mem": mem, "bank": 0, "addr": 0, "inner": depth(hw, mem), "dram": 4096 * (int(mem) + 1) - 64}
        f["outer"] = transfers.transfer_banks(hw, f)
        items.append(f | {"stride": transfers.row_bytes(hw, f)})
    ids = next(f for f in items if f["mem"] == Mem.IDBUF)
    ids["dram"] = 0x40
    for entry in range(IDS, depth(hw, Mem.IDBUF)):
        at = ids["dram"] + entry * hw.axi_bytes
        number = random.randrange(20).to_bytes(hw.axi_bytes, "little")
        bench.external[at : at + hw.axi_bytes] = bench.region[at : at + hw.axi_bytes] = number
    return items


@cocotb.test()
async def bench_random(dut):
    hw, bench = await started(dut)
    bench.stall(0.2)
    await bench.run({Op.LOAD: fill(hw, bench)})
    await bench.check_words()
    loadable, storable = [m for m in Mem if m != Mem.SBUF], [Mem[n.upper()] for n in MEMORIES if n != "wbuf"]
    for _ in range(2):
        await bench.run({Op.LOAD: [random_transfer(hw, random.choice(loadable), False) for _ in range(40)]})
        await bench.check_words()
        await bench.run({Op.STORE: [random_transfer(hw, random.choice(storable), True) for _ in range(30)]})
        bench.check_external()
    halves = (Mem.ABUF, Mem.WBUF, Mem.KBUF), (Mem.RBUF, Mem.PBUF)
    await bench.run(
        {  # both at once, on different memories
            Op.LOAD: [random_transfer(hw, random.choice(halves[0]), False) for _ in range(20)],
            Op.STORE: [random_transfer(hw, random.choice(halves[1]), True) for _ in range(20)],
        }
    )
    await bench.check_words()
    bench.check_external()


@cocotb.test()
async def bench_streams(dut):
    """Without stalls the units keep the bus busy, or a memory of words narrower than it: the model of the bus itself needs an idle
    cycle a burst at most."""
    hw, bench = await started(dut)
    await bench.run({Op.LOAD: fill(hw, bench)})
    for op, mem, expand in (
        (Op.LOAD, Mem.WBUF, 0),
        *([(Op.LOAD, Mem.WBUF, 1), (Op.LOAD, Mem.KBUF, 1)] if hw.kind == "ternary" else []),
        (Op.STORE, Mem.RBUF, 0),
        (Op.LOAD, Mem.RBUF, 0),
        (Op.STORE, Mem.KBUF, 0),
        (Op.LOAD, Mem.KBUF, 0),
    ):
        f = {"mem": mem, "bank": 0, "addr": 0, "inner": depth(hw, mem), "expand": expand, "dram": HALF}
        f["outer"] = transfers.transfer_banks(hw, f)
        f["stride"] = transfers.row_bytes(hw, f)
        beats = transfers.rows(hw, f) * f["stride"] // hw.axi_bytes
        least = beats if mem == Mem.WBUF else max(beats, f["outer"] * f["inner"])
        cycles = await bench.run({op: [f]})
        assert cycles <= least + 2 * beats // hw.burst_beats + 40, (
            f"{op.name} {mem.name}: {beats} beats, {cycles} cycles"
        )
    await bench.check_words()
    bench.check_external()


# What these do the others do too, apart from each other.
SOAK = ("wide", "trits", "trits, words of 2 beats", "4 words a beat", "8 binary words a beat")


@pytest.mark.parametrize("config", [pytest.param(c, marks=[pytest.mark.soak] * (c in SOAK)) for c in CONFIGS])
def test_dma(config):
    run_bench(DmaBench(CONFIGS[config]), __name__, name="dma", parameters={"config": config})
