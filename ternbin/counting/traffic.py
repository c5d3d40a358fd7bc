"""External bytes of a call by what they carry, from the transfers of its program."""

from collections import Counter
from dataclasses import dataclass

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES, Instruction, Mem, Op
from ternbin.contract.transfers import external_rows


@dataclass(frozen=True)
class Traffic:
    """External bytes of a call by what they carry; ``weights`` and ``embedding`` scale with the weight bits."""

    weights: int = 0
    embedding: int = 0
    parameters: int = 0
    program: int = 0
    other_reads: int = 0
    writes: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.embedding + self.parameters + self.program + self.other_reads + self.writes


_CARRIES = {
    Mem.WBUF: "weights",
    Mem.ABUF: "embedding",
    Mem.PBUF: "parameters",
    Mem.RBUF: "parameters",
    Mem.LUTV: "parameters",
    Mem.LUTX: "parameters",
}


def transfer_bytes(hw: HwConfig, instruction: Instruction) -> int:
    """Bytes on the bus of one LOAD or STORE, 0 for other operations."""
    if instruction.op not in (Op.LOAD, Op.STORE):
        return 0
    mem = Mem(instruction["mem"])
    rows, size = external_rows(hw, mem, instruction["inner"], instruction["outer"], bool(instruction["expand"]))
    return rows * size


def traffic(hw: HwConfig, instructions: list[Instruction], fetched: int) -> Traffic:
    """Bytes of these instructions' transfers; ``fetched`` instructions were read from memory."""
    sums: Counter[str] = Counter(program=fetched * INSTRUCTION_BYTES)
    for instruction in instructions:
        kind = "writes" if instruction.op == Op.STORE else _CARRIES.get(Mem(instruction["mem"]), "other_reads")
        sums[kind] += transfer_bytes(hw, instruction)
    return Traffic(**sums)
