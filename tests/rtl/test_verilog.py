"""Generated Verilog: the same every time, clean under Verilator's lint and Yosys, and what the manifest says."""

import re
import shutil
import subprocess
import sys

import pytest

from ternbin.contract.hw import NAMED
from ternbin.rtl.verilog.convert import renumbered, without_idle_attributes, without_initial_values
from ternbin.rtl.verilog.generate import TOP, beside, generate, manifest
from ternbin.sim.toolchain import verilator

TINY = {
    "tiny": NAMED["tiny"],
    "one column": NAMED["micro"],
    "tiny-binary": NAMED["tiny-binary"],
    "beams": NAMED["tiny"].searching(3),
}


@pytest.fixture(scope="module", params=TINY)
def texts(request):
    return generate(TINY[request.param])


def write(folder, texts):
    for name, text in texts.items():
        (folder / name).write_text(text)


def test_lint(texts, tmp_path):
    """With the waivers that stand beside it."""
    waivers = beside(NAMED["tiny"])["lint.vlt"]
    write(tmp_path, texts | {"lint.vlt": waivers})
    command = [verilator().executable, "--lint-only", "-Wall", "--top-module", TOP, "lint.vlt", *texts]
    done = subprocess.run(
        command, cwd=tmp_path, env={"VERILATOR_ROOT": str(verilator().root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_zero_width_names_are_unused(texts):
    """A wire of zero bits is written [-1:0], which is two bits: it must not occur in any expression."""
    for module in texts[f"{TOP}.v"].split("endmodule"):
        for name in re.findall(r"(?:wire|reg) \[-1:0\] (\S+) ?;", module):
            assert len(re.findall(rf"(?<!\S){re.escape(name)}(?=\s)|{re.escape(name)};", module)) == 1, name


def test_yosys(texts, tmp_path):
    """Yosys reads everything, popcounts in their form for synthesis, and finds no loop, no undriven and no doubly driven wire."""
    pytest.importorskip("pyosys")
    write(tmp_path, texts)
    passes = [f"read_verilog -sv {name}" for name in texts] + [f"hierarchy -check -top {TOP}", "proc", "check -assert"]
    program = f"from pyosys import libyosys as ys\nd = ys.Design()\nfor p in {passes!r}: ys.run_pass(p, d)\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_every_block_is_evaluated_when_a_simulation_begins(texts):
    """Else a simulator that waits for a change never evaluates a block whose inputs have none (amaranth-lang/amaranth issue 1629)."""
    for module in "".join(texts.values()).split("endmodule"):
        for block in re.findall(r"  always @\* begin\n(.*?)\n  end\n", module, re.S):
            (waited,) = re.findall(r"if \((\\\$auto\$verilog_backend\S+) \) begin end", block)
            assert f"initial #0 {waited}  = 1;" in module


AWAKE = """
module tb;
  reg clk = 0, rst = 1;
  wire [7:0] out;
  integer unknown = 0;
  always #5 clk = ~clk;
  ternbin dut(.clk(clk), .rst(rst), {idle}, {named});
  initial begin
    repeat (20) @(posedge clk);
    rst <= 0;
    repeat (50) begin
      @(negedge clk);
      if (^{{{outputs}}} === 1'bx) unknown = unknown + 1;
    end
    $display("unknown %0d", unknown);
    $finish;
  end
endmodule
"""


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
def test_outputs_are_known_after_reset_in_a_simulator_of_four_states(texts, tmp_path):
    ports = [port for port in manifest(NAMED["tiny"])["ports"] if port["name"] not in ("clk", "rst")]
    valid = [port["name"] for port in ports if port["direction"] == "output" and port["bits"] == 1]
    bench = AWAKE.format(
        idle=", ".join(f".{port['name']}({port['bits']}'b0)" for port in ports if port["direction"] == "input"),
        named=", ".join(f".{name}({name})" for name in valid),
        outputs=", ".join(valid).replace("m_axi_wlast", "m_axi_wlast & m_axi_wvalid"),  # means nothing by itself
    ).replace("wire [7:0] out;", f"wire {', '.join(valid)};")
    write(tmp_path, texts | {"tb.v": bench})
    subprocess.run(["iverilog", "-g2012", "-s", "tb", "-o", "tb", "tb.v", *texts], cwd=tmp_path, check=True)
    done = subprocess.run(["vvp", "tb"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "unknown 0" in done.stdout


def test_same_text_every_time():
    assert generate.__wrapped__(NAMED["tiny"]) == generate(NAMED["tiny"])  # not what was kept


def test_unnamed_ports_are_numbered_in_order_of_appearance():
    """Not after cells of the netlist, whose numbers a change elsewhere moves."""
    text = r"module a (\port$120$0 , \port$120$1 , \port$7$0 ); b c (.\port$7$0 (\port$120$0 ), .x(port));"
    assert renumbered(text) == text.replace("$120$", "$0$").replace("$7$", "$1$")
    numbers = re.findall(r"\\port\$(\d+)", generate(NAMED["tiny"])[f"{TOP}.v"])
    assert 0 < max(map(int, numbers)) < len(set(numbers))


def test_manifest():
    hw = NAMED["tiny"]
    text, data = generate(hw)[f"{TOP}.v"], manifest(hw)
    for counter in data["counters"]:
        assert f"reg [{counter['bits'] - 1}:0] {counter['signal']} " in text
    for port in data["ports"]:
        bits = "" if port["bits"] == 1 else f"[{port['bits'] - 1}:0] "
        assert f"  {port['direction']} {bits}{port['name']};" in text
    for memory in data["memories"]:
        assert len(memory["instances"]) == memory["banks"]
        (module,) = re.findall(rf"module \\{TOP}\.{memory['name']} .*?endmodule", text, re.S)
        for instance in memory["instances"]:
            assert f" {instance.partition('.')[2]} (" in module
    assert [c["offset"] for c in data["counters"]] == list(range(0x400, 0x400 + 8 * len(data["counters"]), 8))


def test_initial_values():
    text = """
  reg [3:0] \\a.b  = 4'h0;
  reg c = 1'h1;
  reg \\$auto$verilog_backend.cc:1 = 0;
  initial begin
    m[0] = 2'h0;
  end
"""
    assert (
        without_initial_values(text)
        == """
  reg [3:0] \\a.b ;
  reg c ;
  reg \\$auto$verilog_backend.cc:1 = 0;
"""
    )


def test_attributes_of_nothing_are_dropped():
    """Yosys reads the reset below as one that is always there, and the register as unknown without it."""
    text = "  always @* begin\n    r = s;\n    (* full_case = 32'd1 *)\n    \n    if (rst) begin\n"
    assert without_idle_attributes(text) == "  always @* begin\n    r = s;\n    if (rst) begin\n"
    kept = "    (* full_case = 32'd1 *)\n    casez (x)\n"
    assert without_idle_attributes(kept) == kept


def test_every_attribute_has_its_statement(texts):
    assert not re.search(r"\*\) *\n *\n", "".join(texts.values()))


def test_no_register_has_an_initial_value(texts):
    """But those that start the blocks of a simulation."""
    found = re.findall(r"^ *reg .*=.*;$", "".join(texts.values()), re.M)
    assert all("$auto$verilog_backend" in line for line in found)
    assert not re.search(r"^  initial begin", "".join(texts.values()), re.M)
