"""External bytes of a call by what they carry, from the transfers of its program."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ternbin.contract.effects.table import moves
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES, Instruction


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


def traffic(hw: HwConfig, instructions: Iterable[Instruction], fetched: int) -> Traffic:
    """Bytes that these instructions move; ``fetched`` instructions were read from memory."""
    sums: Counter[str] = Counter(program=fetched * INSTRUCTION_BYTES)
    for instruction in instructions:
        moved = moves(hw, instruction)
        if moved is not None:
            sums[moved[0]] += moved[1]
    return Traffic(**sums)
