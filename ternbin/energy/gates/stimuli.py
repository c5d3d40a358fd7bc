"""Operands and control sequences for the multiply-accumulate blocks."""

import math
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import count, repeat

from ternbin.contract.hw import BYTE_PLANES
from ternbin.contract.memories import ID_BITS
from ternbin.contract.pipeline import LOGITS
from ternbin.energy.figures import COLUMN_LOGITS
from ternbin.energy.gates.blocks import TOP_SHIFT, Block

CHUNK = 16  # steps of one sum: a reduction over 16 x lanes features

Source = Callable[[], float]  # the next value of a lane: a code, an integer or a real number
Ports = dict[str, list[int]]  # values of every cycle by port


def ternary_word(codes: Sequence[float]) -> int:
    """A stored code word: nz plane low, neg plane high."""
    lanes = len(codes)
    return sum((c != 0) << i | (c < 0) << lanes + i for i, c in enumerate(codes))


def words(form: str, values: Sequence[float]) -> int:
    """One operand word from its lanes' values: codes, integers or floats. ``form``: ternary, binary, int2 to int12, planes (of 8-bit codes
    in two's complement of nine), fp8, bf16 or fp32."""
    if form == "ternary":
        return ternary_word(values)
    if form == "planes":
        lanes = len(values)
        return sum(
            (int(v) >> plane & 1) << plane * lanes + i for i, v in enumerate(values) for plane in range(BYTE_PLANES + 1)
        )
    pattern, bits = _PATTERNS[form]
    return sum(pattern(value) << bits * i for i, value in enumerate(values))


def _fp32(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]


def _bf16(value: float) -> int:
    """To nearest even."""
    bits = _fp32(value)
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def _fp8(value: float) -> int:
    """E4M3, to nearest even, the largest number for what is larger; values of unit variance use its range when scaled by ``FP8_SCALE``."""
    size = min(abs(value) * FP8_SCALE, 448.0)
    exp = max(-6, math.floor(math.log2(size))) if size else -6
    whole = round(size / 2.0 ** (exp - 3))  # a carry runs into the exponent; below 8 it is subnormal
    return (value < 0) << 7 | ((exp + 6) << 3) + whole


FP8_SCALE = 64.0
_PATTERNS: dict[str, tuple[Callable[[float], int], int]] = {
    "binary": (lambda value: int(value > 0), 1),
    "int2": (lambda value: int(value) & 3, 2),
    "int4": (lambda value: int(value) & 15, 4),
    "int8": (lambda value: int(value) & 255, 8),
    "int12": (lambda value: int(value) & 4095, 12),
    "fp8": (_fp8, 8),
    "bf16": (_bf16, 16),
    "fp32": (_fp32, 32),
}
FORMS = {
    "int4x8": ("int4", "int8"),
    "ternary8": ("ternary", "planes"),
    "ternary dot": ("ternary", "ternary"),
    "binary dot": ("binary", "binary"),
    "binary12 dot": ("binary", "int12"),
    "int8 dot": ("int8", "int8"),
    "int8x2 dot": ("int8", "int2"),
}  # kind of a block -> row and column operand, where they are not of its name


def forms(kind: str) -> tuple[str, str]:
    """What the row and the column operand of a block are."""
    return FORMS.get(kind, (kind, kind))


def random_values(form: str, rng: random.Random) -> Source:
    """One lane's values: uniform codes and integers (of ternary codes a third is zero), normal floats."""
    return {
        "ternary": lambda: rng.choice((-1, 0, 1)),
        "binary": lambda: rng.choice((-1, 1)),
        "int2": lambda: rng.randint(-2, 1),
        "int4": lambda: rng.randint(-7, 7),
        "int8": lambda: rng.randint(-127, 127),
        "int12": lambda: rng.randint(-2047, 2047),
        "planes": lambda: rng.randint(-127, 127),
    }.get(form, lambda: rng.gauss(0, 1))


