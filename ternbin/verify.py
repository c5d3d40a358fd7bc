"""Random whole-chain cases: a seed gives a model, a text and a memory timing; the RTL must equal the integer reference."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ternbin.contract.hw import HwConfig
from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.decoding.beam import reference_tokens
from ternbin.decoding.search import Policy, Search
from ternbin.errors import CheckError, InputError
from ternbin.graph.activations import FUNCTIONS
from ternbin.graph.ir import Lowered
from ternbin.graph.shape import draw_source, generates
from ternbin.mapping.mapper import map_model
from ternbin.models.families import families
from ternbin.models.family import Family, Sizes
from ternbin.passes import fold
from ternbin.sim.check import check
from ternbin.sim.runner import run


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one seed stands for. ``head_bits``: of the weights of the LM head, where they are not as all others."""

    family: str
    bits: str
    head_bits: int | None
    sizes: Sizes
    source_len: int
    max_new_tokens: int
    latency: int
    bandwidth: float
    stall_seed: int | None

    def __str__(self) -> str:
        head = f" head={self.head_bits}" if self.head_bits else ""
        return f"{self.family} {self.bits}{head} {self.sizes} source={self.source_len} new={self.max_new_tokens}"


def family_for(seed: int) -> Family:
    """The families take turns."""
    return families()[seed % len(families())]


def draw_case(seed: int, hw: HwConfig) -> Case:
    """A random case that ``hw`` can run: sizes that no tile divides are as likely as others."""
    rng, family = random.Random(seed), family_for(seed)
    return Case(
        family=family.stock_types[0],
        bits=rng.choice(["2-2", "1-1", "2-8", "1-8"] if hw.is_ternary else ["1-1"]),
        head_bits=8 if family.generates and random.Random(f"head {seed}").random() < 0.25 else None,
        sizes=family.draw(rng, _draw_activation(seed)),
        source_len=rng.randint(1, 19),
        max_new_tokens=rng.randint(1, 4),
        latency=rng.choice([1, 5, 40, 150]),
        bandwidth=rng.choice([1.0, 0.5, 0.25]),
        stall_seed=rng.choice([None, rng.randrange(1000)]),
    )


def _draw_activation(seed: int) -> str:
    """Drawn apart, so that a new function changes nothing else of the case of a seed."""
    return random.Random(f"activation {seed}").choice(FUNCTIONS).name


def draw_hw(seed: int) -> HwConfig:
    """A random small accelerator: shapes, widths and depths that no named configuration has."""
    rng = random.Random(f"hardware {seed}")
    kind = rng.choice(["ternary", "ternary", "binary"])
    whole = kind == "ternary" and random.Random(f"whole codes {seed}").random() < 0.25
    lanes = rng.choice([16, 32, 64])
    rows = rng.choice([rows for rows in (4, 8, 16) if rows <= lanes])
    depth = lambda least: rng.randint(least, 2 * least)  # noqa: E731
    return HwConfig(
        name=f"random{seed}",
        kind="ternary8" if whole else kind,
        rows=rows,
        cols=rng.choice([1, 2, 4, 8]),
        lanes=lanes,
        acc_bits=rng.randint(20, 32),
        res_bits=rng.randint(12, 20),
        axi_data_bits=rng.choice([bits for bits in (32, 64, 128, 256) if bits <= 16 * rows]),
        axi_addr_bits=rng.randint(24, 40),
        abuf_words=1 << depth(512).bit_length() if whole else depth(512),
        wbuf_words=depth(128),
        kbuf_words=depth(512),
        rbuf_words=depth(1024),
        sbuf_words=depth(128),
        pbuf_words=depth(128),
        idbuf_words=depth(32),
        queue_depth=rng.randint(1, 8),
        burst_beats=rng.choice([1, 2, 4, 16, 64]),
        weight_pack="2bit" if kind == "binary" else rng.choice(["2bit", "5trit"]),
        kv_external=rng.random() < 0.5,
        resident=random.Random(f"resident {seed}").choice(["none", "decoder"]),
    )


def verify_case(seed: int, hw: HwConfig, beams: int = 1, texts: int = 1) -> dict:
    """Runs one case, with ``kv_external`` where keys and values do not fit otherwise, and shorter texts where they still do not; what was
    compared, and the first divergence if any.

    ``beams`` above 1: a beam search of random settings, of a model that generates. ``texts`` above 1: as many texts, of random lengths,
    at a time. ``hw`` is made for the beams of all. Every text must also be the reference's.
    """
    case, family = draw_case(seed, hw), family_for(seed)
    model = family.random(case.bits, case.sizes, seed=seed, res_bits=hw.res_bits)
    if case.head_bits is not None:
        model.set_head_bits(case.head_bits)
    lowered = fold(family.lower(model))
    writes = generates(lowered)
    beams, hw = (beams, hw.searching(beams, texts)) if writes else (1, hw)
    rng = random.Random(seed + 1)
    lengths = [case.source_len, *(rng.randint(1, 19) for _ in range(texts - 1))]
    program = _mapped(lowered, hw, lengths, case.max_new_tokens, beams)
    lengths = program.source_lens or (program.source_len,)
    case = replace(case, source_len=lengths[0])
    sources = [draw_source(rng, lowered, length) for length in lengths]
    given = {port.name: [row for source in sources for row in source[port.name]] for port in program.inputs}
    policy = Policy.of(lowered.meta, case.max_new_tokens) if writes else None
    memory = MemoryModel(latency=case.latency, bandwidth=case.bandwidth, stall_seed=case.stall_seed)
    search = (
        None
        if beams == 1
        else Search(
            beams=beams,
            length_penalty=rng.choice([0.0, 1.0, 2.0]),
            no_repeat_ngram_size=rng.choice([0, 2]),
            early_stopping=rng.choice([True, False, "never"]),
        )
    )
    result = run(program, ids=given, policy=policy, search=search, memory=memory, seed=seed + 1)
    for source, found in zip(sources, result.found, strict=False):
        wanted = reference_tokens(lowered, source, case.max_new_tokens, search)
        if found.tokens != wanted:
            raise CheckError(f"case {seed}: the text must be {wanted}, not {found.tokens}")
    verdict = check(program, lowered, given, policy.prompt[0] if policy else None, result).asdict()
    ran = {
        "seed": seed,
        "family": family.stock_types[0],
        "case": str(case),
        "kv_external": program.hw.kv_external,
        "cycles": result.cycles,
        "tokens": result.tokens,
    }
    return ran | verdict


def _mapped(lowered: Lowered, hw: HwConfig, lengths: Sequence[int], new: int, beams: int) -> Program:
    """Raises InputError for what does not fit even with texts of one token."""
    try:
        return map_model(lowered, hw, lengths, new, beams, anywhere=True)
    except InputError:
        if max(lengths) == 1:
            raise
    return _mapped(lowered, hw, [max(1, length // 2) for length in lengths], new, beams)
