"""The instructions of a call, decoded to what their time depends on."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import CHECK, INSTRUCTION_BYTES, UNIT_OF, Dest, Epilogue, Kind, Op, layout
from ternbin.contract.pipeline import PAGE_BYTES, SCALE_WORDS
from ternbin.contract.program import Program
from ternbin.counting.cycles.bus import Transfer, transfer
from ternbin.counting.cycles.gemm import Gemm, known_gemm
from ternbin.counting.cycles.vector import Vector, embed, known_vector, layernorm, quant, softmax
from ternbin.errors import InputError

Work = Transfer | Gemm | Vector
Key = tuple[tuple[int, ...], ...]  # of a call: see Decoded.key
Ints = npt.NDArray[np.int64]
Column = npt.NDArray[np.int64 | np.bool_]  # a value an instruction


class Decoded:
    """Instructions of a call: unit (None of END), wait and signal bits by number, and what each takes (see ``_work``)."""

    def __init__(self, program: Program, number: int):
        call, hw = program.calls[number], program.hw
        image = np.frombuffer(program.image, np.uint8)[call.address : call.address + call.count * INSTRUCTION_BYTES]
        self.words = np.ascontiguousarray(image).view("<u8").reshape(call.count, 8)
        halves = np.bitwise_xor.reduce(self.words.view("<u2").reshape(call.count, 32), axis=1)
        codes = (self.words[:, 0] & np.uint64(0xFF)).astype(np.int64)
        bad = np.flatnonzero((halves != CHECK) | ~np.isin(codes, [int(op) for op in Op]))
        if len(bad):
            raise InputError(f"call {number}, instruction {bad[0]}: must have a known opcode and a correct check")
        units = np.full(max(Op) + 1, -1)
        units[list(UNIT_OF)] = list(UNIT_OF.values())
        self.units: list[int] = units[codes].tolist()
        everything = np.arange(call.count)
        self.wait: list[int] = self._field(everything, Op.END, "wait").tolist()
        self.signal: list[int] = self._field(everything, Op.END, "signal").tolist()
        self.work: list[Work | None] = [None] * call.count
        for op in UNIT_OF:
            rows = np.flatnonzero(codes == op)
            for row, work in zip(rows.tolist(), _work(hw, op, partial(self._field, rows, op)), strict=True):
                self.work[row] = work

    def key(self) -> Key:
        """Equal for calls that take the same time: what an instruction takes is one object, however often it comes."""
        return tuple(self.units), tuple(self.wait), tuple(self.signal), tuple(map(id, self.work))

    def _field(self, rows: npt.NDArray[np.intp], op: Op, name: str) -> Ints:
        low, bits, _ = layout(op)[name]
        word, shift = divmod(low, 64)
        value = self.words[rows, word] >> np.uint64(shift)
        if shift + bits > 64:
            value = value | self.words[rows, word + 1] << np.uint64(64 - shift)
        return (value & np.uint64((1 << bits) - 1)).astype(np.int64)


def _lists(*columns: Column) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _work(hw: HwConfig, op: Op, field: Callable[[str], Ints]) -> Sequence[Work]:
    """For each instruction of ``op``: a Transfer, a Gemm or a Vector. ``field(name)``: its values."""
    if op in (Op.LOAD, Op.STORE):
        columns: list[Column] = [field("mem"), field("inner"), field("outer"), field("dram") % PAGE_BYTES]
        columns += [field("stride"), field("indirect") > 0, field("expand") > 0]
        return [transfer(hw, *values) for values in _lists(*columns)]
    if op == Op.GEMM:
        epilogue, tiles, tokens = field("epilogue"), field("col_tiles"), field("tokens")
        words = np.where(
            epilogue == Epilogue.CODES, field("thresholds"), np.where(epilogue == Epilogue.SCORES, 0, SCALE_WORDS)
        )
        planes = field("row_planes") * (1 if hw.whole_columns else field("col_planes"))
        steps = np.ceil(field("chunks") * planes * hw.step_cycles).astype(np.int64)
        lookups = field("lut") * (hw.rows // max(1, hw.rows // 8))
        columns = [
            epilogue,
            steps,
            field("row_tiles"),
            tiles,
            tokens - (tiles - 1) * hw.cols,
            words,
            field("param_stride") == 0,
            lookups,
            field("last") > 0,
            field("dest") == Dest.TOKENS,
            field("row_kbuf") > 0,
        ]
        return [known_gemm(*values) for values in _lists(*columns)]
    if op == Op.SOFTMAX:
        causal, keys = (field("causal") > 0) & (field("queries") > 1), field("keys")
        keys = np.where(causal, keys, -(-keys // hw.rows) * hw.rows)  # whole words, so that calls differ in less
        columns = [field("queries"), keys, causal, field("masked") > 0, field("granules"), field("kind")]
        return [known_vector(softmax, hw.rows, hw.cols, *values) for values in _lists(*columns)]
    tokens, words = field("tokens"), field("words")
    if op == Op.LAYERNORM:
        return [known_vector(layernorm, *values) for values in _lists(tokens, words)]
    if op == Op.QUANT:
        return [known_vector(quant, *values) for values in _lists(tokens * words, field("kind") >= Kind.INT8)]
    return [known_vector(embed, *values) for values in _lists(tokens, words, -(-words * hw.rows // hw.lanes))]
