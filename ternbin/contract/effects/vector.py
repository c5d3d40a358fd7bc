"""The operations of the vector unit: LAYERNORM, SOFTMAX, QUANT, EMBED."""

import numpy as np

from ternbin.contract.effects.access import (
    READ,
    WRITE,
    Access,
    Effect,
    Fields,
    Rule,
    abuf_words,
    grid,
    misplaced,
    no_ternary,
    planes,
)
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Instruction, Kind, Mem
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import NORM_GROUP, SCALE_WORDS


def _rows_rules(hw: HwConfig, i: Fields) -> list[Rule]:
    """Of ``tokens`` rows of ``words`` residual words, of which ``features`` elements count."""
    words = i["features"] + (hw.rows - 1) >> (hw.rows - 1).bit_length()
    return [
        Rule("tokens must be positive", i["tokens"] == 0),
        Rule("features must be positive", i["features"] == 0),
        Rule("features must end in the last of the words", words != i["words"]),
    ]


def _rows(i: Instruction, side: str, kind: int) -> Access:
    return Access(Mem.RBUF, grid(i[f"{side}_addr"], (i["tokens"], i[f"{side}_stride"]), (i["words"], 1)), kind)


def _codes(hw: HwConfig, i: Instruction, tokens: int, granules: int) -> Access:
    """Code words of ``tokens`` tokens that are written granule by granule."""
    words, each = (ceil_div(granules * hw.rows, hw.lanes), 1), (planes(i["kind"]), i["dst_plane"])
    return Access(Mem.ABUF, grid(i["dst_addr"], (ceil_div(tokens, hw.cols), i["dst_stride"]), words, each), WRITE)


def _code_rules(hw: HwConfig, i: Fields) -> list[Rule]:
    eight_bit = (i["kind"] == Kind.INT8) | (i["kind"] == Kind.UINT8)
    return [
        Rule("kind must be one of the array", no_ternary(hw, i["kind"])),
        *misplaced(hw, eight_bit, i["dst_plane"]),
    ]


def _code_counts(hw: HwConfig, i: Instruction, granules: int) -> dict[str, int]:
    writes = planes(i["kind"])
    return abuf_words(hw, "writes", granules, writes) | {"vector_plane_writes": granules * writes * (writes > 1)}


# ---- LAYERNORM --------------------------------------------------------------------------------------------------------


def _layernorm_rules(hw: HwConfig, i: Fields) -> list[Rule]:
    return [*_rows_rules(hw, i), Rule("eps must be positive", i["eps"] == 0)]


def _layernorm_touches(hw: HwConfig, i: Instruction) -> list[Access]:
    params = Access(Mem.PBUF, grid(i["param_addr"], (SCALE_WORDS * i["words"], 1)), READ)
    return [_rows(i, "src", READ), params, _rows(i, "dst", WRITE)]


def _layernorm_counts(hw: HwConfig, i: Instruction) -> dict[str, int]:
    words = i["tokens"] * i["words"]
    return {
        "vector_ln_sum_words": words,
        "vector_ln_norm_words": words,
        "vector_ln_rsqrt": i["tokens"],
        "rbuf_reads": 2 * words,
        "rbuf_writes": words,
        "pbuf_reads": SCALE_WORDS * i["words"] * ceil_div(i["tokens"], NORM_GROUP),
    }


# ---- SOFTMAX ----------------------------------------------------------------------------------------------------------


def _softmax_rules(hw: HwConfig, i: Fields) -> list[Rule]:
    queries, keys, causal = i["queries"], i["keys"], i["causal"]
    covered = i["granules"] << (hw.rows - 1).bit_length()
    return [
        Rule("queries must be positive", queries == 0),
        Rule("keys must be positive", keys == 0),
        Rule("granules must cover the keys", keys > covered),
        Rule("granules must cover the keys of the last query", causal & (keys + queries > covered + 1)),
        Rule("masked must be with beams, and not causal", i["masked"] & (causal | (hw.beams == 1))),
        Rule("kind must be TERNARY, BINARY or UINT8", i["kind"] == Kind.INT8),
        *_code_rules(hw, i),
    ]


def _softmax_touches(hw: HwConfig, i: Instruction) -> list[Access]:
    words = ceil_div(i["keys"] + (i["queries"] - 1 if i["causal"] else 0), hw.rows)
    scores = grid(i["src_addr"], (ceil_div(i["queries"], hw.cols), i["src_stride"]), (words, 1))
    return [
        Access(Mem.PBUF, grid(i["mask_addr"], (words * i["masked"], 1)), READ),
        Access(Mem.SBUF, scores, READ),
        Access(Mem.SBUF, scores, WRITE),
        Access(Mem.LUTV, np.zeros(1, dtype=np.int64), READ),
        _codes(hw, i, i["queries"], i["granules"]),
    ]


def _softmax_counts(hw: HwConfig, i: Instruction) -> dict[str, int]:
    """Each of three passes reads the words that hold valid keys; the second writes them, the last one all granules."""
    words = sum(ceil_div(i["keys"] + i["causal"] * query, hw.rows) for query in range(i["queries"]))
    granules = i["queries"] * i["granules"]
    return {
        "vector_softmax_max_words": words,
        "vector_softmax_exp_words": words,
        "vector_softmax_code_words": granules,
        "sbuf_reads": 3 * words,
        "sbuf_writes": words,
        "pbuf_reads": 2 * words * i["masked"],
        "vector_divides": i["queries"] * (i["kind"] == Kind.UINT8),
        **_code_counts(hw, i, granules),
    }


# ---- QUANT ------------------------------------------------------------------------------------------------------------


def _quant_rules(hw: HwConfig, i: Fields) -> list[Rule]:
    return [
        *_rows_rules(hw, i),
        Rule("kind must be TERNARY, BINARY or INT8", i["kind"] == Kind.UINT8),
        *_code_rules(hw, i),
    ]


def _quant_counts(hw: HwConfig, i: Instruction) -> dict[str, int]:
    words = i["tokens"] * i["words"]
    return {"vector_quant_words": words, "rbuf_reads": words, **_code_counts(hw, i, words)}


# ---- EMBED ------------------------------------------------------------------------------------------------------------


def _embed_touches(hw: HwConfig, i: Instruction) -> list[Access]:
    words = (ceil_div(i["features"], hw.lanes), 1)
    codes = grid(i["src_addr"], (ceil_div(i["tokens"], hw.cols), i["src_stride"]), words)
    scales = grid(i["scale_addr"], (i["tokens"], 1))
    return [Access(Mem.ABUF, codes, READ), Access(Mem.PBUF, scales, READ), _rows(i, "dst", WRITE)]


def _embed_counts(hw: HwConfig, i: Instruction) -> dict[str, int]:
    words = i["tokens"] * i["words"]
    return {
        "vector_embed_words": words,
        "rbuf_reads": words,
        "rbuf_writes": words,
        "abuf_reads": i["tokens"] * ceil_div(i["words"] * hw.rows, hw.lanes),
        "pbuf_reads": i["tokens"],
    }


LAYERNORM = Effect(_layernorm_rules, _layernorm_touches, _layernorm_counts)
SOFTMAX = Effect(_softmax_rules, _softmax_touches, _softmax_counts)
QUANT = Effect(
    _quant_rules, lambda hw, i: [_rows(i, "src", READ), _codes(hw, i, i["tokens"], i["words"])], _quant_counts
)
EMBED = Effect(_rows_rules, _embed_touches, _embed_counts)
