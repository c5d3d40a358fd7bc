"""Field combinations of LOAD and STORE that are refused, against the machine model; beats of packed trits."""

import random
from typing import Any

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ErrorCode, Instruction, Mem, Op
from ternbin.emulation.machine import Machine, MachineError
from ternbin.rtl.transfer.words import Transfer, fifth, transfer_fault

WORDS: dict[str, Any] = {f"{name}_words": 64 for name in ("abuf", "wbuf", "kbuf", "rbuf", "sbuf", "pbuf", "idbuf")}
CONFIGS = {
    "a word of 2 beats": HwConfig(rows=8, lanes=32, axi_data_bits=32, **WORDS),
    "a word a beat": HwConfig(rows=8, lanes=16, axi_data_bits=32, **WORDS),
    "4 words a beat": HwConfig(rows=8, lanes=16, axi_data_bits=128, **WORDS),
    "binary": HwConfig(kind="binary", rows=8, lanes=16, axi_data_bits=64, **WORDS),
    "packed trits": HwConfig(rows=8, lanes=32, axi_data_bits=32, weight_pack="5trit", **WORDS),
    "packed trits, 4 words a beat": HwConfig(rows=16, lanes=16, axi_data_bits=128, weight_pack="5trit", **WORDS),
}


def refused(hw, op, fields):
    """Whether the machine calls it a wrong field."""
    try:
        Machine(hw, bytearray(1 << 16)).execute(Instruction(op, fields))
    except MachineError as error:
        return error.code == ErrorCode.FIELD
    return False


@pytest.mark.parametrize("config", CONFIGS)
def test_the_machine_refuses_the_same_fields(config):
    hw, rng = CONFIGS[config], random.Random(4)
    m, transfer, store, fault = Module(), Signal(Transfer()), Signal(), Signal()
    m.d.comb += fault.eq(transfer_fault(hw, m, transfer, store))
    cases = []
    for _ in range(150):
        op = rng.choice([Op.LOAD, Op.LOAD, Op.STORE])
        fields = dict(
            mem=rng.choice([*Mem, Mem.WBUF, Mem.ABUF]),
            bank=rng.choice([0, 0, 0, 1, 3, 7, 8]),
            inner=rng.choice([0, 1, 2, 4, 6, 8]),
            outer=rng.choice([0, 1, 2, 4, 8]),
            dram=1024,
            stride=64,
            expand=int(rng.random() < 0.4),
        )
        cases.append((op, fields, refused(hw, op, fields)))

    async def bench(ctx):
        for op, fields, expected in cases:
            ctx.set(transfer, fields)
            ctx.set(store, op == Op.STORE)
            assert ctx.get(fault) == expected, f"{op.name} {fields}"

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    wbuf = [expected for op, fields, expected in cases if op == Op.LOAD and fields["mem"] == Mem.WBUF]
    assert any(wbuf) and not all(wbuf)


def test_a_fifth():
    m, value, result = Module(), Signal(16), Signal(16)
    m.d.comb += result.eq(fifth(value))

    async def bench(ctx):
        for number in [*range(3000), *range(65000, 65536)]:
            ctx.set(value, number)
            assert ctx.get(result) == -(-number // 5)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
