"""Small mapped models for tests, and the comparison of a machine run with the interpreter."""

from functools import lru_cache
from typing import cast

import numpy as np
import torch

from ternbin.contract.hw import HwConfig
from ternbin.contract.program import Probe, Program, decode_probe, expected_part
from ternbin.emulation.machine import Machine, run_call
from ternbin.graph.ir import Lowered
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.family import Seq2Seq
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant
from ternbin.models.families import family_named
from ternbin.passes import fold

START = 2
torch.set_num_threads(1)  # the tensors are tiny


@lru_cache(maxsize=32)
def lowered(bits: str, family: str = "bart", **options) -> Lowered:
    """A folded random model of BART or a relative."""
    return fold(lower(random_quant(cast(Seq2Seq, family_named(family)).quant_class, bits, **options)))


def mapped(bits: str, hw: HwConfig, source_len: int = 7, new: int = 3, **options) -> tuple[Lowered, Program]:
    model = lowered(bits, **options)
    return model, map_model(model, hw, source_len, new)


def source_ids(model: Lowered, count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, model.meta["vocab_size"], (count,), generator=generator).tolist()


def reference(model: Lowered, ids: list[int], new: int) -> list[dict[str, torch.Tensor]]:
    """The interpreter's tensors of the encoder call and ``new`` decoder calls, by node name."""
    encoder, decoder = Interpreter(model.encoder, model.weights), Interpreter(model.decoder, model.weights)
    values = encoder({"ids": torch.tensor(ids)})
    calls, cross, caches, token = [encoder.named(values)], outputs(model.encoder, values), {}, START
    for past in range(new):
        named = decoder.named(decoder({"ids": torch.tensor([token]), **cross}, past=past, caches=caches))
        calls.append({name: value.clone() for name, value in named.items()})
        token = int(named["lm_head"][0, 0])
    return calls


def differences(model: Lowered, program: Program, ids: list[int], rng=None) -> tuple[list[str], set[tuple[int, str]]]:
    """Probes that differ from the interpreter, and the (call, tensor) pairs that were compared."""
    machine = Machine(program.hw, program.with_ids(ids, START))
    wrong, seen = [], set()
    for call, expected in enumerate(reference(model, ids, program.max_new_tokens)):

        def compare(probe: Probe, raw: bytes, expected=expected) -> None:
            seen.add((probe.call, probe.tensor))
            if not np.array_equal(decode_probe(program.hw, probe, raw), expected_part(probe, expected[probe.tensor])):
                wrong.append(f"call {probe.call}: {probe.tensor} {probe.part}")

        run_call(machine, program, call, compare, rng)
    return wrong, seen
