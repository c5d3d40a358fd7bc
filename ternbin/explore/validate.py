"""Points beside what they rest on: simulated in RTL, every tensor compared; synthesized, area and clock."""

import random
from dataclasses import replace
from functools import cache
from time import perf_counter
from typing import Any

from ternbin.counting.cycles import predict
from ternbin.decoding.search import Policy, Search
from ternbin.explore.evaluate import map_task
from ternbin.explore.models import lowered_model
from ternbin.explore.point import Point
from ternbin.sim.check import check
from ternbin.sim.runner import run


def simulate(point: Point, seed: int = 0) -> dict[str, Any]:
    """The point in RTL on random tokens: ``bit_exact``, ``cycles`` beside those ``predicted`` for as many calls, ``tensors`` and
    ``values`` that were compared. Raises CheckError where the core stops, MissingToolError."""
    begun = perf_counter()
    program = map_task(point.task, replace(point.config, name="validated"), contents=True)
    lowered, memory, rng = (
        lowered_model(point.model, point.bits, program.hw.res_bits),
        point.memory,
        random.Random(seed),
    )
    ids = [rng.randrange(program.info["vocab"]) for _ in range(program.source_len)]
    policy = Policy.of(lowered.meta, point.new_tokens)
    search = Search.of(lowered.meta, point.beams) if point.beams > 1 else None
    result = run(program, ids=ids, policy=policy, search=search, memory=memory)
    verdict = check(program, lowered, ids, policy.prompt[0], result)
    predicted = predict(program, memory, len(result.calls)).cycles
    return {
        "bit_exact": verdict.bit_exact,
        "tensors": verdict.tensors_checked,
        "values": verdict.values_checked,
        "first_divergence": None if verdict.first_divergence is None else str(verdict.first_divergence),
        "calls": len(result.calls),
        "cycles": result.cycles,
        "predicted": predicted,
        "error": predicted / result.cycles - 1,
        "seconds": perf_counter() - begun,
    }


@cache
def _library() -> Any:
    from ternbin.energy.gates.roles import open_library
    from ternbin.energy.gates.synthesis import default_library

    return open_library(default_library())


def synthesize(point: Point) -> dict[str, Any]:
    """The point's accelerator at gate level, without its memories: ``area_mm2`` beside the model's for array and other logic
    (``model_mm2``), ``critical_path_ns``, ``flip_flops``, ``cells``; ``gates_uj`` of toggles and clock pins beside the model's
    (``model_uj``), both for ``workload``, a short text of the bundled model. Raises MissingToolError."""
    from ternbin.energy.accuracy import logic_pj
    from ternbin.energy.area import array_mm2, core_mm2
    from ternbin.energy.gates.fitting import real_workloads
    from ternbin.energy.gates.whole_core import Core

    begun, hw = perf_counter(), point.config
    core, workload = Core(hw, _library()), real_workloads()[0]
    found = core.summary()
    model = sum(array_mm2(hw).values()) + sum(core_mm2(hw).values())
    area = found["area_um2"] / 1e6
    spent = core.spent(workload.record(hw))
    foretold = logic_pj(spent.counters, workload.traffic(hw), hw)
    return {
        "area_mm2": area,
        "model_mm2": model,
        "error": model / area - 1,
        "critical_path_ns": found["critical_path_ns"],
        "cells": found["cells"],
        "flip_flops": found["flip_flops"],
        "workload": workload.name,
        "gates_uj": spent.pj / 1e6,
        "model_uj": foretold / 1e6,
        "energy_error": foretold / spent.pj - 1,
        "seconds": perf_counter() - begun,
    }
