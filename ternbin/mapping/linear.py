"""Projections: weights and parameters of a linear op in external memory, and its GEMM instructions' constants."""

from dataclasses import dataclass, field

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Epilogue, Kind, Mem
from ternbin.contract.memories import ceil_div
from ternbin.contract.pipeline import SCALE_WORDS
from ternbin.contract.rows import (
    code_row_bytes,
    code_words,
    expand_row_bytes,
    int_bytes,
    scale_words,
    threshold_words,
    trit_row_bytes,
    weight_planes,
    weight_rows,
)
from ternbin.contract.transfers import expand_words, external_rows, packs_trits, transfer_banks
from ternbin.errors import InputError
from ternbin.graph import qtypes
from ternbin.graph.ir import Codes, Node, Weights
from ternbin.graph.ops.codes import ByThresholds, LinearCodes, LinearCodes8
from ternbin.graph.ops.ends import LmHead
from ternbin.graph.ops.stream import LinearResidual
from ternbin.mapping.allocator import Image
from ternbin.mapping.fold import Folded, fold_product, fold_scales, fold_thresholds, operand, pad_thresholds
from ternbin.mapping.resident import Constant

PIECE_TILES = 16  # row tiles that are packed at a time
Linear = LinearCodes | LinearCodes8 | LinearResidual | LmHead
STORED_KIND = {
    "ternary": Kind.TERNARY,
    "ternary_nn": Kind.TERNARY,
    "binary": Kind.BINARY,
    "binary_nn": Kind.BINARY,
    "int8": Kind.INT8,
    "uint8": Kind.UINT8,
}
ARRAY_WEIGHTS = dict.fromkeys(("ternary", "ternary8"), ("ternary", "binary", "odd8")) | {"binary": ("binary", "odd8")}


@dataclass(frozen=True)
class Lanes:
    """Where the features of a code tensor lie along the lanes: ``groups`` of ``width``, one every ``pitch`` lanes.

    Lanes without a feature hold all-zero bits, except ``odd_lanes`` of them, which hold the code ``odd_code``.
    """

    groups: int
    width: int
    pitch: int
    odd_lanes: int = 0
    odd_code: int = 0

    @property
    def features(self) -> int:
        return self.groups * self.width

    @property
    def extent(self) -> int:
        """Lanes up to the end of the last group."""
        return self.groups * self.pitch if self.groups > 1 else self.width


def plain(features: int) -> Lanes:
    return Lanes(1, features, features)


@dataclass(frozen=True)
class Plan:
    """One linear op on this hardware: ``tiles`` row tiles with their ``weights`` and ``params``, and fixed GEMM fields.

    ``groups`` heads of ``tiles_per_group`` row tiles; ``odd`` = (lanes, code) of padded output rows that are not 0.
    """

    name: str
    tiles: int
    groups: int
    chunks: int
    inner: int  # words of a weight row as loaded, the row stride
    row_bytes: int  # from one row of a LOAD to the next
    expand: bool
    weights: Constant
    params: Constant
    fields: dict[str, int] = field(repr=False)
    odd: tuple[int, int] = (0, 0)

    @property
    def tiles_per_group(self) -> int:
        return self.tiles // self.groups


