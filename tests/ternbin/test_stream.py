"""Models that give their residual stream: a BERT on the machine, inputs and outputs of the stream, and what maps no such model."""

import numpy as np
import pytest
import torch
from mapped import Machine, run_call
from tiny import Tiny

from ternbin.contract.hw import NAMED
from ternbin.contract.program import decode_probe, expected_part, load, save
from ternbin.decoding.greedy import reference_run, reference_streams
from ternbin.errors import InputError
from ternbin.graph.ir import Graph, Lowered, Residual
from ternbin.graph.shape import places
from ternbin.mapping.mapper import map_model
from ternbin.models.bert.lower import lower
from ternbin.models.bert.random_model import random_quant_bert
from ternbin.passes import fold

TINY = NAMED["tiny"]


def bert(bits: str = "2-2", **options) -> Lowered:
    return fold(lower(random_quant_bert(bits, **options)))


def through(seed: int = 0) -> Lowered:
    """A stack whose stream the host gives and reads: a LayerNorm, attention and feed-forward."""
    tiny = Tiny(seed=seed)
    h = tiny.layernorm("enc.0.ln0", tiny.b.input("stream", Residual(("S", tiny.d), 16, tiny.frac)))
    h = tiny.layernorm("enc.0.ln1", tiny.attention("enc.0.self", h, None, causal=False))
    h = tiny.layernorm("enc.0.ln2", tiny.feed_forward("enc.0", h))
    graph = Graph("encoder", (tiny.b.op("output", h, name="hidden"),))
    return fold(Lowered((graph,), tiny.b.weights, {"vocab_size": 2, "max_positions": 64}))


def on_machine(model: Lowered, program, sources: list[dict]) -> tuple[list[str], np.ndarray]:
    """Probes that differ from the interpreter, and what the host reads of ``hidden``."""
    given = {name: [row for source in sources for row in source[name]] for name in sources[0]}
    machine, wrong = Machine(program.hw, program.with_ids(given)), []
    for call, source in enumerate(sources):
        tensors = reference_run(model, source, 1)[1][0].tensors

        def compare(probe, raw, tensors=tensors):
            if not np.array_equal(decode_probe(program.hw, probe, raw), expected_part(probe, tensors[probe.tensor])):
                wrong.append(f"call {probe.call}: {probe.tensor} {probe.part}")

        run_call(machine, program, call, compare)
    return wrong, program.read(machine.dram, program.outputs[0])


def text(model: Lowered, length: int, seed: int = 0) -> dict[str, list]:
    g = torch.Generator().manual_seed(seed)
    draw = lambda high: torch.randint(0, high, (length,), generator=g).tolist()  # noqa: E731
    return {"ids": draw(model.meta["vocab_size"]), "places": draw(places(model))}


@pytest.mark.parametrize("bits, hw", [("2-2", "tiny"), ("1-1", "tiny-binary"), ("2-8", "tiny"), ("1-8", "tiny")])
def test_a_bert_on_the_machine(bits, hw):
    model = bert(bits, layers=2, d_model=20, types=3)
    sources = [text(model, 7), text(model, 3, seed=1)]
    program = map_model(model, NAMED[hw], [7, 3], 0)
    assert (len(program.calls), program.generates, program.max_new_tokens) == (2, False, 0)
    wrong, hidden = on_machine(model, program, sources)
    assert not wrong
    expected = torch.cat([reference_streams(model, source)["hidden"] for source in sources])
    assert torch.equal(torch.from_numpy(hidden), expected)


@pytest.mark.parametrize("length", [1, 9])
def test_a_stream_from_the_host_and_back(length):
    model = through()
    g = torch.Generator().manual_seed(2)
    source = {"stream": torch.randint(-(1 << 15), 1 << 15, (length, 16), generator=g)}
    program = map_model(model, TINY, length, 0)
    wrong, hidden = on_machine(model, program, [source])
    assert not wrong
    assert torch.equal(torch.from_numpy(hidden), reference_streams(model, source)["hidden"])


def test_the_host_gives_what_the_ports_ask_for(tmp_path):
    model = bert()
    program = map_model(model, TINY, 4, 0)
    save(program, tmp_path / "p.tbn")
    assert load(tmp_path / "p.tbn") == program
    assert program.with_ids([1, 2, 3, 4]) == program.with_ids({"ids": [1, 2, 3, 4], "places": [0, 1, 2, 3]})
    with pytest.raises(InputError, match="^places must be from 0 to 127, not 128$"):
        program.with_ids({"ids": [1, 2, 3, 4], "places": [0, 1, 2, 128]})
    stream = map_model(through(), TINY, 2, 0)
    with pytest.raises(InputError, match=r"^stream must be of shape \[2, 16\], not \[2, 15\]$"):
        stream.with_ids({"stream": np.zeros((2, 15))})
    with pytest.raises(InputError, match="^stream must be from -32768 to 32767, not 40000$"):
        stream.with_ids({"stream": np.full((2, 16), -40000)})
    with pytest.raises(InputError, match="^inputs must be stream, not ids$"):
        stream.with_ids([1, 2])


def test_a_stream_that_is_overwritten_cannot_be_an_output():
    tiny = Tiny()
    h = tiny.layernorm("enc.0.ln0", tiny.b.input("stream", Residual(("S", tiny.d), 16, tiny.frac)))
    first = tiny.b.op("output", h, name="first")
    last = tiny.layernorm("enc.0.ln1", tiny.attention("enc.0.self", h, None, causal=False))
    graph = Graph("encoder", (tiny.b.op("output", last, name="last"), first))
    model = fold(Lowered((graph,), tiny.b.weights, {"vocab_size": 2, "max_positions": 64}))
    with pytest.raises(InputError, match="^output first: residual source must be the stream, not enc.0.ln0$"):
        map_model(model, TINY, 3, 0)
