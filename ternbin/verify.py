"""Random whole-chain cases: a seed gives a model, a text and a memory timing; the RTL must equal the integer reference."""

import random
from dataclasses import dataclass, replace

from ternbin.contract.hw import HwConfig
from ternbin.counting.external import MemoryModel
from ternbin.decoding.beam import reference_tokens
from ternbin.decoding.search import Policy, Search
from ternbin.errors import CheckError, InputError
from ternbin.graph.activations import FUNCTIONS
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.sim.check import check
from ternbin.sim.runner import run


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one seed stands for."""

    bits: str
    heads: int
    head_dim: int
    ffn: int
    layers: tuple[int, int]
    vocab: int
    activation: str
    scale_embedding: bool
    source_len: int
    max_new_tokens: int
    latency: int
    bandwidth: float
    stall_seed: int | None

    def __str__(self) -> str:
        d = self.heads * self.head_dim
        return (
            f"{self.bits} {self.activation} d={d} heads={self.heads} ffn={self.ffn} layers={self.layers[0]}+{self.layers[1]} "
            f"vocab={self.vocab} source={self.source_len} new={self.max_new_tokens}"
        )


def draw_case(seed: int, hw: HwConfig) -> Case:
    """A random case that ``hw`` can run: sizes that no tile divides are as likely as others."""
    rng = random.Random(seed)
    return Case(
        bits=rng.choice(["2-2", "1-1", "2-8", "1-8"] if hw.kind == "ternary" else ["1-1"]),
        heads=rng.randint(1, 3),
        head_dim=rng.randint(3, 20),
        ffn=rng.randint(5, 70),
        layers=(rng.randint(1, 2), rng.randint(1, 2)),
        vocab=rng.randint(20, 90),
        activation=_draw_activation(seed, rng),
        scale_embedding=rng.random() < 0.5,
        source_len=rng.randint(1, 19),
        max_new_tokens=rng.randint(1, 4),
        latency=rng.choice([1, 5, 40, 150]),
        bandwidth=rng.choice([1.0, 0.5, 0.25]),
        stall_seed=rng.choice([None, rng.randrange(1000)]),
    )


def _draw_activation(seed: int, rng: random.Random) -> str:
    """Drawn apart, so that a new function changes nothing else of the case of a seed."""
    rng.randrange(2)  # where it was drawn when there were two
    return random.Random(f"activation {seed}").choice(FUNCTIONS).name


def draw_hw(seed: int) -> HwConfig:
    """A random small accelerator: shapes, widths and depths that no named configuration has."""
    rng = random.Random(f"hardware {seed}")
    kind = rng.choice(["ternary", "ternary", "binary"])
    lanes = rng.choice([16, 32, 64])
    rows = rng.choice([rows for rows in (4, 8, 16) if rows <= lanes])
    depth = lambda least: rng.randint(least, 2 * least)  # noqa: E731
    return HwConfig(
        name=f"random{seed}",
        kind=kind,
        rows=rows,
        cols=rng.choice([1, 2, 4, 8]),
        lanes=lanes,
        acc_bits=rng.randint(20, 32),
        res_bits=rng.randint(12, 20),
        axi_data_bits=rng.choice([bits for bits in (32, 64, 128, 256) if bits <= 16 * rows]),
        axi_addr_bits=rng.randint(24, 40),
        abuf_words=depth(512),
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
    )


def verify_case(seed: int, hw: HwConfig, beams: int = 1, texts: int = 1) -> dict:
    """Runs one case, with ``kv_external`` where keys and values do not fit otherwise; what was compared, and the first divergence
    if any.

    ``beams`` above 1: a beam search of random settings. ``texts`` above 1: as many texts, of random lengths, at a time. ``hw`` is made for
    the beams of all. Every text must also be the reference's.
    """
    case, hw = draw_case(seed, hw), hw.searching(beams, texts)
    model = random_quant_bart(
        case.bits,
        d_model=case.heads * case.head_dim,
        heads=case.heads,
        ffn=case.ffn,
        layers=case.layers,
        vocab=case.vocab,
        activation=case.activation,
        scale_embedding=case.scale_embedding,
        seed=seed,
        res_bits=hw.res_bits,
    )
    lowered = fold(lower(model))
    rng = random.Random(seed + 1)
    lengths = [case.source_len, *(rng.randint(1, 19) for _ in range(texts - 1))]
    try:
        program = map_model(lowered, hw, lengths, case.max_new_tokens, beams)
    except InputError:
        program = map_model(lowered, replace(hw, kv_external=True), lengths, case.max_new_tokens, beams)
    sources = [[rng.randrange(case.vocab) for _ in range(length)] for length in lengths]
    ids = [token for source in sources for token in source]
    policy = Policy.of(lowered.meta, case.max_new_tokens)
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
    result = run(program, ids=ids, policy=policy, search=search, memory=memory, seed=seed + 1)
    for source, found in zip(sources, result.found, strict=False):
        wanted = reference_tokens(lowered, source, case.max_new_tokens, search)
        if found.tokens != wanted:
            raise CheckError(f"case {seed}: the text must be {wanted}, not {found.tokens}")
    verdict = check(program, lowered, ids, policy.prompt[0], result).asdict()
    ran = {
        "seed": seed,
        "case": str(case),
        "kv_external": program.hw.kv_external,
        "cycles": result.cycles,
        "tokens": result.tokens,
    }
    return ran | verdict
