"""Predicted cycles beside RTL, on random points of a design space: each is built, simulated, and every tensor compared. Then predicted
area and energy of the logic beside gates.

    python benchmarks/explore_fidelity.py bundled --points 20 --gates 3

Building a simulator takes a minute or more for each accelerator, its gates some ten; points that cannot be built or mapped are passed
over. ``--gates`` takes the smallest arrays of those that were simulated.
"""

import argparse
from dataclasses import replace

from ternbin.explore.evaluate import evaluate
from ternbin.explore.point import Point
from ternbin.explore.samplers import drawn
from ternbin.explore.space import read_space
from ternbin.explore.validate import simulate, synthesize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", help="as ternbin explore takes it")
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--gates", type=int, default=0, help="how many of them are synthesized too")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    space = read_space(args.space)
    space = replace(space, sampling=replace(space.sampling, seed=args.seed, points=min(space.size, 10 * args.points)))
    errors: list[float] = []
    seen: list[Point] = []
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
        seen.append(point)
        verdict = f"{found['values']:,}" if found["bit_exact"] else f"DIFFER {found['first_divergence']}"
        settings = ", ".join(f"{name} {value}" for name, value in chosen.items())
        print(
            f"{found['cycles']:>12,} {found['predicted']:>12,} {found['error']:>+8.3%} {verdict:>14}  {settings}",
            flush=True,
        )
    if errors:
        print(f"{len(errors)} points: off by {max(errors):.3%} at most, {sum(errors) / len(errors):.3%} on average")
    smallest = sorted(seen, key=lambda point: point.config.rows * point.config.cols * point.config.lanes)
    for point in smallest[: args.gates]:
        found, hw = synthesize(point), point.config
        print(
            f"{hw.rows} x {hw.cols} x {hw.lanes}, {hw.weight_pack}, {found['cells']:,} cells: logic {found['area_mm2']:.4f} mm2, "
            f"predicted {found['model_mm2']:.4f} ({found['error']:+.1%}); {found['workload']}: {found['gates_uj']:.4g} uJ, predicted "
            f"{found['model_uj']:.4g} ({found['energy_error']:+.1%}); path {found['critical_path_ns']:.2f} ns; "
            f"{found['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
