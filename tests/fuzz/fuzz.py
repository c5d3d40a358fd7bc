"""Feeds every border with wrong inputs and prints how many it took, refused, or fell over: ``python tests/fuzz/fuzz.py --inputs 2000``."""

import argparse
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck

sys.path.append(str(Path(__file__).parents[1] / "ternbin"))  # what tests share

from borders import BORDERS, Border
from tqdm import tqdm

from ternbin.progress import LOG

SLOWEST = timedelta(seconds=20)  # an input that takes longer counts as a hang


def feed(border: Border, inputs: int, seed: int) -> None:
    """``inputs`` inputs of a border. Raises what it raises, with the smallest input that shows it as a note."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=inputs,
        deadline=SLOWEST,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        report_multiple_bugs=False,
    )
    @hypothesis.given(border.inputs)
    def one(data: bytes) -> None:
        border.feed(data)

    try:
        one()
    finally:
        border.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="inputs for each border (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--border", action="append", choices=[border.name for border in BORDERS], help="only these")
    args = parser.parse_args()
    LOG.setLevel("ERROR")  # warnings are no faults
    wrong = 0
    print(f"{'border':<28} {'inputs':>7} {'taken':>7} {'refused':>7} {'seconds':>8}")
    for border in tqdm([b for b in BORDERS if not args.border or b.name in args.border], disable=None, leave=False):
        start = time.monotonic()
        try:
            feed(border, args.inputs, args.seed)
        except Exception:
            wrong += 1
            traceback.print_exc()
        taken, refused = border.counts.values()
        print(
            f"{border.name:<28} {taken + refused:>7} {taken:>7} {refused:>7} {time.monotonic() - start:>8.1f}",
            flush=True,
        )
    print(f"{wrong} of {len(BORDERS)} borders fell over" if wrong else "no border fell over")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
