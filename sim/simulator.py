"""One accelerator in the compiled simulation: registers, external memory, calls, records."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ternbin.contract import isa
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import ErrorCode, Unit
from ternbin.contract.memories import memories
from ternbin.contract.program import Probe, region_bytes
from ternbin.contract.registers import BUSY, CLEAR, IRQ_ENABLE, START
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import CallRun, Record
from ternbin.errors import CheckError, InputError
from ternbin.sim.generated import generated

CYCLE_LIMIT = 1 << 34  # the core's own watchdog comes long before

_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64


@dataclass(frozen=True, kw_only=True)
class Waves:
    """Waves of the cycles ``start`` <= cycle < ``stop`` since reset; .vcd, or .fst where zlib and lz4 are installed."""

    path: str | Path
    start: int = 0
    stop: int = 1 << 62

    @property
    def kind(self) -> str:
        return Path(self.path).suffix.removeprefix(".")


class CoreError(CheckError):
    """The core stopped with an error: ``code`` and the byte address it reported."""

    def __init__(self, code: ErrorCode, address: int, where: str):
        super().__init__(f"{where}: the core stopped with {code.name} at {address:#x}")
        self.code, self.address = code, address


class _Probe(ctypes.Structure):
    _fields_ = [(n, _U32) for n in ("unit", "index", "memory", "bank", "banks", "addr", "words", "word_bytes")] + [
        ("offset", _U64)
    ]


class _Record(ctypes.Structure):
    _fields_ = [("unit", _U32), ("index", _U32), ("start", _U64), ("done", _U64)]


class _Result(ctypes.Structure):
    _fields_ = [("cycles", _U64), ("records", _U64), ("probes", _U64)]


class HostCycle(ctypes.Structure):
    """The register port (AXI4-Lite, and the interrupt) in one cycle: what the host drives, then what it sees."""

    _fields_ = (
        [(n, _U32) for n in ("awaddr", "wdata", "wstrb", "araddr")]
        + [(n, ctypes.c_uint8) for n in ("awvalid", "wvalid", "bready", "arvalid", "rready")]
        + [(n, ctypes.c_uint8) for n in ("awready", "wready", "bvalid", "arready", "rvalid", "bresp", "rresp", "irq")]
        + [("rdata", _U32)]
    )


_PROGRESS = ctypes.CFUNCTYPE(ctypes.c_int, _U64, _U64)

_SIGNATURES = {
    "tb_new": (ctypes.c_void_p, [ctypes.c_void_p, _U64, _U64, _U32, _U32, _U64, _U32]),
    "tb_free": (None, [ctypes.c_void_p]),
    "tb_reset": (None, [ctypes.c_void_p, _U32]),
    "tb_memory": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, _U32]),
    "tb_counter": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, _U32]),
    "tb_waves": (None, [ctypes.c_void_p, ctypes.c_char_p, _U64, _U64]),
    "tb_record": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), _U32, ctypes.POINTER(_U32)],
    ),
    "tb_write": (ctypes.c_int, [ctypes.c_void_p, _U32, _U32]),
    "tb_read": (ctypes.c_int, [ctypes.c_void_p, _U32, ctypes.POINTER(_U32)]),
    "tb_host_cycle": (None, [ctypes.c_void_p, ctypes.POINTER(HostCycle)]),
    "tb_now": (_U64, [ctypes.c_void_p]),
    "tb_violation": (ctypes.c_char_p, [ctypes.c_void_p]),
    "tb_save": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.POINTER(_U64)]),
    "tb_restore": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, _U64]),
    "tb_call": (
        ctypes.c_int,
        [
            ctypes.c_void_p,
            _U32,
            _U32,
            _U64,
            _PROGRESS,
            ctypes.POINTER(_Probe),
            _U64,
            ctypes.c_void_p,
            ctypes.POINTER(_Record),
            ctypes.POINTER(_U64),
            _U64,
            ctypes.POINTER(_Result),
        ],
    ),
}

_DONE, _CYCLE_LIMIT, _STOPPED, _VIOLATION = range(4)  # results of tb_call


def _library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Simulator:
    """One accelerator in simulation, out of reset, with external memory. Use as a context manager.

    ``memory`` is the external memory: the core reads and writes it in place, so its length must not change.
    ``seed`` decides the random contents that registers without reset and on-chip memories start with; 0: zeros.
    """

    def __init__(
        self,
        hw: HwConfig,
        library: Path,
        memory: bytearray,
        model: MemoryModel,
        *,
        waves: Waves | None = None,
        seed: int = 1,
    ):
        self.hw, self.memory = hw, memory
        self._library = _library(library)
        self._buffer = (ctypes.c_char * len(memory)).from_buffer(memory)
        self._handle = self._library.tb_new(
            ctypes.addressof(self._buffer), len(memory), model.latency, model.beats, 64, model.stall_state, seed
        )
        self._memories: dict[str, int] = {}
        self._counters = [(c["name"], c["offset"]) for c in generated(hw).manifest["counters"]]
        self._watched = self._watch()
        if waves is not None:
            self._library.tb_waves(self._handle, str(waves.path).encode(), waves.start, waves.stop)

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(self, *_: object) -> None:
        self._library.tb_free(self._handle)
        self._handle = None
        del self._buffer

    def _number(self, name: str) -> int:
        """The harness's number of a memory, which it looks for when first asked: a form of the RTL may be made of others."""
        if name not in self._memories:
            entry = next(each for each in generated(self.hw).manifest["memories"] if each["name"] == name)
            path = entry["instances"][0].removesuffix("0")
            number = self._library.tb_memory(self._handle, path.encode(), entry["banks"])
            if number < 0:
                raise CheckError(f"the simulation must contain {entry['banks']} banks {path}*")
            self._memories[name] = number
        return self._memories[name]

    def _watch(self) -> list[str]:
        """Counters of the units, in the order of the harness's numbers."""
        names = []
        for entry in generated(self.hw).manifest["counters"]:
            unit = entry["name"].partition("_")[0].upper()
            if unit not in Unit.__members__:
                continue
            if self._library.tb_counter(self._handle, entry["signal"].encode(), Unit[unit]) < 0:
                raise CheckError(f"the simulation must contain the counter {entry['signal']}")
            names.append(entry["name"])
        return names

    def record(self, path: str | Path, names: Sequence[str]) -> list[int]:
        """Write the signals ``names`` (counters; ports of the bench in a library built with ``ports``) to a file in every cycle from now
        on. Returns the bytes of each; a row of the file is one cycle."""
        sizes = (_U32 * len(names))()
        array = (ctypes.c_char_p * len(names))(*(name.encode() for name in names))
        if not self._library.tb_record(self._handle, str(path).encode(), array, len(names), sizes):
            raise CheckError(f"{path}: cannot be written, or a signal is not visible in this simulator")
        return list(sizes)

    @property
    def cycle(self) -> int:
        """Cycles since reset began."""
        return self._library.tb_now(self._handle)

    def save(self) -> bytes:
        """Between calls: all that later calls depend on, but ``memory``."""
        size = _U64()
        address = self._library.tb_save(self._handle, ctypes.byref(size))
        return ctypes.string_at(address, size.value)

    def restore(self, state: bytes) -> None:
        """Continue where a simulator of the same library and memory model was saved; ``memory`` is the caller's business."""
        if not self._library.tb_restore(self._handle, state, len(state)):
            raise CheckError("the saved state must be one of this simulator")

    def reset(self, cycles: int) -> None:
        """Reset for ``cycles`` cycles, at any time; ``memory`` keeps its contents, bursts in flight are forgotten."""
        self._library.tb_reset(self._handle, cycles)

    def write(self, register: int, value: int) -> None:
        """Write a register over AXI4-Lite. Raises CheckError unless the answer is OKAY."""
        answer = self._library.tb_write(self._handle, register, value)
        if answer != 0:
            raise CheckError(f"write of register {register:#x} must be answered with OKAY, not {answer}")

    def read(self, register: int) -> int:
        """Read a register over AXI4-Lite. Raises CheckError unless the answer is OKAY."""
        value = _U32()
        answer = self._library.tb_read(self._handle, register, ctypes.byref(value))
        if answer != 0:
            raise CheckError(f"read of register {register:#x} must be answered with OKAY, not {answer}")
        return value.value

    def host_cycle(self, port: HostCycle) -> None:
        """One cycle with the register port as ``port`` drives it; ``port`` then has what the core shows, until the next cycle."""
        self._library.tb_host_cycle(self._handle, ctypes.byref(port))

    def counters(self) -> dict[str, int]:
        """All counters since they were last cleared."""
        return {name: self.read(offset) | self.read(offset + 4) << 32 for name, offset in self._counters}

    def call(
        self,
        address: int,
        instructions: int,
        probes: Sequence[Probe] = (),
        *,
        where: str = "call",
        progress: Callable[[int, int], None] | None = None,
        limit: int = CYCLE_LIMIT,
    ) -> CallRun:
        """Run the program at byte ``address`` (``instructions`` long, END included) to its interrupt.

        progress(cycles, instructions done) is called a few times a second; an exception in it ends the run and comes out here.
        Raises CoreError, and CheckError for a broken bus protocol, a missed probe or more than ``limit`` cycles.
        """
        order = sorted(range(len(probes)), key=lambda i: (probes[i].unit, probes[i].index))
        places, size = self._places([probes[i] for i in order])
        out = ctypes.create_string_buffer(max(size, 1))
        records, deltas = (_Record * instructions)(), (_U64 * max(instructions * len(self._watched), 1))()
        result, hook = _Result(), _Hook(progress)
        self.write(isa.REG_PROGRAM, address & 0xFFFFFFFF)
        self.write(isa.REG_PROGRAM_HI, address >> 32)
        status = self._library.tb_call(
            self._handle,
            isa.REG_CTRL,
            START | IRQ_ENABLE | CLEAR,
            limit,
            hook.function,
            places,
            len(probes),
            out,
            records,
            deltas,
            instructions,
            ctypes.byref(result),
        )
        hook.reraise()
        self._judge(status, where, limit)
        if result.probes != len(probes):
            raise CheckError(f"{where}: {len(probes)} probes must be met, not {result.probes}")
        raw: list[bytes] = [b""] * len(probes)
        view = memoryview(out)
        for place, number in zip(places, order, strict=False):
            raw[number] = bytes(view[place.offset : place.offset + region_bytes(self.hw, probes[number].region)])
        return CallRun(result.cycles, self.counters(), self._records(records, deltas, result.records), tuple(raw))

    def _places(self, probes: Sequence[Probe]) -> tuple[ctypes.Array, int]:
        places, offset = (_Probe * max(len(probes), 1))(), 0
        for place, probe in zip(places, probes, strict=False):
            region = probe.region
            shape = memories(self.hw)[region.mem]
            if region.bank + region.banks > shape.banks or region.addr + region.words > shape.words:
                raise InputError(f"probe {probe.tensor}: region must lie in {region.mem.name}, not {region}")
            memory = self._number(region.mem.name.lower())
            place.unit, place.index, place.memory, place.offset = probe.unit, probe.index, memory, offset
            place.bank, place.banks, place.addr, place.words = region.bank, region.banks, region.addr, region.words
            place.word_bytes = shape.word_bytes
            offset += region_bytes(self.hw, region)
        return places, offset

    def _judge(self, status: int, where: str, limit: int) -> None:
        if status == _VIOLATION:
            raise CheckError(f"{where}: bus protocol: {self._library.tb_violation(self._handle).decode()}")
        if status == _CYCLE_LIMIT:
            raise CheckError(f"{where}: the core must finish within {limit} cycles")
        if status == _STOPPED:
            raise CheckError(f"{where}: the core did not accept the start")
        code = ErrorCode(self.read(isa.REG_ERROR))
        address = self.read(isa.REG_ERROR_ADDR) | self.read(isa.REG_ERROR_ADDR_HI) << 32
        for _ in range(1000 if code else 0):
            if not self.read(isa.REG_STATUS) & BUSY:  # after an error the core waits for the bus
                break
        self.write(isa.REG_STATUS, 1)
        if code:
            raise CoreError(code, address, where)

    def _records(self, records: ctypes.Array, deltas: ctypes.Array, count: int) -> tuple[Record, ...]:
        width, result = len(self._watched), []
        for number in range(count):
            entry, own = records[number], deltas[number * width : (number + 1) * width]
            counters = {name: value for name, value in zip(self._watched, own, strict=True) if value}
            result.append(Record(Unit(entry.unit), entry.index, entry.start, entry.done, counters))
        return tuple(result)


class _Hook:
    """A progress function as a C callback: an exception stops the simulation and is raised again after it."""

    def __init__(self, progress: Callable[[int, int], None] | None):
        self._error: BaseException | None = None
        self.function = _PROGRESS() if progress is None else _PROGRESS(partial(self._call, progress))

    def _call(self, progress: Callable[[int, int], None], cycles: int, instructions: int) -> int:
        try:
            progress(cycles, instructions)
        except BaseException as error:  # KeyboardInterrupt too: C code cannot pass it on
            self._error = error
            return 1
        return 0

    def reraise(self) -> None:
        if self._error is not None:
            raise self._error
