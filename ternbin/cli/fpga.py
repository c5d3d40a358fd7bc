"""Put an accelerator on an FPGA: synthesis, placement, routing, bitstream; resources, clock and critical path to result.json.

The design has external memory in block RAM and a serial line to the host (docs/fpga.md). It takes minutes; logs of the tools stand beside
the result.
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hw", default="micro", metavar="NAME|FILE", help="named configuration or .toml file (default: micro)"
    )
    parser.add_argument("--device", default="ecp5-85k", metavar="NAME", help="ecp5-25k, ecp5-45k or ecp5-85k (default)")
    parser.add_argument(
        "--memory-kb", type=options.whole(1, 512), metavar="N", help="external memory (default: by device)"
    )
    parser.add_argument("--seed", type=options.whole(0), default=1, metavar="N", help="of the placement (default: 1)")
    parser.add_argument(
        "--out", default="reports/fpga", metavar="DIR", help="folder to write to (default: reports/fpga)"
    )
    options.add_json(parser)


def call(args: argparse.Namespace) -> None:
    from ternbin import api, results

    with claimed(Path(args.out)) as out:
        result = api.on_fpga(args.hw, args.device, out, memory_kb=args.memory_kb, seed=args.seed)
    for name, cells in result["resources"].items():
        share = f"{100 * cells['used'] / cells['available']:.0f}%" if cells["available"] else ""
        print(f"{name:14}{cells['used']:>8,} of {cells['available']:>8,} {share:>5}")
    clock = result["clock"]
    print(
        f"{'clock':14}{clock['reached_mhz']:>8.1f} MHz, {clock['asked_mhz']} asked: {'met' if clock['met'] else 'NOT met'}"
    )
    print(f"{'critical path':14}{sum(step['delay_ns'] for step in result['critical_path']):>8.1f} ns")
    print(f"{'bitstream':14}{out / result['bitstream']}")
    if args.json:
        results.write_json(args.json, result)
