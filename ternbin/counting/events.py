"""Event counters of a program without simulating it: what the hardware counts, from the fields of the instructions.

Everything that follows from the instructions alone is exact. Cycles and the cycles in which a unit is busy follow from when
instructions start and are done, which the cycle model says. Stalls, waits and saturations are not here: they depend on timing and values.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from ternbin.contract.counters import COUNTERS, TABLES
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES, UNIT_OF, Dest, Epilogue, Instruction, Kind, Mem, Op, Unit
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.contract.program import Program
from ternbin.contract.transfers import bank_words
from ternbin.counting.cycles import CallPrediction
from ternbin.counting.cycles.call import INTERRUPT
from ternbin.counting.traffic import transfer_bytes


def instruction_events(hw: HwConfig, i: Instruction) -> dict[str, int]:
    """Counter name -> what one instruction adds to it; also ``steps_single_plane`` and ``columns_single_plane``: the array's steps and
    columns with whole codes instead of bit planes. END adds nothing."""
    if i.op == Op.END:
        return {}
    part = {
        Op.LOAD: _load,
        Op.STORE: _store,
        Op.GEMM: _gemm,
        Op.LAYERNORM: _layernorm,
        Op.SOFTMAX: _softmax,
        Op.QUANT: _quant,
        Op.EMBED: _embed,
    }[i.op](hw, i)
    return {f"{UNIT_OF[i.op].name.lower()}_instructions": 1} | part


def _memory(mem: int) -> str:
    return Mem(mem).name.lower()


def _load(hw: HwConfig, i: Instruction) -> dict[str, int]:
    words = i["inner"] * i["outer"] * bank_words(hw, Mem(i["mem"]))
    result = {"axi_load_beats": transfer_bytes(hw, i) // hw.axi_bytes}
    if i["mem"] not in TABLES:
        result[f"{_memory(i['mem'])}_writes"] = words
    if i["indirect"]:
        result["idbuf_reads"] = i["outer"]
    return result


def _store(hw: HwConfig, i: Instruction) -> dict[str, int]:
    return {
        "axi_write_beats": transfer_bytes(hw, i) // hw.axi_bytes,
        f"{_memory(i['mem'])}_reads": i["inner"] * i["outer"],
    }


def _code_writes(kind: int) -> int:
    """Writes that a column or granule of codes takes."""
    return 8 if kind in (Kind.INT8, Kind.UINT8) else 1


def _gemm(hw: HwConfig, i: Instruction) -> dict[str, int]:
    single = i["row_tiles"] * i["chunks"]
    steps, columns, pairs = single * i["col_tiles"], single * i["tokens"], i["row_planes"] * i["col_planes"]
    epilogue, drained = Epilogue(i["epilogue"]), i["row_tiles"] * i["tokens"]
    result = {
        "steps_single_plane": steps,
        "columns_single_plane": columns,
        "execute_array_active": steps * pairs,
        "execute_array_columns": columns * pairs,
        "execute_rowsum_active": steps * i["rowsum"],
        ("kbuf" if i["row_kbuf"] else "wbuf") + "_reads": steps * pairs * hw.rows,
        "abuf_reads": columns * pairs,
        f"execute_drained_{'argmax' if epilogue == Epilogue.TOP else epilogue.name.lower()}": drained,
    }
    if epilogue == Epilogue.SCORES:
        return result | {"sbuf_writes": drained}
    words = i["thresholds"] if epilogue == Epilogue.CODES else SCALE_WORDS
    result["pbuf_reads"] = words * (i["row_tiles"] if i["param_stride"] else 1)
    if epilogue == Epilogue.RESIDUAL:
        return result | {"rbuf_reads": drained, "rbuf_writes": drained}
    if epilogue == Epilogue.ARGMAX:
        return result | {"idbuf_writes": i["tokens"] * i["last"]}
    if epilogue == Epilogue.TOP:
        return result | {"idbuf_writes": hw.result_words // hw.beams * i["tokens"] * i["last"]}
    written = drained * _code_writes(i["kind"])
    if i["dest"] == Dest.TOKENS:
        return result | {"abuf_writes": written}
    return result | {"kbuf_writes": written * (hw.rows if i["dest"] == Dest.TRANSPOSED else 1)}


def _layernorm(hw: HwConfig, i: Instruction) -> dict[str, int]:
    words = i["tokens"] * i["words"]
    return {
        "vector_ln_sum_words": words,
        "vector_ln_norm_words": words,
        "vector_ln_rsqrt": i["tokens"],
        "rbuf_reads": 2 * words,
        "rbuf_writes": words,
        "pbuf_reads": SCALE_WORDS * i["words"] * ceil_div(i["tokens"], 4),  # four tokens share the parameters
    }


def _softmax(hw: HwConfig, i: Instruction) -> dict[str, int]:
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
        **_granules(i, granules),
    }


def _quant(hw: HwConfig, i: Instruction) -> dict[str, int]:
    words = i["tokens"] * i["words"]
    return {"vector_quant_words": words, "rbuf_reads": words, **_granules(i, words)}


def _granules(i: Instruction, count: int) -> dict[str, int]:
    writes = _code_writes(i["kind"])
    return {"abuf_writes": count * writes, "vector_plane_writes": count * writes * (writes > 1)}


def _embed(hw: HwConfig, i: Instruction) -> dict[str, int]:
    words = i["tokens"] * i["words"]
    codes = i["tokens"] * ceil_div(i["words"] * hw.rows, hw.lanes)
    return {
        "vector_embed_words": words,
        "rbuf_reads": words,
        "rbuf_writes": words,
        "abuf_reads": codes,
        "pbuf_reads": i["tokens"],
    }


# ---- calls ----------------------------------------------------------------------------------------------------------


def add(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Sums by name."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def busy(spans: Sequence[tuple[int, int]]) -> int:
    """Cycles in which a unit has work, from (start, done) of its instructions in order: from the cycle after an instruction's
    issue to the one in which it is done."""
    total = reached = 0
    for start, done in spans:
        total += max(0, done - max(start, reached))
        reached = max(reached, done)
    return total


def call_events(
    program: Program, number: int, timing: CallPrediction, instructions: Sequence[Instruction]
) -> dict[str, int]:
    """All counters of a call that are known without simulation; those of TIMED as exact as ``timing``. ``instructions``: the call's."""
    units = [UNIT_OF.get(i.op) for i in instructions]
    times = list(zip(timing.start.tolist(), timing.done.tolist(), strict=True))
    spans = {unit: [time for time, own in zip(times, units, strict=True) if own == unit] for unit in Unit}
    timed = {f"{unit.name.lower()}_busy": busy(own) for unit, own in spans.items()}
    timed |= {
        "cycles": timing.cycles - INTERRUPT,
        "axi_fetch_beats": timing.fetched * INSTRUCTION_BYTES // program.hw.axi_bytes,
    }
    counted = add(instruction_events(program.hw, i) for i in instructions)
    return dict.fromkeys(COUNTERS, 0) | counted | timed
