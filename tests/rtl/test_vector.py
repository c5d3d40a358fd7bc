"""Vector unit: random instructions under random stalls, faults, throughput."""

import functools

import pytest

from ternbin.contract.hw import HwConfig
from ternbin.rtl.vector.vector import VectorUnit
from ternbin.rtl.verilog.shared import shared_verilog
from ternbin.sim.bench import run_bench, to_verilog

SMALL = {
    "rows": 4,
    "cols": 2,
    "lanes": 16,
    "axi_data_bits": 32,
    "abuf_words": 512,
    "rbuf_words": 256,
    "sbuf_words": 128,
    "pbuf_words": 64,
}
CONFIGS = {
    "ternary": SMALL,
    "binary": SMALL | {"kind": "binary", "lanes": 32, "cols": 4},
    "wide": SMALL
    | {"rows": 8, "lanes": 16, "cols": 1, "res_bits": 20, "acc_bits": 32, "axi_data_bits": 32, "pbuf_words": 256},
    "beams": SMALL | {"beams": 4, "idbuf_words": 256},
    "narrow": SMALL | {"rows": 16, "lanes": 16, "res_bits": 8, "acc_bits": 16, "pbuf_words": 256},
}


OPS = ["LAYERNORM", "SOFTMAX", "QUANT", "EMBED"]


@functools.cache
def texts(config: str) -> dict[str, str]:
    hw = HwConfig(**CONFIGS[config])
    return to_verilog(VectorUnit(hw), "vector") | shared_verilog(hw)


# Of the benches under stalls, those beside random instructions.
MORE = {"ternary": ("bench_faults", "bench_table_bounds"), "binary": ("bench_faults",)}


def run(config: str, *benches: str, **parameters) -> None:
    run_bench(
        texts(config),
        "benches.vector",
        name="vector",
        testcase=benches,
        parameters={"hw": CONFIGS[config], "stall": 0.3, "count": 6, "ops": OPS} | parameters,
    )


@pytest.mark.parametrize(
    "config",
    [
        pytest.param("ternary", marks=pytest.mark.xdist_group("vector")),
        "binary",
        "beams",
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("wide", "narrow")),
    ],
)
def test_under_stalls(config):
    run(config, "bench_random", *MORE.get(config, ()))


@pytest.mark.xdist_group("vector")
def test_without_stalls():
    run("ternary", "bench_random", "bench_throughput", stall=0.0, count=4)
