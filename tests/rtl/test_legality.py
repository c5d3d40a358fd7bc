"""The rules of ``contract.effects`` mean the same on integers and on hardware values: random fields, every operation and kind of array."""

import random

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from ternbin.contract.effects.table import EFFECTS, broken_rule
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import FIELDS, INSTRUCTION_BITS, Instruction, Op, encode
from ternbin.rtl.parts.legality import impossible

CONFIGS = {
    "a word of 2 beats": HwConfig(rows=8, lanes=32, axi_data_bits=32),
    "a word a beat": HwConfig(rows=8, lanes=16, axi_data_bits=32, axi_addr_bits=40),
    "4 words a beat": HwConfig(rows=8, cols=1, lanes=16, axi_data_bits=128),
    "binary": HwConfig(kind="binary", rows=8, lanes=16, axi_data_bits=64),
    "packed trits": HwConfig(rows=8, lanes=32, axi_data_bits=32, weight_pack="5trit"),
    "packed trits, 4 words a beat": HwConfig(rows=16, lanes=16, axi_data_bits=128, weight_pack="5trit"),
    "beams": HwConfig(rows=4, cols=2, lanes=16, axi_data_bits=32, idbuf_words=512, beams=4),
}
# Mostly what is legal, so that each rule alone decides now and then.
COMMON = {
    "inner": 8,
    "outer": 8,
    "chunks": 2,
    "row_tiles": 2,
    "col_tiles": 1,
    "tokens": 1,
    "row_planes": 1,
    "col_planes": 1,
}
COMMON |= {
    "dst_stride": 3,
    "thresholds": 2,
    "words": 1,
    "features": 3,
    "eps": 9,
    "queries": 2,
    "keys": 4,
    "granules": 2,
    "kind": 1,
}


def an_instruction(rng: random.Random, op: Op) -> Instruction:
    fields = {name: COMMON.get(name, 0) for name, _ in FIELDS[op]}
    if op == Op.GEMM:
        fields |= {"epilogue": rng.randrange(8), "kind": rng.randrange(4)}
    elif op in (Op.LOAD, Op.STORE):
        fields |= {"mem": rng.randrange(10), "expand": int(rng.random() < 0.3)}
    for name, width in rng.sample(FIELDS[op], rng.randrange(4)):
        low, high = (-(1 << -width - 1), (1 << -width - 1) - 1) if width < 0 else (0, (1 << width) - 1)
        values = [0, 1, 2, 3, 4, 8, 16, high, rng.randint(low, high), fields[name] + 1, fields[name] - 1]
        fields[name] = rng.choice([value for value in values if low <= value <= high])
    return Instruction(op, fields)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("op", EFFECTS, ids=lambda op: op.name)
def test_rules_mean_the_same_in_hardware(config, op):
    hw, rng = CONFIGS[config], random.Random(4)
    m, word, fault = Module(), Signal(INSTRUCTION_BITS), Signal()
    m.d.comb += fault.eq(impossible(hw, word, op))
    cases = [an_instruction(rng, op) for _ in range(300)]
    verdicts = [broken_rule(hw, i) is not None for i in cases]

    async def bench(ctx):
        for i, expected in zip(cases, verdicts, strict=True):
            ctx.set(word, encode(i))
            assert ctx.get(fault) == expected, i
        ctx.set(word, encode(Instruction(Op.END)))
        assert ctx.get(fault) == 1  # no operation of this unit

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert 20 < sum(verdicts) < 270
