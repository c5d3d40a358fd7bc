"""Memories against a model: arbitration, masks, read-before-write, transposed writes, address faults, event counts."""

import random

import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge

from ternbin.contract.isa import Unit
from ternbin.contract.memories import Memory
from ternbin.rtl.parts.banks import BankedMemory, ScoreMemory
from ternbin.sim.bench import run_bench
from ternbin.sim.tb import drivers

DEPTH = 24  # not a power of two: addresses 24..31 fit the address bits and must fault


class Model:
    """Words and event counts; every word knows which of its bits were ever written."""

    def __init__(self, banks, word_bits, elements, planes):
        self.banks, self.elements, self.planes = banks, elements, planes
        self.width = word_bits // (elements * planes)
        self.words = [[0] * DEPTH for _ in range(banks)]
        self.known = [[0] * DEPTH for _ in range(banks)]

    def bits(self, lane_mask):
        """Bit mask of the elements in ``lane_mask``."""
        ones, plane = (1 << self.width) - 1, 0
        for e in range(self.elements):
            plane |= (ones if lane_mask >> e & 1 else 0) << e * self.width
        return sum(plane << p * self.width * self.elements for p in range(self.planes))

    def write(self, bank, addr, data, mask):
        self.words[bank][addr] = self.words[bank][addr] & ~mask | data & mask
        self.known[bank][addr] |= mask


def offer(dut, name, fields, held):
    """Drive a random request (or none) on a port; a request that was not taken is held."""
    if held is None:
        held = {field: random.getrandbits(bits) for field, bits in fields.items()} if random.random() < 0.6 else {}
        if held:
            held["addr"] = (
                random.choice([random.randrange(DEPTH), random.randrange(4), DEPTH - 1, DEPTH, 31, 1 << 19])
                if random.random() < 0.5
                else random.randrange(6)
            )
    getattr(dut, f"{name}__valid").value = int(bool(held))
    for field, value in held.items():
        getattr(dut, f"{name}__{field}").value = value
    return held


@cocotb.test()
async def bench_random(dut):
    p = drivers.parameters()
    banks, word_bits, elements, planes = p["banks"], p["word_bits"], p["elements"], p["planes"]
    model = Model(banks, word_bits, elements, planes)
    read = {"addr": 20, "mask": banks}
    write = {"addr": 20, "mask": banks, "data": word_bits * p["write_words"], "lane_mask": elements}
    transposed = {"addr": 20, "mask": banks, "lane": (elements - 1).bit_length(), "codes": banks * planes}
    ports = {"r_store": read, "r_execute": read, "w_load": write, "w_execute": write}
    if p["transposed"]:
        ports["t_execute"] = transposed
    await drivers.start(dut)
    held: dict[str, dict[str, int] | None] = dict.fromkeys(ports)
    expected, taken_count, faults = {}, 0, 0
    for _ in range(2000):
        for name, fields in ports.items():
            held[name] = offer(dut, name, fields, held[name])
        await ReadOnly()
        for (name, bank), (value, known) in expected.items():
            word = drivers.get(dut, f"{name}__data") >> bank * word_bits
            assert word & known == value & known, f"{name} bank {bank}"
        expected.clear()
        fault, counts = 0, {"r": 0, "w": 0}
        writes = []
        for side in ("r", "wt"):
            first = next((n for n in ports if n[0] in side and held[n]), None)
            for name in ports:
                if name[0] in side and held[name]:
                    assert drivers.get(dut, f"{name}__ready") == (name == first), name
            request = held[first] if first is not None else None
            if first is None or request is None:
                continue
            unit = Unit.LOAD if first == "w_load" else Unit.STORE if first == "r_store" else Unit.EXECUTE
            taken_count += 1
            if request["addr"] >= DEPTH:
                fault |= 1 << unit
                faults += 1
                held[first] = None
                continue
            counts["r" if side == "r" else "w"] += request["mask"].bit_count()
            for bank in range(banks):
                if request["mask"] >> bank & 1:
                    if side == "r":
                        words, known = model.words[bank], model.known[bank]
                        expected[first, bank] = words[request["addr"]], known[request["addr"]]
                    else:
                        writes.append((first, bank, request))
            held[first] = None
        held = {name: request or None for name, request in held.items()}
        assert drivers.get(dut, "fault") == fault
        assert drivers.get(dut, "ev_reads") == counts["r"] and drivers.get(dut, "ev_writes") == counts["w"]
        for name, bank, request in writes:  # after the reads: they return the words of before this cycle
            if name == "t_execute":
                data = 0
                for plane in range(planes):
                    bit = request["codes"] >> plane * banks + bank & 1
                    data |= bit << plane * elements + request["lane"]
                lanes = 1 << request["lane"] if request["lane"] else (1 << elements) - 1  # lane 0 clears the others
                model.write(bank, request["addr"], data, model.bits(lanes))
            else:
                data = request["data"] >> bank % p["write_words"] * word_bits
                model.write(bank, request["addr"], data, model.bits(request["lane_mask"]))
        await RisingEdge(dut.clk)
    assert taken_count > 1500 and faults > 50


