"""The whole accelerator under cocotb: a program with arithmetic against numpy, every error, and a good run after each."""

import random
from typing import Any

import cocotb
import numpy as np
import pytest
from benches import transfers

from ternbin.contract import isa
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Epilogue, ErrorCode, Instruction, Kind, Mem, Op, Unit
from ternbin.rtl.top import counters
from ternbin.rtl.verilog.generate import TOP, generate
from ternbin.sim.bench import run_bench
from ternbin.sim.tb import drivers
from ternbin.sim.tb.host import Host

WORDS: dict[str, Any] = {f"{name}_words": 64 for name in ("abuf", "wbuf", "kbuf", "rbuf", "sbuf", "pbuf", "idbuf")}
CONFIGS = {
    "tiny": HwConfig(name="test", rows=4, cols=2, lanes=16, axi_data_bits=32, **WORDS),
    "tiny-binary": HwConfig(name="test-binary", kind="binary", rows=4, cols=2, lanes=32, axi_data_bits=32, **WORDS),
}
SIZE = 1 << 16
PROGRAM, WEIGHTS, TOKENS, PARAMETERS, RESULT = 0x0000, 0x4000, 0x5000, 0x6000, 0x8000
FEATURES, INPUTS, COUNT = 8, 64, 3  # of the product: output features, input features, tokens
THRESHOLDS = 2


def packed(hw, codes):
    """External bytes of one row of codes (-1, 0, 1), by beats as LOAD reads them."""
    words = []
    for at in range(0, len(codes), hw.lanes):
        chunk = list(codes[at : at + hw.lanes])
        if hw.kind == "binary":
            words.append(sum(int(c > 0) << lane for lane, c in enumerate(chunk)))
        else:
            nonzero = sum(int(c != 0) << lane for lane, c in enumerate(chunk))
            words.append(nonzero | sum(int(c < 0) << lane for lane, c in enumerate(chunk)) << hw.lanes)
    parts = [part for word in words for part in transfers.parts_of(hw, Mem.ABUF, word)]
    return b"".join(part.to_bytes(hw.axi_bytes, "little") for part in parts)


def unpacked(hw, data):
    """Inverse of ``packed`` for one word."""
    parts = [int.from_bytes(data[at : at + hw.axi_bytes], "little") for at in range(0, len(data), hw.axi_bytes)]
    word = transfers.word_of(hw, Mem.ABUF, parts)
    if hw.kind == "binary":
        return [1 if word >> lane & 1 else -1 for lane in range(hw.lanes)]
    return [(word >> lane & 1) * (-1 if word >> hw.lanes + lane & 1 else 1) for lane in range(hw.lanes)]


