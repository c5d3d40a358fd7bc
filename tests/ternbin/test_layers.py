"""Ops of a result by layer and kind."""

import pytest

from ternbin.report.layers import Part, covered, kind, layer, parts


def test_covered_counts_every_cycle_once():
    assert covered([]) == 0
    assert covered([(5, 9), (0, 3), (2, 4), (6, 7), (9, 10), (20, 21)]) == 4 + 5 + 1


@pytest.mark.parametrize(
    ("op", "layer_name", "kind_name"),
    [
        ("enc.0.self.q_in", "enc.0", "self-attention"),
        ("dec.11.cross.ctx", "dec.11", "cross-attention"),
        ("dec.1.fc1", "dec.1", "feed-forward"),
        ("enc.2.ln1", "enc.2", None),
        ("lm_head.in", "lm_head", "LM head"),
        ("enc.embed_ln", "enc", None),
    ],
)
def test_names(op, layer_name, kind_name):
    assert (layer(op), kind(op)) == (layer_name, kind_name)


@pytest.mark.parametrize("encoders", [1, 2])
def test_parts_add_up(encoders):
    ops = [
        ("prefill", "enc.0.fc1", 100, 10),
        ("prefill", "enc.0.ln1", 0, 3),
        ("decode", "lm_head", 40, 20),
        ("decode", "enc", 0, 5),
    ]
    timeline = [(encoders - 1, "enc.0.fc1", 0, 10), (encoders - 1, "enc.0.ln1", 5, 12)]
    timeline += [(encoders, "lm_head", 3, 8), (encoders + 1, "lm_head", 3, 9)]
    result = {
        "phases": [{"name": "prefill", "calls": encoders}, {"name": "decode", "calls": 2}],
        "ops": [{"phase": p, "name": n, "macs": m, "bytes": b} for p, n, m, b in ops],
        "timeline": [{"call": c, "op": n, "start": s, "end": e} for c, n, s, e in timeline],
    }
    assert parts(result, layer) == [Part("prefill", "enc.0", 100, 13, 12), Part("decode", "lm_head", 40, 20, 11)]
    assert parts(result, kind)[0] == Part("prefill", "feed-forward", 100, 10, 10)
