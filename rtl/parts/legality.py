"""Who refuses an instruction: the rules of ``contract.effects`` on hardware values."""

from collections.abc import Iterable

from amaranth.hdl import Cat, Value

from ternbin.contract.effects.access import Rule
from ternbin.contract.effects.table import EFFECTS
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Op
from ternbin.rtl.parts.arithmetic import fields_of


def any_broken(rules: Iterable[Rule]) -> Value:
    """1 where one of ``rules`` is broken."""
    return Cat(Value.cast(rule.broken).any() for rule in rules).any()


def impossible(hw: HwConfig, instruction: Value, *ops: Op) -> Value:
    """1 for an ``instruction`` that is none of ``ops`` or breaks a rule of its operation."""
    opcode = instruction[:8]
    mine = {op: opcode == op for op in ops}
    broken = [own & any_broken(EFFECTS[op].rules(hw, fields_of(instruction, op))) for op, own in mine.items()]
    return ~Cat(mine.values()).any() | Cat(broken).any()
