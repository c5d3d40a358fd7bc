"""A bank with planes: the body that is one array, and the one of eight memories."""

import random
import re

import cocotb
from cocotb import triggers

from ternbin.rtl.parts.primitives import primitives
from ternbin.sim.bench import run_bench
from ternbin.sim.tb import drivers

DEPTH, LANES = 16, 4
BENCH = """
module planes (input clk, input rst, input [7:0] ren, input [7:0] wen, input [3:0] raddr, input [3:0] waddr, input [7:0] wdata,
               input [3:0] wmask, output [35:0] rdata, output [35:0] built);
  ternbin_plane_ram #(.DEPTH(16), .LANES(4), .ADDR(4)) array (.rdata(rdata), .clk(clk), .ren(ren), .wen(wen),
      .raddr(raddr), .waddr(waddr), .wdata(wdata), .wmask(wmask));
  built_plane_ram #(.DEPTH(16), .LANES(4), .ADDR(4)) memories (.rdata(built), .clk(clk), .ren(ren), .wen(wen),
      .raddr(raddr), .waddr(waddr), .wdata(wdata), .wmask(wmask));
endmodule
"""


def texts() -> dict[str, str]:
    parts = {name: primitives(form) for name, form in (("ternbin", "asic"), ("built", "fpga"))}
    built = {
        f"built_{name}": re.sub(r"ternbin_(plane_ram|ram)\b", r"built_\1", text)
        for name, text in parts["built"].items()
        if name.endswith("ram.v")
    }
    return {"planes.v": BENCH, "ternbin_plane_ram.v": parts["ternbin"]["ternbin_plane_ram.v"], **built}


@cocotb.test()
async def bench_bodies(dut):
    await drivers.start(dut)
    rng = random.Random(3)
    words = [[0] * DEPTH for _ in range(8)]
    shown = [0] * 8
    for cycle in range(DEPTH + 600):
        filling = cycle < DEPTH  # first every word, so that nothing unwritten is read
        read = 0 if filling else rng.getrandbits(8)
        written, mask = (255, 15) if filling else (rng.getrandbits(8), rng.getrandbits(LANES))
        raddr, waddr, data = (
            rng.randrange(DEPTH),
            cycle if filling else rng.randrange(DEPTH),
            rng.getrandbits(2 * LANES),
        )
        values = {"ren": read, "raddr": raddr, "wen": written, "waddr": waddr, "wdata": data, "wmask": mask}
        for name, value in values.items():
            getattr(dut, name).value = value
        await triggers.RisingEdge(dut.clk)
        for plane in range(8):
            if read >> plane & 1:
                shown[plane] = words[plane][raddr]
            if written >> plane & 1:
                lanes = mask | (mask << LANES if plane == 0 else 0)
                words[plane][waddr] = words[plane][waddr] & ~lanes | data & lanes
        await triggers.ReadOnly()
        if cycle > DEPTH + 60:  # every plane was read
            expected = shown[0] | sum(shown[plane] << (plane + 1) * LANES for plane in range(1, 8))
            assert drivers.get(dut, "rdata") == drivers.get(dut, "built") == expected, cycle
        await triggers.FallingEdge(dut.clk)


def test_both_bodies_are_eight_memories():
    run_bench(texts(), __name__, name="planes", testcase="bench_bodies")
