"""A program as the drivers take it: memory, calls, and how to decode; one file without probes, names and Python."""

import struct
import zlib

from ternbin.contract.program import Program
from ternbin.decoding.search import Policy, Search
from ternbin.errors import InputError
from ternbin.integration import constants as c

_EARLY = {False: c.EARLY_ESTIMATE, True: c.EARLY_FULL, "never": c.EARLY_NEVER}


def image(program: Program) -> bytes:
    """The image (format: integration/constants.py) of a program that reads token ids and generates text: of one text or several, greedily
    or by a search with beams. Raises InputError for others: models that do not generate or whose input is no text, and generation configs
    with rules."""
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
        **_lists(program),
    }
    values = [numbers[number] for number in range(c.IMAGE_NUMBERS)]
    values += [*(call.address for call in program.calls), *(call.count for call in program.calls)]
    values += [*policy.prompt, *policy.ends, *program.lengths]
    body = c.IMAGE_MAGIC + struct.pack(f"<{len(values)}Q", *values) + bytes(program.image)
    return body + struct.pack("<I", zlib.crc32(body))


def _lists(program: Program) -> dict[int, int]:
    """The numbers of a program that lists the best tokens of every beam, zeros for another."""
    beams = program.beams // program.encoders
    search = Search.of(program.info, beams) if beams > 1 else None
    listing, info = program.beams > 1, program.info
    penalty = struct.pack("<d", search.length_penalty if search else 0)
    return {
        c.IMAGE_TEXTS: program.encoders,
        c.IMAGE_BEAMS: beams,
        c.IMAGE_MASKS: program.mask_addr,
        c.IMAGE_LISTS: program.result_addr,
        c.IMAGE_LISTED: program.hw.top if listing else 0,
        c.IMAGE_CANDIDATES: search.top if search else 1,
        c.IMAGE_LOGIT_SHIFT: info["logit_shift"] if listing else 0,
        c.IMAGE_LOGIT_SCALE: info["logit_scale_log2"] if listing else 0,
        c.IMAGE_LENGTH_PENALTY: int.from_bytes(penalty, "little"),
        c.IMAGE_EARLY: _EARLY[search.early_stopping] if search else 0,
    }


def _check(program: Program, policy: Policy) -> None:
    if policy.rules.broken_by:
        raise InputError(f"program of an image must decode without rules, not with {', '.join(policy.rules.broken_by)}")
    if len(program.inputs) != 1 or program.inputs[0].width:
        names = ", ".join(port.name for port in program.inputs)
        raise InputError(f"program of an image must read token ids alone, not {names}")
