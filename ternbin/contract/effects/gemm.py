"""GEMM: products of the array, and what its epilogues do with them."""

from typing import Any

import numpy as np

from ternbin.contract.counters import COLUMNS, STEPS
from ternbin.contract.effects.access import (
    READ,
    WRITE,
    Access,
    Effect,
    Fields,
    Rule,
    abuf_words,
    code_words,
    grid,
    misplaced,
    no_ternary,
    planes,
)
from ternbin.contract.hw import BYTE_PLANES, HwConfig
from ternbin.contract.isa import Dest, Epilogue, Instruction, Kind, Mem
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import SCALE_WORDS

MAX_THRESHOLDS = 4
TOP_SHIFT_BITS = 4  # of the shift of TOP


def _neither(value: Any, one: int, other: int) -> Any:
    return (value != one) & (value != other)


def rules(hw: HwConfig, i: Fields) -> list[Rule]:
    tokens, epilogue, kind = i["tokens"], i["epilogue"], i["kind"]
    codes, codes8 = epilogue == Epilogue.CODES, epilogue == Epilogue.CODES8
    single = (i["row_planes"] == 1) & (i["col_planes"] == 1)
    tiles = tokens + (hw.cols - 1) >> (hw.cols - 1).bit_length()
    result = [
        Rule("chunks must be positive", i["chunks"] == 0),
        Rule("row_tiles must be positive", i["row_tiles"] == 0),
        Rule("tokens must be positive", tokens == 0),
        Rule("tokens must end in the last of col_tiles", tiles != i["col_tiles"]),
        Rule("row_planes must be 1 or 8", _neither(i["row_planes"], 1, 8)),
        Rule("col_planes must be 1 or 8", _neither(i["col_planes"], 1, 8)),
        Rule("a single plane of rows must not be signed", i["row_signed"] & (i["row_planes"] == 1)),
        Rule("a single plane of columns must not be signed", i["col_signed"] & (i["col_planes"] == 1)),
        Rule("rowsum must be of single planes", i["rowsum"] & (single == 0)),
        Rule("epilogue must be one that there is", epilogue > (Epilogue.TOP if hw.beams > 1 else Epilogue.ARGMAX)),
        Rule("dest of codes must be one that there is", (codes | codes8) & (i["dest"] > max(Dest))),
        Rule("lane of codes must be a multiple of rows", (codes | codes8) & (i["lane"] & hw.rows - 1 != 0)),
        Rule("kind of CODES must be TERNARY or BINARY", codes & _neither(kind, Kind.TERNARY, Kind.BINARY)),
        Rule("kind of CODES must be one of the array", codes & no_ternary(hw, kind)),
        Rule(
            f"thresholds must be 1 to {MAX_THRESHOLDS}",
            codes & ((i["thresholds"] == 0) | (i["thresholds"] > MAX_THRESHOLDS)),
        ),
        Rule("kind of CODES8 must be INT8 or UINT8", codes8 & _neither(kind, Kind.INT8, Kind.UINT8)),
        Rule("tokens of ARGMAX must fit one column tile", (epilogue == Epilogue.ARGMAX) & (i["col_tiles"] != 1)),
        Rule(
            "residual rows must not overlap",
            (epilogue == Epilogue.RESIDUAL) & (tokens != 1) & (i["dst_stride"] < i["row_tiles"]),
        ),
    ]
    result += misplaced(hw, i["col_planes"] == BYTE_PLANES, i["col_plane"])
    result += misplaced(hw, codes8 & (i["dest"] == Dest.TOKENS), i["dst_plane"])
    if hw.beams > 1:
        top = epilogue == Epilogue.TOP
        result += [
            Rule("tokens of TOP must be at most the beams", top & (tokens > hw.beams)),
            Rule(f"shift of TOP must be below {1 << TOP_SHIFT_BITS}", top & (i["shift"] >> TOP_SHIFT_BITS != 0)),
        ]
    return result


def _operand(i: Instruction, mem: Mem, side: str, tiles: int) -> Access:
    axes = (tiles, i[f"{side}_stride"]), (i[f"{side}_planes"], i[f"{side}_plane"]), (i["chunks"], 1)
    return Access(mem, grid(i[f"{side}_addr"], *axes), READ)


def _columns(hw: HwConfig, i: Instruction) -> Access:
    """An array that reads whole 8-bit codes looks for one plane, too, where the first of eight lies."""
    if not hw.whole_columns:
        return _operand(i, Mem.ABUF, "col", i["col_tiles"])
    axes = (i["col_tiles"], i["col_stride"]), (BYTE_PLANES, hw.plane_words), (i["chunks"], 1)
    return Access(Mem.ABUF, grid(i["col_addr"], *axes), READ)


def column_planes(hw: HwConfig, i: Instruction) -> int:
    """Planes of columns' codes that take steps of their own."""
    return 1 if hw.whole_columns else i["col_planes"]