def plan_linear(hw: HwConfig, image: Image, weights: Weights, node: Node[Linear], x: Lanes, groups: int) -> Plan:
    """Fold, pack and store the op ``node``; the rows of each of ``groups`` heads are padded to whole row tiles."""
    op, where, kind = node.op, node.where, node.op.weight_kind
    if kind not in ("ternary", "binary", "odd8"):
        raise InputError(f"{where}: weight kind must be ternary, binary or odd8, not {kind}")
    if kind not in ARRAY_WEIGHTS.get(hw.kind, ("ternary", "binary")):
        raise InputError(f"{where}: weight kind must suit a {hw.kind} array, not {kind}")
    weight, code = weights[op.weight].numpy(), qtypes.KINDS[kind]
    chunks, expand = ceil_div(x.extent, hw.lanes), code.odd and hw.is_ternary
    folded = fold_product(
        hw, operand(hw, node.src[0].expect(Codes).kind, where), weight, code, chunks * hw.lanes, where
    )
    odd_init = -x.odd_lanes * x.odd_code * code.idle
    inner = expand_words(hw, Mem.WBUF, code.planes * chunks) if expand else code.planes * chunks
    rows = _row_features(hw, len(weight), groups)
    copies = isinstance(op, LmHead)  # padding must not win: it repeats the last row, which ties and loses by its index
    rows = np.where(rows < 0, len(weight) - 1, rows) if copies else rows
    data_key = ("weight", op.weight, x, groups, copies)
    tile_rows, row_bytes = external_rows(hw, Mem.WBUF, inner, transfer_banks(hw, Mem.WBUF, expand), expand)
    tiles, tile_bytes = len(rows) // hw.rows, tile_rows * row_bytes
    address = image.put(data_key, lambda: _weight_bytes(hw, weight, code, rows, x, inner, expand), tiles * tile_bytes)
    words, fields, odd = _epilogue(hw, weights, op, folded, rows, where)
    count, param_addr = words.shape[1], image.put(("params", node.name, groups), lambda: int_bytes(words, 2))
    planes = dict(row_planes=code.planes) | (dict(row_plane=chunks) if code.planes > 1 else {})
    return Plan(
        name=node.name,
        tiles=tiles,
        groups=groups,
        chunks=chunks,
        inner=inner,
        row_bytes=row_bytes,
        expand=expand,
        weights=Constant(Mem.WBUF, address, tile_bytes, inner, tiles),
        params=Constant(Mem.PBUF, param_addr, count * hw.param_word_bits // 8, count, tiles),
        fields={**fields, **planes, "acc_init": folded.acc_init + odd_init},
        odd=odd,
    )


def _row_features(hw: HwConfig, features: int, groups: int) -> np.ndarray:
    """Graph feature of every hardware row, -1 for padding."""
    width = features // groups
    padded = ceil_div(width, hw.rows) * hw.rows
    group, row = np.divmod(np.arange(groups * padded), padded)
    return np.where(row < width, group * width + row, -1)


def _weight_bytes(
    hw: HwConfig, weight: np.ndarray, code: qtypes.Kind, rows: np.ndarray, x: Lanes, inner: int, expand: bool
) -> np.ndarray:
    """Row tiles in the order of their loads, [.., bytes]; some at a time, so that what lies between stays in a cache."""
    size = PIECE_TILES * hw.rows
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    return np.concatenate([_piece_bytes(hw, weight, code, piece, x, inner, expand) for piece in pieces])


def _piece_bytes(
    hw: HwConfig, weight: np.ndarray, code: qtypes.Kind, rows: np.ndarray, x: Lanes, inner: int, expand: bool
) -> np.ndarray:
    width = ceil_div(x.extent, hw.lanes) * hw.lanes
    placed = np.full((len(rows), width), code.idle, dtype=weight.dtype)
    picked = weight[rows]
    picked[rows < 0] = code.idle
    for group in range(x.groups):
        placed[:, group * x.pitch :][:, : x.width] = picked[:, group * x.width :][:, : x.width]
    planes = weight_planes(placed, code)
    spare = inner * hw.lanes - planes.shape[1]
    loaded = weight_rows(hw, np.pad(planes, [(0, 0), (0, spare)]) if spare else planes, expand)
    if packs_trits(hw, Mem.WBUF, expand):
        return trit_row_bytes(hw, loaded.reshape(len(rows) // hw.rows, -1))
    return (
        expand_row_bytes(hw, loaded, loaded.shape[1] // hw.lanes)
        if expand
        else code_row_bytes(hw, code_words(hw, loaded))
    )


def _epilogue(
    hw: HwConfig, weights: Weights, op: Linear, folded: Folded, rows: np.ndarray, where: str
) -> tuple[np.ndarray, dict[str, int], tuple[int, int]]:
    """Parameter words ``[tiles, params, rows]``, GEMM fields, and (number, code) of padded rows that are not 0."""
    if isinstance(op, LinearCodes):
        return threshold_params(hw, weights[op.thresholds].numpy(), op, folded, rows, where)
    shift = 0 if isinstance(op, LmHead) else op.shift
    mul, bias, shift = fold_scales(weights[op.mul].numpy(), weights[op.bias].numpy(), shift, folded, where)
    pad, odd = 0, (0, 0)
    if isinstance(op, LmHead):
        fields: dict[str, int] = {"epilogue": Epilogue.ARGMAX}
    elif isinstance(op, LinearResidual):
        fields = {"shift": shift, "epilogue": Epilogue.RESIDUAL}
    else:
        fields = {"shift": shift, "epilogue": Epilogue.CODES8, "kind": STORED_KIND[op.kind], "lut": op.lut is not None}
        if op.lut is not None:
            lut = weights[op.lut].numpy()
            pad, odd = (int(lut.argmin()) - 128) << shift, (int((rows < 0).sum()), int(lut.min()))
    words = scale_words(hw, _padded(mul, rows, 0), _padded(bias, rows, pad))
    return words, {**fields, "param_stride": SCALE_WORDS}, odd


def threshold_params(
    hw: HwConfig, thresholds: np.ndarray, op: ByThresholds, folded: Folded, rows: np.ndarray, where: str
) -> tuple[np.ndarray, dict[str, int], tuple[int, int]]:
    """As :func:`_epilogue`, for codes by thresholds ``[features or 1, n]``."""
    t = fold_thresholds(hw, thresholds, op.base, op.dirs, op.kind, folded, where)
    pad = np.zeros(len(t.dirs), dtype=np.int64)
    if (rows < 0).any():
        t, pad = pad_thresholds(hw, t, where)
    words = threshold_words(hw, _padded(t.values, rows, pad))
    fields = {
        "epilogue": Epilogue.CODES,
        "thresholds": len(t.dirs),
        "base": t.base,
        "dirs": t.dirs_field,
        # a ternary array holds binary codes as ternary ones, and can then pad them with 0
        "kind": Kind.BINARY if hw.kind == "binary" else Kind.TERNARY,
        "param_stride": len(t.dirs),
    }
    return words, fields, (0, 0)


def _padded(values: np.ndarray, rows: np.ndarray, pad: int | np.ndarray) -> np.ndarray:
    """Values of the hardware rows (one for all where there is one), ``pad`` in rows of padding."""
    spread = values[np.where(rows < 0, 0, rows)] if len(values) > 1 else np.repeat(values, len(rows), axis=0)
    return np.where((rows < 0).reshape(-1, *[1] * (values.ndim - 1)), pad, spread)
