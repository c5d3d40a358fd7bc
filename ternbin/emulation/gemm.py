"""GEMM on the state of the functional model."""

import numpy as np
import torch

from ternbin.contract.hw import BYTE_PLANES
from ternbin.contract.isa import Dest, Epilogue, Instruction, Kind, Mem
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.contract.rows import INT8_WEIGHTS, UINT8_WEIGHTS, int_bytes, scale_values, word_codes
from ternbin.contract.transfers import transfer_words
from ternbin.emulation.state import State, Undefined, no_top
from ternbin.graph import golden


def gemm(s: State, i: Instruction) -> None:
    row = _operand(s, Mem.KBUF if i["row_kbuf"] else Mem.WBUF, i, "row", i["row_tiles"])
    col = _operand(s, Mem.ABUF, i, "col", i["col_tiles"])[: i["tokens"]]
    acc = golden.int_matmul(torch.from_numpy(col), torch.from_numpy(row).T) + i["acc_init"]
    if i["rowsum"]:
        acc += torch.from_numpy(row.sum(1))
    limit = 1 << s.hw.acc_bits - 1
    if not bool((acc >= -limit).all() and (acc < limit).all()):
        raise Undefined(f"accumulator leaves {s.hw.acc_bits} bits")
    _EPILOGUES[Epilogue(i["epilogue"])](s, i, acc)


def _operand(s: State, mem: Mem, i: Instruction, side: str, tiles: int) -> np.ndarray:
    """Integers ``[tiles*banks, chunks*lanes]``, bit planes put together."""
    count, apart = i[f"{side}_planes"], i[f"{side}_plane"]
    whole = side == "col" and s.hw.whole_columns
    planes, apart = (BYTE_PLANES, s.hw.plane_words) if whole else (count, apart)
    tile, plane = np.arange(tiles)[:, None, None], np.arange(planes)[None, :, None]
    words = i[f"{side}_addr"] + tile * i[f"{side}_stride"] + plane * apart + np.arange(i["chunks"])
    read = s.touch(mem, words, False)[:, :count]
    bits = s.memories[mem][:, read]  # [banks, tiles, planes, chunks, planes of a word, lanes]
    codes = bits[..., 0, :].astype(np.int64) if whole and count > 1 else word_codes(s.hw, bits)
    weights = INT8_WEIGHTS if i[f"{side}_signed"] else UINT8_WEIGHTS
    both = np.tensordot(codes, weights[:count], axes=([2], [0])).swapaxes(0, 1)
    return np.ascontiguousarray(both.reshape(tiles * codes.shape[0], -1))


def _params(s: State, i: Instruction, count: int) -> np.ndarray:
    """Parameter words ``[count, features]`` of the row tiles."""
    words = i["param_addr"] + np.arange(i["row_tiles"])[:, None] * i["param_stride"] + np.arange(count)
    values = s.memories[Mem.PBUF][s.touch(Mem.PBUF, words, False)]  # [tiles, count, rows]
    return values.swapaxes(0, 1).reshape(count, -1)


def _scales(s: State, i: Instruction) -> tuple[torch.Tensor, torch.Tensor]:
    mul, bias = scale_values(_params(s, i, SCALE_WORDS))
    return torch.from_numpy(mul), torch.from_numpy(bias)


def _codes(s: State, i: Instruction, acc: torch.Tensor) -> None:
    thresholds = torch.from_numpy(np.ascontiguousarray(_params(s, i, i["thresholds"]).T))
    dirs = tuple(1 if i["dirs"] >> j & 1 else -1 for j in range(i["thresholds"]))
    _put_codes(s, i, golden.threshold_codes(acc, thresholds, i["base"], dirs).numpy())


def _codes8(s: State, i: Instruction, acc: torch.Tensor) -> None:
    mul, bias = _scales(s, i)
    lo, hi = (-127, 127) if i["kind"] == Kind.INT8 else (0, 255)
    lut = None
    if i["lut"]:
        lut = torch.from_numpy(s.memories[Mem.LUTX])
        s.touch(Mem.LUTX, np.arange(transfer_words(s.hw, Mem.LUTX)), False)
    _put_codes(s, i, golden.requant8(acc, mul, bias, i["shift"], lo, hi, lut).numpy())


def _residual(s: State, i: Instruction, acc: torch.Tensor) -> None:
    mul, bias = _scales(s, i)
    rows = i["dst_addr"], i["dst_stride"], i["tokens"], i["row_tiles"]
    s.rows_of(Mem.RBUF, *rows)
    _, words = s.rows_of(Mem.RBUF, *rows, write=True)
    old = torch.from_numpy(s.memories[Mem.RBUF][words].reshape(acc.shape))
    new = golden.linear_residual(acc, mul, bias, i["shift"], old, s.hw.res_bits)
    s.memories[Mem.RBUF][words] = new.numpy().reshape(*words.shape, -1)