def result_words(hw: HwConfig, i: Instruction) -> int:
    """Words of IDBUF that ARGMAX or TOP writes."""
    each = 1 if i["epilogue"] == Epilogue.ARGMAX else hw.result_words // hw.beams
    return each * i["tokens"] * i["last"]


def _parameters(i: Instruction) -> int:
    """Parameter words of a row tile."""
    return {Epilogue.CODES: i["thresholds"], Epilogue.SCORES: 0}.get(Epilogue(i["epilogue"]), SCALE_WORDS)


def touches(hw: HwConfig, i: Instruction) -> list[Access]:
    rows = _operand(i, Mem.KBUF if i["row_kbuf"] else Mem.WBUF, "row", i["row_tiles"])
    result = [rows, _columns(hw, i)]
    if i["epilogue"] != Epilogue.SCORES:
        axes = (i["row_tiles"], i["param_stride"]), (_parameters(i), 1)
        result.append(Access(Mem.PBUF, grid(i["param_addr"], *axes), READ))
    return result + _results(hw, i)


def _results(hw: HwConfig, i: Instruction) -> list[Access]:
    epilogue, tiles = Epilogue(i["epilogue"]), (i["row_tiles"], 1)
    if epilogue == Epilogue.RESIDUAL:
        return [Access(Mem.RBUF, grid(i["dst_addr"], (i["tokens"], i["dst_stride"]), tiles), WRITE)]
    if epilogue == Epilogue.SCORES:
        return [Access(Mem.SBUF, grid(i["dst_addr"], (i["col_tiles"], i["dst_stride"]), tiles), WRITE)]
    if epilogue in (Epilogue.ARGMAX, Epilogue.TOP):
        return [Access(Mem.IDBUF, grid(i["dst_addr"], (result_words(hw, i), 1)), WRITE)]
    table = [Access(Mem.LUTX, np.zeros(1, dtype=np.int64), READ)] if i["lut"] else []
    return [_code_writes(hw, i), *table]


def _code_writes(hw: HwConfig, i: Instruction) -> Access:
    each = planes(i["kind"]), i["dst_plane"]
    if i["dest"] == Dest.TRANSPOSED:
        first, last = i["key"] // hw.lanes, (i["key"] + i["tokens"] - 1) // hw.lanes
        words = grid(i["dst_addr"] + first, (i["row_tiles"], i["dst_stride"]), (last - first + 1, 1), each)
        return Access(Mem.KBUF, words, WRITE)
    lanes = ceil_div(i["lane"] % hw.lanes + i["row_tiles"] * hw.rows, hw.lanes)
    base = i["dst_addr"] + i["lane"] // hw.lanes
    if i["dest"] == Dest.TOKENS:
        return Access(Mem.ABUF, grid(base, (i["col_tiles"], i["dst_stride"]), (lanes, 1), each), WRITE)
    first, last = i["key"] // hw.rows, (i["key"] + i["tokens"] - 1) // hw.rows
    groups = last - first + 1, i["dst_stride"]
    return Access(Mem.KBUF, grid(base + first * i["dst_stride"], groups, (lanes, 1), each), WRITE)


def counts(hw: HwConfig, i: Instruction) -> dict[str, int]:
    single = i["row_tiles"] * i["chunks"]
    steps, columns, pairs = single * i["col_tiles"], single * i["tokens"], i["row_planes"] * column_planes(hw, i)
    epilogue, drained = Epilogue(i["epilogue"]), i["row_tiles"] * i["tokens"]
    result = {
        STEPS: steps,
        COLUMNS: columns,
        "execute_array_active": steps * pairs,
        "execute_array_columns": columns * pairs,
        "execute_rowsum_active": steps * i["rowsum"],
        **code_words(("kbuf" if i["row_kbuf"] else "wbuf") + "_reads", steps * hw.rows, pairs),
        **abuf_words(hw, "reads", columns, i["col_planes"], i["row_planes"]),
        f"execute_drained_{'argmax' if epilogue == Epilogue.TOP else epilogue.name.lower()}": drained,
    }
    if epilogue == Epilogue.SCORES:
        return result | {"sbuf_writes": drained}
    result["pbuf_reads"] = _parameters(i) * (i["row_tiles"] if i["param_stride"] else 1)
    if epilogue == Epilogue.RESIDUAL:
        return result | {"rbuf_reads": drained, "rbuf_writes": drained}
    if epilogue in (Epilogue.ARGMAX, Epilogue.TOP):
        return result | {"idbuf_writes": result_words(hw, i)}
    if i["dest"] == Dest.TOKENS:
        return result | abuf_words(hw, "writes", drained, planes(i["kind"]))
    words = drained * (hw.rows if i["dest"] == Dest.TRANSPOSED else 1)
    return result | code_words("kbuf_writes", words, planes(i["kind"]))


GEMM = Effect(rules, touches, counts)
