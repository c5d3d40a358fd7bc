"""LAYERNORM, SOFTMAX, QUANT and EMBED on the state of the functional model."""

import numpy as np
import torch

from ternbin.contract.isa import Instruction, Kind, Mem
from ternbin.contract.memories import PARAM_BITS
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.contract.rows import scale_values, word_codes
from ternbin.contract.transfers import transfer_words
from ternbin.emulation.state import State, Undefined
from ternbin.graph import golden
from ternbin.graph.qtypes import to_stored

PROBABILITY_KINDS = {Kind.TERNARY: "ternary_nn", Kind.BINARY: "binary_nn", Kind.UINT8: "uint8"}


def _residual_rows(s: State, i: Instruction, side: str = "src") -> np.ndarray:
    _, places = s.rows_of(Mem.RBUF, i[f"{side}_addr"], i[f"{side}_stride"], i["tokens"], i["words"])
    return s.memories[Mem.RBUF][places].reshape(i["tokens"], -1)


def _put_residual(s: State, i: Instruction, values: np.ndarray) -> None:
    _, places = s.rows_of(Mem.RBUF, i["dst_addr"], i["dst_stride"], i["tokens"], i["words"], write=True)
    s.memories[Mem.RBUF][places] = values.reshape(*places.shape, -1)


def _put_granules(s: State, i: Instruction, codes: np.ndarray, features: int) -> None:
    """Codes ``[tokens, granules*rows]`` to ABUF; features from ``features`` on are zero bits."""
    hw, token = s.hw, np.arange(len(codes))
    bits = s.code_bits(i["kind"], codes)
    bits[..., features:] = 0
    base = i["dst_addr"] + token // hw.cols * i["dst_stride"]
    for granule in range(codes.shape[1] // hw.rows):
        lane, part = granule * hw.rows, bits[..., granule * hw.rows : (granule + 1) * hw.rows]
        s.put_lanes(Mem.ABUF, token % hw.cols, base + lane // hw.lanes, i["dst_plane"], lane % hw.lanes, part)


def layernorm(s: State, i: Instruction) -> None:
    x, n = _residual_rows(s, i), i["features"]
    params = i["param_addr"] + SCALE_WORDS * np.arange(i["words"])[:, None] + np.arange(SCALE_WORDS)
    values = s.memories[Mem.PBUF][s.touch(Mem.PBUF, params, False)].swapaxes(0, 1).reshape(SCALE_WORDS, -1)
    gamma, beta = (torch.from_numpy(v[:n]) for v in scale_values(values))
    out = np.zeros_like(x)
    out[:, :n] = golden.layernorm(torch.from_numpy(x[:, :n]), gamma, beta, i["eps"], i["shift"], s.hw.res_bits)
    _put_residual(s, i, out)


def quant(s: State, i: Instruction) -> None:
    x = torch.from_numpy(_residual_rows(s, i))
    if i["kind"] == Kind.INT8:
        codes = golden.quant_int8(x, i["mul"], i["shift"])
    elif i["kind"] == Kind.TERNARY:
        codes = golden.quant_thresholds(x, "ternary", (i["t0"], i["t1"]))
    else:
        codes = golden.quant_thresholds(x, "binary", (i["t0"],))
    _put_granules(s, i, codes.numpy(), i["features"])


def softmax(s: State, i: Instruction) -> None:
    hw = s.hw
    valid = seen = i["keys"] + (np.arange(i["queries"]) if i["causal"] else np.zeros(i["queries"], dtype=np.int64))
    words = -(-int(seen.max()) // hw.rows)
    places = s.rows_of(Mem.SBUF, i["src_addr"], i["src_stride"], i["queries"], words)
    scores = np.zeros((i["queries"], i["granules"] * hw.rows), dtype=np.int64)
    scores[:, : words * hw.rows] = s.memories[Mem.SBUF][places].reshape(i["queries"], -1)
    if i["masked"]:
        valid = _mask(s, i, scores.shape, words)
    s.touch(Mem.LUTV, np.arange(transfer_words(hw, Mem.LUTV)), False)
    kind, lut = PROBABILITY_KINDS[Kind(i["kind"])], torch.from_numpy(s.memories[Mem.LUTV])
    e = golden.exp_codes(torch.from_numpy(scores), torch.from_numpy(valid), lut, bool(i["power"]), i["mul"], i["shift"])
    if kind == "uint8" and not e.any(-1).all():
        raise Undefined("exponentials of a query sum to 0")
    codes = golden.probability_codes(e, kind=kind, c1=i["c1"], c2=i["c2"], recip=i["recip"])
    _put_granules(s, i, to_stored(codes.numpy(), kind), codes.shape[-1])
    left = s.memories[Mem.SBUF][places]
    used = np.arange(words) < -(-seen // hw.rows)[:, None]
    stored, sign = e.numpy().reshape(i["queries"], -1, hw.rows)[:, :words], 1 << hw.acc_bits - 1
    s.memories[Mem.SBUF][places] = np.where(used[..., None], (stored ^ sign) - sign, left)


def _mask(s: State, i: Instruction, shape: tuple[int, ...], words: int) -> np.ndarray:
    """Which keys each query sees: bool ``[queries, keys of all granules]``."""
    if i["mask_bit"] + i["queries"] > PARAM_BITS:
        raise Undefined("a query has no bit in the masks")
    bits = s.memories[Mem.PBUF][s.touch(Mem.PBUF, i["mask_addr"] + np.arange(words), False)].reshape(-1)
    valid = np.zeros(shape, dtype=bool)
    valid[:, : i["keys"]] = bits[: i["keys"]] >> (i["mask_bit"] + np.arange(i["queries"]))[:, None] & 1
    if not valid.any(axis=1).all():
        raise Undefined("a query sees no key")
    return valid


def embed(s: State, i: Instruction) -> None:
    hw, token, n = s.hw, np.arange(i["tokens"]), i["features"]
    x = _residual_rows(s, i, "dst")
    banks, words = s.rows_of(Mem.ABUF, i["src_addr"], i["src_stride"], i["tokens"], -(-n // hw.lanes))
    codes = word_codes(hw, s.memories[Mem.ABUF][banks, words]).reshape(len(token), -1)
    params = s.memories[Mem.PBUF][s.touch(Mem.PBUF, i["scale_addr"] + token, False)]
    scale = (params[:, 0] & 0xFFFF) + (params[:, 1] << 16)
    out = x.copy()
    out[:, :n] = golden.sat(torch.from_numpy(x[:, :n] + codes[:, :n] * scale[:, None]), hw.res_bits)
    _put_residual(s, i, out)