def rows_of(block: Block, form: str, matrix: Sequence[Sequence[float]], rng: random.Random) -> Iterator[int]:
    """Consecutive pieces of ``lanes`` of random rows of ``matrix``, as an array reads them (``CHUNK`` of a row if it has so many)."""
    width = len(matrix[0])
    steps = max(1, width // block.lanes)
    while True:
        row, first = rng.choice(matrix), rng.randrange(steps)
        for step in range(CHUNK):
            at = (first + step) % steps * block.lanes
            yield words(form, [row[(at + i) % width] for i in range(block.lanes)])


def random_rows(block: Block, form: str, rng: random.Random) -> Iterator[int]:
    value = random_values(form, rng)
    while True:
        yield words(form, [value() for _ in range(block.lanes)])


def sequence(cycles: int, rows: Iterator[int], cols: Iterator[int], *, held: bool = False, idle: bool = False) -> Ports:
    """Control and operands: a new pair of operands and a step every cycle, a result every ``CHUNK`` steps.

    ``held``: the row changes only every ``CHUNK`` cycles. ``idle``: after 8 steps nothing is loaded and nothing steps.
    """
    ports: Ports = {name: [] for name in ("rst", "row_load", "col_load", "en", "first", "capture", "row", "col")}
    row = col = 0
    for cycle in range(cycles):
        on = not idle or cycle < 8
        load_row = on and (not held or cycle % CHUNK == 0)
        row, col = next(rows) if load_row else row, next(cols) if on else col
        step = cycle % CHUNK
        values = {
            "rst": cycle < 1,
            "row_load": load_row,
            "col_load": on,
            "en": on and cycle > 0,
            "first": step == 1 and on,
            "capture": step == 1 and on,
            "row": row,
            "col": col,
        }
        for name, value in values.items():
            ports[name].append(int(value))
    return ports


def bit_serial(
    cycles: int,
    lanes: int,
    rng: random.Random,
    activation: Callable[[], int],
    weight: Callable[[], int],
    chunks: int = 4,
) -> Ports:
    """Ternary weights times unsigned 8-bit activations, one bit plane after the other from the highest down."""
    ports: Ports = {n: [] for n in ("rst", "row_load", "col_load", "en", "first", "double", "capture", "row", "col")}
    cycle = 0
    control = (0, 0, 0)  # of the operands loaded before: first, double, capture
    while cycle < cycles:
        weights = [[weight() for _ in range(lanes)] for _ in range(chunks)]
        codes = [[activation() for _ in range(lanes)] for _ in range(chunks)]
        for plane in reversed(range(8)):
            for chunk in range(chunks):
                first, double, capture = control
                values = {
                    "rst": cycle < 1,
                    "row_load": 1,
                    "col_load": 1,
                    "en": cycle > 0,
                    "first": first,
                    "double": double,
                    "capture": capture,
                    "row": ternary_word(weights[chunk]),
                    "col": ternary_word([code >> plane & 1 for code in codes[chunk]]),
                }
                for name, value in values.items():
                    ports[name].append(int(value))
                start = plane == 7 and chunk == 0
                control = (start, chunk == 0 and plane < 7, start)
                cycle += 1
    return {name: values[:cycles] for name, values in ports.items()}


def normalised(values: list[float]) -> list[float]:
    """Scaled to unit variance: real activations and weights reach the sums in the range that they are trained for."""
    scale = math.sqrt(sum(v * v for v in values) / len(values)) or 1.0
    return [v / scale for v in values]


def trit_rows(block: Block, rng: random.Random) -> tuple[Iterator[int], Iterator[int]]:
    """No parameters, and beats of bytes with five trits each."""

    def beats() -> Iterator[int]:
        while True:
            yield sum(rng.randrange(3**5) << 8 * byte for byte in range(block.lanes))

    return repeat(0), beats()


def top_rows(block: Block, rng: random.Random) -> tuple[Iterator[int], Iterator[int]]:
    """Ids and columns of logits, normal ones of 2.5 nats, a column as long as it is worked through; of two beams in turn where there are
    two."""
    beams = block.row_bits - ID_BITS + 1
    bits, cycles = block.col_bits // COLUMN_LOGITS, COLUMN_LOGITS // LOGITS

    def columns() -> Iterator[int]:
        while True:
            values = [round(rng.gauss(0, 2.5) * 2.0 ** (16 + TOP_SHIFT)) for _ in range(COLUMN_LOGITS)]
            yield from repeat(sum((v & (1 << bits) - 1) << bits * i for i, v in enumerate(values)), cycles)

    def ids() -> Iterator[int]:
        for number in count():
            yield from repeat(number // beams * COLUMN_LOGITS | number % beams << ID_BITS, cycles)

    return ids(), columns()


UNITS = {
    "trits": trit_rows,
    "top": top_rows,
}  # kinds of blocks that are no multiply-accumulate: their operands
