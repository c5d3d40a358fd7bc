"""The header of a program file: its fields with their bounds, and what they must be beside each other. Imported where a file is read."""

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict

from ternbin.contract.hw import MAX_BEAMS, HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES
from ternbin.errors import InputError
from ternbin.schema import validated

Address = Annotated[int, Field(ge=0, lt=1 << 40)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Some = Annotated[int, Field(ge=1, lt=1 << 31)]
Id = Annotated[int, Field(ge=0, lt=1 << 31)]
Kind = Literal["", "ternary", "binary", "ternary_nn", "binary_nn", "int8", "uint8"]
Layout = Literal["tokens", "keys", "transposed", "residual", "scores", "ids"]

Region = tuple[Annotated[int, Field(ge=0, le=8)], Count, Count, Count, Count]
View = tuple[Layout, Count, Count, Count, Count, Count, Count, Kind, bool, Annotated[int, Field(ge=0, le=63)], Count]
Probe = tuple[Count, Annotated[int, Field(ge=0, le=3)], Count, str, Region, View, list[tuple[Count, Count]]]
Call = tuple[Address, Some, list[Count]]
Port = tuple[str, Address, Some, Count, Count, Annotated[int, Field(ge=0, le=32)], Count]
GENERATING = ("logit_scale_log2", "logit_shift", "decoder_start_id")  # what decoding needs of ``info``


class Search(TypedDict, total=False):
    length_penalty: Annotated[float, Field(allow_inf_nan=False)]
    no_repeat_ngram_size: Count
    early_stopping: bool | Literal["never"]
    min_length: Count


class Info(TypedDict):
    vocab: Some
    max_positions: Some
    max_target_positions: NotRequired[Some]
    target_vocab: NotRequired[Some]
    prompt_ids: NotRequired[list[Id]]
    logit_scale_log2: NotRequired[Annotated[int, Field(ge=-64, le=64)]]
    logit_shift: NotRequired[Annotated[int, Field(ge=0, le=63)]]
    decoder_start_id: NotRequired[Id | None]
    eos_id: NotRequired[Id | list[Id] | None]
    forced_bos_id: NotRequired[Id | None]
    forced_eos_id: NotRequired[Id | None]
    search: NotRequired[Search]


class Header(TypedDict):
    hw: HwConfig
    names: list[str]
    calls: Annotated[list[Call], Field(min_length=1)]
    probes: list[Probe]
    inputs: Annotated[list[Port], Field(min_length=1)]
    outputs: list[Port]
    target_addr: Address
    source_len: Some
    max_new_tokens: Count
    writable: list[tuple[Address, Address]]
    info: Info
    beams: NotRequired[Annotated[int, Field(ge=1, le=MAX_BEAMS)]]
    mask_addr: NotRequired[Address]
    result_addr: NotRequired[Address]
    source_lens: NotRequired[Annotated[list[Some], Field(max_length=MAX_BEAMS)]]


def checked(values: object, image_bytes: int, where: str | Path) -> dict[str, Any]:
    """The fields of a header, lists as they were and ``hw`` built. Raises InputError."""
    header = cast(dict[str, Any], validated(Header, values, where, unknown=True))
    header["info"] = cast(dict[str, Any], values)["info"]  # with what this version does not read
    for wrong in _wrong(header, image_bytes):
        raise InputError(f"{where}: {wrong}")
    return header


def _wrong(header: dict[str, Any], size: int) -> list[str]:
    """What fields must be beside each other and in an image of ``size`` bytes."""
    hw: HwConfig = header["hw"]
    beams, lengths = header.get("beams", 1), header.get("source_lens") or [header["source_len"]]
    new, calls = header["max_new_tokens"], header["calls"]
    found: list[str] = []
    if beams != hw.beams:
        found.append(f"beams must be those of hw ({hw.beams}), not {beams}")
    if beams % len(lengths):
        found.append(f"beams must be a multiple of the texts ({len(lengths)}), not {beams}")
    if sum(lengths) != header["source_len"]:
        found.append(f"source_len must be the sum of source_lens ({sum(lengths)}), not {header['source_len']}")
    if len(calls) != len(lengths) + new:
        found.append(f"calls must be {len(lengths) + new} long, a text and a new token each, not {len(calls)}")
    info = header["info"]
    for name, longest in (("max_positions", max(lengths)), ("max_target_positions", new)):
        if longest > info.get(name, info["max_positions"]):
            found.append(f"info.{name} must be at least {longest}, not {info.get(name, info['max_positions'])}")
    found += [f"info.{name} must be given where tokens are" for name in GENERATING if new and name not in info]
    for kind in ("inputs", "outputs"):
        for number, (_, address, rows, _, width, _, stride) in enumerate(header[kind]):
            if rows != header["source_len"]:
                found.append(f"{kind}[{number}][2] must be source_len ({header['source_len']}), not {rows}")
            if address + rows * (stride if width else hw.axi_bytes) > size:
                found.append(f"{kind}[{number}] must lie in the image of {size} bytes, not {rows} rows from {address}")
            if width * hw.res_container // 8 > stride:
                found.append(f"{kind}[{number}] must have a stride of at least its {width} values, not {stride} bytes")
    ends = {"target_addr": (new + 1) * beams * hw.axi_bytes if new else 0}
    if beams > 1:
        ends |= {"mask_addr": 2 * new, "result_addr": new * hw.result_words * hw.axi_bytes}
    for name, length in ends.items():
        if header.get(name, 0) + length > size:
            found.append(
                f"{name} must leave room for {length} bytes in an image of {size}, not be {header.get(name, 0)}"
            )
    for number, (address, count, ops) in enumerate(calls):
        if address % INSTRUCTION_BYTES or address + count * INSTRUCTION_BYTES > size:
            found.append(
                f"calls[{number}] must lie in the image of {size} bytes, not at {address} for {count} instructions"
            )
        elif len(ops) != count or max(ops) >= len(header["names"]):
            found.append(
                f"calls[{number}][2] must be {count} numbers of names, not {len(ops)} up to {max(ops, default=0)}"
            )
    for number, (start, length) in enumerate(header["writable"]):
        if start + length > size:
            found.append(
                f"writable[{number}] must lie in the image of {size} bytes, not from {start} to {start + length}"
            )
    for number, probe in enumerate(header["probes"]):
        if probe[0] >= len(calls):
            found.append(f"probes[{number}][0] must be below {len(calls)}, not {probe[0]}")
    return found
