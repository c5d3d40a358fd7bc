"""The drivers, in Python and in C, on several texts and with beams: the tokens of the reference."""

import ctypes
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from driven import BASE, Buffer, Core, accelerator, compiled, generate_texts, imported, io_of, put

from ternbin.contract import isa, registers
from ternbin.contract.hw import NAMED
from ternbin.contract.program import Program
from ternbin.decoding.beam import reference_beams, together
from ternbin.decoding.greedy import reference_run
from ternbin.decoding.lists import candidates
from ternbin.decoding.rules import Candidates
from ternbin.decoding.search import Policy, Search
from ternbin.integration.image import image as image_of
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold

torch.set_num_threads(1)
TEXTS = [3, 7, 9, 11, 5], [12, 4, 8]
NEW = 4


@pytest.fixture(scope="module")
def lowered():
    return fold(lower(random_quant_bart("2-2")))


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    folder = put(tmp_path_factory.mktemp("drivers"))
    return imported(folder / "ternbin_driver.py"), compiled(folder)


def driven(
    drivers, registers: Any, buffer: Buffer, image: bytes, texts: Sequence[Sequence[int]], most: int
) -> list[list[int]]:
    """Tokens that both drivers give."""
    python, c = drivers
    found = python.Accelerator(registers, buffer, image).generate_texts(texts, most)
    io, core = io_of(registers, buffer), Core()
    assert c.ternbin_open(ctypes.byref(core), ctypes.byref(io), image, len(image)) == 0
    assert generate_texts(c, core, texts, most) == (0, [tokens[:most] for tokens in found])  # C has room for no more
    return found


# ---- on the RTL -------------------------------------------------------------------------------------------------------------


def on_the_rtl(drivers, program: Program, texts: Sequence[Sequence[int]]) -> list[list[int]]:
    with accelerator(program) as (simulator, buffer):
        return driven(drivers, simulator, buffer, image_of(program), texts, NEW)


@pytest.mark.build
def test_a_batch(lowered, drivers):
    """Several texts greedily."""
    program = map_model(lowered, NAMED["tiny"].searching(1, len(TEXTS)), [len(ids) for ids in TEXTS], NEW)
    assert on_the_rtl(drivers, program, TEXTS) == [reference_run(lowered, ids, NEW)[0] for ids in TEXTS]


@pytest.mark.build
def test_beams(lowered, drivers):
    program = map_model(lowered, NAMED["tiny"].searching(2), len(TEXTS[0]), NEW, 2)
    search = Search.of(program.info, 2)
    assert on_the_rtl(drivers, program, TEXTS[:1]) == [reference_beams(lowered, TEXTS[0], NEW, search).tokens]


@pytest.mark.build
@pytest.mark.soak
def test_beams_of_a_batch(lowered, drivers):
    program = map_model(lowered, NAMED["tiny"].searching(2, 2), [len(ids) for ids in TEXTS], NEW, 2)
    search = Search.of(program.info, 2)
    assert on_the_rtl(drivers, program, TEXTS) == [reference_beams(lowered, ids, NEW, search).tokens for ids in TEXTS]


# ---- on random lists --------------------------------------------------------------------------------------------------------

VOCABULARY = 40


def listed(history: Sequence[int], top: int, seed: int) -> np.ndarray:
    """Random best tokens that follow ``history``, int64 ``[top + 1, 2]`` as rule 11 gives them; many logits are equal."""
    own = random.Random(zlib.crc32(repr((seed, *history)).encode()))
    tokens = own.sample(range(VOCABULARY), top)
    logits = sorted((own.randrange(-9, 9) << own.randrange(14, 17) for _ in tokens), reverse=True)
    entries = sorted(zip(logits, tokens, strict=True), key=lambda entry: (-entry[0], entry[1]))
    total = own.randrange(1 << 31, 1 << 36)
    return np.array([*((token, logit) for logit, token in entries), (max(logits) >> 12, total)])


