"""LOAD and STORE on the state of the functional model."""

import numpy as np

from ternbin.contract.effects.access import READ, WRITE, Access
from ternbin.contract.effects.table import out_of_range
from ternbin.contract.isa import ErrorCode, Instruction, Mem, Op
from ternbin.contract.memories import CODE_MEMORIES, ID_BITS, PARAM_BITS, TABLE_BITS, TABLES
from ternbin.contract.rows import (
    bytes_int,
    code_row_bytes,
    code_row_words,
    code_words,
    expand_row_words,
    int_bytes,
    trit_row_codes,
)
from ternbin.contract.transfers import bank_words, external_rows, packs_trits, transfer_banks, transfer_words
from ternbin.emulation.state import MachineError, State

ID_MASK = (1 << ID_BITS) - 1
KEPT = {Mem.LUTV: 0xFFFF, Mem.LUTX: 0xFF}  # of a table's entry


def load(s: State, i: Instruction) -> None:
    banks, words, data = _transfer(s, i)
    mem, beats = Mem(i["mem"]), s.bytes[data]
    if mem in CODE_MEMORIES:
        shape = (*words.shape, banks.shape[1], s.hw.planes, s.hw.lanes)
        count = words.shape[1] * banks.shape[1]
        if packs_trits(s.hw, mem, i["expand"]):
            codes = trit_row_codes(beats)[:, : i["inner"] * s.hw.rows * s.hw.lanes]
            loaded = code_words(s.hw, codes.reshape(-1, s.hw.lanes))
        else:
            loaded = (expand_row_words if i["expand"] else code_row_words)(s.hw, beats)[:, :count]
        s.memories[mem][banks[:, None], words[..., None]] = loaded.reshape(shape)
        s.settle(mem)
    elif mem == Mem.IDBUF:
        ids = bytes_int(beats.reshape(*words.shape, s.hw.axi_bytes)[..., :4], 4)[..., 0] & ID_MASK
        s.memories[mem][words] = np.stack([ids, np.zeros_like(ids)], axis=-1)
    elif mem in TABLES:
        per_beat = s.hw.axi_data_bits // TABLE_BITS
        places = (words.reshape(-1, 1) * per_beat + np.arange(per_beat)).reshape(-1)
        s.memories[mem][places] = bytes_int(beats, 2).reshape(-1) & KEPT[mem]
    else:
        s.memories[mem][words] = bytes_int(beats, _value_bytes(s, mem)).reshape(*words.shape, s.hw.rows)


def store(s: State, i: Instruction) -> None:
    banks, words, places = _transfer(s, i)
    mem = Mem(i["mem"])
    if mem in CODE_MEMORIES:
        data = code_row_bytes(s.hw, s.memories[mem][banks, words])
    elif mem == Mem.IDBUF:
        ids = s.memories[mem][words, 0]
        data = np.zeros((*ids.shape, s.hw.axi_bytes), dtype=np.uint8)
        data[..., :4] = int_bytes(ids[..., None], 4)
    else:
        data = int_bytes(s.memories[mem][words], _value_bytes(s, mem))
    s.bytes[places] = data.reshape(places.shape)


def _value_bytes(s: State, mem: Mem) -> int:
    return (s.hw.res_container if mem == Mem.RBUF else PARAM_BITS) // 8


def _transfer(s: State, i: Instruction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Banks ``[outer, banks of a word]`` and words ``[outer, inner]`` on chip, and byte addresses ``[rows, bytes]``, checked."""
    hw, mem, write = s.hw, Mem(i["mem"]), i.op == Op.STORE
    expand = bool(i["expand"])
    banks, group = transfer_banks(hw, mem, expand), bank_words(hw, mem, expand)
    row = (i["bank"] + np.arange(i["outer"]))[:, None]
    words = i["addr"] + row // banks * i["inner"] + np.arange(i["inner"])
    count, size = external_rows(hw, mem, i["inner"], i["outer"], expand)
    starts = [i["dram"] + step * i["stride"] for step in _steps(s, i, count)]
    _check(s, starts, size, write, out_of_range(hw, i))
    s.touch(mem, words, not write)
    for start in starts:
        s.accesses.append(Access(None, np.array([start, start + size]), WRITE if write else READ))
    places = np.array(starts, dtype=np.int64)[:, None] + np.arange(size)
    return row % banks * group + np.arange(group), words, places


def _steps(s: State, i: Instruction, count: int) -> list[int]:
    """What the rows' addresses take ``stride`` times: their numbers, or entries of IDBUF, as far as there are such."""
    if not i["indirect"]:
        return list(range(count))
    entries = i["index"] + np.arange(count)
    inside = s.touch(Mem.IDBUF, entries[entries < transfer_words(s.hw, Mem.IDBUF)], False)
    return (s.memories[Mem.IDBUF][inside, 0] & ID_MASK).tolist()


def _check(s: State, starts: list[int], size: int, write: bool, word: str | None) -> None:
    """``word``: an on-chip one that is out of range. Raises MachineError for it, and for rows at ``starts`` that are."""
    end, last = len(s.dram), 1 << s.hw.axi_addr_bits
    wrong = [] if word is None else [word]
    if any(start + size > last for start in starts):
        wrong.append(f"external address {max(starts) + size - 1:#x}")
    outside = [start for start in starts if start + size > end and start < last]
    codes = [ErrorCode.ADDRESS] if wrong else []
    if outside:
        codes.append(ErrorCode.BUS_WRITE if write else ErrorCode.BUS_READ)
        wrong.append(f"external address {outside[0] + size - 1:#x} of {end:#x}")
    if codes:
        raise MachineError(codes, ", ".join(wrong), max(outside[0], end) if outside else None)
