"""Address walks and buffered reads of the vector unit against naive models."""

import random

import pytest
from amaranth.sim import Simulator

from ternbin.contract.isa import ADDR
from ternbin.rtl.parts.arithmetic import ReadBuffer, Walk


def walk_model(*, banks, sub, elements, base, stride, outer, inner, features):
    top = (1 << ADDR) - 1
    return [
        {
            "addr": min(base + t // banks * stride + w // sub, top),
            "mask": 1 << t % banks,
            "sub": w % sub,
            "keep": sum(1 << e for e in range(elements) if w * elements + e < features),
            "row_last": int(w == inner - 1),
            "last": int((t, w) == (outer - 1, inner - 1)),
        }
        for t in range(outer)
        for w in range(inner)
    ]


@pytest.mark.parametrize(("banks", "sub", "elements"), [(1, 1, 1), (2, 4, 4), (4, 1, 8), (1, 8, 16)])
def test_walk(banks, sub, elements):
    """Several walks in a row, some beyond the last address: these must stick to it instead of wrapping."""
    rng, walk = random.Random(1), Walk(banks=banks, sub=sub, elements=elements)

    async def bench(ctx):
        for case in range(12):
            near_end = (1 << ADDR) - 1 - rng.randint(0, 20)
            inputs = {
                "base": near_end if case % 3 == 0 else rng.randrange(1000),
                "stride": rng.choice([0, 1, 7, 65535]),
                "outer": rng.choice([1, rng.randint(1, 9)]),
                "inner": rng.choice([1, rng.randint(1, 12)]),
                "features": rng.randint(1, 12 * elements),
            }
            for name, value in inputs.items():
                ctx.set(getattr(walk, name), value)
            ctx.set(walk.start, 1)
            await ctx.tick()
            ctx.set(walk.start, 0)
            for want in walk_model(banks=banks, sub=sub, elements=elements, **inputs):
                while rng.random() < 0.3:
                    await ctx.tick()
                assert ctx.get(walk.o.valid)
                assert {name: ctx.get(walk.o.payload)[name] for name in want} == want
                ctx.set(walk.o.ready, 1)
                await ctx.tick()
                ctx.set(walk.o.ready, 0)
            assert not ctx.get(walk.o.valid)

    simulator = Simulator(walk)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("banks", [1, 3])
def test_read_buffer(stall, banks):
    """Words come once, in order, with their tags; a request stays until taken; one word a cycle without stalls."""
    rng, count = random.Random(2), 300
    buffer = ReadBuffer(banks, 16, 9)
    memory = [[rng.getrandbits(16) for _ in range(64)] for _ in range(banks)]
    items = [(rng.randrange(64), rng.randrange(banks), rng.random() < 0.8, i % 512) for i in range(count)]
    seen = []

    async def bench(ctx):
        sent, answer, held, cycles = 0, None, None, 0
        while len(seen) < count:
            cycles += 1
            assert cycles < 3000
            offered = held is not None or (sent < count and rng.random() >= stall)
            ctx.set(buffer.i.valid, offered)
            if offered:
                addr, bank, read, tag = items[sent]
                ctx.set(buffer.i.payload, {"addr": addr, "mask": 1 << bank, "read": read, "tag": tag})
            for b in range(banks):
                value = memory[b][answer[0]] if answer and answer[1] == b else rng.getrandbits(16)
                ctx.set(buffer.port.data[b], value)
            ctx.set(buffer.port.ready, rng.random() >= stall)
            ctx.set(buffer.o.ready, rng.random() >= stall)
            request = (ctx.get(buffer.port.addr), ctx.get(buffer.port.mask)) if ctx.get(buffer.port.valid) else None
            if held and held != "item":
                assert request == held, "a request must be held until it is taken"
            taken = ctx.get(buffer.i.valid) and ctx.get(buffer.i.ready)
            answer = items[sent][:2] if taken else None
            held = None if taken or not offered else (request or "item")
            sent += bool(taken)
            if ctx.get(buffer.o.valid) and ctx.get(buffer.o.ready):
                seen.append((ctx.get(buffer.o.payload.tag), ctx.get(buffer.o.payload.data)))
            await ctx.tick()
        if stall == 0:
            assert cycles <= count + 3

    simulator = Simulator(buffer)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    for (addr, bank, read, tag), (got_tag, got) in zip(items, seen, strict=True):
        assert got_tag == tag
        assert not read or got == memory[bank][addr]
