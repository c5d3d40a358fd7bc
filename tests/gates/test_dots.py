"""The dot products of published chips: their RTL against exact arithmetic."""

import random

import numpy as np
import pytest

from ternbin.energy.dots import DOTS
from ternbin.energy.gates.blocks import dot_block
from ternbin.energy.gates.engine import pack
from ternbin.energy.gates.rtl_run import run
from ternbin.energy.gates.stimuli import forms, random_values, sequence, words


@pytest.mark.build
@pytest.mark.parametrize("kind", DOTS)
def test_a_dot_product_is_exact_two_cycles_after_its_operands(kind):
    block, rng, cycles = dot_block(kind), random.Random(5), 24
    drawn = []
    for form in forms(kind):
        value = random_values(form, rng)
        drawn.append([[value() for _ in range(block.lanes)] for _ in range(cycles)])
    extremes = [max(drawn[0][0]), min(drawn[1][0])]
    for operands, extreme in zip(drawn, extremes, strict=True):
        operands[3] = [extreme] * block.lanes
    rows, cols = ([words(form, values) for values in own] for form, own in zip(forms(kind), drawn, strict=True))
    stimuli = sequence(cycles, iter(rows), iter(cols))
    answers = run(block.verilog, block.top, block.inputs, block.outputs, pack(block.inputs, stimuli))
    results = answers.view("<i4")[:, 0]
    assert results[2:].tolist() == [int(np.dot(a, b)) for a, b in zip(*drawn, strict=True)][:-2]
