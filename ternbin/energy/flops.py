"""Flip-flops of the array."""

from ternbin.contract.hw import HwConfig
from ternbin.energy import figures as tables
from ternbin.energy.lines import Precision


def array_flops(hw: HwConfig, precision: Precision) -> dict[str, int]:
    """Flip-flops of the array: elements (with row sums), operand registers."""
    if precision.whole:
        block = tables.block(precision.mac, hw.lanes)
        elements = hw.rows * hw.cols * hw.lanes // block["lanes"] * block["flip_flops"]["element"]
    else:
        elements = hw.rows * (hw.cols + 1) * 2 * hw.acc_bits
    operands = hw.lanes * (hw.rows * precision.weight_bits + hw.cols * precision.column_bits)
    return {"elements": int(elements / hw.step_cycles), "operands": int(operands / hw.step_cycles)}
