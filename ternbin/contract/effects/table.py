"""The effects of all operations. END has none."""

from ternbin.contract.counters import CODE_WORDS, single_plane
from ternbin.contract.effects import gemm, transfer, vector
from ternbin.contract.effects.access import Access, Effect
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import UNIT_OF, Instruction, Op
from ternbin.contract.transfers import transfer_words

EFFECTS: dict[Op, Effect] = {
    Op.LOAD: transfer.LOAD,
    Op.STORE: transfer.STORE,
    Op.GEMM: gemm.GEMM,
    Op.LAYERNORM: vector.LAYERNORM,
    Op.SOFTMAX: vector.SOFTMAX,
    Op.QUANT: vector.QUANT,
    Op.EMBED: vector.EMBED,
}
_STARTED = {op: f"{unit.name.lower()}_instructions" for op, unit in UNIT_OF.items()}


def broken_rule(hw: HwConfig, i: Instruction) -> str | None:
    """The first rule that the fields break, for which the core refuses the instruction with FIELD; None for a legal one."""
    if i.op == Op.END:
        return None
    return next((rule.must for rule in EFFECTS[i.op].rules(hw, i) if rule.broken), None)


def touches(hw: HwConfig, i: Instruction) -> list[Access]:
    """Everything a legal instruction reads and writes, at word granularity. Rows picked by IDBUF are constants and not listed."""
    return [] if i.op == Op.END else EFFECTS[i.op].touches(hw, i)


def out_of_range(hw: HwConfig, i: Instruction) -> str | None:
    """The first word that a legal instruction touches and its memory has not, for which the core stops with ADDRESS; None if none."""
    for access in touches(hw, i):
        if access.mem is not None and access.words.size:
            last, limit = int(access.words.max()), transfer_words(hw, access.mem)
            if last >= limit:
                return f"{access.mem.name} word {last} of {limit}"
    return None


def counts(hw: HwConfig, i: Instruction) -> dict[str, int]:
    """Counter -> what a legal instruction adds to it, also those of ``counters.SINGLE_PLANE``. END adds nothing."""
    if i.op == Op.END:
        return {}
    own = EFFECTS[i.op].counts(hw, i)
    whole = {
        single_plane(name): own[name] for name in CODE_WORDS if name in own
    }  # where the operation knows of no planes
    return {_STARTED[i.op]: 1} | whole | own


def moves(hw: HwConfig, i: Instruction) -> tuple[str, int] | None:
    """What a LOAD or STORE carries over the bus, a field of ``counting.traffic.Traffic``, and its bytes; None of other operations."""
    own = None if i.op == Op.END else EFFECTS[i.op].moves
    return None if own is None else own(hw, i)
