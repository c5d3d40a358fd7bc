"""The epilogue alone, at the ends of its ranges: extreme accumulators, parameters and shifts against Python integers."""

import functools
import random

import cocotb
import pytest

from ternbin.contract.hw import NAMED
from ternbin.contract.isa import Dest, Instruction, Kind, Op, encode
from ternbin.contract.isa import Epilogue as Mode
from ternbin.rtl.epilogue.epilogue import Epilogue
from ternbin.rtl.parts.gemm_fields import column_layout
from ternbin.rtl.verilog.shared import shared_verilog
from ternbin.sim.bench import run_bench, to_verilog
from ternbin.sim.tb import drivers

HW = NAMED["tiny"]
ROWS, ACC = HW.rows, HW.acc_bits
HIGH, MUL, BIAS = (1 << HW.res_bits - 1) - 1, (1 << 23) - 1, (1 << 39) - 1


def extreme(limit: int) -> int:
    """An end of ``[-limit-1, limit]``, a value near 0, or any value of some magnitude."""
    small = random.randint(-2, 1)
    magnitude = random.getrandbits(random.randint(1, limit.bit_length()))
    return random.choice([-limit - 1, limit, small, magnitude, -magnitude])


def rshift(value: int, shift: int) -> int:
    return value if shift == 0 else (value + (1 << shift - 1)) >> shift