@pytest.mark.parametrize(
    "shape",
    [
        {"banks": 4, "word_bits": 32, "elements": 16, "planes": 2},
        {"banks": 4, "word_bits": 32, "elements": 32, "planes": 1},
        {"banks": 1, "word_bits": 64, "elements": 4, "planes": 1},
        {"banks": 8, "word_bits": 16, "elements": 8, "planes": 2, "write_words": 4},
    ],
    ids=["codes", "binary codes", "values", "words of several banks"],
)
def test_memory(shape):
    shape = {"write_words": 1} | shape
    transposed = shape["banks"] > 1 and shape["write_words"] == 1
    sizes = {name: value for name, value in shape.items() if name != "word_bits"}
    memory = BankedMemory(
        Memory(words=DEPTH, bits=shape["word_bits"], **sizes),
        readers={"store": Unit.STORE, "execute": Unit.EXECUTE},
        writers={"load": Unit.LOAD, "execute": Unit.EXECUTE},
        transposed=("execute", Unit.EXECUTE) if transposed else None,
    )
    run_bench(memory, __name__, name="memory", testcase="bench_random", parameters={**shape, "transposed": transposed})


@cocotb.test()
async def bench_scores(dut):
    """Ports in the order of their precedence; a request is taken if no earlier valid one wants one of its banks."""
    banks, bits = 4, 24
    model, read = Model(banks, bits, 1, 1), {"addr": 20, "mask": banks}
    readers, writers = ["first", "second"], ["tile", "word"]
    ports = dict.fromkeys(readers, read)
    ports |= {"tile": read | {"data": bits * banks, "lane_mask": 1}, "word": read | {"data": bits, "lane_mask": 1}}
    await drivers.start(dut)
    held, expected, together, faults = dict.fromkeys(ports), {}, 0, 0
    for _ in range(2000):
        for name, fields in ports.items():
            held[name] = offer(dut, name, fields, held[name])
        await ReadOnly()
        for (name, bank), (value, known) in expected.items():
            assert drivers.get(dut, f"{name}__data") >> bank * bits & known == value & known, f"{name} bank {bank}"
        expected.clear()
        fault, counts, writes = 0, {}, []
        for side in (readers, writers):
            wanted = accessed = 0
            for name in side:
                request = held[name]
                if not request:
                    continue
                ready = not wanted & request["mask"]
                assert drivers.get(dut, f"{name}__ready") == ready, name
                wanted |= request["mask"]
                if not ready:
                    continue
                held[name] = None
                if request["addr"] >= DEPTH:
                    fault |= 1 << (Unit.EXECUTE if name == "tile" else Unit.VECTOR)
                    faults += 1
                    continue
                together += bool(accessed and request["mask"])
                accessed |= request["mask"]
                for bank in range(banks):
                    if request["mask"] >> bank & 1 and side is readers:
                        expected[name, bank] = model.words[bank][request["addr"]], model.known[bank][request["addr"]]
                    elif request["mask"] >> bank & 1:
                        writes.append(
                            (bank, request["addr"], request["data"] >> (bank * bits if name == "tile" else 0))
                        )
            counts[side[0]] = accessed.bit_count()
        held = {name: request or None for name, request in held.items()}
        assert drivers.get(dut, "fault") == fault
        assert (drivers.get(dut, "ev_reads"), drivers.get(dut, "ev_writes")) == (counts["first"], counts["tile"])
        for bank, addr, data in writes:  # after the reads: they return the words of before this cycle
            model.write(bank, addr, data & (1 << bits) - 1, model.bits(1))
        await RisingEdge(dut.clk)
    assert together > 50 and faults > 50


def test_memory_of_scores():
    memory = ScoreMemory(Memory(banks=4, words=DEPTH, bits=24, write_words=4), ("first", "second"))
    run_bench(memory, __name__, name="scores", testcase="bench_scores")
