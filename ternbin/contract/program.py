"""A program: the external-memory image with instructions and weights, and where every tensor can be seen on chip."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from ternbin import formats
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES, UNIT_OF, Instruction, Mem, Op, Unit, decode
from ternbin.contract.memories import Memory, memories
from ternbin.contract.rows import (
    INT8_WEIGHTS,
    UINT8_WEIGHTS,
    bytes_int,
    from_bytes,
    int_bytes,
    residual_words,
    word_codes,
)
from ternbin.errors import InputError
from ternbin.graph.given import IDS, Given, rows
from ternbin.graph.qtypes import from_stored, kind_of
from ternbin.schema import parse_json, read_bytes
from ternbin.storage import write_bytes

MAGIC = f"{formats.PROGRAM}\n".encode()
FILE_BYTES = 1 << 36  # of a program file
LAYOUTS = ("tokens", "keys", "transposed", "residual", "scores", "ids")


@dataclass(frozen=True)
class Region:
    """``words`` words from ``addr`` of banks ``bank .. bank+banks-1`` of one memory.

    Its raw form is bytes: bank by bank, word by word, ``Memory.word_bytes`` each, little end first.
    """

    mem: Mem
    addr: int
    words: int
    bank: int = 0
    banks: int = 1


@dataclass(frozen=True)
class View:
    """How a tensor lies in a region; addresses count from the start of the region.

    Layouts (docs/instruction-set.md, "Memories"): "tokens" and "keys" are codes with a token's features along the lanes,
    "transposed" codes with keys along the lanes, all [rows, groups*width]; "residual", "scores" [rows, width]; "ids"
    [rows, 2]: id, and logit, of which the hardware holds ``2^shift`` times the graph's; with ``groups`` above 1 [rows, groups, 2], a
    list of them every ``stride`` words, the last of which, (m, s) of rule 11, is as it is.
    A group (head) of ``width`` features starts every ``pitch`` features of the layout. Row 0 is token, query or key
    ``first``. ``lead`` adds a first dimension of 1 (heads); ``kind`` is the code kind.
    """

    layout: str
    rows: int
    width: int
    stride: int = 0
    groups: int = 1
    pitch: int = 0
    plane: int = 0
    kind: str = ""
    lead: bool = False
    shift: int = 0
    first: int = 0


@dataclass(frozen=True)
class Probe:
    """Instruction number ``index`` of ``unit`` in call ``call`` (from 0): once it is done, ``region`` holds the tensor.

    ``tensor`` is the name of a node of the call's graph (encoder for call 0); ``part`` says which slice of it the region
    holds: (start, stop) for each dimension.
    """

    call: int
    unit: Unit
    index: int
    tensor: str
    region: Region
    view: View
    part: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Call:
    """One start of the core: ``count`` instructions (END is the last) at byte ``address`` of the image.

    ``ops[i]`` indexes ``Program.names``: the graph op that instruction i belongs to.
    """

    address: int
    count: int
    ops: tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """Where the host puts (``Program.inputs``) or finds (``Program.outputs``) the rows of a prefill input or output, those of all texts
    one after the other: ids below ``limit``, one a beat; or, where ``width`` is not 0, that many integers of ``bits`` bits a row, each row
    from ``address + row * stride`` on."""

    name: str
    address: int
    rows: int
    limit: int = 0
    width: int = 0
    bits: int = 0
    stride: int = 0


@dataclass(frozen=True)
class Program:
    """What a run needs: image, calls, probes, and where ids and rows of the residual stream come in and go out.

    The first calls are those of prefill, one a text; the host puts what they read at ``inputs``, that of several texts (``source_lens``)
    one after the other, and finds what they give to it at ``outputs``. A program of a model that does not generate has
    ``max_new_tokens`` 0 and no other calls. The ``beams`` are those of all texts, in the order of the texts.

    With ``beams`` above 1 every decoder call works on that many tokens of one position, as beams of one text. The host puts their
    ids at ``slot_addr(t)``, and at ``mask_addr`` 16 bits for each key of the caches, bit b of which says whether beam b sees it; the
    best tokens of each, with the normaliser, come out from ``result_addr`` on, call after call (``read_top``).

    The host puts the start token at slot 0 of ``target_addr``; decoder call t reads slot t and writes slot t+1.
    ``writable`` lists the (address, bytes) the host or the core write; the rest of the image is constant.
    """

    hw: HwConfig
    image: bytes | memoryview = field(repr=False)  # a view where it was mapped without contents
    calls: tuple[Call, ...] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    probes: tuple[Probe, ...] = field(repr=False)
    inputs: tuple[Port, ...]
    target_addr: int
    source_len: int
    max_new_tokens: int
    writable: tuple[tuple[int, int], ...] = ()
    info: dict[str, Any] = field(default_factory=dict[str, Any])
    beams: int = 1
    mask_addr: int = 0
    result_addr: int = 0
    source_lens: tuple[int, ...] = ()
    outputs: tuple[Port, ...] = ()

    @property
    def generates(self) -> bool:
        """Whether there are decoder calls."""
        return self.max_new_tokens > 0

    @property
    def lengths(self) -> tuple[int, ...]:
        """Source tokens of each text."""
        return self.source_lens or (self.source_len,)

    @property
    def encoders(self) -> int:
        """Number of encoder calls: decoder call t is call ``encoders + t``."""
        return len(self.lengths)

    def title(self, number: int) -> str:
        """What call ``number`` is."""
        if number >= self.encoders:
            return f"decoder position {number - self.encoders}"
        return "encoder" if self.encoders == 1 else f"encoder of text {number}"

    def slot_addr(self, slot: int) -> int:
        """Byte address of target slot ``slot``: input of decoder call ``slot``, result of decoder call ``slot - 1``."""
        return self.target_addr + slot * self.beams * self.hw.axi_bytes

    def words(self, call: int) -> list[int]:
        """The 512-bit instruction words of a call."""
        start = self.calls[call].address
        steps = range(start, start + self.calls[call].count * INSTRUCTION_BYTES, INSTRUCTION_BYTES)
        return [int.from_bytes(self.image[a : a + INSTRUCTION_BYTES], "little") for a in steps]

    def instructions(self, call: int) -> list[Instruction]:
        """The decoded instructions of a call. Equal words, which calls have many of, are decoded once and are one object.

        Raises InputError, naming the instruction, for a damaged one.
        """
        result: list[Instruction] = []
        known = self._decoded
        for number, word in enumerate(self.words(call)):
            if word not in known:
                try:
                    known[word] = decode(word)
                except InputError as error:
                    raise InputError(f"call {call}, instruction {number}: {error}") from None
            result.append(known[word])
        return result

    @cached_property
    def _decoded(self) -> dict[int, Instruction]:
        return {}

    @cached_property
    def probes_of_call(self) -> tuple[tuple[Probe, ...], ...]:
        """The probes of each call, in the order of the program."""
        groups: list[list[Probe]] = [[] for _ in self.calls]
        for probe in self.probes:
            groups[probe.call].append(probe)
        return tuple(tuple(group) for group in groups)

    def with_ids(self, source: Given, start_id: int | None = None) -> bytearray:
        """A copy of the image with what prefill reads of one text, or of all, and the start token (of a program that generates) in place.
        Raises InputError for what is not of the ports' shapes and ranges."""
        image = bytearray(self.image)
        given = rows(source, [port.name for port in self.inputs], self.source_lens)
        for port in self.inputs:
            if port.width:
                self._put_stream(image, port, given[port.name])
            else:
                self._put_ids(image, port, given[port.name])
        if start_id is not None:
            self.put_id(image, self.slot_addr(0), start_id)
        return image

    def _put_ids(self, memory: bytearray, port: Port, ids: npt.NDArray[np.int64]) -> None:
        if ids.shape != (port.rows,):
            raise InputError(f"source {port.name} must be {port.rows}, not {len(ids)}")
        for slot, value in enumerate(ids.tolist()):
            if not 0 <= value < port.limit:
                what = "token id" if port.name == IDS else port.name
                raise InputError(f"{what} must be from 0 to {port.limit - 1}, not {value}")
            self._put_beat(memory, port.address + slot * self.hw.axi_bytes, value)

    def _put_stream(self, memory: bytearray, port: Port, values: npt.NDArray[np.int64]) -> None:
        if values.shape != (port.rows, port.width):
            raise InputError(f"{port.name} must be of shape {[port.rows, port.width]}, not {list(values.shape)}")
        limit, size = 1 << port.bits - 1, self.hw.res_container // 8
        if values.min() < -limit or values.max() >= limit:
            raise InputError(f"{port.name} must be from {-limit} to {limit - 1}, not {int(abs(values).max())}")
        data = int_bytes(residual_words(self.hw, values).reshape(port.rows, -1), size)
        view = np.frombuffer(memory, np.uint8, port.rows * port.stride, port.address)
        view.reshape(port.rows, port.stride)[:, : data.shape[1]] = data

    def read(self, memory: bytes | bytearray, port: Port) -> npt.NDArray[np.int64]:
        """The rows of an output, int64 ``[rows, width]``, after the calls of prefill."""
        raw = np.frombuffer(memory, np.uint8, port.rows * port.stride, port.address)
        values = bytes_int(raw.reshape(port.rows, port.stride), self.hw.res_container // 8)
        return values[:, : port.width]

    def put_id(self, memory: bytearray, address: int, value: int) -> None:
        """A token of the target in its place."""
        vocab = self.info.get("target_vocab", 1 << 31)
        if not 0 <= value < vocab:
            raise InputError(f"token id must be from 0 to {vocab - 1}, not {value}")
        self._put_beat(memory, address, value)

    def _put_beat(self, memory: bytearray, address: int, value: int) -> None:
        memory[address : address + self.hw.axi_bytes] = int(value).to_bytes(self.hw.axi_bytes, "little")

    def put_beams(self, memory: bytearray, position: int, tokens: Sequence[int], mask: ArrayLike) -> None:
        """What the decoder call at ``position`` reads: a token a beam, and which keys each sees, bool ``[beams, keys]``."""
        for beam, token in enumerate(tokens):
            self.put_id(memory, self.slot_addr(position) + beam * self.hw.axi_bytes, token)
        bits = (
            (np.asarray(mask).astype("<u2") << np.arange(self.beams, dtype="<u2")[:, None])
            .sum(0, dtype="<u2")
            .tobytes()
        )
        memory[self.mask_addr : self.mask_addr + len(bits)] = bits

    def read_top(self, memory: bytes | bytearray, position: int) -> np.ndarray:
        """What the decoder call on beams at ``position`` gave, as rule 11 does: int64 ``[beams, top + 1, 2]``."""
        step, size = self.hw.axi_bytes, self.hw.result_words * self.hw.axi_bytes
        raw = np.frombuffer(memory, np.uint8, size, self.result_addr + position * size)
        raw = raw.reshape(self.beams, self.hw.top + 1, 3, step)[..., :4]
        ids, logits = bytes_int(raw[:, :, 0], 4), bytes_int(raw[:, :, 1:].reshape(*raw.shape[:2], 8), 8)
        logits[:, :-1] >>= self.info["logit_shift"]
        return np.concatenate([ids, logits], axis=-1)

    def get_id(self, memory: bytes | bytearray, address: int) -> int:
        return int.from_bytes(memory[address : address + 4], "little")


# ---- probes ---------------------------------------------------------------------------------------------------------


def region_bytes(hw: HwConfig, region: Region) -> int:
    """Length of the region's raw form."""
    return region.banks * region.words * memories(hw)[region.mem].word_bytes


def decode_probe(hw: HwConfig, probe: Probe, raw: bytes) -> np.ndarray:
    """The tensor, int64, in the values the integer reference uses, from the raw words of the probe's region."""
    region, view, shape = probe.region, probe.view, memories(hw)[probe.region.mem]
    if len(raw) != region_bytes(hw, region):
        raise InputError(f"probe {probe.tensor}: raw words must be {region_bytes(hw, region)} bytes, not {len(raw)}")
    words = np.frombuffer(raw, dtype=np.uint8).reshape(region.banks, region.words, shape.word_bytes)
    if view.layout in ("tokens", "keys", "transposed"):
        out = _decode_codes(hw, shape, view, words)
    elif view.layout == "scores":
        out = _decode_scores(hw, view, words)
    else:
        out = {"residual": _decode_residual, "ids": _decode_ids}[view.layout](hw, view, words[0])
    out = np.ascontiguousarray(out, dtype=np.int64)
    return out[None] if view.lead else out


def expected_part(probe: Probe, value: ArrayLike | tuple[ArrayLike, ...]) -> np.ndarray:
    """The slice of the reference tensor that :func:`decode_probe` must equal, int64; ids and logits become columns."""
    if isinstance(value, tuple):
        value = np.stack([np.asarray(v, dtype=np.int64) for v in value], axis=-1)
    return np.asarray(value)[tuple(slice(*p) for p in probe.part)].astype(np.int64, copy=False)


def _decode_codes(hw: HwConfig, shape: Memory, view: View, raw: np.ndarray) -> np.ndarray:
    words = from_bytes(raw)[..., : shape.bits].reshape(*raw.shape[:2], hw.planes, hw.lanes)
    if kind_of(view.kind).eight_bit:
        weights = INT8_WEIGHTS if view.kind == "int8" else UINT8_WEIGHTS
        return (weights[:, None, None] * _gather(hw, view, words[..., 0, :], len(weights))).sum(axis=0)
    return from_stored(_gather(hw, view, word_codes(hw, words))[0], view.kind)


def _gather(hw: HwConfig, view: View, codes: np.ndarray, planes: int = 1) -> np.ndarray:
    """Elements ``[planes, rows, groups*width]`` of codes ``[banks, words, lanes]``."""
    row = view.first + np.arange(view.rows)[:, None]
    group, feature = np.divmod(np.arange(view.groups * view.width)[None, :], view.width)
    place = group * view.pitch + feature
    along, across = (row, place) if view.layout == "transposed" else (place, row)
    word = across // len(codes) * view.stride + along // hw.lanes
    offsets = view.plane * np.arange(planes)[:, None, None]
    return codes[across % len(codes), word + offsets, along % hw.lanes]


def _decode_residual(hw: HwConfig, view: View, raw: np.ndarray) -> np.ndarray:
    values = bytes_int(raw, hw.res_container // 8)
    row, element = np.arange(view.rows)[:, None], np.arange(view.width)[None, :]
    return values[row * view.stride + element // hw.rows, element % hw.rows]


def _decode_scores(hw: HwConfig, view: View, raw: np.ndarray) -> np.ndarray:
    bits = from_bytes(raw)[..., : hw.score_word_bits].reshape(*raw.shape[:2], hw.rows, hw.acc_bits).astype(np.int64)
    weights = 1 << np.arange(hw.acc_bits, dtype=np.int64)
    weights[-1] = -weights[-1]
    query, key = np.arange(view.rows)[:, None], np.arange(view.width)[None, :]
    return (bits @ weights)[query % hw.cols, query // hw.cols * view.stride + key // hw.rows, key % hw.rows]


def _decode_ids(hw: HwConfig, view: View, raw: np.ndarray) -> np.ndarray:
    both = np.concatenate([bytes_int(raw[:, :4], 4), bytes_int(raw[:, 4:12], 8)], axis=-1)
    if view.groups > 1:
        both = both[:: view.stride].reshape(view.rows, view.groups, 2)
        both[:, :-1, 1] >>= view.shift
        return both
    both[:, 1] >>= view.shift
    return both[: view.rows]


# ---- files ----------------------------------------------------------------------------------------------------------


def save(program: Program, path: str | Path) -> None:
    """Write one file: magic, header length, JSON header, image, SHA-256 of all before. Replaces the file atomically."""
    header = {name: getattr(program, name) for name in _HEADER}
    header["hw"] = program.hw.asdict()
    header["calls"] = [dataclasses.astuple(call) for call in program.calls]
    header["inputs"] = [dataclasses.astuple(port) for port in program.inputs]
    header["outputs"] = [dataclasses.astuple(port) for port in program.outputs]
    header["probes"] = [dataclasses.astuple(probe) for probe in program.probes]
    text = json.dumps(header, separators=(",", ":")).encode()
    body = MAGIC + len(text).to_bytes(8, "little") + text + program.image
    write_bytes(path, body + hashlib.sha256(body).digest())


_HEADER = (
    "names",
    "target_addr",
    "source_len",
    "max_new_tokens",
    "writable",
    "info",
    "beams",
    "mask_addr",
    "result_addr",
    "source_lens",
)


def load(path: str | Path) -> Program:
    """Read a program file. Raises InputError for a foreign, truncated or damaged file."""
    data = read_bytes(path, FILE_BYTES)
    first = data[:40].partition(b"\n")[0].decode("ascii", "replace")
    formats.refuse_newer(first, formats.PROGRAM, str(path))
    if not data.startswith(MAGIC):
        begins = first if formats.is_newer(formats.PROGRAM, first) else data[:8]
        raise InputError(f"{path}: must be a file of {formats.PROGRAM}, not one that starts with {begins!r}")
    body, digest = data[:-32], data[-32:]
    if len(body) < len(MAGIC) + 8 or hashlib.sha256(body).digest() != digest:
        raise InputError(f"{path}: checksum must match the contents; the file is truncated or damaged")
    start = len(MAGIC) + 8
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    return _from_header(parse_json(body[start:end], path), body[end:], path)


def _from_header(values: object, image: bytes, where: str | Path) -> Program:
    from ternbin.contract.header import checked

    header = checked(values, len(image), where)
    own: dict[str, Any] = {name: header[name] for name in _HEADER if name in header}
    own |= {
        "hw": header["hw"],
        "image": image,
        "calls": tuple(Call(a, n, tuple(ops)) for a, n, ops in header["calls"]),
        "names": tuple(header["names"]),
        "probes": tuple(_probe(*fields) for fields in header["probes"]),
        "inputs": tuple(Port(*fields) for fields in header["inputs"]),
        "outputs": tuple(Port(*fields) for fields in header["outputs"]),
        "writable": tuple((a, n) for a, n in header["writable"]),
        "source_lens": tuple(header.get("source_lens", ())),
    }
    return Program(**own)


def _probe(
    call: int,
    unit: int,
    index: int,
    tensor: str,
    region: Sequence[int],
    view: Sequence[Any],
    part: Sequence[Sequence[int]],
) -> Probe:
    place = Region(Mem(region[0]), *region[1:])
    return Probe(call, Unit(unit), index, tensor, place, View(*view), tuple((a, b) for a, b in part))


# ---- listing --------------------------------------------------------------------------------------------------------


def listing(program: Program, calls: Sequence[int] | None = None) -> str:
    """The program as text: one line an instruction, under the name of the graph op it belongs to."""
    lines: list[str] = []
    for number in range(len(program.calls)) if calls is None else calls:
        call = program.calls[number]
        lines.append(f"call {number} ({program.title(number)}) at {call.address:#x}, {call.count} instructions")
        last = None
        for index, (instruction, op) in enumerate(zip(program.instructions(number), call.ops, strict=True)):
            if op != last:
                lines.append(f"  {program.names[op]}")
                last = op
            lines.append(f"    {index:5d}  {instruction_text(instruction)}")
    return "\n".join(lines) + "\n"


def instruction_text(instruction: Instruction) -> str:
    """One instruction on one line: operation, tokens, fields that are not 0."""
    if instruction.op == Op.END:
        return "END"
    tokens = [f"<{u.name.lower()}" for u in sorted(instruction.wait)]
    tokens += [f">{u.name.lower()}" for u in sorted(instruction.signal)]
    fields = [f"{name}={_value_text(name, value)}" for name, value in instruction.fields.items() if value]
    return " ".join([f"{instruction.op.name:<9}", f"{UNIT_OF[instruction.op].name.lower():<7}", *tokens, *fields])


def _value_text(name: str, value: int) -> str:
    if name == "mem":
        return Mem(value).name
    return f"{value:#x}" if name == "dram" else str(value)
