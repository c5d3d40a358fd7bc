"""LOAD and STORE: between rows of external memory and words on chip."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ternbin.contract.effects.access import READ, WRITE, Access, Effect, Fields, Rule, grid
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Instruction, Mem, Op
from ternbin.contract.memories import TABLES, ceil_div
from ternbin.contract.transfers import (
    LOADABLE,
    STORABLE,
    bank_words,
    beat_words,
    can_expand,
    external_rows,
    packs_trits,
    tile_rows,
    transfer_banks,
)

CARRIES = {
    Mem.WBUF: "weights",
    Mem.ABUF: "embedding",
    Mem.PBUF: "parameters",
    Mem.RBUF: "parameters",
    Mem.LUTV: "parameters",
    Mem.LUTX: "parameters",
}


def _any(conditions: Iterable[Any]) -> Any:
    result: Any = 0
    for condition in conditions:
        result = result | condition
    return result


def rules(hw: HwConfig, i: Fields, store: Any) -> list[Rule]:
    """``store``: it is a STORE, else a LOAD."""
    mem, inner, outer, expand, align = i["mem"], i["inner"], i["outer"], i["expand"], hw.axi_bytes - 1
    expandable = [own for own in LOADABLE if can_expand(hw, own)]
    fewer = [own for own in expandable if transfer_banks(hw, own, True) < transfer_banks(hw, own, False)]
    no_bank = _any((mem == own) & (i["bank"] >= transfer_banks(hw, own, False)) for own in LOADABLE)
    no_group = _any((mem == own) & (expand != 0) & (i["bank"] >= transfer_banks(hw, own, True)) for own in fewer)
    whole = _any((mem == own) & (inner & beat_words(hw, own, True) - 1 == 0) for own in expandable)
    part_tile = (i["bank"] != 0) | (outer & tile_rows(hw) - 1 != 0)
    return [
        Rule("mem must be a memory that is loaded or stored", _any(mem == own for own in LOADABLE) == 0),
        Rule("mem of a STORE must not be a table or the weights", store & (_any(mem == own for own in STORABLE) == 0)),
        Rule("bank must be one of the memory's", no_bank | no_group),
        Rule("inner must be positive", inner == 0),
        Rule("outer must be positive", outer == 0),
        Rule("dram must be aligned to the bus", i["dram"] & align != 0),
        Rule("stride must be aligned to the bus", i["stride"] & align != 0),
        Rule("dram must be an address of the bus", i["dram"] >> hw.axi_addr_bits != 0),
        Rule("expand must be of a LOAD of ternary code words in whole beats", (expand != 0) & (store | (whole == 0))),
        Rule("indirect must be of a LOAD", (i["indirect"] != 0) & store),
        Rule("packed trits must be whole row tiles", packs_trits(hw, mem, expand) & (store == 0) & part_tile),
    ]


def _on_chip(hw: HwConfig, i: Instruction, kind: int) -> Access:
    mem = Mem(i["mem"])
    rounds = ceil_div(i["bank"] + i["outer"], transfer_banks(hw, mem, bool(i["expand"])))
    return Access(mem, grid(i["addr"], (rounds * i["inner"], 1)), kind)


def _external(hw: HwConfig, i: Instruction, kind: int) -> list[Access]:
    outer, size = external_rows(hw, Mem(i["mem"]), i["inner"], i["outer"], bool(i["expand"]))
    if i["stride"] == size:
        spans = [(i["dram"], i["dram"] + size * outer)]
    else:
        spans = [(i["dram"] + o * i["stride"], i["dram"] + o * i["stride"] + size) for o in range(outer)]
    return [Access(None, np.array(span), kind) for span in spans]


def moves(hw: HwConfig, i: Instruction) -> tuple[str, int]:
    mem = Mem(i["mem"])
    rows, size = external_rows(hw, mem, i["inner"], i["outer"], bool(i["expand"]))
    return "writes" if i.op == Op.STORE else CARRIES.get(mem, "other_reads"), rows * size


def _load_touches(hw: HwConfig, i: Instruction) -> list[Access]:
    """Rows picked by IDBUF are constants and not listed."""
    words = _on_chip(hw, i, WRITE)
    if i["indirect"]:
        return [words, Access(Mem.IDBUF, grid(i["index"], (i["outer"], 1)), READ)]
    return [words, *_external(hw, i, READ)]


def _load_counts(hw: HwConfig, i: Instruction) -> dict[str, int]:
    mem = Mem(i["mem"])
    result = {"axi_load_beats": moves(hw, i)[1] // hw.axi_bytes}
    if mem not in TABLES:
        result[f"{mem.name.lower()}_writes"] = i["inner"] * i["outer"] * bank_words(hw, mem, bool(i["expand"]))
    if i["indirect"]:
        result["idbuf_reads"] = i["outer"]
    return result


def _store_counts(hw: HwConfig, i: Instruction) -> dict[str, int]:
    return {
        "axi_write_beats": moves(hw, i)[1] // hw.axi_bytes,
        f"{Mem(i['mem']).name.lower()}_reads": i["inner"] * i["outer"],
    }


LOAD = Effect(lambda hw, i: rules(hw, i, 0), _load_touches, _load_counts, moves)
STORE = Effect(
    lambda hw, i: rules(hw, i, 1),
    lambda hw, i: [_on_chip(hw, i, READ), *_external(hw, i, WRITE)],
    _store_counts,
    moves,
)
