"""Predicted cycles beside RTL, on random points of a design space: each is built, simulated, and every tensor compared.

    python benchmarks/explore_fidelity.py bundled --points 20

Building a simulator takes a minute or more for each accelerator; points that cannot be built or mapped are passed over.
"""

import argparse
from dataclasses import replace

from ternbin.explore.evaluate import evaluate
from ternbin.explore.samplers import drawn
from ternbin.explore.space import read_space
from ternbin.explore.validate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", help="as ternbin explore takes it")
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    space = read_space(args.space)
    space = replace(space, sampling=replace(space.sampling, seed=args.seed, points=min(space.size, 10 * args.points)))
    errors: list[float] = []
    print(f"{'cycles, RTL':>12} {'predicted':>12} {'off by':>8} {'values equal':>14}  point")
    for number in drawn(space):
        if len(errors) == args.points:
            break
        chosen = space.chosen(number)
        point = space.point(chosen)
        if "reason" in evaluate(point):
            continue
        found = simulate(point, seed=number)
        errors.append(abs(found["error"]))
        verdict = f"{found['values']:,}" if found["bit_exact"] else f"DIFFER {found['first_divergence']}"
        settings = ", ".join(f"{name} {value}" for name, value in chosen.items())
        print(
            f"{found['cycles']:>12,} {found['predicted']:>12,} {found['error']:>+8.3%} {verdict:>14}  {settings}",
            flush=True,
        )
    print(f"{len(errors)} points: off by {max(errors):.3%} at most, {sum(errors) / len(errors):.3%} on average")


if __name__ == "__main__":
    main()