def _scores(s: State, i: Instruction, acc: torch.Tensor) -> None:
    banks, words = s.rows_of(Mem.SBUF, i["dst_addr"], i["dst_stride"], i["tokens"], i["row_tiles"], write=True)
    s.memories[Mem.SBUF][banks, words] = acc.numpy().reshape(*words.shape, -1)


def _argmax(s: State, i: Instruction, acc: torch.Tensor) -> None:
    ids, logits = golden.lm_head(acc, *_scales(s, i))
    for column in range(i["tokens"]):
        best = (int(logits[column]), -(int(ids[column]) + i["index"]))
        old = s.best[column]
        if not i["first"]:
            best = max(best, (old[0], -old[1]))
        s.best[column] = (best[0], -best[1])
    if i["last"]:
        words = s.touch(Mem.IDBUF, i["dst_addr"] + np.arange(i["tokens"]), True)
        s.memories[Mem.IDBUF][words] = [(token, logit) for logit, token in s.best[: i["tokens"]]]


def _top(s: State, i: Instruction, acc: torch.Tensor) -> None:
    logits = golden.lm_logits(acc, *_scales(s, i))[:, : max(0, i["features"] - i["index"])]
    for token, row in enumerate(logits):
        best, total = no_top(s.hw) if i["first"] else s.tops[token]
        if len(row):
            entries = [*best, *enumerate(row.tolist(), i["index"])]
            best = sorted(entries, key=lambda entry: -entry[1])[: s.hw.top]  # stable
            total = tuple(golden.exp_total(row, i["shift"], total).tolist())
        s.tops[token] = best, total
    if i["last"]:
        words = _top_words([(*best, total) for best, total in s.tops[: i["tokens"]]])
        s.memories[Mem.IDBUF][s.touch(Mem.IDBUF, i["dst_addr"] + np.arange(len(words)), True)] = words


def _top_words(results: list[tuple]) -> np.ndarray:
    """Words of IDBUF ``[n, 2]``: each result, then the halves of its second part again, as ids, which can be stored."""
    values = np.array(results, dtype=np.int64).reshape(-1, 2)
    halves = int_bytes(values[:, 1:], 8).view("<i4").astype(np.int64)
    words = [values, *(np.stack([half, np.zeros_like(half)], axis=-1) for half in halves.T)]
    return np.stack(words, axis=1).reshape(-1, 2)


_EPILOGUES = {
    Epilogue.CODES: _codes,
    Epilogue.CODES8: _codes8,
    Epilogue.RESIDUAL: _residual,
    Epilogue.SCORES: _scores,
    Epilogue.ARGMAX: _argmax,
    Epilogue.TOP: _top,
}


def _put_codes(s: State, i: Instruction, codes: np.ndarray) -> None:
    """Codes ``[tokens, features]`` to their destination."""
    hw, bits = s.hw, s.code_bits(i["kind"], codes)
    if i["dest"] == Dest.TRANSPOSED:
        _put_transposed(s, i, bits)
        return
    token = np.arange(i["tokens"])
    place, mem, banks = (
        (token, Mem.ABUF, hw.cols) if i["dest"] == Dest.TOKENS else (token + i["key"], Mem.KBUF, hw.rows)
    )
    base = i["dst_addr"] + place // banks * i["dst_stride"]
    for tile in range(i["row_tiles"]):
        lanes = i["lane"] + tile * hw.rows
        part = bits[..., tile * hw.rows : (tile + 1) * hw.rows]
        s.put_lanes(mem, place % banks, base + lanes // hw.lanes, i["dst_plane"], lanes % hw.lanes, part)


def _put_transposed(s: State, i: Instruction, bits: np.ndarray) -> None:
    key = i["key"] + np.arange(i["tokens"])
    feature = np.arange(bits.shape[-1])
    words = i["dst_addr"] + feature // s.hw.rows * i["dst_stride"] + key[:, None] // s.hw.lanes
    for plane, part in enumerate(bits):
        place = s.touch(Mem.KBUF, words + plane * i["dst_plane"], True)
        bank, lane = feature % s.hw.rows, key[:, None] % s.hw.lanes
        s.memories[Mem.KBUF][bank, place[key % s.hw.lanes == 0]] = (
            0  # keys come in order: the first of a word clears it
        )
        s.memories[Mem.KBUF][bank, place, :, lane] = np.moveaxis(part, 0, -1)
