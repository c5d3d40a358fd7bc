"""How an exploration grows, without evaluating: seconds and bytes of sampler, record file, front and report for more and more points.

    python benchmarks/explore_growth.py --points 1000 10000

The records are made up (a point's figures follow from its id), so that only what stands around the evaluation is timed.
"""

import argparse
import random
import resource
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time

from ternbin.explore.engines import Group
from ternbin.explore.evaluate import FIGURES, Record
from ternbin.explore.front import front
from ternbin.explore.search import explore
from ternbin.explore.space import Sampling, read_space
from ternbin.report.explore import points_csv

BUSY = {"bus": 0.9, "array": 0.4, "epilogue": 0.2, "vector": 0.3}


class MadeUp:
    """An engine whose records cost nothing."""

    def run(self, groups: Iterable[Group]) -> Iterator[list[Record]]:
        for group in groups:
            yield [self._record(point.id, point.values()) for point in group]

    def _record(self, name: str, values: dict) -> Record:
        rng = random.Random(name)
        figures = {figure: rng.uniform(1, 2) for figure in FIGURES} | {"utilization": 0.1}
        busy = {"prefill": BUSY, "decode": BUSY}
        return {"id": name, "point": values, "figures": figures, "busy": busy, "kv_external": False, "took": 0.5}

    def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--samplers", nargs="*", default=["random", "nsga2", "tpe"])
    args = parser.parse_args()
    space = read_space("bart-base")
    axes = tuple(
        replace(axis, values=(*axis.values, *(64 + n for n in range(60)))) if axis.name == "wbuf_words" else axis
        for axis in space.axes
    )
    print(
        f"{'sampler':<8} {'points':>9} {'ms a point':>11} {'bytes a point':>14} {'front, s':>9} {'csv, s':>7} {'memory, MB':>11}"
    )
    for kind in args.samplers:
        for points in args.points:
            sampling = Sampling(kind=kind, points=points, batch=50)
            asked = replace(space, axes=axes, sampling=sampling, constraints={})
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "records.jsonl"
                begun = process_time()
                found = explore(asked, path, MadeUp(), probe=False)
                spent, size = process_time() - begun, path.stat().st_size
            begun = process_time()
            kept = front(asked, found.records)
            fronted = process_time() - begun
            begun = process_time()
            marked = [record | {"front": None, "fidelity": "model", "binds": {}} for record in found.records]
            points_csv({"axes": {axis.name: [] for axis in axes}}, marked)
            written = process_time() - begun
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            print(
                f"{kind:<8} {points:>9,} {1e3 * spent / points:>11.2f} {size / len(found.records):>14,.0f} "
                f"{fronted:>9.2f} {written:>7.2f} {memory:>11,.0f}   front {len(kept):,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
