"""Points a second of an exploration: on one core, and by one and two processes, of ternbin's own and of Dask.

    python benchmarks/explore_speed.py bundled --points 96
    python benchmarks/explore_speed.py bart-base --points 24 --engines

One core: CPU seconds of this process, for random points of the space, and for random programs of its grid with all their points, which
share what they may. Engines: seconds of wall clock for the former once their workers have the model, the median of ``--runs``, one and
two workers in turn; ``--engines`` picks which, none of them if empty. Other work on the machine spoils the ratios.
"""

import argparse
import os
import random
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter, process_time

from ternbin.explore.engines import Dask, Engine, Group, Here, Processes
from ternbin.explore.evaluate import program_key
from ternbin.explore.samplers import groups, sampler_of
from ternbin.explore.search import MOST
from ternbin.explore.space import Sampling, Space, read_space

ENGINES: dict[str, Callable[[int], Engine]] = {"processes": Processes, "dask": lambda workers: Dask("local", workers)}


def drawn(space: Space, points: int, seed: int) -> list[Group]:
    """Random points of the space, in the groups in which a worker gets them."""
    sampling = Sampling(kind="random", points=points, seed=seed)
    (batch,) = sampler_of(replace(space, sampling=sampling)).batches()
    return list(groups(batch, program_key, MOST))


def of_the_grid(space: Space, points: int, seed: int) -> list[Group]:
    """Random groups of the grid, of so many points in all."""
    found: list[Group] = []
    batches = sampler_of(replace(space, sampling=Sampling(kind="grid"))).batches()
    every = [group for batch in batches for group in groups(batch, program_key, MOST)]
    for group in random.Random(seed).sample(every, len(every)):
        if sum(map(len, found)) >= points:
            break
        found.append(group)
    return found


def seconds(engine: Engine, work: list[Group], clock: Callable[[], float]) -> float:
    begun = clock()
    for _ in engine.run(work):
        pass
    return clock() - begun


def alone(what: str, work: list[Group]) -> None:
    engine = Here()
    seconds(engine, work[:1], process_time)  # the model is read
    took = seconds(engine, work[1:], process_time)
    count = sum(map(len, work[1:]))
    print(
        f"one core, {what}: {count} points of {len(work) - 1} programs in {took:.1f} s of CPU, {count / took:.2f} a second"
    )


def by_workers(name: str, space: Space, points: int, runs: int) -> None:
    found: dict[int, list[float]] = {1: [], 2: []}
    for run in range(runs):
        work = drawn(space, points, run)
        for workers, took in found.items():
            engine = ENGINES[name](workers)
            try:
                seconds(
                    engine, [[group[0]] for group in work[:1]] * 2 * workers, perf_counter
                )  # workers start, and read the model
                took.append(seconds(engine, work, perf_counter))
            finally:
                engine.close()
    one, two = (median(took) for took in found.values())
    ratios = sorted(a / b for a, b in zip(*found.values(), strict=True))
    print(
        f"{name}: 1 worker {one:.1f} s, 2 workers {two:.1f} s: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", help="as ternbin explore takes it")
    parser.add_argument("--points", type=int, default=96)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1"}
    space = read_space(args.space)
    alone("random points", drawn(space, args.points, seed=0))
    alone("of the grid", of_the_grid(space, args.points, seed=0))
    for name in args.engines:
        by_workers(name, space, args.points, args.runs)


if __name__ == "__main__":
    main()
