"""The execute unit against the functional model and against plain torch, with random stalls on every port."""

import dataclasses
import functools
import os
import random
from typing import Any

import cocotb
import numpy as np
import pytest
import torch
from benches.execute import UnitBench, epilogues, gemm, random_gemm, random_parameters

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.isa import Epilogue, Kind, Mem
from ternbin.emulation.machine import Machine
from ternbin.rtl.execute import ExecuteUnit
from ternbin.rtl.verilog.shared import shared_verilog
from ternbin.sim.bench import run_bench, to_verilog
from ternbin.sim.tb import drivers

SMALL: dict[str, Any] = {
    "abuf_words": 512,
    "wbuf_words": 512,
    "kbuf_words": 1024,
    "rbuf_words": 256,
    "sbuf_words": 256,
    "pbuf_words": 64,
    "idbuf_words": 64,
}
CONFIGS = {
    "tiny": dataclasses.replace(NAMED["tiny"], **SMALL),
    "binary": dataclasses.replace(NAMED["tiny-binary"], **SMALL),
    "square": HwConfig(name="square", rows=16, cols=1, lanes=16, axi_data_bits=32, res_bits=20, **SMALL),
    "beams": dataclasses.replace(NAMED["tiny"], **SMALL).searching(5),
    "wide": HwConfig(name="wide", rows=8, cols=4, lanes=32, axi_data_bits=64, acc_bits=22, res_bits=8, **SMALL),
}
GOOD = {
    "row_planes": 1,
    "col_planes": 1,
    "chunks": 1,
    "row_tiles": 1,
    "col_tiles": 1,
    "tokens": 1,
    "epilogue": Epilogue.SCORES,
}
CODES = {"epilogue": Epilogue.CODES, "kind": Kind.BINARY, "thresholds": 1}
BAD = [
    {"chunks": 0},
    {"row_tiles": 0},
    {"col_tiles": 0},
    {"tokens": 0},
    {"row_planes": 0},
    {"row_planes": 7},
    {"col_planes": 2},
    {"row_planes": 9},
    {"row_signed": 1},
    {"col_signed": 1},
    {"rowsum": 1, "row_planes": 8},
    {"rowsum": 1, "col_planes": 8},
    {"tokens": 100},
    {"col_tiles": 2},
    {"epilogue": Epilogue.TOP},
    {"epilogue": 7},
    CODES | {"dest": 3},
    CODES | {"lane": 2},
    CODES | {"thresholds": 0},
    CODES | {"thresholds": 5},
    CODES | {"kind": Kind.INT8},
    {"epilogue": Epilogue.CODES8, "kind": Kind.BINARY},
    {"epilogue": Epilogue.ARGMAX, "col_tiles": 2, "tokens": 9},
    {"epilogue": Epilogue.RESIDUAL, "tokens": 2, "row_tiles": 2, "dst_stride": 1, "col_tiles": None},
]


def config() -> HwConfig:
    return CONFIGS[drivers.parameters()["config"]]


async def start(dut, stall: float) -> UnitBench:
    await drivers.start(dut)
    bench = UnitBench(dut, Machine(config(), bytearray(64), seed=random.randrange(1 << 30)), stall)
    return bench


@cocotb.test()
async def bench_random(dut):
    """Every epilogue in turn, random everything else, all memories compared after each instruction."""
    bench, rng = await start(dut, drivers.parameters()["stall"]), random.Random(random.getrandbits(64))
    await bench.load_table()
    for number in range(drivers.parameters()["count"]):
        modes = epilogues(config())
        fields = random_gemm(config(), rng, modes[number % len(modes)])
        random_parameters(bench.machine, rng, fields)
        bench.memories[Mem.PBUF].words[0][:] = [
            int.from_bytes(row.astype("<i2").tobytes(), "little") for row in bench.machine.memories[Mem.PBUF]
        ]
        await bench.run(gemm(fields))


