"""The whole accelerator at gate level, memories cut out: netlist, and replay of an RTL run recorded as VCD."""

from ternbin.gates.liberty import Library
from ternbin.gates.netlist import Netlist
from ternbin.gates.synthesis import synthesize
from ternbin.hw import HwConfig
from ternbin.rtl.generate import TOP, generate

RAM = "ternbin_ram"
_BLACK_BOX = """
(* blackbox *)
module ternbin_ram #(parameter DEPTH = 16, parameter WIDTH = 8, parameter ADDR = 4) (
    input clk, input ren, input [ADDR-1:0] raddr, output [WIDTH-1:0] rdata,
    input wen, input [ADDR-1:0] waddr, input [WIDTH-1:0] wdata, input [WIDTH-1:0] wmask);
endmodule
"""


def core_netlist(hw: HwConfig, library: Library) -> Netlist:
    """The mapped accelerator; ports of the memory banks are ports ``memory.bankN.port`` of it."""
    verilog = {**generate(hw), f"{RAM}.v": _BLACK_BOX}
    return synthesize(verilog, TOP, library, cut=(RAM,))
