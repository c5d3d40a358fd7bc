"""State of the functional model: memories with their contents, external memory, and what an instruction touched."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ternbin.contract.effects.access import READ, WRITE, Access
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ErrorCode, Kind, Mem
from ternbin.contract.memories import CODE_MEMORIES, PARAM_BITS, TABLES, memories
from ternbin.contract.program import Region
from ternbin.contract.rows import int_bytes, to_bytes
from ternbin.contract.transfers import transfer_words
from ternbin.graph import golden
from ternbin.graph.fixedpoint import BIAS_BITS, MUL_BITS

Total = tuple[int, int]  # (m, s) of rule 11
Best = list[tuple[int, int]]  # (id, logit), largest logit first


class MachineError(Exception):
    """The core stops with ``code``.

    ``codes``: all it may stop with, where several words or bytes of a transfer are out of range and time decides; ``code`` is one of
    them. ``address``: of BUS_READ and BUS_WRITE what the core reports, the first byte of the burst, where external memory ends with a
    page; of other errors the core reports the instruction's, None here.
    """

    def __init__(self, codes: ErrorCode | Sequence[ErrorCode], message: str, address: int | None = None):
        self.codes = (codes,) if isinstance(codes, ErrorCode) else tuple(codes)
        self.code = self.codes[0]
        self.address = address
        super().__init__(f"{self.code.name}: {message}")


class Undefined(MachineError):
    """The program breaks a promise that no core checks: it goes on with other values. Its code is NONE."""

    def __init__(self, message: str):
        super().__init__(ErrorCode.NONE, message)


@dataclass
class State:
    """State of one accelerator: ``memories`` and external memory ``dram``. Memories start with random contents.

    ``memories``: code memories uint8 bits [banks, words, planes, lanes]; RBUF, PBUF int64 [words, rows] (PBUF: signed 16 bits);
    SBUF int64 [banks, words, rows]; IDBUF int64 [words, 2], id and logit; LUTV, LUTX int64 [256].
    ``best``: running maximum of ARGMAX of each column, (logit, id). ``tops``: of TOP, of each token.
    ``accesses``: what the last instruction touched, word by word.
    """

    hw: HwConfig
    dram: bytearray
    seed: int = 0
    accesses: list[Access] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.memories = {mem: _garbage(self.hw, mem, rng) for mem in Mem}
        self.settle(Mem.ABUF)
        self.bytes = np.frombuffer(self.dram, dtype=np.uint8)
        self.reset_units()

    def reset_units(self) -> None:
        """What the compute units keep from instruction to instruction, as after a reset and after an error."""
        self.best = [(0, 0)] * self.hw.cols
        self.tops: list[tuple[Best, Total]] = [no_top(self.hw)] * self.hw.beams

    def touch(self, mem: Mem, words: np.ndarray, write: bool) -> np.ndarray:
        """Check and note word addresses (of tables: beats)."""
        words, limit = np.asarray(words), transfer_words(self.hw, mem)
        if words.max(initial=0) >= limit:
            raise MachineError(ErrorCode.ADDRESS, f"{mem.name} word {words.max(initial=0)} of {limit}")
        self.accesses.append(Access(mem, words.reshape(-1), WRITE if write else READ))
        return words

    def rows_of(
        self, mem: Mem, addr: int, stride: int, count: int, words: int, *, write: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Banks ``[count, 1]`` and words ``[count, words]`` of ``count`` rows that go round the banks."""
        row, banks = np.arange(count)[:, None], memories(self.hw)[mem].banks
        return row % banks, self.touch(mem, addr + row // banks * stride + np.arange(words), write)

    def put_lanes(self, mem: Mem, bank: np.ndarray, word: np.ndarray, stride: int, lane: int, bits: np.ndarray) -> None:
        """``bits [planes, P, n, k]`` to lanes ``lane .. lane+k-1`` of n words, planes ``stride`` apart; lane 0 clears the rest of
        the word."""
        for plane, part in enumerate(bits):
            words = self.touch(mem, word + plane * stride, True)
            if lane == 0:
                self.memories[mem][bank, words] = 0
            self.memories[mem][bank, words, :, lane : lane + part.shape[-1]] = part.swapaxes(0, 1)
        self.settle(mem)

    def settle(self, mem: Mem) -> None:
        """Words of ABUF behind ``plane_words`` have no negative plane."""
        if mem == Mem.ABUF and self.hw.whole_columns:
            self.memories[mem][:, self.hw.plane_words :, 1] = 0

    def code_bits(self, kind: int, codes: np.ndarray) -> np.ndarray:
        """Stored codes ``[..]`` to bits ``[8 or 1, planes, ..]``."""
        if kind in (Kind.INT8, Kind.UINT8):
            bits = np.stack([codes >> p & 1 for p in range(8)])
            return np.stack([bits, np.zeros_like(bits)][: self.hw.planes], axis=1)
        if not np.isin(codes, (-1, 0, 1) if kind == Kind.TERNARY else (-1, 1)).all():
            raise Undefined(f"code out of range of {Kind(kind).name}")
        return np.stack([codes != 0, codes < 0] if self.hw.planes == 2 else [codes > 0])[None]

    def raw(self, region: Region) -> bytes:
        """The words of a region, in the form that program.decode_probe takes. Raises ValueError for one outside its memory."""
        shape = memories(self.hw)[region.mem]
        if region.bank + region.banks > shape.banks or region.addr + region.words > shape.words:
            raise ValueError(f"region must lie in {region.mem.name}, not {region}")
        words = slice(region.addr, region.addr + region.words)
        values = self.memories[region.mem]
        if region.mem in CODE_MEMORIES:
            return to_bytes(values[region.bank : region.bank + region.banks, words].reshape(-1, shape.bits)).tobytes()
        if region.mem == Mem.SBUF:
            bits = values[region.bank : region.bank + region.banks, words, :, None] >> np.arange(self.hw.acc_bits) & 1
            return to_bytes(bits.reshape(-1, shape.bits).astype(np.uint8)).tobytes()
        values = values[words]
        if region.mem == Mem.IDBUF:
            return np.concatenate([int_bytes(values[:, :1], 4), int_bytes(values[:, 1:], 8)], axis=1).tobytes()
        return int_bytes(values, self.hw.res_container // 8 if region.mem == Mem.RBUF else 2).tobytes()


def no_top(hw: HwConfig) -> tuple[Best, Total]:
    """List and sum of TOP before the first token: below every logit."""
    return [(-1, -(1 << max(hw.acc_bits + MUL_BITS, BIAS_BITS)))] * hw.top, (golden.NO_EXPONENT, 0)


def _garbage(hw: HwConfig, mem: Mem, rng: np.random.Generator) -> np.ndarray:
    """Random contents, so that use of unwritten words shows."""
    shape = memories(hw)[mem]
    if mem in CODE_MEMORIES:
        return rng.integers(0, 2, (shape.banks, shape.words, hw.planes, hw.lanes), dtype=np.uint8)
    if mem == Mem.IDBUF:
        return rng.integers(0, 1 << 16, (shape.words, 2))
    if mem in TABLES:
        return rng.integers(0, 256, shape.words)
    bits = {Mem.RBUF: hw.res_bits, Mem.SBUF: hw.acc_bits, Mem.PBUF: PARAM_BITS}[mem]
    size = (shape.banks, shape.words, hw.rows) if mem == Mem.SBUF else (shape.words, hw.rows)
    return rng.integers(-(1 << bits - 1), 1 << bits - 1, size)
