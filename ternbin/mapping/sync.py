"""Tokens: which instruction waits for which, from the memory words and external bytes that instructions touch.

Instructions come in program order; every pair of conflicting accesses must happen in that order. Units complete in
order, so one wait covers everything before it on the other unit, and what that instruction itself had waited for.
Units may begin an instruction before they have completed the one before it. The execute unit then writes in order, and only
after all reads of earlier instructions: there, only a read of what an earlier instruction writes must wait.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import UNIT_OF, Dest, Epilogue, Instruction, Kind, Mem, Op, Unit
from ternbin.contract.memories import ceil_div, geometry
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.contract.transfers import external_rows, transfer_banks
from ternbin.errors import InputError

MAX_WAITING = 255  # what a token counter holds
READ, WRITE = 0, 1


@dataclass(frozen=True)
class Access:
    """Words of one memory, or for ``mem`` None bytes [words[0], words[1]) of external memory."""

    mem: Mem | None
    words: np.ndarray
    kind: int


def _grid(base: int, *axes: tuple[int, int]) -> np.ndarray:
    """Addresses ``base + sum of i*stride`` over all i of each axis (count, stride)."""
    total = np.array([base])
    for count, stride in axes:
        total = (total[:, None] + np.arange(count) * stride).reshape(-1)
    return total


# ---- what instructions touch ----------------------------------------------------------------------------------------


def accesses(hw: HwConfig, i: Instruction) -> list[Access]:
    """Everything an instruction reads and writes, at word granularity. Indirect rows are constants and not listed."""
    return {
        Op.END: lambda *_: [],
        Op.LOAD: _transfer,
        Op.STORE: _transfer,
        Op.GEMM: _gemm,
        Op.LAYERNORM: _layernorm,
        Op.SOFTMAX: _softmax,
        Op.QUANT: _quant,
        Op.EMBED: _embed,
    }[i.op](hw, i)


def _transfer(hw: HwConfig, i: Instruction) -> list[Access]:
    mem, load = Mem(i["mem"]), i.op == Op.LOAD
    rows = ceil_div(i["bank"] + i["outer"], transfer_banks(hw, mem))
    result = [Access(mem, _grid(i["addr"], (rows * i["inner"], 1)), WRITE if load else READ)]
    if i["indirect"]:
        return [*result, Access(Mem.IDBUF, _grid(i["index"], (i["outer"], 1)), READ)]
    outer, size = external_rows(hw, mem, i["inner"], i["outer"], bool(i["expand"]))
    if i["stride"] == size:
        spans = [(i["dram"], i["dram"] + size * outer)]
    else:
        spans = [(i["dram"] + o * i["stride"], i["dram"] + o * i["stride"] + size) for o in range(outer)]
    return result + [Access(None, np.array(span), READ if load else WRITE) for span in spans]


def _gemm(hw: HwConfig, i: Instruction) -> list[Access]:
    chunks = (i["chunks"], 1)
    result = [
        Access(
            Mem.KBUF if i["row_kbuf"] else Mem.WBUF,
            _grid(i["row_addr"], (i["row_tiles"], i["row_stride"]), (i["row_planes"], i["row_plane"]), chunks),
            READ,
        ),
        Access(
            Mem.ABUF,
            _grid(i["col_addr"], (i["col_tiles"], i["col_stride"]), (i["col_planes"], i["col_plane"]), chunks),
            READ,
        ),
    ]
    epilogue = Epilogue(i["epilogue"])
    if epilogue != Epilogue.SCORES:
        count = i["thresholds"] if epilogue == Epilogue.CODES else SCALE_WORDS
        result.append(Access(Mem.PBUF, _grid(i["param_addr"], (i["row_tiles"], i["param_stride"]), (count, 1)), READ))
    if epilogue in (Epilogue.RESIDUAL, Epilogue.SCORES):
        mem, rows = (Mem.RBUF, i["tokens"]) if epilogue == Epilogue.RESIDUAL else (Mem.SBUF, i["col_tiles"])
        result.append(Access(mem, _grid(i["dst_addr"], (rows, i["dst_stride"]), (i["row_tiles"], 1)), WRITE))
    elif epilogue == Epilogue.ARGMAX:
        result.append(Access(Mem.IDBUF, _grid(i["dst_addr"], (i["tokens"] if i["last"] else 0, 1)), WRITE))
    elif epilogue == Epilogue.TOP:
        result.append(
            Access(Mem.IDBUF, _grid(i["dst_addr"], (hw.result_words // hw.beams * i["tokens"] * i["last"], 1)), WRITE)
        )
    else:
        result.append(_code_writes(hw, i))
        if i["lut"]:
            result.append(Access(Mem.LUTX, np.zeros(1, dtype=np.int64), READ))
    return result


def _code_writes(hw: HwConfig, i: Instruction) -> Access:
    planes = (8 if i["kind"] in (Kind.INT8, Kind.UINT8) else 1, i["dst_plane"])
    if i["dest"] == Dest.TRANSPOSED:
        first, last = i["key"] // hw.lanes, (i["key"] + i["tokens"] - 1) // hw.lanes
        words = _grid(i["dst_addr"] + first, (i["row_tiles"], i["dst_stride"]), (last - first + 1, 1), planes)
        return Access(Mem.KBUF, words, WRITE)
    lanes = ceil_div(i["lane"] % hw.lanes + i["row_tiles"] * hw.rows, hw.lanes)
    base = i["dst_addr"] + i["lane"] // hw.lanes
    if i["dest"] == Dest.TOKENS:
        return Access(Mem.ABUF, _grid(base, (i["col_tiles"], i["dst_stride"]), (lanes, 1), planes), WRITE)
    first, last = i["key"] // hw.rows, (i["key"] + i["tokens"] - 1) // hw.rows
    groups = (last - first + 1, i["dst_stride"])
    return Access(Mem.KBUF, _grid(base + first * i["dst_stride"], groups, (lanes, 1), planes), WRITE)


def _residual_rows(i: Instruction, side: str, kind: int) -> Access:
    return Access(Mem.RBUF, _grid(i[f"{side}_addr"], (i["tokens"], i[f"{side}_stride"]), (i["words"], 1)), kind)


def _granules(hw: HwConfig, i: Instruction, tokens: int, granules: int) -> Access:
    """Code words that the vector unit writes."""
    planes = (8 if i["kind"] in (Kind.INT8, Kind.UINT8) else 1, i["dst_plane"])
    words = (ceil_div(granules * hw.rows, hw.lanes), 1)
    return Access(Mem.ABUF, _grid(i["dst_addr"], (ceil_div(tokens, hw.cols), i["dst_stride"]), words, planes), WRITE)


def _layernorm(hw: HwConfig, i: Instruction) -> list[Access]:
    params = Access(Mem.PBUF, _grid(i["param_addr"], (SCALE_WORDS * i["words"], 1)), READ)
    return [_residual_rows(i, "src", READ), params, _residual_rows(i, "dst", WRITE)]


def _quant(hw: HwConfig, i: Instruction) -> list[Access]:
    return [_residual_rows(i, "src", READ), _granules(hw, i, i["tokens"], i["words"])]


def _softmax(hw: HwConfig, i: Instruction) -> list[Access]:
    keys = i["keys"] + (i["queries"] - 1 if i["causal"] else 0)
    scores = _grid(i["src_addr"], (ceil_div(i["queries"], hw.cols), i["src_stride"]), (ceil_div(keys, hw.rows), 1))
    mask = _grid(i["mask_addr"], (ceil_div(keys, hw.rows) * i["masked"], 1))
    return [
        Access(Mem.PBUF, mask, READ),
        Access(Mem.SBUF, scores, READ),
        Access(Mem.SBUF, scores, WRITE),
        Access(Mem.LUTV, np.zeros(1, dtype=np.int64), READ),
        _granules(hw, i, i["queries"], i["granules"]),
    ]


def _embed(hw: HwConfig, i: Instruction) -> list[Access]:
    words = (ceil_div(i["features"], hw.lanes), 1)
    codes = _grid(i["src_addr"], (ceil_div(i["tokens"], hw.cols), i["src_stride"]), words)
    scales = _grid(i["scale_addr"], (i["tokens"], 1))
    return [Access(Mem.ABUF, codes, READ), Access(Mem.PBUF, scales, READ), _residual_rows(i, "dst", WRITE)]


# ---- dependencies ---------------------------------------------------------------------------------------------------


class History:
    """For every word, the last instruction (counted within its unit) of each unit that read and that wrote it."""

    def __init__(self, hw: HwConfig):
        self.words = {mem: np.full((geometry(hw, mem).words, 2, len(Unit)), -1, dtype=np.int32) for mem in Mem}
        self.bytes: list[tuple[int, int, int, Unit, int]] = []  # low, high, kind, unit, number

    def conflicts(self, touched: Iterable[Access], own: Unit) -> np.ndarray:
        """Per unit the last instruction that one of unit ``own`` with these accesses must follow, -1 for none."""
        latest = np.full(len(Unit), -1, dtype=np.int32)
        for access in touched:
            if access.mem is None:
                for low, high, kind, unit, number in self.bytes:
                    if (kind or access.kind) and low < access.words[1] and access.words[0] < high:
                        latest[unit] = max(latest[unit], number)
            elif access.words.size:
                table = self.words[access.mem][access.words].max(axis=0)
                last = table[WRITE] if access.kind == READ else table.max(axis=0)
                if access.kind == WRITE and own == Unit.EXECUTE:
                    last[own] = -1
                np.maximum(latest, last, out=latest)
        return latest

    def note(self, touched: Iterable[Access], unit: Unit, number: int, constant: tuple[int, int] | None = None) -> None:
        """Enter the accesses of an instruction. Reads of the ``constant`` bytes need not be remembered."""
        for access in touched:
            if access.mem is not None:
                self.words[access.mem][access.words, access.kind, unit] = number
            elif (
                access.kind == WRITE
                or constant is None
                or access.words[0] < constant[0]
                or access.words[1] > constant[1]
            ):
                self.bytes.append((int(access.words[0]), int(access.words[1]), access.kind, unit, number))


def insert_tokens(
    hw: HwConfig,
    instructions: Sequence[Instruction],
    constant: tuple[int, int] | None = None,
    memo: dict[tuple, list[Access]] | None = None,
) -> list[Instruction]:
    """The instructions of one call (no END) with ``wait`` and ``signal`` set; all counters end at 0.

    ``constant`` is a byte range of external memory that no instruction writes; ``memo`` keeps the accesses of instructions for
    the next call. Raises InputError where a token counter could overflow.
    """
    history, count, memo = History(hw), [0] * len(Unit), {} if memo is None else memo
    place: dict[tuple[Unit, int], int] = {}
    known = np.full(
        (len(Unit), len(Unit)), -1, dtype=np.int32
    )  # known[u][v]: last of v that u's next is sure to follow
    after: dict[tuple[Unit, int], np.ndarray] = {}  # what is sure to be done once this instruction is done
    waits: list[set[Unit]] = [set() for _ in instructions]
    signals: list[set[Unit]] = [set() for _ in instructions]
    for position, instruction in enumerate(instructions):
        key = instruction.op, *instruction.fields.items()
        if key not in memo:
            memo[key] = accesses(hw, instruction)
        unit, touched = UNIT_OF[instruction.op], memo[key]
        number, clock = count[unit], known[unit]
        latest = history.conflicts(touched, unit)
        late = [u for u in Unit if u != unit and latest[u] > clock[u]]
        # the most far-reaching waits first, for they may imply others
        for other in sorted(late, key=lambda u: -place[u, int(latest[u])]):
            if latest[other] > clock[other]:
                key = (other, int(latest[other]))
                waits[position].add(other)
                signals[place[key]].add(unit)
                np.maximum(clock, after[key], out=clock)
        if latest[unit] > clock[unit]:  # not even implied by what the others waited for
            waits[position].add(unit)
            np.maximum(clock, after[unit, number - 1], out=clock)
        history.note(touched, unit, number, constant)
        done = clock.copy()
        done[unit] = number
        after[unit, number], place[unit, number] = done, position
        count[unit] += 1
    _check_counters(instructions, waits, signals, hw.queue_depth)
    return [
        replace(i, wait=frozenset(w), signal=frozenset(s)) for i, w, s in zip(instructions, waits, signals, strict=True)
    ]


def _check_counters(
    instructions: Sequence[Instruction], waits: list[set[Unit]], signals: list[set[Unit]], depth: int
) -> None:
    """Tokens given but not taken, were every unit to run as far ahead as the queues allow."""
    held = {(sender, receiver): 0 for sender in Unit for receiver in Unit}
    for i, wait, signal in zip(instructions, waits, signals, strict=True):
        unit = UNIT_OF[i.op]
        for sender in wait - {unit}:
            held[sender, unit] -= 1
        for receiver in signal:
            held[unit, receiver] += 1
            if held[unit, receiver] + depth + 1 > MAX_WAITING:
                raise InputError(
                    f"tokens from {unit.name} to {receiver.name} must be at most {MAX_WAITING}, "
                    f"not {held[unit, receiver]}"
                )


def find_races(hw: HwConfig, instructions: Sequence[Instruction], touched: Sequence[Sequence[Access]]) -> list[str]:
    """Conflicting accesses that the tokens do not order, given what every instruction (no END) really touched."""
    history, count = History(hw), [0] * len(Unit)
    known = np.full((len(Unit), len(Unit)), -1, dtype=np.int64)
    last: dict[Unit, np.ndarray] = {}
    sent: dict[tuple[Unit, Unit], list[np.ndarray]] = {(a, b): [] for a in Unit for b in Unit}
    races = []
    for position, (instruction, access) in enumerate(zip(instructions, touched, strict=True)):
        unit = UNIT_OF[instruction.op]
        for other in instruction.wait - {unit}:
            np.maximum(known[unit], sent[other, unit].pop(0), out=known[unit])
        if unit in instruction.wait and count[unit]:
            np.maximum(known[unit], last[unit], out=known[unit])
        late = [
            u.name for u, number in zip(Unit, history.conflicts(access, unit), strict=True) if number > known[unit][u]
        ]
        if late:
            races.append(f"instruction {position} ({instruction.op.name}) is not ordered after {late}")
        history.note(access, unit, count[unit])
        done = known[unit].copy()
        done[unit] = count[unit]
        last[unit] = done
        count[unit] += 1
        for other in instruction.signal - {unit}:
            sent[unit, other].append(done)
    return races
