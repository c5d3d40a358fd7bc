"""Random models on accelerators whose memories have random sizes: mapped, the machine equals the interpreter; refused, the sizes that the
refusal names map.

Nothing here is an assertion, so that `python -O tests/ternbin/capacities.py FIRST STOP` checks the same.
"""

import random
import re
import sys
from dataclasses import replace
from typing import Any

from mapped import differences, lowered, source_ids

from ternbin.contract.hw import HwConfig
from ternbin.errors import InputError
from ternbin.mapping.mapper import map_model

MEMORIES = ("abuf", "wbuf", "kbuf", "rbuf", "sbuf", "pbuf", "idbuf")
NAMED_SIZE = re.compile(r"(\w+) = (\d+)")


def drawn(seed: int) -> tuple[str, HwConfig, dict, int, int]:
    """Bits, hardware, options of the model, source length and new tokens."""
    rng = random.Random(seed)
    bits = rng.choice(["2-2", "1-1", "2-8", "1-8"])
    binary = bits == "1-1" and rng.random() < 0.5
    roomy = rng.choice(MEMORIES) if rng.random() < 0.7 else None
    sizes: dict[str, Any] = {f"{memory}_words": round(16 * 2 ** rng.uniform(0, 6)) for memory in MEMORIES}
    if roomy is not None:  # one small memory at a time shows more of each
        sizes = {name: size if name == f"{roomy}_words" else 2048 for name, size in sizes.items()}
    hw = HwConfig(
        kind="binary" if binary else "ternary",
        rows=rng.choice([4, 8]),
        cols=rng.choice([1, 2, 4]),
        lanes=32 if binary else rng.choice([16, 32]),
        axi_data_bits=32,
        queue_depth=rng.choice([1, 4, 16]),
        kv_external=rng.random() < 0.3,
        resident=random.Random(f"resident {seed}").choice(["none", "decoder"]),
        **sizes,
    )
    heads = rng.choice([1, 2, 3])
    options = dict(
        d_model=heads * rng.randint(3, 16),
        heads=heads,
        ffn=rng.randint(5, 70),
        vocab=rng.randint(20, 150),
        layers=rng.choice([1, (2, 1)]),
        activation=rng.choice(["relu", "gelu"]),
        seed=seed,
    )
    return bits, hw, options, rng.randint(1, 40), rng.randint(1, 3)


def check(seed: int) -> str:
    """As :func:`run` of a random case."""
    try:
        return run(*drawn(seed))
    except RuntimeError as error:
        raise RuntimeError(f"seed {seed}: {error}") from error


def run(bits: str, hw: HwConfig, options: dict, length: int, new: int) -> str:
    """Raises RuntimeError for a case that ends badly; says how it ended."""
    model, how = lowered(bits, **options), "mapped"
    try:
        program = map_model(model, hw, length, new)
    except InputError as error:
        sizes = {field: int(size) for field, size in NAMED_SIZE.findall(str(error))}
        if not sizes:
            raise RuntimeError(f"the refusal must name sizes that are enough: {error}") from None
        how = f"refused ({', '.join(sizes)})"
        program = map_model(model, replace(hw, **sizes), length, new)
    wrong, seen = differences(model, program, source_ids(model, length))
    if wrong or not seen:
        raise RuntimeError(f"{len(wrong)} pieces of {len(seen)} tensors must equal the interpreter's: {wrong[:1]}")
    return how


if __name__ == "__main__":
    for case in range(int(sys.argv[1]), int(sys.argv[2])):
        print(case, check(case), flush=True)
