"""Finding tools, and the cache of compiled models."""

import subprocess
import sys
from pathlib import Path

import pytest

from ternbin.errors import MissingToolError
from ternbin.sim import toolchain
from ternbin.sim.bench import top_ports
from ternbin.sim.toolchain import BuildError, ModelSpec, compile_model

COUNTER = """module counter(input clk, output reg [7:0] n);
    always @(posedge clk) n <= n + 1;
endmodule
"""
MAIN = """#include "Vtop.h"
#include "verilated.h"
#include <cstdio>
int main() {
    VerilatedContext context;
    Vtop top{&context};
    for (int i = 0; i < 10; i++) { top.clk = 0; top.eval(); top.clk = 1; top.eval(); }
    std::printf("%d", top.n);
}
"""


def spec(verilog: str = COUNTER, cxx: tuple[str, ...] = (), **options) -> ModelSpec:
    return ModelSpec(
        verilog={"counter.v": verilog},
        top="counter",
        control="`verilator_config\n",
        cpp={"main.cpp": MAIN},
        output="counter",
        cxx_flags=("-DVL_TIME_CONTEXT", *cxx),
        fast="-O0",
        **options,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TERNBIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.build
def test_builds_once_when_two_start_together(cache):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_toolchain as t; print(t.compile_model(t.spec(), print))"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [job.communicate()[0].splitlines() for job in jobs]
    assert sorted(len(lines) for lines in outputs) == [1, 2]  # one of them built, and said so
    assert {lines[-1] for lines in outputs} == {str(cache / spec().fingerprint / "counter")}
    assert subprocess.run([outputs[0][-1]], capture_output=True, text=True).stdout == "10"
    assert not list(cache.glob("build-*"))


@pytest.mark.build
def test_builds_where_a_path_has_spaces(tmp_path, monkeypatch):
    """The cache, and the environment that Verilator is installed in; with and without compiled headers."""
    root = tmp_path / "my environment" / "verilator"
    root.parent.mkdir()
    root.symlink_to(toolchain.verilator().root)
    found = toolchain.Verilator(executable=toolchain.verilator().executable, root=root, version="here")
    monkeypatch.setattr(toolchain, "verilator", lambda: found)
    monkeypatch.setenv("TERNBIN_CACHE", str(tmp_path / "first last" / "cache"))
    for headers in ((), ("memory", "verilated.h")):
        for step in ("+ 1", "+ 2"):  # the second finds the run time of the first
            path = compile_model(spec(COUNTER.replace("+ 1", step), headers=headers))
            assert subprocess.run([path], capture_output=True, text=True).stdout == str(10 * int(step[2:]))


def test_code_for_the_processor_at_hand_is_kept_for_it_alone(monkeypatch):
    native, plain = spec(cxx=(toolchain.NATIVE,)), spec()
    here = native.fingerprint, plain.fingerprint, toolchain._runtime(native), toolchain._runtime(plain)
    monkeypatch.setattr(toolchain, "processor", lambda: "another")
    there = native.fingerprint, plain.fingerprint, toolchain._runtime(native), toolchain._runtime(plain)
    assert [a == b for a, b in zip(here, there, strict=True)] == [False, True, False, True]


def test_the_processor_is_what_the_compiler_makes_of_native(monkeypatch, tmp_path):
    """Another answer of the compiler to -march=native, as on another machine, is another processor."""
    here = toolchain.processor()
    assert here == toolchain.processor.__wrapped__()
    fake = tmp_path / "g++"
    fake.write_text('#!/bin/sh\necho "#define __AVX512F__ 1"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert toolchain.processor.__wrapped__() != here


def test_fingerprint_covers_sources_and_flags():
    prints = {
        s.fingerprint
        for s in (spec(), spec(COUNTER.replace("+ 1", "+ 2")), spec(slow="-O1"), spec(verilator_flags=("-O0",)))
    }
    assert len(prints) == 4 and spec().fingerprint == spec().fingerprint


def test_broken_verilog_says_where(cache):
    with pytest.raises(BuildError, match=r"(?s)verilator failed.*counter\.v:2"):
        compile_model(spec(COUNTER.replace("<=", "<")))
    assert not list(cache.glob("build-*"))


@pytest.mark.parametrize(
    "tool, message",
    [
        ("g++", r"g\+\+ must be on PATH: install it, for example with: apt-get install g\+\+"),
        ("make", "make must be on PATH: install it, for example with: apt-get install make"),
    ],
)
def test_missing_tool(monkeypatch, tmp_path, tool, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=message):
        toolchain._tool(tool, tool)


def test_system_verilator_must_be_new_enough(monkeypatch, tmp_path):
    fake = tmp_path / "verilator"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for version, found in (
        ("5.006 2023-01-22", False),
        ("5.036 2025-04-27", True),
        ("6.001 2030-01-01", True),
        ("", False),
    ):
        fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Verilator {version} || echo /some/root\n')
        fake.chmod(0o755)
        assert (toolchain._system_verilator() is not None) == found


def test_top_ports():
    text = "module a(x);\n  input x;\nendmodule\nmodule b(c, d);\n  input [3:0] c;\n  output reg signed [1:0] d;\nendmodule\n"
    assert top_ports(text, "b") == {"c": "input [3:0]", "d": "output [1:0]"}