class Lists:
    """Registers of an accelerator whose calls give random lists for what each beam sees of the tokens in memory."""

    def __init__(self, program: Program, memory: np.ndarray, seed: int):
        self.program, self.memory, self.seed = program, memory, seed
        self.of = {BASE + call.address: number for number, call in enumerate(program.calls)}
        self.start = 0

    def read(self, offset: int) -> int:
        return {isa.REG_ID: isa.ID_VALUE, isa.REG_STATUS: registers.DONE if self.start < 0 else 0}[offset]

    def write(self, offset: int, value: int) -> None:
        if offset == isa.REG_PROGRAM:
            self.start = value
        elif offset == isa.REG_CTRL:
            self._call(self.of[self.start] - self.program.encoders)
            self.start = -1
        elif offset == isa.REG_STATUS:
            self.start = 0

    def _call(self, position: int) -> None:
        program, beams = self.program, self.program.beams
        if position < 0:
            return
        step, top = program.hw.axi_bytes, program.hw.top
        keys = range((position + 1) * beams)
        masks = self.memory[program.mask_addr :][: 2 * len(keys)].view("<u2")
        tokens = (
            self.memory[program.slot_addr(0) :][: len(keys) * step].reshape(-1, step)[:, :4].copy().view("<u4")[:, 0]
        )
        for beam in range(beams):
            seen = [key for key in keys if masks[key] >> beam & 1]
            assert [key // beams for key in seen] == list(range(position + 1)) and not masks[seen[-1]] >> beams
            lists = listed([int(tokens[key]) for key in seen], top, self.seed)
            lists[:-1, 1] <<= program.info["logit_shift"]
            at = program.result_addr + ((position * beams + beam) * (top + 1)) * 3 * step
            for token, logit in lists.tolist():
                for part in (token, logit, logit >> 32):
                    self.memory[at : at + 4] = np.frombuffer((part & 0xFFFFFFFF).to_bytes(4, "little"), np.uint8)
                    at += step


def expected(program: Program, policy: Policy, search: Search | None, seed: int) -> list[list[int]]:
    """Of the host of the simulation, on the same lists."""
    histories: list[list[int]] = [[] for _ in range(program.beams)]

    def step(tokens: Sequence[int], parents: Sequence[int], position: int) -> list[Candidates]:
        histories[:] = [[*histories[parent], token] for token, parent in zip(tokens, parents, strict=True)]
        lists = np.array([listed(history, program.hw.top, seed) for history in histories])
        return candidates(lists, program.info["logit_scale_log2"])

    return [found.tokens for found in together(policy, search, program.encoders, step)]


SETTINGS: list[Mapping[str, Any]] = [
    {},
    {"early_stopping": True},
    {"early_stopping": "never", "length_penalty": 2.0},
    {"length_penalty": -0.7},
    {"length_penalty": 0.0, "early_stopping": "never"},
]


@pytest.mark.parametrize(("beams", "texts"), [(1, 2), (1, 3), (2, 1), (2, 2), (3, 2), (8, 1)])
def test_random_lists(lowered, drivers, beams, texts):
    """Search and masks, against the host of the simulation: ends, prompts, prescribed last tokens, early stops, penalties of length."""
    new, ids = 9, [[3, 5]] * texts
    plain = map_model(lowered, NAMED["tiny"].searching(beams, texts), [2] * texts, new, beams)
    longest: set[int] = set()
    for seed in range(25):
        own = random.Random(seed)
        changed = {
            "search": SETTINGS[seed % len(SETTINGS)],
            "eos_id": own.choice([None, 2, own.sample(range(VOCABULARY), 1 + 2 * own.randrange(1, 4))]),
            "forced_eos_id": own.choice([None, 2]),
            "prompt_ids": own.choice([[], [7], [7, 9, 11]]),
        }
        program = replace(plain, info=plain.info | changed)
        memory = np.zeros(BASE + len(program.image), np.uint8)
        buffer = memory[BASE:].view(Buffer)
        most = own.randrange(1, new + 1)
        search = Search.of(program.info, beams) if beams > 1 else None
        wanted = expected(program, Policy.of(program.info, most), search, seed)
        found = driven(drivers, Lists(program, memory[BASE:], seed), buffer, image_of(program), ids, most)
        assert found == wanted, (seed, changed, most)
        longest |= {len(tokens) for tokens in wanted}
    assert len(longest) > 4


def test_refusals(lowered, drivers):
    python, c = drivers
    program = map_model(lowered, NAMED["tiny"].searching(1, 2), [2, 3], 4)
    memory, image = np.zeros(BASE + len(program.image), np.uint8), image_of(program)
    registers, buffer = Lists(program, memory[BASE:], 1), memory[BASE:].view(Buffer)
    core = python.Accelerator(registers, buffer, image)
    with pytest.raises(ValueError, match="^ids must be 2 and 3, not 5$"):
        core.generate([1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="^max_new_tokens must be from 1 to 4, not 5$"):
        core.generate_texts([[1, 2], [3, 4, 5]], 5)
    io, own = io_of(registers, buffer), Core()
    assert c.ternbin_open(ctypes.byref(own), ctypes.byref(io), image, len(image)) == 0
    for texts, most in (([[1, 2], [3]], 4), ([[1, 2], [3, 4, 5]], 5), ([[1, 2], [3, 4, 1 << 20]], 4)):
        status, tokens = generate_texts(c, own, texts, most)
        assert c.ternbin_text(status) == b"bad input" and tokens == [[], []]
    ids, tokens, found = (ctypes.c_uint32 * 5)(), (ctypes.c_uint32 * 4)(), ctypes.c_size_t()
    alone = c.ternbin_generate(
        ctypes.byref(own), ids, ctypes.c_size_t(5), tokens, ctypes.c_size_t(4), ctypes.byref(found)
    )
    assert c.ternbin_text(alone) == b"bad input"  # a batch needs the other function
