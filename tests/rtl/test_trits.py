"""The decoder of packed trits against contract/rows.py: every byte, and streams of row tiles with random stalls."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from ternbin.contract.hw import HwConfig
from ternbin.contract.rows import trit_row_bytes, trit_row_codes
from ternbin.rtl.transfer.trits import Unpack

CONFIGS = {
    "8 units a word": HwConfig(rows=4, lanes=16, axi_data_bits=64, weight_pack="5trit"),
    "32 units a word": HwConfig(rows=4, lanes=128, axi_data_bits=32, weight_pack="5trit"),
}


def word_codes(hw, word):
    """Codes of the banks' words, in order."""
    bits = [word >> b & 1 for b in range(hw.code_word_bits * hw.load_words)]
    return [
        bits[at + lane] * (1 - 2 * bits[at + hw.lanes + lane])
        for at in range(0, len(bits), hw.code_word_bits)
        for lane in range(hw.lanes)
    ]


def unpacked(hw, tiles, stall, seed=1):
    """Codes that the decoder makes of ``tiles`` (bytes, words), one list a tile, and the cycles from the first word to the last."""
    rng, unit = random.Random(seed), Unpack(hw)
    beats = [data[at : at + hw.axi_bytes] for data, _ in tiles for at in range(0, len(data), hw.axi_bytes)]
    results, times, now = [], [], [0]

    async def count_cycles(ctx):
        async for _ in ctx.tick():
            now[0] += 1

    async def send(ctx):
        for beat in beats:
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(unit.i.payload, int.from_bytes(beat, "little"))
            ctx.set(unit.i.valid, 1)
            await ctx.tick().until(unit.i.ready)
            ctx.set(unit.i.valid, 0)

    async def receive(ctx):
        for number, (_, count) in enumerate(tiles):
            codes = []
            for word in range(count):
                while rng.random() < stall:
                    await ctx.tick()
                ctx.set(unit.o.ready, 1)
                ctx.set(unit.drop, word == count - 1)
                ctx.set(unit.last, word == count - 1 and number == len(tiles) - 1)
                (payload,) = await ctx.tick().sample(unit.o.payload).until(unit.o.valid)
                codes += word_codes(hw, payload)
                ctx.set(unit.o.ready, 0)
                times.append(now[0])
            results.append(codes)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_process(count_cycles)
    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.run_until(1e-6 * 10000)
    assert len(results) == len(tiles), "the decoder must not hang"
    return results, times[-1] - times[0]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("stall", [0, 0.4])
def test_row_tiles(name, stall):
    hw, rng = CONFIGS[name], np.random.default_rng(3)
    tiles, expected = [], []
    for words in (1, 5, 3, 8, 2):
        codes = rng.integers(-1, 2, words * hw.load_words * hw.lanes)
        tiles.append((trit_row_bytes(hw, codes).tobytes(), words))
        expected.append(codes.tolist())
    assert unpacked(hw, tiles, stall)[0] == expected


def test_every_byte():
    hw = CONFIGS["8 units a word"]
    data = np.arange(256, dtype=np.uint8)
    (codes,), _ = unpacked(hw, [(data.tobytes(), 256 * 5 // (hw.load_words * hw.lanes))], 0)
    assert codes == trit_row_codes(data).tolist()
    for byte in range(256):
        value = min(byte, 242)
        assert codes[5 * byte : 5 * byte + 5] == [value // 3**j % 3 - 1 for j in range(5)]


def test_a_beat_a_cycle():
    hw, words = CONFIGS["8 units a word"], 320
    data = trit_row_bytes(hw, np.zeros(words * hw.load_words * hw.lanes, dtype=np.int8)).tobytes()
    _, cycles = unpacked(hw, [(data, words)], 0)
    assert words < cycles <= len(data) // hw.axi_bytes
