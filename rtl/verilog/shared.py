"""Modules that are built once and used many times.

Amaranth makes one module of every submodule, so a 16 x 16 array would be 256 copies of the same text, and generation takes time for
each; of a module built once there is one text, and characterisation sees it as one block.
"""

import re

from amaranth.lib import wiring

from ternbin.contract.hw import HwConfig
from ternbin.rtl.array import array, pe
from ternbin.rtl.epilogue import epilogue
from ternbin.rtl.vector import layernorm, quant, softmax_lanes
from ternbin.rtl.verilog.convert import convert


def shared_parts(hw: HwConfig, fpga: bool = False) -> dict[str, wiring.Component]:
    """All that ``primitives.instance`` names in an accelerator, by module; the elements of the array first."""
    return {
        pe.PE_MODULE: pe.ProcessingElement(hw, fpga=fpga),
        pe.ROWSUM_MODULE: pe.RowSum(hw, fpga=fpga),
        softmax_lanes.EXP_LANE: softmax_lanes.ExpLane(hw),
        softmax_lanes.CODE_LANE: softmax_lanes.CodeLane(hw, fpga=fpga),
        layernorm.LANE: layernorm.Lane(hw, fpga=fpga),
        quant.QUANT_LANE: quant.QuantLane(hw, fpga=fpga),
        quant.EMBED_LANE: quant.EmbedLane(hw, fpga=fpga),
        epilogue.LANE: epilogue.Lane(hw, fpga=fpga),
        array.ROW_MODULE: array.Row(hw),
    }


def shared_verilog(hw: HwConfig, fpga: bool = False) -> dict[str, str]:
    """Verilog texts of ``shared_parts`` by file name.

    The elements of the array have a body for synthesis, which uses the primitives, and one for simulation.
    """
    parts = shared_parts(hw, fpga)
    texts = {
        name: f"{before}module {name}{body}endmodule\n"
        for before, name, body in re.findall(r"(.*?)module (\w+)(.*?)endmodule\n", convert(parts), re.S)
    }
    elements = (pe.PE_MODULE, pe.ROWSUM_MODULE)
    synthesis = "\n".join(texts[name] for name in elements)
    return {
        "ternbin_pe.v": f"`ifdef SYNTHESIS\n{synthesis}\n`else\n{pe.simulated(hw)}\n`endif\n",
        "ternbin_lanes.v": "\n".join(texts[name] for name in parts if name not in elements),
    }