class Product:
    """tokens [COUNT, INPUTS] x weights [FEATURES, INPUTS] through thresholds to codes, as a program."""

    def __init__(self, hw, host):
        self.hw, self.host = hw, host
        choice = [-1, 1] if hw.kind == "binary" else [-1, 0, 1]
        self.weights = np.array([[random.choice(choice) for _ in range(INPUTS)] for _ in range(FEATURES)])
        self.tokens = np.array([[random.choice(choice) for _ in range(INPUTS)] for _ in range(COUNT)])
        self.thresholds = np.array([[random.randint(-9, 9) for _ in range(FEATURES)] for _ in range(THRESHOLDS)])
        if hw.kind == "binary":
            self.thresholds[1] = self.thresholds[0]  # from -1 to 1 in one step
        row = len(packed(hw, self.weights[0]))
        for at, codes in ((WEIGHTS, self.weights), (TOKENS, self.tokens)):
            for number, line in enumerate(codes):
                host.region[at + number * row : at + (number + 1) * row] = packed(hw, line)
        words = [
            self.thresholds[j, tile : tile + hw.rows] for tile in range(0, FEATURES, hw.rows) for j in range(THRESHOLDS)
        ]
        host.region[PARAMETERS : PARAMETERS + FEATURES * THRESHOLDS * 2] = np.array(words, dtype="<i2").tobytes()

    def program(self):
        hw, chunks = self.hw, INPUTS // self.hw.lanes
        row = chunks * transfers.beats(hw, Mem.ABUF) * hw.axi_bytes
        execute, load, store = frozenset({Unit.EXECUTE}), frozenset({Unit.LOAD}), frozenset({Unit.STORE})
        code = {"inner": chunks, "stride": row}
        gemm = {
            "row_stride": chunks,
            "row_planes": 1,
            "col_stride": chunks,
            "col_planes": 1,
            "chunks": chunks,
            "row_tiles": FEATURES // hw.rows,
            "col_tiles": -(-COUNT // hw.cols),
            "tokens": COUNT,
            "epilogue": Epilogue.CODES,
            "kind": Kind.BINARY if hw.kind == "binary" else Kind.TERNARY,
            "param_stride": THRESHOLDS,
            "thresholds": THRESHOLDS,
            "base": -1,
            "dirs": 3,
            "dst_addr": 32,
            "dst_stride": 1,
        }
        word = transfers.beats(hw, Mem.ABUF) * hw.axi_bytes
        return [
            Instruction(Op.LOAD, {"mem": Mem.WBUF, "outer": FEATURES, "dram": WEIGHTS, **code}),
            Instruction(Op.LOAD, {"mem": Mem.ABUF, "outer": COUNT, "dram": TOKENS, **code}),
            Instruction(
                Op.LOAD,
                {"mem": Mem.PBUF, "inner": FEATURES // hw.rows * THRESHOLDS, "outer": 1, "dram": PARAMETERS},
                frozenset(),
                execute,
            ),
            Instruction(Op.GEMM, gemm, load, store),
            Instruction(
                Op.STORE,
                {"mem": Mem.ABUF, "addr": 32, "inner": 1, "outer": COUNT, "dram": RESULT, "stride": word},
                execute,
            ),
            Instruction(Op.END),
        ]

    def expected(self):
        acc = self.tokens @ self.weights.T
        return -1 + (acc[None] >= self.thresholds[:, None]).sum(0)

    async def check(self):
        """Run it and compare; the result area is destroyed before."""
        hw, size = self.hw, transfers.beats(self.hw, Mem.ABUF) * self.hw.axi_bytes
        self.host.region[RESULT : RESULT + COUNT * size] = random.randbytes(COUNT * size)
        assert (await self.host.run(PROGRAM, self.program()))[0] == ErrorCode.NONE
        for token, line in enumerate(self.expected()):
            at = RESULT + token * size
            codes = unpacked(hw, bytes(self.host.region[at : at + size]))
            assert codes[:FEATURES] == list(line), f"token {token}"


async def started(dut):
    await drivers.start(dut)
    host = Host(dut, SIZE)
    await host.reset()
    hw = CONFIGS[drivers.parameters()["config"]]
    return hw, host, Product(hw, host)


@cocotb.test()
async def bench_product(dut):
    hw, host, product = await started(dut)
    for stall in (0, 0.4):
        host.stall(stall)
        await host.write(isa.REG_CTRL, 4)
        await product.check()
        names = list(counters(hw))

        async def count(name, names=names):
            return await host.counter(names.index(name))

        chunks, tiles = INPUTS // hw.lanes, FEATURES // hw.rows * -(-COUNT // hw.cols)
        code = transfers.beats(hw, Mem.ABUF)
        assert await count("execute_array_active") == chunks * tiles
        assert await count("wbuf_writes") == FEATURES * chunks and await count("wbuf_reads") == hw.rows * chunks * tiles
        assert await count("axi_write_beats") == COUNT * code
        loaded = (FEATURES + COUNT) * chunks * code + FEATURES * THRESHOLDS * 16 // hw.axi_data_bits
        assert await count("axi_load_beats") == loaded
        assert await count("axi_fetch_beats") >= 6 * 64 // hw.axi_bytes
        assert await count("load_instructions") == 3 and await count("execute_instructions") == 1


def errors(hw):
    """Name -> (program, error, address or None): each stops the core as documented. All programs start at 0x1000."""
    transfer = {"mem": Mem.RBUF, "inner": 4, "outer": 1}
    gemm = {
        "row_planes": 1,
        "col_planes": 1,
        "chunks": 1,
        "row_tiles": 1,
        "col_tiles": 1,
        "tokens": 1,
        "epilogue": Epilogue.SCORES,
    }
    load, end = Op.LOAD, Instruction(Op.END)
    good = Instruction(load, transfer)
    beyond = SIZE + 0x200
    return {
        "check": ([good, isa.encode(good) ^ 1 << 77, end], ErrorCode.CHECK, 0x1040),
        "opcode": ([0x7E57 << 16, end], ErrorCode.OPCODE, 0x1000),
        "bank": ([Instruction(load, transfer | {"bank": 1}), end], ErrorCode.FIELD, 0x1000),
        "gemm fields": ([good, Instruction(Op.GEMM, gemm | {"chunks": 0}), end], ErrorCode.FIELD, 0x1040),
        "load address": ([Instruction(load, transfer | {"addr": 62}), end], ErrorCode.ADDRESS, 0x1000),
        "far address": ([Instruction(load, transfer | {"addr": (1 << 20) - 1}), end], ErrorCode.ADDRESS, 0x1000),
        "table address": (
            [Instruction(load, transfer | {"mem": Mem.LUTV, "addr": 127}), end],
            ErrorCode.ADDRESS,
            0x1000,
        ),
        "index": ([Instruction(load, transfer | {"indirect": 1, "index": 64}), end], ErrorCode.ADDRESS, 0x1000),
        "store address": ([good, Instruction(Op.STORE, transfer | {"addr": 64}), end], ErrorCode.ADDRESS, 0x1040),
        "read address": ([Instruction(Op.GEMM, gemm | {"col_addr": 64}), end], ErrorCode.ADDRESS, 0x1000),
        "write address": ([Instruction(Op.GEMM, gemm | {"dst_addr": 999}), end], ErrorCode.ADDRESS, 0x1000),
        "bus read": ([Instruction(load, transfer | {"dram": beyond}), end], ErrorCode.BUS_READ, beyond),
        "bus write": ([Instruction(Op.STORE, transfer | {"dram": beyond}), end], ErrorCode.BUS_WRITE, beyond),
        "end of the address space": (
            [Instruction(load, transfer | {"dram": (1 << 32) - 4, "outer": 2, "inner": 1, "stride": 4 * 64}), end],
            None,
            None,
        ),
        "deadlock": ([good, Instruction(Op.STORE, transfer, frozenset({Unit.VECTOR})), end], ErrorCode.TIMEOUT, 0x1040),
    }


@cocotb.test()
async def bench_errors(dut):
    hw, host, product = await started(dut)
    host.stall(0.2)
    for name, (program, code, address) in errors(hw).items():
        error = await host.run(0x1000, program)
        if code is None:  # which of the two comes first is up to the bus
            assert error[0] in (ErrorCode.ADDRESS, ErrorCode.BUS_READ), f"{name}: {error}"
        else:
            assert error == (code, address), f"{name}: {error}"
        await product.check()


@cocotb.test()
async def bench_errors_in_flight(dut):
    """Errors while transfers of both directions are under way: the bus is left in order, what was not aborted is intact."""
    hw, host, product = await started(dut)
    big = {"mem": Mem.KBUF, "inner": 64, "outer": hw.rows}
    moves = [Instruction(Op.LOAD, big | {"dram": 0x4000}), Instruction(Op.STORE, big | {"dram": 0xC000})] * 2
    for number in range(6):
        host.stall(random.choice([0, 0.3]))
        bad = isa.encode(moves[0]) ^ 1 << random.randrange(512)
        error = await host.run(0x1000, [*moves[: number % 5], bad, Instruction(Op.END)])
        assert error == (ErrorCode.CHECK, 0x1000 + 64 * (number % 5))
        await product.check()


@pytest.mark.parametrize("config", ["tiny", pytest.param("tiny-binary", marks=pytest.mark.soak)])
def test_top(config):
    run_bench(generate(CONFIGS[config]), __name__, name=TOP, parameters={"config": config}, fast="-O0")
