"""Checkpoints: the state of a run between two calls as one npz file, so that a run that was killed goes on instead of anew."""

import contextlib
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
from typing_extensions import TypedDict

from ternbin import formats
from ternbin.contract.isa import Unit
from ternbin.contract.program import Program, region_bytes
from ternbin.counting.runs import CallRun, Record
from ternbin.errors import InputError
from ternbin.schema import Range, check_regular, parse_json, validated
from ternbin.storage import replacing

SHARE = 20  # writing takes at most about this fraction of the time
_DAMAGE = (
    InputError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    StopIteration,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


class _Call(TypedDict):
    cycles: Annotated[int, Range(0, 1 << 62)]
    counters: dict[str, int]


class _Head(TypedDict):
    key: str
    seconds: Annotated[float, Range(0, 1e12)]
    names: list[str]
    calls: list[_Call]


@dataclass(frozen=True)
class State:
    """A run after ``calls``: state of the model and of the bus (bytes of tb_save), external memory, seconds it took so far."""

    calls: list[CallRun]
    model: bytes
    memory: bytes | bytearray
    seconds: float


def identity(program: Program, library: Path, *parts: object) -> str:
    """Digest of everything that decides a run: program, places of its probes, the compiled simulator, and ``parts`` by repr."""
    calls = [(call.address, call.count) for call in program.calls]
    places = [
        (p.call, p.unit, p.index, p.region.mem, p.region.addr, p.region.words, p.region.bank, p.region.banks)
        for p in program.probes
    ]
    about = (
        formats.CHECKPOINT,
        program.hw,
        calls,
        program.inputs,
        program.outputs,
        program.target_addr,
        program.info,
        *parts,
    )
    digest = hashlib.sha256(repr(about).encode())
    digest.update(np.array(places, dtype=np.int64).tobytes())
    for data in (program.image, library.read_bytes()):
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


@dataclass
class Checkpoint:
    """The file in which a run keeps its state: written between calls, at most every ``every`` seconds; removed after the last call.

    A file is never half written. One of another run, a damaged one, or any with ``restart``, is not used, and in time replaced.
    ``tell(line)`` hears that a run goes on from the file, why it does not, or that the file cannot be written, which ends
    nothing but the writing.
    """

    path: Path
    every: float = 5.0
    restart: bool = False
    tell: Callable[[str], None] = lambda line: None
    _due: float = field(default=0.0, init=False)

    def load(self, program: Program, key: str) -> State | None:
        """The state of the run ``key``, or None to start anew."""
        self._due = perf_counter() + self.every
        if self.restart or not self.path.exists():
            return None
        try:
            check_regular(self.path)
            with np.load(self.path, allow_pickle=False) as file:
                values = parse_json(file["head"].tobytes(), self.path)
                if isinstance(values, dict) and formats.is_newer(str(values.get("format")), formats.CHECKPOINT):
                    self.tell(f"{self.path}: checkpoint made by a newer version of ternbin; starting anew")
                    return None
                head: _Head = validated(_Head, values, self.path, unknown=True)
                if head["key"] != key:
                    self.tell(f"{self.path}: checkpoint of another program, input, hardware or version; starting anew")
                    return None
                calls = [_call(program, number, head, file) for number in range(len(head["calls"]))]
                state = State(calls, file["model"].tobytes(), file["memory"].tobytes(), head["seconds"])
        except _DAMAGE as error:
            self.tell(f"{self.path}: checkpoint is damaged ({type(error).__name__}); starting anew")
            return None
        self.tell(f"{self.path}: going on after call {len(calls)} of at most {len(program.calls)}")
        return state

    def due(self) -> bool:
        return perf_counter() >= self._due

    def save(self, key: str, state: State) -> None:
        begin = perf_counter()
        try:
            with replacing(self.path) as fresh, fresh.open("wb") as file:
                np.savez(file, **_arrays(key, state))  # pyright: ignore[reportArgumentType]  # none is called allow_pickle
        except InputError as error:
            self.tell(f"{error}; going on without checkpoints")
            self._due = float("inf")
            return
        now = perf_counter()
        self._due = now + max(self.every, SHARE * (now - begin))

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _arrays(key: str, state: State) -> dict[str, np.ndarray]:
    names = sorted({name for call in state.calls for record in call.records for name in record.counters})
    head = {
        "format": formats.CHECKPOINT,
        "key": key,
        "seconds": state.seconds,
        "names": names,
        "calls": [{"cycles": call.cycles, "counters": call.counters} for call in state.calls],
    }
    arrays = {"head": _bytes(json.dumps(head).encode()), "model": _bytes(state.model), "memory": _bytes(state.memory)}
    number = {name: i for i, name in enumerate(names)}
    for i, call in enumerate(state.calls):
        arrays[f"records{i}"] = _table([(r.unit, r.index, r.start, r.done, len(r.counters)) for r in call.records], 5)
        arrays[f"counters{i}"] = _table([(number[n], v) for r in call.records for n, v in r.counters.items()], 2)
        arrays[f"raw{i}"] = _bytes(b"".join(call.raw))
    return arrays


def _bytes(data: bytes | bytearray) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def _table(rows: Sequence[tuple[int, ...]], width: int) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, width)


def _call(program: Program, number: int, head: _Head, file: np.lib.npyio.NpzFile) -> CallRun:
    grown = iter(file[f"counters{number}"].tolist())
    records = []
    for unit, index, start, done, count in file[f"records{number}"].tolist():
        counters = {head["names"][name]: value for name, value in (next(grown) for _ in range(count))}
        records.append(Record(Unit(unit), index, start, done, counters))
    return CallRun(
        **head["calls"][number], records=tuple(records), raw=_raw(program, number, file[f"raw{number}"].tobytes())
    )


def _raw(program: Program, number: int, data: bytes) -> tuple[bytes, ...]:
    """Raw words by probe; none where the run did not copy any."""
    if not data:
        return ()
    result, start = [], 0
    for probe in program.probes_of_call[number]:
        stop = start + region_bytes(program.hw, probe.region)
        result.append(data[start:stop])
        start = stop
    return tuple(result)