@cocotb.test()
async def bench_overlap(dut):
    """Groups of instructions offered at once: the array is ahead of the results, which come whole and in order."""
    bench, rng = await start(dut, drivers.parameters()["stall"]), random.Random(random.getrandbits(64))
    await bench.load_table()
    for number in range(drivers.parameters()["count"]):
        group, taken = [], set()
        while len(group) < 3:
            fields = random_gemm(config(), rng, rng.choice(epilogues(config())) if number else Epilogue.SCORES)
            before = bench.machine.memories[Mem.PBUF].copy()
            random_parameters(bench.machine, rng, fields)
            words = set(np.flatnonzero((bench.machine.memories[Mem.PBUF] != before).any(axis=1)))
            words |= (
                set(range(fields.get("param_addr", 0), fields.get("param_addr", 0) + 4))
                if "param_addr" in fields
                else set()
            )
            if words & taken:
                bench.machine.memories[Mem.PBUF][:] = before
                continue
            taken |= words
            group.append(gemm(fields))
        bench.refresh()
        await bench.run_together(group)


@cocotb.test()
async def bench_faults(dut):
    """Impossible fields: a fault pulse at once, nothing requested, and the unit is ready for the next instruction."""
    bench = await start(dut, 0.0)
    bad = [GOOD | change for change in BAD]
    bad[-1]["col_tiles"] = -(-2 // config().cols)
    if config().kind == "binary":
        bad.append(GOOD | CODES | {"kind": Kind.TERNARY})
    if config().beams > 1:
        bad[bad.index(GOOD | {"epilogue": Epilogue.TOP})] = GOOD | {"epilogue": Epilogue.TOP, "shift": 16}
        tokens = config().beams + 1
        bad.append(GOOD | {"epilogue": Epilogue.TOP, "tokens": tokens, "col_tiles": -(-tokens // config().cols)})
    for fields in bad:
        await bench.issue(gemm(fields))
        await drivers.until(dut, lambda: drivers.get(dut, "port__fault") == 1, limit=4)
        assert drivers.get(dut, "port__done") == 0
        for _ in range(8):
            await drivers.cycles(dut, 1)
            assert not any(drivers.get(dut, f"{name}__valid") for name in ("abuf", "wbuf", "kbuf", "pbuf", "sbuf_w")), (
                fields
            )
            assert drivers.get(dut, "port__busy") == 0 and drivers.get(dut, "port__done") == 0, fields
    await bench.run(gemm(GOOD))


def counted(dut, names: tuple[str, ...]) -> dict[str, int]:
    """Totals of event ports from now on."""
    totals = dict.fromkeys(names, 0)

    async def count():
        while True:
            await drivers.cycles(dut, 1)
            for name in names:
                totals[name] += drivers.get(dut, f"ev_{name}")

    cocotb.start_soon(count())
    return totals


@cocotb.test()
async def bench_speed(dut):
    """Without stalls the array works in nearly every cycle, or the drain does; and the events are exact."""
    bench, hw = await start(dut, 0.0), config()
    totals = counted(
        dut, ("array_active", "array_columns", "stall_read", "drained_scores", "drained_residual", "saturations")
    )
    tokens = 3 * hw.cols - 1 if hw.cols > 1 else 3
    deep = GOOD | {"chunks": hw.cols + 4, "row_tiles": 6, "col_tiles": 3, "tokens": tokens, "dst_stride": 6}
    cycles = await bench.run(gemm(deep))
    steps = 18 * deep["chunks"]
    assert cycles <= steps + hw.cols + 12
    assert totals["array_active"] == steps and totals["array_columns"] == 6 * tokens * deep["chunks"]
    assert totals["drained_scores"] == 6 * tokens and totals["stall_read"] == 0
    assert await bench.run_together([gemm(deep)] * 3) <= 3 * (steps + 4) + hw.cols + 12  # the next one under the drain
    token = np.arange(tokens)[:, None]
    acc = bench.machine.memories[Mem.SBUF][token % hw.cols, token // hw.cols * 6 + np.arange(6)]
    flat = deep | {"chunks": 1, "row_addr": 3}
    assert await bench.run(gemm(flat)) <= 18 + 16  # a tile a cycle
    old = bench.machine.memories[Mem.RBUF].copy()
    residual = deep | {"epilogue": Epilogue.RESIDUAL, "param_stride": 4}
    bench.machine.memories[Mem.PBUF][:24] = np.array([4096, 0, 0, 0] * 6)[:, None]  # M = 4096, B = 0
    bench.refresh()
    cycles = await bench.run(gemm(residual))
    assert cycles <= steps + hw.cols + 24
    place = token * 6 + np.arange(6)
    high = (1 << hw.res_bits - 1) - 1
    exact = old[place] + acc * 4096  # scores of the same product
    assert totals["saturations"] == int(((exact > high) | (exact < -high - 1)).sum())
    assert totals["saturations"] > 0


@cocotb.test()
async def bench_torch(dut):
    """Codes packed here, products by torch: an 8-bit times 1-bit/2-bit product and a plain one, with bias and row sums."""
    bench, hw = await start(dut, 0.2), config()
    generator = torch.Generator().manual_seed(5)
    k, rows, tokens = 2 * hw.lanes, 2 * hw.rows, 2 * hw.cols
    low = 0 if hw.kind == "ternary" else -1
    values = torch.tensor([-1, low, 1])
    weights = values[torch.randint(0, 3, (rows, k), generator=generator)]
    plain = values[torch.randint(0, 3, (tokens, k), generator=generator)]
    wide = torch.randint(-128, 128, (tokens, k), generator=generator)

    def store(mem: Mem, banks: int, base: int, stride: int, index: int, bits: list[torch.Tensor]) -> None:
        for chunk in range(2):
            word = 0
            for plane, vector in enumerate(bits):
                for lane in range(hw.lanes):
                    word |= int(vector[chunk * hw.lanes + lane]) << plane * hw.lanes + lane
            bench.memories[mem].words[index % banks][base + index // banks * stride + chunk] = word

    def planes_of(vector: torch.Tensor) -> list[torch.Tensor]:
        return [vector != 0, vector < 0] if hw.kind == "ternary" else [vector > 0]

    for r in range(rows):
        store(Mem.WBUF, hw.rows, 0, 2, r, planes_of(weights[r]))
    for t in range(tokens):
        store(Mem.ABUF, hw.cols, 0, 2, t, planes_of(plain[t]))
        for p in range(8):
            bit = wide[t] >> p & 1
            store(Mem.ABUF, hw.cols, 8 + 2 * p, 16, t, [bit, torch.zeros_like(bit)][: hw.planes])
    base = GOOD | {"chunks": 2, "row_tiles": 2, "col_tiles": 2, "tokens": tokens, "row_stride": 2, "dst_stride": 2}
    # On a binary array a bit counts as +-1: 2*bit - 1, so that the planes sum to 2*value + 1 (the weights of all planes sum to -1).
    single = plain @ weights.T + weights.sum(1) - 11
    bits = (2 * wide + 1 if hw.kind == "binary" else wide) @ weights.T + 1000
    for fields, expected in (
        (base | {"col_stride": 2, "rowsum": 1, "acc_init": -11}, single),
        (
            base
            | {"col_addr": 8, "col_stride": 16, "col_plane": 2, "col_planes": 8, "col_signed": 1, "acc_init": 1000},
            bits,
        ),
    ):
        await bench.issue(gemm(fields))
        await drivers.until(dut, lambda: drivers.get(dut, "port__done") == 1)
        for t in range(tokens):
            for r in range(rows):
                word = bench.memories[Mem.SBUF].words[t % hw.cols][t // hw.cols * 2 + r // hw.rows]
                assert drivers.signed(word >> r % hw.rows * hw.acc_bits, hw.acc_bits) == int(expected[t, r])


@functools.cache
def texts(name: str) -> dict[str, str]:
    return to_verilog(ExecuteUnit(CONFIGS[name]), "execute") | shared_verilog(CONFIGS[name])


# Benches of each configuration, run in one simulation: importing the toolkit into it takes longer than most of them.
BENCHES = {
    "tiny": ("random", "overlap", "faults", "speed", "torch"),
    "binary": ("random", "overlap", "faults", "speed", "torch"),
    "square": ("random", "speed", "torch"),
    "beams": ("random", "overlap", "faults", "speed", "torch"),
    "wide": ("random", "overlap", "speed", "torch"),
}


def run(name: str, benches: tuple[str, ...], stall: float) -> None:
    parameters = {"config": name, "stall": stall, "count": int(os.environ.get("TERNBIN_COUNT", 10))}
    cases = [f"bench_{bench}" for bench in benches]
    run_bench(texts(name), __name__, name="execute", testcase=cases, parameters=parameters)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.soak] * (n == "square")) for n in BENCHES])
def test_all_benches(name):
    run(name, BENCHES[name], stall=0.4)


@pytest.mark.parametrize("name", ["tiny", "wide"])
def test_without_stalls(name):
    run(name, ("random", "overlap"), stall=0.0)
