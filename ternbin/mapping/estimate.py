"""About how long a call takes, from what each unit has to do: enough to tell which of two programs for it is the faster one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ternbin.contract.effects.gemm import column_planes
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Epilogue, Instruction, Kind, Mem, Op
from ternbin.contract.memories import ceil_div
from ternbin.contract.transfers import external_rows
from ternbin.mapping.schedule import Item

LOAD_CYCLES, GEMM_CYCLES, VECTOR_CYCLES = 40, 8, 60  # of an instruction that does nothing, about


@dataclass(frozen=True)
class Busy:
    """Cycles that units have to work for a call: the bus, the array and the vector unit; of these the array for attention and the vector
    unit for probabilities."""

    loads: int
    array: int
    vector: int
    attention: int
    softmax: int

    @property
    def stages(self) -> int:
        """Of the call, if array and vector unit work side by side on attention, then on the rest."""
        rest = max(self.array - self.attention, self.vector - self.softmax)
        return max(self.loads, max(self.attention, self.softmax) + rest)

    @property
    def overlapped(self) -> int:
        """Of the call, if all units work side by side."""
        return max(self.loads, self.array, self.vector)


def busy(hw: HwConfig, items: Sequence[Item], projections: Collection[str]) -> Busy:
    """``projections``: names of the ops that are multiplied along with attention."""
    loads = array = vector = attention = softmax = 0
    for item in items:
        i = item.instruction
        if i.op == Op.LOAD:
            loads += LOAD_CYCLES + _beats(hw, i)
        elif i.op == Op.GEMM:
            steps = GEMM_CYCLES + _steps(hw, i)
            array += steps
            attention += steps if i["row_kbuf"] or item.op in projections else 0
            softmax += i["row_tiles"] * i["col_tiles"] if i["epilogue"] == Epilogue.SCORES else 0  # both write SBUF
        elif i.op == Op.SOFTMAX:
            softmax += VECTOR_CYCLES + i["queries"] * ceil_div(i["keys"], hw.rows)
        elif i.op != Op.STORE:
            vector += VECTOR_CYCLES + _words(i)
    return Busy(loads, array, vector + softmax, attention, softmax)


def _beats(hw: HwConfig, i: Instruction) -> int:
    rows, size = external_rows(hw, Mem(i["mem"]), i["inner"], i["outer"], bool(i["expand"]))
    return rows * size // hw.axi_bytes


def _steps(hw: HwConfig, i: Instruction) -> int:
    return i["row_tiles"] * i["col_tiles"] * i["chunks"] * i["row_planes"] * column_planes(hw, i)


def _words(i: Instruction) -> int:
    each = {Op.LAYERNORM: 2, Op.QUANT: 8 if i["kind"] in (Kind.INT8, Kind.UINT8) else 1}
    return i["tokens"] * i["words"] * each.get(i.op, 1)
