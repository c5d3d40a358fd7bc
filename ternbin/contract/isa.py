"""Instruction set: one 512-bit format per operation, register map, error codes. No Amaranth here.

Every instruction starts with ``opcode`` (8 bits), ``wait`` and ``signal`` (one bit per unit) and ``check``: the XOR of the
32 halfwords of an instruction must equal CHECK, so that flipped bits stop the core instead of computing something else.

Tokens: for every ordered pair of units there is a counter. ``signal`` bit u of an instruction on unit v adds one to (v, u) when
the instruction is done; ``wait`` bit v of an instruction on unit u takes one from (v, u), and holds the instruction until it can.
The bit of the own unit waits for nothing but that earlier instructions of the same unit are done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache

import numpy as np
import numpy.typing as npt

from ternbin.errors import InputError

INSTRUCTION_BITS = 512
INSTRUCTION_BYTES = INSTRUCTION_BITS // 8
CHECK = 0x7E57


class Unit(IntEnum):
    LOAD = 0
    EXECUTE = 1
    VECTOR = 2
    STORE = 3


class Op(IntEnum):
    END = 1  # wait until every unit is idle, raise done and the interrupt
    LOAD = 2
    STORE = 3
    GEMM = 4
    LAYERNORM = 5
    SOFTMAX = 6
    QUANT = 7
    EMBED = 8


UNIT_OF = {
    Op.LOAD: Unit.LOAD,
    Op.STORE: Unit.STORE,
    Op.GEMM: Unit.EXECUTE,
    Op.LAYERNORM: Unit.VECTOR,
    Op.SOFTMAX: Unit.VECTOR,
    Op.QUANT: Unit.VECTOR,
    Op.EMBED: Unit.VECTOR,
}


class Mem(IntEnum):
    """On-chip memories, as LOAD and STORE name them."""

    ABUF = 0  # cols banks of code words
    WBUF = 1  # rows banks of code words
    KBUF = 2  # rows banks of code words
    RBUF = 3  # one bank of residual words
    PBUF = 4  # one bank of parameter words
    IDBUF = 5  # one bank: id (32 bits) and, on chip only, logit (64 bits)
    LUTV = 6  # exp table of the vector unit: 256 x 16 bits
    LUTX = 7  # GELU table of the epilogue: 256 x 16 bits
    SBUF = 8  # score words; neither loaded nor stored


class Epilogue(IntEnum):
    CODES = 0  # thresholds -> 1- or 2-bit codes
    CODES8 = 1  # scale, bias, shift, clip (, table) -> 8 bit planes
    RESIDUAL = 2  # scale, bias, shift, add to the residual word in place, saturate
    SCORES = 3  # accumulators to SBUF
    ARGMAX = 4  # scale, bias, running maximum
    TOP = 5  # scale, bias, running list of the largest and sum of the exponentials; with beams only


class Dest(IntEnum):
    TOKENS = 0  # ABUF, a token's features along the lanes
    KEYS = 1  # KBUF, a key's features along the lanes
    TRANSPOSED = 2  # KBUF, keys along the lanes


class Kind(IntEnum):
    """How a code is stored: see the code types in docs/numerics.md."""

    TERNARY = 0
    BINARY = 1
    INT8 = 2
    UINT8 = 3


class ErrorCode(IntEnum):
    NONE = 0
    OPCODE = 1
    CHECK = 2
    FIELD = 3
    ADDRESS = 4  # on-chip memory address out of range
    BUS_READ = 5
    BUS_WRITE = 6
    TIMEOUT = 7  # no unit made progress for WATCHDOG_CYCLES
    TOKEN = 8  # a token counter overflowed


WATCHDOG_CYCLES = 1 << 16
ADDR = 20  # bits of an on-chip word address
STRIDE = 16

HEADER = (("opcode", 8), ("wait", 4), ("signal", 4), ("check", 16))

_TRANSFER = (
    ("mem", 4),
    ("bank", 6),
    ("addr", ADDR),
    ("inner", 16),
    ("outer", 16),
    ("dram", 40),
    ("stride", 32),
    ("indirect", 1),
    ("index", 16),
    ("expand", 1),
)

# Signed fields have a negative width.
FIELDS: dict[Op, tuple[tuple[str, int], ...]] = {
    Op.END: (),
    Op.LOAD: _TRANSFER,
    Op.STORE: _TRANSFER,
    Op.GEMM: (
        ("row_kbuf", 1),
        ("row_addr", ADDR),
        ("row_stride", STRIDE),
        ("row_plane", STRIDE),
        ("row_planes", 4),
        ("row_signed", 1),
        ("col_addr", ADDR),
        ("col_stride", STRIDE),
        ("col_plane", STRIDE),
        ("col_planes", 4),
        ("col_signed", 1),
        ("chunks", 12),
        ("row_tiles", 16),
        ("col_tiles", 10),
        ("tokens", 12),
        ("acc_init", -24),
        ("rowsum", 1),
        ("epilogue", 3),
        ("dest", 2),
        ("kind", 2),
        ("param_addr", ADDR),
        ("param_stride", 4),
        ("thresholds", 3),
        ("base", -2),
        ("dirs", 4),
        ("shift", 6),
        ("lut", 1),
        ("dst_addr", ADDR),
        ("dst_stride", STRIDE),
        ("dst_plane", STRIDE),
        ("lane", 12),
        ("key", 12),
        ("index", 24),
        ("first", 1),
        ("last", 1),
        ("features", 24),
    ),
    Op.LAYERNORM: (
        ("src_addr", ADDR),
        ("src_stride", STRIDE),
        ("dst_addr", ADDR),
        ("dst_stride", STRIDE),
        ("tokens", 12),
        ("words", 12),
        ("features", 14),
        ("param_addr", ADDR),
        ("shift", 6),
        ("eps", 64),
    ),
    Op.SOFTMAX: (
        ("src_addr", ADDR),
        ("src_stride", STRIDE),
        ("queries", 12),
        ("keys", 12),
        ("causal", 1),
        ("granules", 12),
        ("dst_addr", ADDR),
        ("dst_stride", STRIDE),
        ("dst_plane", STRIDE),
        ("kind", 2),
        ("power", 1),
        ("mul", 16),
        ("shift", 6),
        ("c1", 20),
        ("c2", 20),
        ("recip", 48),
        ("masked", 1),
        ("mask_addr", ADDR),
        ("mask_bit", 4),
    ),
    Op.QUANT: (
        ("src_addr", ADDR),
        ("src_stride", STRIDE),
        ("tokens", 12),
        ("words", 12),
        ("features", 14),
        ("dst_addr", ADDR),
        ("dst_stride", STRIDE),
        ("dst_plane", STRIDE),
        ("kind", 2),
        ("t0", -24),
        ("t1", -24),
        ("mul", 24),
        ("shift", 6),
    ),
    Op.EMBED: (
        ("src_addr", ADDR),
        ("src_stride", STRIDE),
        ("tokens", 12),
        ("words", 12),
        ("features", 14),
        ("scale_addr", ADDR),
        ("dst_addr", ADDR),
        ("dst_stride", STRIDE),
    ),
}


@dataclass(frozen=True)
class Instruction:
    """One operation with its field values (missing fields are 0) and the units it waits for and signals."""

    op: Op
    fields: dict[str, int] = field(default_factory=dict[str, int])
    wait: frozenset[Unit] = frozenset()
    signal: frozenset[Unit] = frozenset()

    def __getitem__(self, name: str) -> int:
        return self.fields.get(name, 0)


@cache
def layout(op: Op) -> dict[str, tuple[int, int, bool]]:
    """Field name -> (lowest bit, bits, signed), header included."""
    result: dict[str, tuple[int, int, bool]] = {}
    low = 0
    for name, width in HEADER + FIELDS[op]:
        result[name] = (low, abs(width), width < 0)
        low += abs(width)
    if low > INSTRUCTION_BITS:
        raise ValueError(f"{op.name}: fields must have at most {INSTRUCTION_BITS} bits, not {low}")
    return result


def _fold(word: int) -> int:
    """The 16-bit parts of a word, added without carry."""
    bits = INSTRUCTION_BITS
    while bits > 16:
        bits //= 2
        word = (word ^ word >> bits) & ((1 << bits) - 1)
    return word


def encode(instruction: Instruction) -> int:
    """The 512-bit word. Raises InputError for an unknown field or a value that does not fit."""
    return int.from_bytes(encode_all([instruction]), "little")


def encode_all(instructions: Sequence[Instruction]) -> bytes:
    """Their words one after the other. Raises InputError as ``encode`` does."""
    words = np.zeros((len(instructions), INSTRUCTION_BITS // 64), dtype="<u8")
    for op in {i.op for i in instructions}:
        rows = np.array([row for row, i in enumerate(instructions) if i.op == op])
        words[rows] = _encoded(op, [i for i in instructions if i.op == op])
    check = np.bitwise_xor.reduce(words.view("<u2"), axis=1)
    words |= _placed(check ^ np.uint16(CHECK), *layout(Op.END)["check"][:2])
    return words.tobytes()


def _encoded(op: Op, instructions: Sequence[Instruction]) -> npt.NDArray[np.uint64]:
    """Words of instructions of one operation, without check."""
    columns = {
        "opcode": [int(op)] * len(instructions),
        "wait": [sum(1 << unit for unit in i.wait) for i in instructions],
        "signal": [sum(1 << unit for unit in i.signal) for i in instructions],
    }
    columns |= {
        name: [i.fields.get(name, 0) for i in instructions]
        for name in sorted({name for i in instructions for name in i.fields})
    }
    places = layout(op)
    words = np.zeros((len(instructions), INSTRUCTION_BITS // 64), dtype=np.uint64)
    for name, values in columns.items():
        if name not in places:
            raise InputError(f"{op.name}: unknown field {name!r}")
        low, bits, signed = places[name]
        least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        for worst in (min(values), max(values)):
            if not least <= worst <= most:
                raise InputError(f"{op.name}: {name} must be from {least} to {most}, not {worst}")
        column = np.array(values, dtype=np.int64 if signed else np.uint64).astype(np.uint64)
        words |= _placed(column & np.uint64((1 << bits) - 1), low, bits)
    return words


def _placed(values: npt.NDArray[np.unsignedinteger], low: int, bits: int) -> npt.NDArray[np.uint64]:
    """Words with values of ``bits`` bits from bit ``low`` on, and zeros."""
    words = np.zeros((len(values), INSTRUCTION_BITS // 64), dtype=np.uint64)
    word, shift = divmod(low, 64)
    values = values.astype(np.uint64)
    words[:, word] = values << np.uint64(shift)
    if shift + bits > 64:
        words[:, word + 1] = values >> np.uint64(64 - shift)
    return words


def decode(word: int) -> Instruction:
    """Inverse of encode. Raises InputError for a wrong check or opcode."""
    if _fold(word) != CHECK:
        raise InputError(f"instruction check must be {CHECK:#06x}, not {_fold(word):#06x}")
    try:
        op = Op(word & 0xFF)
    except ValueError:
        raise InputError(f"opcode must be one of {[int(o) for o in Op]}, not {word & 0xFF}") from None
    values: dict[str, int] = {}
    for name, (low, bits, signed) in layout(op).items():
        value = word >> low & ((1 << bits) - 1)
        values[name] = value - (1 << bits) if signed and value >> bits - 1 else value
    wait, signal = values.pop("wait"), values.pop("signal")
    del values["opcode"], values["check"]
    return Instruction(
        op,
        values,
        frozenset(u for u in Unit if wait >> u & 1),
        frozenset(u for u in Unit if signal >> u & 1),
    )


# AXI4-Lite registers, 32 bits each, byte offsets.
REG_ID, ID_VALUE = 0x000, 0x54424E31
REG_CTRL = 0x008  # write: bit 0 start, bit 1 interrupt enable, bit 2 clear counters
REG_STATUS = 0x00C  # bit 0 busy, bit 1 done, bit 2 error; write anything to clear done and error
REG_ERROR = 0x010  # ErrorCode
REG_ERROR_ADDR = 0x014  # byte address of the instruction (or of the bus transfer for BUS_*), low 32 bits
REG_ERROR_ADDR_HI = 0x018
REG_PROGRAM = 0x020  # byte address of the first instruction, low 32 bits
REG_PROGRAM_HI = 0x024
REG_COUNTERS = 0x400  # 64 bits each, in the order of the manifest
