"""Generate the Verilog of an accelerator, a JSON manifest of its ports, parameters, address map and counters, and lint waivers.

The form for FPGAs has no latches, and memories that infer as block RAM; bits and cycles are the same.
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hw", default="small", metavar="NAME|FILE", help="named configuration or .toml file (default: small)"
    )
    parser.add_argument("--out", default="reports/rtl", metavar="DIR", help="folder to write to (default: reports/rtl)")
    parser.add_argument("--form", default="asic", choices=("asic", "fpga"), help="what it is for (default: asic)")
    parser.add_argument(
        "--prefix",
        metavar="NAME",
        help="of the names of modules and files, and the name of the top (default: ternbin_ and the configuration's name)",
    )
    parser.add_argument("--json", metavar="PATH", type=options.output_file, help="also write the manifest there")


def call(args: argparse.Namespace) -> None:
    from ternbin import api

    files = api.verilog(args.hw, form=args.form, prefix=args.prefix)
    with claimed(Path(args.out)) as out:
        for name, text in files.items():
            write_text(out / name, text)
            print(f"{out / name}  {(out / name).stat().st_size:,} bytes")
    if args.json:
        write_text(args.json, files["manifest.json"])
