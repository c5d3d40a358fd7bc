"""A program as the drivers take it: memory, calls, and how to decode; one file without probes, names and Python."""

import struct
import zlib
from typing import Any

from ternbin.contract.program import Program
from ternbin.decoding.search import Policy
from ternbin.errors import InputError
from ternbin.integration import constants as c


def image(program: Program) -> bytes:
    """The image (format: integration/constants.py) of a program that decodes one text of token ids greedily. Raises InputError for others:
    beams, batches, models that do not generate or whose input is no text, and generation configs with rules."""
    if not program.generates:
        raise InputError("program of an image must generate text, not only read it")
    policy = Policy.of(program.info, program.max_new_tokens)
    _check(program, policy)
    (source,) = program.inputs
    last: int = c.NONE if policy.last is None else policy.last
    numbers: dict[int, int] = {
        c.IMAGE_BYTES: len(program.image),
        c.IMAGE_BEAT: program.hw.axi_bytes,
        c.IMAGE_ADDRESS_BITS: program.hw.axi_addr_bits,
        c.IMAGE_SOURCE: source.address,
        c.IMAGE_SOURCE_IDS: source.rows,
        c.IMAGE_SOURCE_LIMIT: source.limit,
        c.IMAGE_TARGET: program.target_addr,
        c.IMAGE_TARGET_LIMIT: program.info["target_vocab"],
        c.IMAGE_MAX_NEW_TOKENS: program.max_new_tokens,
        c.IMAGE_LAST: last,
        c.IMAGE_CALLS: len(program.calls),
        c.IMAGE_PROMPT: len(policy.prompt),
        c.IMAGE_ENDS: len(policy.ends),
    }
    values = [numbers[number] for number in range(c.IMAGE_NUMBERS)]
    values += [*(call.address for call in program.calls), *(call.count for call in program.calls)]
    values += [*policy.prompt, *policy.ends]
    body = c.IMAGE_MAGIC + struct.pack(f"<{len(values)}Q", *values) + bytes(program.image)
    return body + struct.pack("<I", zlib.crc32(body))


def _check(program: Program, policy: Policy) -> None:
    search: dict[str, Any] = program.info.get("search", {})
    beams = max(program.beams, search.get("num_beams", 1))
    if beams > 1 or program.encoders > 1:
        raise InputError(f"program of an image must be of one text and one beam, not {program.encoders} and {beams}")
    if policy.rules.broken_by:
        raise InputError(f"program of an image must decode without rules, not with {', '.join(policy.rules.broken_by)}")
    if len(program.inputs) != 1 or program.inputs[0].width:
        names = ", ".join(port.name for port in program.inputs)
        raise InputError(f"program of an image must read token ids alone, not {names}")
