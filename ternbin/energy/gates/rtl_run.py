"""The RTL of a block under given stimuli, in Verilator: what a netlist's outputs are compared with."""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ternbin.errors import CheckError
from ternbin.sim.toolchain import ModelSpec, compile_model

_MAIN = """
#include <cstdint>
#include <cstdio>
#include <vector>
#include "Vtop.h"
#include "verilated.h"
static void put(CData &to, const uint8_t *from, int) { to = *from; }
static void put(SData &to, const uint8_t *from, int n) { to = 0; for (int i = 0; i < n; i++) to |= SData(from[i]) << 8 * i; }
static void put(IData &to, const uint8_t *from, int n) { to = 0; for (int i = 0; i < n; i++) to |= IData(from[i]) << 8 * i; }
static void put(QData &to, const uint8_t *from, int n) { to = 0; for (int i = 0; i < n; i++) to |= QData(from[i]) << 8 * i; }
template <std::size_t W> void put(VlWide<W> &to, const uint8_t *from, int n) {
    for (std::size_t w = 0; w < W; w++) to[w] = 0;
    for (int i = 0; i < n; i++) to[i / 4] |= EData(from[i]) << 8 * (i % 4);
}
template <class T> uint8_t byte_of(const T &v, int i) { return uint8_t(uint64_t(v) >> 8 * i); }
template <std::size_t W> uint8_t byte_of(const VlWide<W> &v, int i) { return uint8_t(v[i / 4] >> 8 * (i % 4)); }
int main(int, char **argv) {
    const int in = IN_BYTES, out = OUT_BYTES;
    FILE *source = fopen(argv[1], "rb"), *sink = fopen(argv[2], "wb");
    VerilatedContext context;
    Vtop top(&context);
    std::vector<uint8_t> row(in), result(out);
    while (fread(row.data(), in, 1, source) == 1) {
        put(top.i, row.data(), in);
        top.clk = 0;
        top.eval();
        for (int k = 0; k < out; k++) result[k] = byte_of(top.o, k);
        fwrite(result.data(), out, 1, sink);
        top.clk = 1;
        top.eval();
    }
    fclose(sink);
    return 0;
}
"""


def bench(top: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> str:
    """Verilog of a module with one input and one output vector (ports in the given order, low bits first) around ``top``."""

    def pins(ports: Mapping[str, int], vector: str) -> Iterator[str]:
        at = 0
        for name, width in ports.items():
            yield f".{name}({vector}[{at + width - 1}:{at}])"
            at += width

    body = ", ".join([".clk(clk)", *pins(inputs, "i"), *pins(outputs, "o")])
    return (
        f"module flat (input clk, input [{sum(inputs.values()) - 1}:0] i, output [{sum(outputs.values()) - 1}:0] o);\n"
        f"  {top} block ({body});\nendmodule\n"
    )


def run(
    verilog: Mapping[str, str], top: str, inputs: Mapping[str, int], outputs: Mapping[str, int], rows: np.ndarray
) -> np.ndarray:
    """Outputs of every cycle (rows of bytes) for input ``rows`` of bytes; ports and widths without the clock ``clk``."""
    in_bytes, out_bytes = rows.shape[1], (sum(outputs.values()) + 7) // 8
    spec = ModelSpec(
        verilog={**verilog, "flat.v": bench(top, inputs, outputs)},
        top="flat",
        control="`verilator_config\n",
        cpp={"main.cpp": _MAIN},
        output="flat",
        verilator_flags=("-O3", "--no-timing", "--no-assert", "--x-assign", "fast", "--x-initial", "fast"),
        cxx_flags=(f"-DIN_BYTES={in_bytes}", f"-DOUT_BYTES={out_bytes}", "-DVL_TIME_CONTEXT"),
    )
    program = compile_model(spec)
    with tempfile.TemporaryDirectory() as folder:
        source, sink = Path(folder) / "in", Path(folder) / "out"
        rows.tofile(source)
        subprocess.run([program, source, sink], check=True)
        return np.fromfile(sink, np.uint8).reshape(len(rows), out_bytes)


def check_equal(block: str, rtl: np.ndarray, gates: np.ndarray, start: int = 0) -> None:
    """Raises CheckError at the first cycle from ``start`` on in which the netlist's outputs are not the RTL's."""
    wrong = np.flatnonzero((rtl[start:] != gates[start:]).any(axis=1))
    if len(wrong):
        raise CheckError(
            f"{block}: outputs of the netlist must be those of the RTL, but differ in cycle {wrong[0] + start}"
        )
