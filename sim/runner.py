"""Run a program on the compiled simulation of its accelerator."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

import numpy as np

from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import RunResult
from ternbin.decoding.beam import together
from ternbin.decoding.greedy import greedy
from ternbin.decoding.search import Found, Policy, Search, columns
from ternbin.errors import InputError
from ternbin.graph.given import Given
from ternbin.sim.build import build
from ternbin.sim.check import Comparison
from ternbin.sim.host import Host
from ternbin.sim.resume import Checkpoint, State, identity
from ternbin.sim.simulator import Simulator, Waves


def run(
    program: Program,
    *,
    ids: Given,
    policy: Policy | None = None,
    search: Search | None = None,
    memory: MemoryModel | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    waves: Waves | None = None,
    probes: bool = True,
    library: Path | None = None,
    seed: int = 1,
    checkpoint: Checkpoint | None = None,
    comparison: Comparison | None = None,
) -> RunResult:
    """Run on the simulated accelerator: a prefill call a text, then, of a program that generates, one decode call a token; greedily, or
    with as many beams as ``search`` and the program have.

    ids: the source text, or texts one after the other; or rows by name of an input. policy: start, forced and last token, limit; None
    where nothing is generated. progress(call, cycles of it, instructions done): a few times a second, and when a call is done
    (instructions as many as its own).
    probes: copy what the program's probes ask for (sim.check compares it). library: a simulator of sim.build; default: build it.
    checkpoint: go on from it where it is one of this very run, and keep the state there (not with ``waves``).
    comparison: of this run, with ``probes``; it is done beside the simulation.
    Raises InputError where program and policy do not fit, CoreError, CheckError.
    """
    beams = _checked_beams(program, policy, search)
    if checkpoint is not None and waves is not None:
        raise InputError("a run that writes waves must not have a checkpoint: waves cannot be continued")
    begin = perf_counter()
    if library is None or waves is not None:  # waves need a model of their own
        library = build(program.hw, waves=None if waves is None else waves.kind)
    built = perf_counter()
    model = memory or MemoryModel()
    image = program.with_ids(ids, policy.prompt[0] if policy else None)
    key = "" if checkpoint is None else identity(program, library, _digest(ids), policy, search, model, seed, probes)
    state = None if checkpoint is None else checkpoint.load(program, key)
    earlier = 0.0 if state is None else state.seconds
    with Simulator(program.hw, library, image, model, waves=waves, seed=seed) as simulator:

        def keep() -> None:
            if checkpoint is not None and checkpoint.due():
                now = State(host.calls, simulator.save(), image, earlier + perf_counter() - built)
                checkpoint.save(key, now)

        host = Host(program, simulator, progress, probes, keep, comparison)
        if state is not None:
            image[:] = state.memory
            simulator.restore(state.model)
            host.calls = state.calls
            for number in range(len(host.calls)):
                host.finished(number)
        for number in range(len(host.calls), program.encoders):
            host.call(number)
        found: list[Found] = []
        if policy and program.beams > 1:
            found = together(policy, search, program.encoders, host.beam_step, beams)
        tokens = found[0].tokens if found else greedy(policy, host.step) if policy else []
    if checkpoint is not None:
        checkpoint.remove()
    return RunResult(tokens, host.calls, image, earlier + perf_counter() - built, built - begin, found, host.trace)


def _checked_beams(program: Program, policy: Policy | None, search: Search | None) -> int:
    """Beams of a text. Raises InputError where program and policy do not fit."""
    if policy is None or not program.generates:
        if policy is not None or program.generates:
            raise InputError(f"policy must be given to a program that generates, and to no other, not {policy!r}")
        return 1
    if policy.max_new_tokens > program.max_new_tokens:
        raise InputError(
            f"max_new_tokens must be at most the program's {program.max_new_tokens}, not {policy.max_new_tokens}"
        )
    beams = columns(1, program.encoders, policy.rules) if search is None else search.beams
    if program.beams != beams * program.encoders:
        rules = f" for {', '.join(policy.rules.broken_by)}" if search is None and policy.rules.broken_by else ""
        raise InputError(f"beams must be the program's {program.beams // program.encoders}, not {beams}{rules}")
    return beams


def _digest(source: Given) -> object:
    """The source as what a checkpoint's identity can name: the same for equal sources."""
    if not isinstance(source, Mapping):
        return list(source)
    return {name: np.asarray(value).tolist() for name, value in sorted(source.items())}
