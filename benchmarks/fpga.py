"""What fits on which FPGA: named configurations through ``ternbin fpga``, a line of docs/fpga.md each.

    python benchmarks/fpga.py --hw micro --device ecp5-85k

Hours for all of them: the tools of the package index take minutes to half an hour for a design.
"""

import argparse
from pathlib import Path
from time import perf_counter

from ternbin import api
from ternbin.contract.hw import named
from ternbin.fpga.devices import DEVICES
from ternbin.fpga.tools import ToolError


def row(hw: str, device: str, folder: Path) -> str:
    begin = perf_counter()
    try:
        result = api.on_fpga(hw, device, folder / f"{hw}-{device}")
    except ToolError as error:
        return f"| `{hw}` | {device} | does not fit: {str(error)[:80]} | | | | | {perf_counter() - begin:.0f} s |"
    shares = [
        f"{cells['used']:,} ({cells['used'] / max(1, cells['available']):.0%})"
        for cells in result["resources"].values()
    ]
    clock = result["clock"]
    return f"| `{hw}` | {device} | {' | '.join(shares)} | {clock['reached_mhz']:.1f} MHz | {perf_counter() - begin:.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hw", action="append", choices=named(), help="repeated; default: all")
    parser.add_argument("--device", action="append", choices=DEVICES, help="repeated; default: all")
    parser.add_argument("--out", type=Path, default=Path("reports/fpga-table"))
    args = parser.parse_args()
    print("| configuration | device | LUT4 | flip-flops | block RAMs | multipliers | clock | took |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for hw in args.hw or named():
        for device in args.device or DEVICES:
            print(row(hw, device, args.out), flush=True)


if __name__ == "__main__":
    main()