def clip(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


class EpilogueBench:
    """The epilogue with its memories, and columns to feed it with."""

    def __init__(self, dut):
        self.dut = dut
        shape = {"banks": 1, "depth": 64}
        self.pbuf = drivers.MemoryModel(dut, word_bits=HW.param_word_bits, elements=ROWS, **shape)
        self.pbuf.read_port("pbuf")
        self.rbuf = drivers.MemoryModel(dut, word_bits=HW.res_word_bits, elements=ROWS, fill=None, **shape)
        self.rbuf.read_port("rbuf_r")
        self.rbuf.write_port("rbuf_w")
        self.idbuf = drivers.MemoryModel(dut, word_bits=96, elements=1, **shape)
        self.idbuf.write_port("idbuf_w")
        self.kbuf = drivers.MemoryModel(
            dut, banks=ROWS, depth=64, word_bits=HW.code_word_bits, elements=HW.lanes, planes=HW.planes
        )
        self.kbuf.write_port("kbuf_w")
        self.kbuf.transposed_port("kbuf_t")
        self.columns = drivers.Source(dut, "i")
        self.saturations = 0
        cocotb.start_soon(self._count())

    async def _count(self):
        while True:
            await drivers.cycles(self.dut, 1)
            self.saturations += drivers.get(self.dut, "ev_saturations")

    def parameters(self, mul: list[int], bias: list[int]) -> None:
        """Four words at address 0."""
        for j in range(4):
            self.pbuf.words[0][j] = sum(
                ((b << 24 | m & 0xFFFFFF) >> 16 * j & 0xFFFF) << 16 * r
                for r, (m, b) in enumerate(zip(mul, bias, strict=True))
            )

    async def run(self, fields: dict, columns: list[list[int]], places: list[dict]) -> None:
        """Start the instruction, feed ``columns`` of accumulators with their ``places``, wait until all is written."""
        dut = self.dut
        dut.instruction.value = encode(Instruction(Op.GEMM, fields | {"row_tiles": 1, "col_tiles": 1}))
        dut.start.value = 1
        await drivers.cycles(dut, 1)
        dut.start.value = 0
        flags = {"first": 0, "last": 0, "first_tile": 1, "last_tile": 1}
        for n, (column, place) in enumerate(zip(columns, places, strict=True)):
            ends = {"first": int(n == 0), "last": int(n == len(columns) - 1)}
            value = {"values": column, **flags, **ends, "bank": 0, "place": 0, **place}
            self.columns.send([column_layout(HW).const(value).as_bits()])
        await self.columns.drained()
        await drivers.cycles(dut, 1)
        await drivers.until(dut, lambda: drivers.get(dut, "busy") == 0)


def random_case() -> tuple[list[int], list[int], int, list[list[int]]]:
    """M and B of every row, a shift, some columns of accumulators."""
    mul, bias = [extreme(MUL) for _ in range(ROWS)], [extreme(BIAS) for _ in range(ROWS)]
    columns = [[extreme((1 << ACC - 1) - 1) for _ in range(ROWS)] for _ in range(random.randint(1, 6))]
    return mul, bias, random.randrange(64), columns


@cocotb.test()
async def bench_residual(dut):
    await drivers.start(dut)
    bench, expected_saturations = EpilogueBench(dut), 0
    for _ in range(60):
        mul, bias, shift, columns = random_case()
        bench.parameters(mul, bias)
        old = [[drivers.signed(word >> 16 * r, 16) for r in range(ROWS)] for word in bench.rbuf.words[0]]
        fields = {"epilogue": Mode.RESIDUAL, "shift": shift}
        await bench.run(fields, columns, [{"addr": n} for n in range(len(columns))])
        for n, column in enumerate(columns):
            exact = [old[n][r] + rshift(column[r] * mul[r] + bias[r], shift) for r in range(ROWS)]
            want = [clip(value, -HIGH - 1, HIGH) for value in exact]
            expected_saturations += sum(a != b for a, b in zip(exact, want, strict=True))
            assert [drivers.signed(bench.rbuf.words[0][n] >> 16 * r, 16) for r in range(ROWS)] == want, (
                mul,
                bias,
                shift,
                column,
            )
    assert bench.saturations == expected_saturations > 0


@cocotb.test()
async def bench_codes8(dut):
    await drivers.start(dut)
    bench = EpilogueBench(dut)
    table = [random.randrange(256) for _ in range(256)]
    port = drivers.PortMaster(dut, "lutx_w")
    for beat in range(128):
        await port.request(addr=beat, mask=1, lane_mask=1, data=table[2 * beat] | table[2 * beat + 1] << 16)
    for _ in range(60):
        mul, bias, shift, columns = random_case()
        bench.parameters(mul, bias)
        kind, lut = random.choice([Kind.INT8, Kind.UINT8]), random.randint(0, 1)
        fields = {
            "epilogue": Mode.CODES8,
            "dest": Dest.TRANSPOSED,
            "kind": kind,
            "lut": lut,
            "shift": shift,
            "dst_plane": 2,
        }
        await bench.run(fields, columns, [{"addr": 3, "place": n} for n in range(len(columns))])
        for n, column in enumerate(columns):
            for r in range(ROWS):
                value = rshift(column[r] * mul[r] + bias[r], shift)
                want = clip(value, -127, 127) & 255 if kind == Kind.INT8 else clip(value, 0, 255)
                want = table[clip(value, -128, 127) + 128] if lut else want
                words = [bench.kbuf.words[r][3 + 2 * plane] >> n for plane in range(8)]
                assert sum((word & 1) << plane for plane, word in enumerate(words)) == want, (value, kind, lut)
                assert not any(word >> HW.lanes & 1 for word in words)


@cocotb.test()
async def bench_argmax(dut):
    """Ties and extremes within a column and across instructions, whatever the order of the ids."""
    await drivers.start(dut)
    bench, best = EpilogueBench(dut), None
    for number in range(60):
        first, index = int(number == 0 or random.random() < 0.2), random.choice([0, 8, 4, (1 << 24) - 8])
        few = random.random() < 0.5
        mul = [random.choice([0, 1]) if few else extreme(MUL) for _ in range(ROWS)]
        bias = [random.choice([0, 1]) if few else extreme(BIAS) for _ in range(ROWS)]
        column = [random.choice([0, 1, -1]) if few else extreme((1 << ACC - 1) - 1) for _ in range(ROWS)]
        bench.parameters(mul, bias)
        fields = {"epilogue": Mode.ARGMAX, "index": index, "first": first, "last": 1}
        await bench.run(fields, [column], [{"addr": 9}])
        logits = [(column[r] * mul[r] + bias[r], -(index + r)) for r in range(ROWS)]
        best = max([*logits, *([best] if best is not None and not first else [])])
        word = bench.idbuf.words[0][9]
        assert (drivers.signed(word >> 32, 64), -(word & 0xFFFFFFFF)) == best


@functools.cache
def texts() -> dict[str, str]:
    return to_verilog(Epilogue(HW), "epilogue") | shared_verilog(HW)


@pytest.mark.parametrize("testcase", ["bench_residual", "bench_codes8", "bench_argmax"])
def test_epilogue(testcase):
    run_bench(texts(), __name__, name="epilogue", testcase=testcase)
